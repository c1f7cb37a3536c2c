// Watchers of namespaces and processes: start, latency, what is lost in a storm, and what a storm loses by being watched.
//
// All run the same storms (storm.c) in turn. Latency is from the return of unshare(2), as the storm has stamped it, to the
// arrival of the line in the reader (stamp.c). A watcher's lines are counted by the storm's own processes.

import { BACKENDS } from "../../mod/watch/choose.ts";
import { type Contest, type Contestant, type Outcome, type Sample, summarise } from "./harness.ts";
import { PENNE_BINARY, Workshop } from "./workshop.ts";

/** Goals: milliseconds of latency, 99th percentile; of the start; percent of slowdown of a storm of net namespaces. */
const GOAL = { latency: 2, start: 150, net: 5 } as const;
/** Events of the slow stream, and its rate a second; events of each storm. */
const STREAM = { count: 200, rate: 200 } as const;
const STORM = { net: 300, uts: 5000 } as const;
const TIME_LIMIT = 60_000;
const NOBODY = "nobody watches";

const BPFTRACE = "tracepoint:syscalls:sys_exit_unshare { @made++; }";

/** What is known of a watcher. */
interface Watcher {
  readonly name: string;
  readonly argv: readonly string[];
  /** Finds the process in a line that tells of a storm's unshare(2) or, where that is not seen, its fork. */
  readonly line: RegExp | null;
}

/** A watcher that runs, its lines going to a file with their times. */
interface Running {
  readonly process: Deno.ChildProcess;
  readonly stamp: Deno.ChildProcess;
  readonly file: string;
  readonly start: number;
}

/** Processor seconds that a process has used. */
function processorTime(pid: number): number {
  const text = Deno.readTextFileSync(`/proc/${pid}/stat`);
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

async function pause(milliseconds: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, milliseconds));
}

class Arena {
  readonly #workshop: Workshop;
  readonly #storm: string;
  readonly #stamp: string;
  #count = 0;

  constructor(workshop: Workshop, storm: string, stamp: string) {
    this.#workshop = workshop;
    this.#storm = storm;
    this.#stamp = stamp;
  }

  async #start({ argv }: Watcher): Promise<Running> {
    const file = `${this.#workshop.directory}/lines-${this.#count++}`;
    const began = performance.now();
    const process = new Deno.Command(argv[0]!, { args: argv.slice(1), stdout: "piped", stdin: "null", stderr: "null" })
      .spawn();
    // The first piece is its start; all others are stamped.
    const stamp = new Deno.Command(this.#stamp, { args: [file], stdin: "piped" }).spawn();
    const reader = process.stdout.getReader();
    const first = await reader.read();
    if (first.done) throw new Error(`${argv[0]} has ended`);
    const start = performance.now() - began;
    reader.releaseLock();
    process.stdout.pipeTo(stamp.stdin).catch(() => {});
    return { process, stamp, file, start };
  }

  async storm(kind: "uts" | "net", count: number, rate: number): Promise<{ lines: string[]; pid: number; ms: number }> {
    const { success, stdout } = await new Deno.Command(this.#storm, { args: [kind, `${count}`, `${rate}`] }).output();
    if (!success) throw new Error("the storm has failed");
    const lines = new TextDecoder().decode(stdout).trim().split("\n");
    const [pid, ns] = lines.pop()!.split(" ").map(Number) as [number, number];
    return { lines, pid, ms: ns / 1e6 };
  }

  async measure(watcher: Watcher, signal: AbortSignal): Promise<Sample> {
    const running = await this.#start(watcher);
    const end = () => {
      try {
        running.process.kill("SIGTERM");
      } catch {
        // It has ended.
      }
    };
    signal.addEventListener("abort", end);
    try {
      await pause(300);
      const stream = await this.storm("net", STREAM.count, STREAM.rate);
      const net = await this.storm("net", STORM.net, 0);
      const uts = await this.storm("uts", STORM.uts, 0);
      await pause(500);
      const cpu = processorTime(running.process.pid);
      end();
      await Promise.all([running.process.status, running.stamp.status]);
      const told = (await Deno.readTextFile(running.file)).split("\n");
      return {
        start: running.start,
        net: net.ms,
        uts: uts.ms,
        cpu,
        ...this.#read(watcher, told, stream.lines, uts.pid),
      };
    } finally {
      signal.removeEventListener("abort", end);
      end();
    }
  }

  /** Latencies, and how much of the storm was told of. */
  #read({ line }: Watcher, told: readonly string[], stream: readonly string[], uts: number): Sample {
    if (!line) return {};
    const arrived = new Map<number, number>();
    let [count, lost] = [0, 0];
    for (const one of told) {
      const space = one.indexOf(" ");
      const text = one.slice(space + 1);
      lost += Number(/^lost: count=(\d+)/.exec(text)?.[1] ?? 0);
      const pid = Number(line.exec(text)?.[1]);
      if (pid === uts) count++;
      if (pid && !arrived.has(pid)) arrived.set(pid, Number(one.slice(0, space)));
    }
    const latencies = stream.flatMap((one) => {
      const [time, pid] = one.split(" ").map(Number) as [number, number];
      const at = arrived.get(pid);
      return at === undefined ? [] : [(at - time) / 1e6];
    }).sort((a, b) => a - b);
    const median = summarise(latencies)?.median;
    const p99 = latencies[Math.floor(latencies.length * 0.99)];
    return {
      ...median !== undefined && { median },
      ...p99 !== undefined && { p99 },
      seen: latencies.length / STREAM.count * 100,
      told: count,
      lost,
    };
  }
}

