// Thousands of flows, limits, many namespaces and bad lines: the tests that take minutes.

import "../lib/preload.ts";
import { assert, assertEquals } from "@std/assert";
import { test } from "../lib/helpers.ts";
import { lineSteps } from "./lab/lines.ts";
import { listening, makeNetwork, must, type Network, PEER4, PEER6, until } from "./lab/network.ts";

const needs = [
  "root",
  "tun",
  "package:iproute2",
  "package:util-linux",
  "package:iperf3",
  "package:iputils-ping",
  "package:socat",
  "package:coreutils",
  "package:python3",
] as const;
/** Flows at once; PENNE_FLOWS sets more. */
const FLOWS = Number(Deno.env.get("PENNE_FLOWS") ?? 5000);

function program(...args: string[]): string[] {
  const script = `${import.meta.dirname}/lab/flood.ts`;
  return [Deno.execPath(), "run", "-A", "--quiet", "--no-check", "--v8-flags=--single-threaded", script, ...args];
}

/** A process that is controlled line by line. */
class Talk {
  readonly child: Deno.ChildProcess;
  #reader: ReadableStreamDefaultReader<string>;
  #writer: WritableStreamDefaultWriter<Uint8Array>;

  constructor(network: Network, netns: string, argv: string[]) {
    this.child = network.spawn(netns, argv, { stdin: "piped", stdout: "piped", stderr: "inherit" });
    this.#reader = this.child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    this.#writer = this.child.stdin.getWriter();
  }

  async line(): Promise<string> {
    const { value } = await this.#reader.read();
    return value?.trim() ?? "";
  }

  async say(): Promise<void> {
    await this.#writer.write(new TextEncoder().encode("go\n"));
  }

  async end(): Promise<void> {
    this.child.kill("SIGKILL");
    await this.#reader.cancel();
    await this.#writer.abort().catch(() => {});
    await this.child.status;
  }
}

const GUESTS = Number(Deno.env.get("PENNE_GUESTS") ?? 100);

/** Starts a server in the peer's namespace. */
async function startServer(network: Network): Promise<Talk> {
  const server = new Talk(network, network.peer, program("serve", PEER4, "7000"));
  assertEquals(await server.line(), "ready");
  return server;
}

function startClient(network: Network, kind: string, count: number, guest = network.guest): Talk {
  return new Talk(network, guest, program("flows", kind, PEER4, "7000", `${count}`));
}

