// Thousands of flows and bad lines leave nothing behind. The flows end by their time-outs, which takes minutes.

import "../../lib/preload.ts";
import { assert, assertEquals } from "@std/assert";
import { test } from "../../lib/helpers.ts";
import { startClient, startServer } from "../lab/crowd.ts";
import { lineSteps } from "../lab/lines.ts";
import { makeNetwork, type Network, PEER4, until } from "../lab/network.ts";

const needs = [
  "root",
  "tun",
  "package:iproute2",
  "package:util-linux",
  "package:iputils-ping",
  "package:socat",
  "package:coreutils",
  "package:python3",
] as const;
/** Flows at once; PENNE_FLOWS sets more. */
const FLOWS = Number(Deno.env.get("PENNE_FLOWS") ?? 5000);

/** Opens flows that each echo at the start, and at the end if it is asked for; returns whether all were there at once. */
async function crowd(network: Network, kind: string, twice: boolean): Promise<boolean> {
  const client = startClient(network, kind, FLOWS);
  assertEquals(JSON.parse(await client.line()), { "echo 0": FLOWS });
  const all = network.flows >= FLOWS;
  if (kind === "tcp") assert(all); // a slow machine takes so long that the first of UDP have ended
  if (twice) {
    await client.say();
    assertEquals(JSON.parse(await client.line()), { "echo 0": FLOWS, "echo 1": FLOWS });
  }
  const { flows } = network;
  await client.end();
  // All connections send at once when they end. The tap loses most of that, and would lose what came next. The kernel sends
  // again, more and more rarely.
  if (kind === "tcp") await until("the TCP flows have ended", () => network.flows <= flows - FLOWS, 60);
  return all;
}

/** Waits until all flows have ended, and for half a minute at most until less memory is in use; returns the least, kB. */
async function released(network: Network, limit: number): Promise<number> {
  await until("the flows have ended", () => network.flows === 0, 150);
  let least = Infinity;
  const start = Date.now();
  // A collection begins five seconds after the last flow has ended, and what comes after it is garbage again.
  await until("memory has been released", () => {
    least = Math.min(least, network.memory);
    return least < limit && Date.now() - start > 8000;
  }).catch(() => assert(false, `${least} kB are in use half a minute after the last flow, not less than ${limit}`));
  return least;
}

// Flows of datagrams last two minutes after an exchange, half a minute before one (RFC 4787), and those of echoes one; the
// other steps run meanwhile.
test("many flows leave nothing behind", needs, async (t) => {
  await using network = await makeNetwork({});
  const server = await startServer(network);
  const { descriptors, memory } = network;
  let all = false;
  await t.step(`${FLOWS} TCP flows, and as many UDP flows`, async () => {
    await network.must(network.guest, ["ping", "-c1", "-W2", PEER4]);
    await crowd(network, "tcp", false);
    all = await crowd(network, "udp", false);
  });
  let first = 0;
  await t.step("the flows of datagrams and echoes end, and memory is released within half a minute", async () => {
    // What the first flows make and later ones use again, and what is garbage now, is less than a kilobyte for each.
    const limit = memory + 2 * FLOWS;
    first = await released(network, limit);
    if (!all) first = limit; // fewer at once than later made less
    assertEquals(network.descriptors, descriptors);
  });
  await t.step(`${FLOWS} TCP flows: each echoes at the start and at the end, and ends with its program`, async () => {
    await crowd(network, "tcp", true);
    assertEquals(network.flows, 0);
  });
  await t.step(`${FLOWS} UDP flows: each echoes at the start and at the end`, async () => {
    await crowd(network, "udp", true);
  });
  await lineSteps(t);
  await t.step("as many flows again leave less than half a kilobyte each", async () => {
    await released(network, first + FLOWS * 4 / 5);
    assertEquals(network.descriptors, descriptors);
  });
  await server.end();
});
