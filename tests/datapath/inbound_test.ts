// Ports of the host that lead inside: contents, and the addresses that both ends see.

import "../lib/preload.ts";
import { assert, assertEquals } from "@std/assert";
import { ROOT, test } from "../lib/helpers.ts";
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
  until,
} from "./lab/network.ts";

const needs = ["root", "tun", "package:iproute2", "package:python3"] as const;
const PROGRAM = `${ROOT}tests/datapath/lab/ports.py`;

type Call = readonly [protocol: "tcp" | "udp", address: string, port: number, size: number];
interface Answer {
  own: [string, number];
  peer: [string, number];
  local?: [string, number];
  whole: boolean;
  error?: string;
}

async function serve(network: Network, ...ports: number[]): Promise<void> {
  network.spawn(network.guest, ["python3", PROGRAM, "serve", ...ports.map(String)], { stderr: "inherit" });
  for (const port of ports) for (const udp of [false, true]) await listening(network, network.guest, port, udp);
}

async function ask(network: Network, from: string, calls: readonly Call[]): Promise<Answer[]> {
  return JSON.parse(await network.must(from, ["python3", PROGRAM, "ask", JSON.stringify(calls)]));
}

/** Ports on the host, by what is asked for; the port inside; and the address inside if it is not the usual one. */
const FORMS: Record<string, { spec: string; calls: readonly [address: 4 | 6, port: number, inside: number][] }> = {
  "a port": { spec: "8001", calls: [[4, 8001, 8001], [6, 8001, 8001]] },
  "a range": { spec: "8002-8003", calls: [[4, 8002, 8002], [6, 8003, 8003]] },
  "a translated port": { spec: "9001:8001", calls: [[4, 9001, 8001], [6, 9001, 8001]] },
  "a translated range": { spec: "9002-9003:8002-8003", calls: [[4, 9003, 8003], [6, 9002, 8002]] },
  "an address": { spec: `${HOST4}/9004:8001`, calls: [[4, 9004, 8001]] },
  "an address of IPv6": { spec: `[${HOST6}]/9005:8001`, calls: [[6, 9005, 8001]] },
  "an interface": { spec: "%veth0/9006:8001", calls: [[4, 9006, 8001], [6, 9006, 8001]] },
  "a target": { spec: `0.0.0.0/9007:${GUEST4.address}/8002`, calls: [[4, 9007, 8002]] },
  "a target of IPv6": { spec: `[::]/9008:[${GUEST6.address}]/8002`, calls: [[6, 9008, 8002]] },
};

test("what comes to a port of the host arrives inside whole, and keeps its sender's address", needs, async (t) => {
  const options = Object.values(FORMS).flatMap(({ spec }) => ["-t", spec, "-u", spec]);
  for (const mtu of [65520, 1500]) {
    await using network = await makeNetwork({ mtu, options });
    await serve(network, 8001, 8002, 8003);
    for (const [name, { calls }] of Object.entries(FORMS)) {
      await t.step(`${name}, MTU ${mtu}`, async () => {
        for (const [family, port, inside] of calls) {
          const host = family === 4 ? HOST4 : HOST6;
          const guest = family === 4 ? GUEST4.address : GUEST6.address;
          const sizes = [["tcp", 1], ["tcp", 10_000_000], ["udp", 1], ["udp", 1400], ["udp", 60_000]] as const;
          const answers = await ask(network, network.peer, sizes.map(([kind, size]) => [kind, host, port, size]));
          for (const [i, { own, peer, local, whole, error }] of answers.entries()) {
            assertEquals([error, whole, peer], [undefined, true, own], `${sizes[i]}`);
            assertEquals(own[0], family === 4 ? PEER4 : PEER6);
            if (local) assertEquals(local, [guest, inside]);
          }
        }
      });
    }
  }
});

/** Who programs of the host are inside, by the address that they call; a loopback address stands for its family. */
type Seen = Record<"127.0.0.1" | "::1" | typeof HOST4 | typeof HOST6, string>;

