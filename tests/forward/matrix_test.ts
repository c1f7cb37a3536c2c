// Every kind of port, over TCP and UDP, IPv4 and IPv6, by the interface and by loopback, into a namespace and out of it.
//
// One penne has all the rules. Two combinations do not exist, and are refused: a port inside listens on loopback only, so
// that it has neither an address nor an interface to listen on (`-T 127.0.0.1/80`, `-T %lo/80`). One is no matter of
// ports: what leaves by the interface goes where it wants to, without a rule.

import "../lib/preload.ts";
import { assertEquals } from "@std/assert";
import { penne, ROOT, sh, test } from "../lib/helpers.ts";
import {
  GUEST4,
  GUEST6,
  HOST4,
  HOST6,
  listening,
  makeNetwork,
  type Network,
  PEER4,
  PEER6,
} from "../datapath/lab/network.ts";

const NEEDS = ["root", "tun", "package:iproute2", "package:python3"] as const;
const PROGRAM = `${ROOT}tests/datapath/lab/ports.py`;
/** Bytes: a few, and ten million. */
const SIZES = [7, 10_000_000];

type Version = 4 | 6;
/** Where the caller is: beside the host, on it, or inside. */
type Caller = "peer" | "host" | "guest";

/** What both ends see of a call. */
interface Row {
  readonly form: string;
  readonly version: Version;
  /** Who calls, which address and port. */
  readonly caller: Caller;
  readonly address: string;
  readonly port: number;
  /** Address of the caller as the receiver sees it; "own" if it is the caller's own, with its port. */
  readonly seen: string;
  /** Address and port that the receiver has. */
  readonly local: readonly [string, number];
}

const VERSIONS = [4, 6] as const;
const OTHER = { 4: "10.77.0.9", 6: "fd77::9" };
const GUEST = { 4: GUEST4, 6: GUEST6 };
const HOST = { 4: HOST4, 6: HOST6 };
const PEER = { 4: PEER4, 6: PEER6 };
const LOOPBACK = { 4: "127.0.0.1", 6: "::1" };
const ANY = { 4: "0.0.0.0", 6: "[::]" };
const bracketed = (address: string) => address.includes(":") ? `[${address}]` : address;

/** The first of three ports on which programs inside answer, and programs of the host, where penne has the former. */
const [INSIDE, OUTSIDE] = [8001, 7001];

/** Ports that are the same for both families: what is asked for, the port to call, and the port that answers. */
const plain = (n: number): Record<string, readonly [spec: string, port: number, to: number]> => ({
  "single": [`${n}`, n, n],
  "range": [`${n + 1}-${n + 2}`, n + 2, n + 2],
  "translated": [`9001:${n}`, 9001, n],
  "translated range": [`9002-9003:${n + 1}-${n + 2}`, 9003, n + 2],
});

const specs = { in: new Set<string>(), out: new Set<string>() };
const rows: Row[] = [];

for (const version of VERSIONS) {
  const [host, loopback] = [HOST[version], LOOPBACK[version]];
  const inside = GUEST[version];
  for (const [form, [spec, port, to]] of Object.entries(plain(INSIDE))) {
    specs.in.add(spec);
    const row = { form, version, port };
    rows.push(
      { ...row, caller: "peer", address: host, seen: "own", local: [inside.address, to] },
      { ...row, caller: "host", address: loopback, seen: inside.address, local: [inside.address, to] },
    );
  }
  for (const [form, [spec, port, to]] of Object.entries(plain(OUTSIDE))) {
    specs.out.add(spec);
    rows.push({ form, version, port, caller: "guest", address: loopback, seen: loopback, local: [loopback, to] });
  }
  const base = 9000 + 10 * version;
  const there = [inside.address, INSIDE] as const;
  const bound = [["peer", host, "own", "veth0"], ["host", loopback, inside.address, "lo"]] as const;
  for (const [i, [caller, address, seen, device]] of bound.entries()) {
    specs.in.add(`${bracketed(address)}/${base + i}:8001`);
    specs.in.add(`%${device}/${9100 + i}:8001`);
    rows.push(
      { form: "address-bound", version, caller, address, port: base + i, seen, local: there },
      { form: "interface-bound", version, caller, address, port: 9100 + i, seen, local: there },
    );
  }
  // With an address as the target, what comes from loopback takes the interface too, and is from the gateway there.
  const [form, port] = ["target address", base + 5];
  const other = OTHER[version];
  specs.in.add(`${ANY[version]}/${port}:${bracketed(other)}/8002`);
  specs.out.add(`${port}:${bracketed(PEER[version])}/8002`);
  rows.push(
    { form, version, caller: "peer", address: host, port, seen: "own", local: [other, 8002] },
    { form, version, caller: "host", address: loopback, port, seen: inside.gateway, local: [other, 8002] },
    { form, version, caller: "guest", address: loopback, port, seen: host, local: [PEER[version], 8002] },
  );
}

