// Thousands of flows, limits, and many namespaces.

import "../preload.ts";
import { assert, assertEquals } from "@std/assert";
import { test } from "../helpers.ts";
import { type Network, openPath, PEER4, until } from "./network.ts";

const needs = { root: true, programs: ["ip", "prlimit", "iperf3"] };
/** Flows at once; more where somebody asks for it. */
const FLOWS = Number(Deno.env.get("PENNE_FLOWS") ?? 5000);

function program(...args: string[]): string[] {
  const script = `${import.meta.dirname}/flood.ts`;
  return [Deno.execPath(), "run", "-A", "--quiet", "--no-check", "--v8-flags=--single-threaded", script, ...args];
}

/** A process whose lines are read one by one. */
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

/** Memory of penne that is its own, kB. */
function memory(network: Network): number {
  const text = Deno.readTextFileSync(`/proc/${network.pid}/smaps_rollup`);
  const field = (name: string) => Number(new RegExp(`^${name}: +(\\d+)`, "m").exec(text)![1]);
  return field("Private_Clean") + field("Private_Dirty");
}

function descriptors(network: Network): number {
  return [...Deno.readDirSync(`/proc/${network.pid}/fd`)].length;
}

test(`${FLOWS} TCP flows, then ${FLOWS} UDP flows: each echoes at the start and at the end`, needs, async () => {
  await using network = await openPath({});
  const server = new Talk(network, network.peer, program("serve", PEER4, "7000"));
  assertEquals(await server.line(), "ready");
  // Memory that is taken once, at the first use.
  for (const kind of ["tcp", "udp"]) {
    const client = new Talk(network, network.guest, program("flows", kind, PEER4, "7000", "50"));
    assertEquals(JSON.parse(await client.line()), { "echo 0": 50 });
    await client.end();
  }
  await until("the first flows have ended", async () => (await network.counters())[0]!.open === 0, 60);
  const before = { descriptors: descriptors(network), memory: memory(network) };
  for (const kind of ["tcp", "udp"]) {
    const client = new Talk(network, network.guest, program("flows", kind, PEER4, "7000", `${FLOWS}`));
    assertEquals(JSON.parse(await client.line()), { "echo 0": FLOWS });
    assertEquals((await network.counters())[0]!.open, FLOWS);
    await client.say();
    assertEquals(JSON.parse(await client.line()), { "echo 0": FLOWS, "echo 1": FLOWS });
    await client.end();
    const seconds = kind === "tcp" ? 20 : 150;
    await until("the flows have ended", async () => (await network.counters())[0]!.open === 0, seconds);
    assertEquals(descriptors(network), before.descriptors);
  }
  let now = 0;
  await until("memory is back", () => Promise.resolve((now = memory(network)) < before.memory * 1.2), 30)
    .catch(() => assert(false, `memory was ${before.memory} kB before, and is ${now} kB half a minute later`));
  await server.end();
});

test("where flows or descriptors run out, new flows are refused at once and old ones go on", needs, async () => {
  for (const plan of [{ options: { flowsMax: 100 } }, { files: 100 }]) {
    for (const kind of ["tcp", "udp"]) {
      await using network = await openPath(plan);
      const server = new Talk(network, network.peer, program("serve", PEER4, "7000"));
      assertEquals(await server.line(), "ready");
      const start = performance.now();
      const client = new Talk(network, network.guest, program("flows", kind, PEER4, "7000", "200"));
      const first = JSON.parse(await client.line());
      assert(performance.now() - start < 10_000);
      const refused = kind === "tcp" ? first["error -111"] : first["error -113"];
      assertEquals(first, { "echo 0": 200 - refused, [kind === "tcp" ? "error -111" : "error -113"]: refused });
      assert(refused >= 100);
      await client.end();
      const [counters] = await network.counters();
      assert(counters!.limited! >= 100);
      await until("there is room again", async () => (await network.counters())[0]!.open === 0, 40);
      const again = new Talk(network, network.guest, program("flows", kind, PEER4, "7000", "20"));
      assertEquals(JSON.parse(await again.line()), { "echo 0": 20 });
      await again.end();
      await server.end();
    }
  }
});

const GUESTS = Number(Deno.env.get("PENNE_GUESTS") ?? 100);

test(
  `${GUESTS} namespaces are served fairly by one process, one that floods does not stop the others`,
  needs,
  async () => {
    await using network = await openPath({ guests: GUESTS });
    const base = 5300;
    for (let i = 0; i < GUESTS + 1; i++) network.spawn(network.peer, ["iperf3", "-s", "-p", `${base + i}`]);
    await until("all listen", async () => {
      const { stdout } = await network.run(network.peer, ["ss", "-Hltn"]);
      return stdout.trim().split("\n").length > GUESTS;
    }, 30);
    const iperf = async (guest: string, port: number, ...args: string[]) => {
      const command = ["iperf3", "-J", "-c", PEER4, "-p", `${port}`, ...args];
      const { stdout } = await network.run(guest, command);
      return JSON.parse(stdout);
    };
    for (const reverse of [[], ["-R"]]) {
      const rates = await Promise.all(
        network.guests.map(async (guest, i) => {
          const { end } = await iperf(guest, base + i, "-t", "10", "-O", "2", ...reverse);
          return end.sum_received.bytes as number;
        }),
      );
      const mean = rates.reduce((sum, rate) => sum + rate) / rates.length;
      const slowest = Math.min(...rates);
      assert(
        slowest >= mean / 3,
        `the slowest has ${(slowest / mean).toFixed(2)} of the mean ${reverse.length ? "to" : "from"} inside`,
      );
    }
    // One floods with small datagrams to nobody in particular; the others still get through.
    const flood = iperf(network.guests[0]!, base + GUESTS, "-u", "-b", "0", "-l", "16", "-t", "6").catch(() => null);
    const others = await Promise.all(
      network.guests.slice(1, 6).map(async (guest, i) => {
        const { end } = await iperf(guest, base + 1 + i, "-t", "4");
        return end.sum_received.bytes as number;
      }),
    );
    for (const bytes of others) assert(bytes > 1_000_000, `${bytes} bytes beside a flood`);
    await flood;
  },
);