async function checkLocal(network: Network, kinds: readonly ("tcp" | "udp")[], seen: Partial<Seen>): Promise<void> {
  const sizes = { tcp: [1, 10_000_000], udp: [1, 1400, 60_000] };
  const calls = kinds.flatMap((kind) =>
    Object.keys(seen).flatMap((address) => sizes[kind].map((size) => [kind, address, 8001, size] as const))
  );
  for (const [i, { whole, peer, error }] of (await ask(network, network.host, calls)).entries()) {
    const expected = seen[calls[i]![1] as keyof Seen];
    assertEquals([error, whole, peer?.[0]], [undefined, true, expected], `${calls[i]}`);
  }
}

const LOCAL: Record<string, { options: string[]; copy?: boolean; seen: Partial<Seen> }> = {
  "programs of the host's loopback are seen with the address inside": {
    options: [],
    seen: { "127.0.0.1": GUEST4.address, "::1": GUEST6.address, [HOST4]: HOST4, [HOST6]: HOST6 },
  },
  "with --host-lo-to-ns-lo they are seen on the loopback inside": {
    options: ["--host-lo-to-ns-lo"],
    seen: { "127.0.0.1": "127.0.0.1", "::1": "::1", [HOST4]: HOST4 },
  },
  "with --no-splice they are seen as the gateway": {
    options: ["--no-splice"],
    seen: { "127.0.0.1": GUEST4.gateway, "::1": GUEST6.gateway, [HOST4]: HOST4, [HOST6]: HOST6 },
  },
  // The host's routes are copied, and their gateway is the peer.
  "a copy of the host's address inside is not taken for the host": {
    options: [],
    copy: true,
    seen: { [HOST4]: PEER4, [HOST6]: PEER6, "127.0.0.1": HOST4, "::1": HOST6 },
  },
};

for (const [name, { options, copy, seen }] of Object.entries(LOCAL)) {
  test(name, needs, async () => {
    await using network = await makeNetwork({ copy: copy ?? false, options: [...options, "-t", "8001", "-u", "8001"] });
    await serve(network, 8001);
    await checkLocal(network, ["tcp", "udp"], seen);
  });
}

test("a connection that nobody accepts inside is reset, and leaves nothing behind", needs, async () => {
  await using network = await makeNetwork({ options: ["-t", "8001,8002"] });
  await serve(network, 8002);
  const before = network.flows;
  const answers = await ask(
    network,
    network.peer,
    Array.from({ length: 20 }, () => ["tcp", HOST4, 8001, 100] as const),
  );
  for (const { error } of answers) assert(error?.startsWith("ConnectionResetError"), error);
  const [one] = await ask(network, network.peer, [["tcp", HOST4, 8002, 100]]);
  assertEquals(one!.whole, true);
  await until("nothing is left", () => network.flows === before);
});

test("connections that are half-closed, reset or slow end as they should, many at once", needs, async () => {
  await using network = await makeNetwork({ mtu: 1500, options: ["-t", "8001"] });
  await serve(network, 8001);
  for (const address of [HOST4, HOST6]) {
    const said = await network.must(network.peer, ["python3", PROGRAM, "odd", address, "8001", "40"]);
    const right = [40, ["True"]];
    assertEquals(JSON.parse(said), { "closed": right, "reset": right, "slow": right, "at once": right });
  }
  await until("only the listener is left", () => network.flows === 1);
});