/**
 * Sets the contest up.
 *
 * @returns The contest.
 */
export async function openWatch(): Promise<Contest> {
  if (Deno.uid() !== 0) throw new Error("only root may watch everything");
  const workshop = new Workshop();
  try {
    const arena = new Arena(workshop, await workshop.compile("storm"), await workshop.compile("stamp"));
    const penne = workshop.install(PENNE_BINARY, "penne");
    const watchers: Watcher[] = [
      ...BACKENDS.map((backend) => ({
        name: `penne ${backend}`,
        argv: [penne, "watch", "--backend", backend],
        line: /^ns: pid=(\d+) type=(?:net|uts) /,
      })),
      { name: "forkstat", argv: ["stdbuf", "-oL", "forkstat", "-l", "-e", "fork"], line: null },
      { name: "bpftrace", argv: ["bpftrace", "-e", `BEGIN { printf("ready\\n"); } ${BPFTRACE}`], line: null },
    ];
    const contestants: Contestant[] = [
      {
        name: NOBODY,
        measure: async () => ({
          net: (await arena.storm("net", STORM.net, 0)).ms,
          uts: (await arena.storm("uts", STORM.uts, 0)).ms,
        }),
      },
      ...watchers.map((watcher) => ({
        name: watcher.name,
        measure: (signal: AbortSignal) => arena.measure(watcher, signal),
      })),
    ];
    return {
      conditions: [
        `a stream of ${STREAM.count} net namespaces at ${STREAM.rate}/s, then ${STORM.net} of them and ${STORM.uts} uts ` +
        "namespaces as fast as one process can",
      ],
      metrics: [
        { name: "start", title: "from the start to the first line" },
        { name: "median", title: "from unshare's return to the line, median" },
        { name: "p99", title: "the same, 99th percentile" },
        { name: "seen", title: "of the stream, told of", unit: "%", digits: 1 },
        { name: "net", title: "the storm of net namespaces" },
        { name: "uts", title: "the storm of uts namespaces" },
        { name: "told", title: `of the ${STORM.uts} uts namespaces, changes told of`, unit: "", digits: 0 },
        { name: "lost", title: "events told to be lost", unit: "", digits: 0 },
        { name: "cpu", title: "processor time", unit: "s" },
      ],
      contestants,
      baseline: NOBODY,
      warmUp: 1,
      mostRounds: 10,
      pause: 300,
      timeLimit: TIME_LIMIT,
      conclude: concludeWatch,
      [Symbol.asyncDispose]: () => Promise.resolve(workshop[Symbol.dispose]()),
    };
  } catch (error) {
    workshop[Symbol.dispose]();
    throw error;
  }
}

function concludeWatch(outcome: Outcome): string[] {
  return BACKENDS.map((backend) => {
    const name = `penne ${backend}`;
    const median = (metric: string) => outcome.median(name, metric);
    const slower = (metric: string) => {
      const above = outcome.above(name, NOBODY, metric, "median");
      const base = outcome.median(NOBODY, metric);
      return above === null || !base ? "?" : `${(above / base * 100).toFixed(1)} %`;
    };
    const start = median("start");
    if (start === null) return `${name}: cannot tell`;
    return `${name}: first line ${start.toFixed(0)} ms (goal ${GOAL.start}), p99 ${
      median("p99")?.toFixed(2) ?? "?"
    } ms ` +
      `(goal ${GOAL.latency}), storm of net slower by ${slower("net")} (goal ${GOAL.net} %), of uts by ${
        slower("uts")
      }`;
  });
}
