// Hostile messages of DHCP, DHCPv6 and router discovery through the interface.

import "../lib/preload.ts";
import { assert, assertEquals } from "@std/assert";
import { command, penne, test } from "../lib/helpers.ts";
import { encodeDhcp, OP, OPTION, TYPE } from "../../mod/advice/dhcp_message.ts";
import { serverDuid } from "../../mod/advice/dhcp6.ts";
import { associationOption, encodeDhcp6, OPTION6, TYPE6 } from "../../mod/advice/dhcp6_message.ts";
import { AdviceLab, DEVICE, prepare } from "./lab.ts";

/** Number of messages; PENNE_MESSAGES sets more. */
const MESSAGES = Number(Deno.env.get("PENNE_MESSAGES") ?? 5000);

/** Correct messages of DHCP. */
const FOUR = [TYPE.DISCOVER, TYPE.REQUEST, TYPE.INFORM, TYPE.RELEASE].map((type) =>
  encodeDhcp({
    op: OP.REQUEST,
    hardwareType: 1,
    hardwareLength: 6,
    transaction: 7,
    broadcast: true,
    client: new Uint8Array(4),
    yours: new Uint8Array(4),
    relay: new Uint8Array(4),
    hardware: new Uint8Array(16).fill(2, 0, 6),
    options: new Map([
      [OPTION.TYPE, Uint8Array.of(type)],
      [OPTION.REQUESTED, Uint8Array.of(192, 0, 2, 2)],
      [OPTION.PARAMETERS, Uint8Array.of(1, 3, 6, 12, 15, 26, 28, 81, 119, 121)],
      [OPTION.FQDN, Uint8Array.of(5, 0, 0, 3, 98, 111, 120)],
      [OPTION.CLIENT, Uint8Array.of(1, 2, 2, 2, 2, 2, 2)],
    ]),
  }, 1472)
);

/** Correct messages of DHCPv6, the first of which anybody gets an answer to. */
const SIX = [TYPE6.SOLICIT, TYPE6.REQUEST, TYPE6.CONFIRM, TYPE6.RENEW, TYPE6.REBIND, TYPE6.RELEASE].map((type) => {
  const named = type === TYPE6.REQUEST || type === TYPE6.RENEW || type === TYPE6.RELEASE;
  const mac = Uint8Array.of(0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55);
  const association = { code: OPTION6.ADDRESSES, id: Uint8Array.of(0, 0, 0, 1), addresses: [] };
  return encodeDhcp6({
    type,
    transaction: 7,
    options: [
      [OPTION6.CLIENT, Uint8Array.of(0, 3, 0, 1, 2, 2, 2, 2, 2, 2)],
      ...named ? [[OPTION6.SERVER, serverDuid(mac)] as const] : [],
      associationOption(association, [[OPTION6.ADDRESS, new Uint8Array(24).fill(0xfd, 0, 1)]]),
      [OPTION6.WANTED, Uint8Array.of(0, 23, 0, 24, 0, 39)],
      [OPTION6.FQDN, Uint8Array.of(1, 3, 98, 111, 120, 0)],
    ],
  });
});

/** A router solicitation, with the MAC address of its sender. */
const ROUTER = Uint8Array.of(133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 2);

const hex = (bytes: Uint8Array) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const LINES = [...FOUR.map((one) => `4 ${hex(one)}`), ...SIX.map((one) => `6 ${hex(one)}`), `r ${hex(ROUTER)}`];

/** The memory of a process alone, kB. */
function memoryOf(pid: number): number {
  return Number(/^Anonymous: +(\d+)/m.exec(Deno.readTextFileSync(`/proc/${pid}/smaps_rollup`))![1]);
}

test(`${MESSAGES} mutated messages of programs that configure the interface cause no crash, and no growth`, [
  "root",
  "tun",
  "package:iproute2",
  "package:python3",
], async () => {
  await using advice = await AdviceLab.open();
  const netns = await advice.lab.netns("blank");
  const daemon = await advice.serve(netns, [penne(), "attach", "--no-config-net", netns], false);
  await prepare(netns, false);
  const flood = async (count: number, seed: number) => {
    const program = ["python3", `${import.meta.dirname}/lab/hostile.py`, DEVICE, `${count}`, `${seed}`];
    const child = command(["nsenter", `--net=/run/netns/${netns}`, "--", ...program], {}, {
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(LINES.join("\n")));
    await writer.close();
    const { code, stdout, stderr } = await child.output();
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    assertEquals([code, text(stderr)], [0, ""]);
    return Number(text(stdout));
  };
  await flood(5000, 1);
  const before = memoryOf(daemon.child.pid);
  const answered = await flood(MESSAGES, 2);
  const after = memoryOf(daemon.child.pid);
  assert(answered > MESSAGES / 100, `${answered} of ${MESSAGES} were answered`);
  // What is not collected yet has to do with the heap, not with the number of messages.
  assert(after < before + 32_000, `memory grew from ${before} to ${after} kB`);
  assertEquals(daemon.errors(), "");
});