test("connections from outside whose callers vanish are found by a TCP_USER_TIMEOUT inside", needs, async () => {
  await using network = await makeNetwork({ options: ["-t", "8001,8002"] });
  const { guest, peer } = network;
  const start = (netns: string, ...args: string[]) => {
    const child = network.spawn(netns, ["python3", PROGRAM, ...args], { stdin: "piped", stdout: "piped" });
    const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    const next = async () => {
      for (let said = "";;) {
        const { value, done } = await reader.read();
        said += value ?? "";
        if (done || said.endsWith("\n")) return said;
      }
    };
    const writer = child.stdin.getWriter();
    const go = () => writer.write(new TextEncoder().encode("go\n"));
    return { next, go, end: () => Promise.all([writer.close().catch(() => {}), reader.cancel()]) };
  };
  await serve(network, 8002);
  const server = start(guest, "deserted", "8001", "30");
  assertEquals(await server.next(), "ready\n");
  const listeners = network.flows;
  const caller = start(peer, "desert", HOST4, "8001", "30");
  assertEquals([await caller.next(), await server.next()], ["30\n", "connected\n"]);
  await network.must(peer, ["ip", "link", "set", "veth0", "down"]);
  await server.go();
  assertEquals(JSON.parse(await server.next()), { TimeoutError: 30 });
  // What is left of them is no obstacle to others.
  await network.must(peer, ["ip", "link", "set", "veth0", "up"]);
  await network.must(peer, ["ip", "addr", "replace", `${PEER4}/24`, "dev", "veth0"]);
  const [one] = await ask(network, peer, [["tcp", HOST4, 8002, 1000]]);
  assertEquals([one!.error, one!.whole], [undefined, true]);
  await until("only the listeners are left", () => network.flows === listeners);
  await Promise.all([server.end(), caller.end()]);
});

/** Ports of the host that are open, "tcp 80". */
async function openPorts(network: Network): Promise<string[]> {
  const lines = (await network.must(network.host, ["ss", "-Htuln"])).split("\n").filter(Boolean);
  return lines.map((line) => line.split(/\s+/)).map(([kind, , , , local]) => `${kind} ${local!.split(":").at(-1)}`)
    .sort();
}

test("auto opens a port while something inside listens where it leads", needs, async () => {
  await using network = await makeNetwork({ options: ["-t", "auto", "-u", "9000-9010:8000-8010,auto"] });
  assertEquals(await openPorts(network), []);
  const server = network.spawn(network.guest, ["python3", PROGRAM, "serve", "8001", "40001"], { stderr: "inherit" });
  const local = network.spawn(network.guest, ["python3", "-m", "http.server", "--bind", "127.0.0.1", "8005"]);
  await listening(network, network.guest, 8005);
  // 40001 is a port that the kernel gives away, and 8005 is on loopback only.
  const open = ["tcp 8001", "udp 9001"];
  await until("the ports are open", async () => (await openPorts(network)).join() === open.join());
  const [tcp, udp] = await ask(network, network.peer, [["tcp", HOST4, 8001, 1000], ["udp", HOST6, 9001, 1000]]);
  assertEquals([tcp!.whole, udp!.whole], [true, true]);
  await network.stop(server);
  await until("the ports are closed", async () => (await openPorts(network)).length === 0);
  await network.stop(local);
});

/** Connections at once; PENNE_FLOWS sets more. */
const FLOWS = Number(Deno.env.get("PENNE_FLOWS") ?? 2000);

test(`${FLOWS} connections from outside at once echo at the start and at the end`, needs, async () => {
  await using network = await makeNetwork({ options: ["-t", "7000", "-u", "7000"] });
  const script = `${ROOT}tests/datapath/lab/flood.ts`;
  const deno = [Deno.execPath(), "run", "-A", "--quiet", "--no-check", "--v8-flags=--single-threaded", script];
  const server = network.spawn(network.guest, [...deno, "serve", GUEST4.address, "7000"], { stdout: "piped" });
  const ready = server.stdout.getReader();
  await ready.read();
  await ready.cancel();
  const listeners = network.flows;
  for (const kind of ["tcp", "udp"]) {
    const client = network.spawn(network.peer, [...deno, "flows", kind, HOST4, "7000", `${FLOWS}`], {
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    });
    const reader = client.stdout.pipeThrough(new TextDecoderStream()).getReader();
    const writer = client.stdin.getWriter();
    assertEquals(JSON.parse((await reader.read()).value!), { "echo 0": FLOWS });
    assert(network.flows >= FLOWS);
    await writer.write(new TextEncoder().encode("go\n"));
    assertEquals(JSON.parse((await reader.read()).value!), { "echo 0": FLOWS, "echo 1": FLOWS });
    await writer.close();
    await reader.cancel();
    await client.status;
    if (kind === "tcp") await until("the connections have ended", () => network.flows === listeners);
  }
});