/** Opens flows that each echo at the start, and at the end if it is asked for. */
async function crowd(network: Network, kind: string, twice: boolean): Promise<void> {
  const client = startClient(network, kind, FLOWS);
  assertEquals(JSON.parse(await client.line()), { "echo 0": FLOWS });
  if (kind === "tcp") assert(network.flows >= FLOWS); // a slow machine takes so long that the first of UDP have ended
  if (twice) {
    await client.say();
    assertEquals(JSON.parse(await client.line()), { "echo 0": FLOWS, "echo 1": FLOWS });
  }
  const { flows } = network;
  await client.end();
  // All connections send at once when they end. The tap loses most of that, and would lose what came next. The kernel sends
  // again, more and more rarely.
  if (kind === "tcp") await until("the TCP flows have ended", () => network.flows <= flows - FLOWS, 60);
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
test("many flows and many namespaces leave nothing behind", needs, async (t) => {
  await using network = await makeNetwork({});
  const server = await startServer(network);
  const { descriptors, memory } = network;
  await t.step(`${FLOWS} TCP flows, and as many UDP flows`, async () => {
    await network.must(network.guest, ["ping", "-c1", "-W2", PEER4]);
    await crowd(network, "tcp", false);
    await crowd(network, "udp", false);
  });
  await t.step("when descriptors run out, new flows are refused at once and old ones continue", refusals);
  await t.step(`${GUESTS} namespaces get fair shares of one process`, fairness);
  let first = 0;
  await t.step("the flows of datagrams and echoes end, and memory is released within half a minute", async () => {
    // What the first flows make and later ones use again, and what is garbage now, is less than a kilobyte for each.
    first = await released(network, memory + 2 * FLOWS);
    assertEquals(network.descriptors, descriptors);
  });
  await t.step(`${FLOWS} TCP flows: each echoes at the start and at the end, and ends with its program`, async () => {
    await crowd(network, "tcp", true);
    assertEquals(network.flows, 0);
  });
  await t.step(`${FLOWS} UDP flows: each echoes at the start and at the end`, () => crowd(network, "udp", true));
  await lineSteps(t);
  await t.step("as many flows again leave less than half a kilobyte each", async () => {
    await released(network, first + FLOWS * 4 / 5);
    assertEquals(network.descriptors, descriptors);
  });
  await server.end();
});

async function refusals(): Promise<void> {
  await using network = await makeNetwork({ files: 200, guests: 2 });
  const server = await startServer(network);
  for (const kind of ["tcp", "udp"]) {
    const start = performance.now();
    const client = startClient(network, kind, 200);
    const first = JSON.parse(await client.line());
    assert(performance.now() - start < 10_000);
    // Connections are refused; datagrams are answered by ICMP.
    const error = kind === "tcp" ? "error -111" : "error -113";
    const refused = first[error];
    assertEquals(first, { "echo 0": 200 - refused, [error]: refused });
    assert(refused >= 50 && refused < 200);
    // Another namespace gets its share.
    const other = startClient(network, kind, 10, network.guests[1]);
    assertEquals(JSON.parse(await other.line()), { "echo 0": 10 });
    await other.end();
    await client.say();
    assertEquals(JSON.parse(await client.line())["echo 1"], 200 - refused); // old flows continue
    await client.end();
    if (kind === "udp") break; // they end by their time-out
    await until("there is room again", () => network.flows === 0, 10);
    const again = startClient(network, kind, 20);
    assertEquals(JSON.parse(await again.line()), { "echo 0": 20 });
    await again.end();
    await until("there is room again", () => network.flows === 0, 10);
  }
  await server.end();
}

/** What each guest gets of the mean, in bytes that arrive in the same window of time; see lab/shares.py. */
async function shares(network: Network, way: string, address: string, megabytes: number, connections: number[]) {
  const script = `${import.meta.dirname}/lab/shares.py`;
  const guests = connections.map((count, i) => `${network.guests[i]}=${count}`);
  const said = await must(["python3", script, way, network.peer, address, "7000", `${megabytes << 20}`, ...guests]);
  const bytes: number[] = JSON.parse(said);
  const mean = bytes.reduce((sum, n) => sum + n) / bytes.length;
  return bytes.map((n) => n / mean);
}

async function fairness(): Promise<void> {
  await using network = await makeNetwork({ guests: GUESTS });
  for (const address of [PEER4, PEER6]) {
    for (const way of ["up", "down"]) {
      const sorted = (await shares(network, way, address, 64, Array(GUESTS).fill(1))).sort((a, b) => a - b);
      const [slowest, median] = [sorted[0]!, sorted[GUESTS >> 1]!];
      const shown = `${way}, ${address}: the slowest has ${slowest.toFixed(2)} of the mean, the median`;
      // The kernel leaves the receive windows of a few sockets small at times, which then have a fifth of the mean.
      assert(median >= 3 / 4 && slowest >= 1 / 8, `${shown} ${median.toFixed(2)}`);
      // A hundred connections of one namespace leave another its share. Shares by connection would be 0.02 of the mean; a
      // single connection cannot always have enough on its way, least on a busy machine: there it had 0.22 to 0.94.
      const [, one] = await shares(network, way, address, 256, [100, 1]);
      assert(
        one! >= 1 / 16,
        `${way}, ${address}: ${one!.toFixed(2)} of the mean beside a hundred connections of another`,
      );
    }
  }
  // One namespace floods with small datagrams; the others still get through.
  network.spawn(network.peer, ["iperf3", "-s"]);
  await listening(network, network.peer, 5201);
  const flood = network.spawn(network.guests[0]!, ["iperf3", "-c", PEER4, "-u", "-b", "0", "-l", "16", "-t", "600"]);
  await until("the flood has begun", async () => await network.statistic("tx_packets") > 100_000, 60);
  const beside = await shares(network, "up", PEER4, 4, [0, 1, 1, 1, 1, 1]);
  assert(Math.min(...beside.slice(1)) >= 1 / 3, `shares beside a flood: ${beside}`);
  await network.stop(flood);
}