interface Answer {
  own: [string, number];
  peer: [string, number];
  local: [string, number];
  whole: boolean;
  error?: string;
}

async function serve(network: Network, netns: string, first: number): Promise<void> {
  const ports = [first, first + 1, first + 2];
  network.spawn(netns, ["python3", PROGRAM, "serve", ...ports.map(String)], { stderr: "inherit" });
  for (const port of ports) for (const udp of [false, true]) await listening(network, netns, port, udp);
}

/** Has a caller make the calls of its rows, and compares what both ends have seen. */
async function check(network: Network, caller: Caller): Promise<void> {
  const calls = rows.filter((row) => row.caller === caller).flatMap((row) =>
    (["tcp", "udp"] as const).flatMap((kind) => SIZES.map((size) => ({ row, kind, size })))
  );
  const asked = calls.map(({ row, kind, size }) => [kind, row.address, row.port, size]);
  const said = await network.must(network[caller], ["python3", PROGRAM, "ask", JSON.stringify(asked)]);
  const answers: Answer[] = JSON.parse(said);
  assertEquals(answers.length, calls.length);
  for (const [i, { own, peer, local, whole, error }] of answers.entries()) {
    const { row, kind, size } = calls[i]!;
    const what = `${kind}, IPv${row.version}, ${row.form}, from ${caller}, ${size} bytes: ${error}`;
    assertEquals([error, whole, local], [undefined, true, [...row.local]], what);
    if (row.seen === "own") assertEquals(peer, own, what);
    else assertEquals(peer[0], row.seen, what);
  }
}

test("every kind of port delivers what it is given, from whom it is, and where it should", NEEDS, async () => {
  const given = (flags: readonly string[], all: Iterable<string>) =>
    [...all].flatMap((spec) => flags.flatMap((flag) => [flag, spec]));
  const options = [...given(["-t", "-u"], specs.in), ...given(["-T", "-U"], specs.out)];
  await using network = await makeNetwork({ options });
  for (const [version, length] of [[4, 24], [6, 64]] as const) {
    await network.must(network.guest, ["ip", "addr", "add", `${OTHER[version]}/${length}`, "dev", "tap0", "nodad"]);
  }
  await serve(network, network.guest, INSIDE);
  await serve(network, network.host, OUTSIDE);
  await serve(network, network.peer, INSIDE);
  // Seven kinds into the namespace by each of two ways, five out of it, for each family; and each over TCP and UDP.
  assertEquals(rows.length, 2 * (7 + 7 + 5));
  await Promise.all((["peer", "host", "guest"] as const).map((caller) => check(network, caller)));
});

test("a port inside has no address and no interface to listen on, so that it is refused", ["tun"], async () => {
  for (const [option, name] of [["-T", "tcp-ns"], ["-U", "udp-ns"]] as const) {
    for (const spec of ["127.0.0.1/80", "[::1]/80", "%lo/80", "*%eth0/80"]) {
      const { code, stderr } = await sh([penne(), "run", option, spec, "--", "true"]);
      assertEquals([code, stderr.split("\n")[0]], [
        2,
        `penne: cannot use --${name} "${spec}": a port inside is on loopback, of all addresses`,
      ]);
    }
  }
});
