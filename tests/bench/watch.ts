// Watchers of namespaces and processes: start, latency, losses in a storm, and how much a watched storm slows down.
//
// All watch the same storms (storm.c) in turn. A watcher writes into a FIFO, and a reader (stamp.c) stamps each line as it
// arrives. Latency is from the return of unshare(2), stamped by the storm, to the arrival of the line.

import { BACKENDS } from "../../mod/watch/choose.ts";
import { monotonic } from "../../mod/watch/facts/clock.ts";
import { type Contest, type Contestant, type Outcome, type Sample, summarise } from "./harness.ts";
import { PENNE_BINARY, runTool, Workshop } from "./workshop.ts";

/** Goals: milliseconds of latency, 99th percentile; of the start; percent of slowdown of a storm of net namespaces. */
const GOAL = { latency: 2, start: 150, net: 5 } as const;
/** Events of the slow stream, and its rate a second; events of each storm. */
const STREAM = { count: 300, rate: 200 } as const;
export const STORM = { net: 300, uts: 50_000 } as const;
/** Events of the fastest storm, lower rates to try, seconds of these trials, and seconds of the trial at half the rate. */
const RATE = {
  count: 1_000_000,
  steps: [400_000, 300_000, 250_000, 200_000, 150_000, 100_000, 75_000, 50_000, 25_000, 10_000],
  trial: 4,
  seconds: 10,
} as const;
const TIME_LIMIT = 120_000;
/** Time limit of the first event, ms; a polling watcher misses short processes. */
const START_LIMIT = 3000;
const NOBODY = "unwatched";
/** A reference without watching: the least time in which a line passes through one process. */
const TOLD = "cat, fed by the storm itself";

const COUNTING = 'BEGIN { printf("ready\\n"); } tracepoint:syscalls:sys_exit_unshare { @made++; }';

/** A watcher. */
interface Watcher {
  readonly name: string;
  readonly argv: readonly string[];
  /** Whether it writes penne's format. */
  readonly reads: boolean;
  /** Whether it only copies what the slow stream writes into a FIFO, whose name follows `argv`. */
  readonly told?: boolean;
}

/** A storm that has ended. */
interface Storm {
  /** The stamped events: index, time and PID. */
  readonly made: readonly (readonly [index: number, time: number, pid: number])[];
  readonly pid: number;
  /** Wall clock time and processor time, ms. */
  readonly wall: number;
  readonly cpu: number;
}

/** Processor time of a process, s. */
function processorTime(pid: number): number {
  const text = Deno.readTextFileSync(`/proc/${pid}/stat`);
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

async function pause(milliseconds: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, milliseconds));
}

function makeFifo(path: string): void {
  const { success } = new Deno.Command("mkfifo", { args: [path] }).outputSync();
  if (!success) throw new Error("cannot make a FIFO");
}

/** A running watcher whose lines are stored with their times. */
class Running {
  readonly pid: number;
  readonly #process: Deno.ChildProcess;
  readonly #stamp: Deno.ChildProcess;
  readonly #file: string;
  readonly #began: number;

  constructor(stamp: string, argv: readonly string[], files: string) {
    const fifo = `${files}.fifo`;
    this.#file = `${files}.lines`;
    makeFifo(fifo);
    this.#stamp = new Deno.Command(stamp, { args: [fifo, this.#file], stdin: "null" }).spawn();
    this.#began = Number(monotonic());
    this.#process = new Deno.Command("sh", {
      args: ["-c", 'fifo=$1; shift; exec "$@" >"$fifo"', "sh", fifo, ...argv],
      stdin: "null",
      stderr: "null",
    }).spawn();
    this.pid = this.#process.pid;
  }

  async #lines(): Promise<string[]> {
    try {
      return (await Deno.readTextFile(this.#file)).split("\n").slice(0, -1);
    } catch {
      return [];
    }
  }

  /** Milliseconds to the first line and, while events are produced, to the second. */
  async started(tickle: boolean): Promise<{ start: number; event: number | null }> {
    const wanted = tickle ? 2 : 1;
    const limit = performance.now() + START_LIMIT;
    for (;;) {
      if (tickle) await new Deno.Command("true").output();
      else await pause(5);
      const lines = await this.#lines();
      const late = performance.now() > limit;
      if (lines.length === 0 && late) throw new Error("it prints nothing");
      if (lines.length < wanted && !late) continue;
      const [start, event = null] = lines.map((line) => (Number(line.split(" ", 1)[0]) - this.#began) / 1e6);
      return { start: start!, event };
    }
  }

  /** Ends it and returns all lines that were kept. */
  async end(): Promise<string[]> {
    this.kill();
    await Promise.all([this.#process.status, this.#stamp.status]);
    return await this.#lines();
  }

  kill(): void {
    try {
      this.#process.kill("SIGINT");
    } catch {
      // It has ended.
    }
  }
}

/** What penne reported about storms. */
class Told {
  readonly lost: number;
  readonly #byPid = new Map<number, number[]>();

  constructor(lines: readonly string[]) {
    let lost = 0;
    for (const line of lines) {
      const space = line.indexOf(" ");
      const text = line.slice(space + 1);
      lost += Number(/^lost: count=(\d+)/.exec(text)?.[1] ?? 0);
      // Differences that a resync reports are not events.
      const pid = text.endsWith("exact=false") ? NaN : Number(/^ns: pid=(\d+) type=(?:net|uts)\b/.exec(text)?.[1]);
      if (!pid) continue;
      const times = this.#byPid.get(pid) ?? [];
      times.push(Number(line.slice(0, space)));
      this.#byPid.set(pid, times);
    }
    this.lost = lost;
  }

  count(pid: number): number {
    return this.#byPid.get(pid)?.length ?? 0;
  }

  /** Milliseconds from each stamped event to its line, in order. */
  latencies({ made, pid }: Storm): number[] {
    return made.flatMap(([index, time, maker]) => {
      const at = this.#byPid.get(maker)?.[maker === pid ? index : 0];
      return at === undefined ? [] : [(at - time) / 1e6];
    }).sort((a, b) => a - b);
  }
}

/** How completely a storm was reported. */
interface Trial {
  /** Thousand events a second. */
  readonly rate: number;
  /** Events that were not reported, and the losses that penne counted. */
  readonly missed: number;
  readonly lost: number;
  readonly cpu: number;
  readonly median?: number;
  readonly p99?: number;
}

function percentiles(latencies: readonly number[]): { median?: number; p99?: number } {
  const median = summarise([...latencies])?.median;
  const p99 = latencies[Math.floor(latencies.length * 0.99)];
  return { ...median !== undefined && { median }, ...p99 !== undefined && { p99 } };
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

  start({ argv }: Watcher, fifo?: string): Running {
    const whole = fifo === undefined ? argv : [...argv, fifo];
    return new Running(this.#stamp, whole, `${this.#workshop.directory}/watcher-${this.#count++}`);
  }

  async storm(kind: "uts" | "net", count: number, rate: number, fifo?: string): Promise<Storm> {
    const argv = [this.#storm, kind, `${count}`, `${rate}`, ...fifo === undefined ? [] : [fifo]];
    const lines = new TextDecoder().decode(await runTool(argv)).trim().split("\n");
    const [pid, wall, cpu] = lines.pop()!.split(" ").map(Number) as [number, number, number];
    const made = lines.map((line) => line.split(" ").map(Number) as [number, number, number]);
    return { made, pid, wall: wall / 1e6, cpu: cpu / 1e6 };
  }

  /** Measures one watcher. */
  async measure(watcher: Watcher, signal: AbortSignal): Promise<Sample> {
    if (watcher.told) return await this.#measureTold(watcher, signal);
    const running = this.start(watcher);
    const end = () => running.kill();
    signal.addEventListener("abort", end);
    try {
      const { start, event } = await running.started(watcher.reads);
      await pause(300);
      const stream = await this.storm("net", STREAM.count, STREAM.rate);
      const net = await this.storm("net", STORM.net, 0);
      const before = processorTime(running.pid);
      const uts = await this.storm("uts", STORM.uts, 0);
      await pause(1000);
      const cpu = processorTime(running.pid) - before;
      const told = new Told(await running.end());
      const storms = { net: net.wall, netCpu: net.cpu, uts: uts.wall, utsCpu: uts.cpu, cpu, start };
      if (!watcher.reads) return storms;
      const latencies = told.latencies(stream);
      return {
        ...storms,
        ...event !== null && { event },
        ...percentiles(latencies),
        seen: latencies.length / STREAM.count * 100,
        told: told.count(uts.pid),
        lost: told.lost,
      };
    } finally {
      signal.removeEventListener("abort", end);
      end();
    }
  }

  /** The reference for latency: how fast lines arrive on this machine. */
  async #measureTold(watcher: Watcher, signal: AbortSignal): Promise<Sample> {
    const fifo = `${this.#workshop.directory}/told-${this.#count}`;
    makeFifo(fifo);
    const running = this.start(watcher, fifo);
    const end = () => running.kill();
    signal.addEventListener("abort", end);
    try {
      await pause(300);
      const stream = await this.storm("net", STREAM.count, STREAM.rate, fifo);
      await pause(300);
      const latencies = new Told(await running.end()).latencies(stream);
      return { ...percentiles(latencies), seen: latencies.length / STREAM.count * 100 };
    } finally {
      signal.removeEventListener("abort", end);
      end();
    }
  }

  /** One storm: the events that were not reported, and those that penne counted as lost. */
  async #trial(watcher: Watcher, rate: number, seconds: number, signal: AbortSignal): Promise<Trial> {
    const running = this.start(watcher);
    const end = () => running.kill();
    signal.addEventListener("abort", end);
    try {
      await running.started(true);
      await pause(300);
      const before = processorTime(running.pid);
      const count = rate === 0 ? RATE.count : rate * seconds;
      const storm = await this.storm("uts", count, rate);
      await pause(2000);
      const cpu = (processorTime(running.pid) - before) / (storm.wall / 1000) * 100;
      const told = new Told(await running.end());
      const { lost } = told;
      return {
        ...percentiles(told.latencies(storm)),
        rate: count / storm.wall,
        missed: count - told.count(storm.pid),
        lost,
        cpu,
      };
    } finally {
      signal.removeEventListener("abort", end);
      end();
    }
  }

  /** Searches for the highest rate without loss, then runs at half of it for a while. */
  async rate(watcher: Watcher, signal: AbortSignal): Promise<Sample> {
    const fastest = await this.#trial(watcher, 0, 0, signal);
    let best = fastest;
    for (const rate of RATE.steps) {
      if (best.missed === 0 && best.lost === 0) break;
      if (rate / 1000 < best.rate) best = await this.#trial(watcher, rate, RATE.trial, signal);
    }
    const half = await this.#trial(watcher, Math.floor(best.rate * 500), RATE.seconds, signal);
    const { median, p99 } = half;
    return {
      fastest: fastest.rate,
      fastestMissed: fastest.missed,
      fastestLost: fastest.lost,
      rate: best.rate,
      half: half.rate,
      halfMissed: half.missed,
      halfLost: half.lost,
      ...median !== undefined && { median },
      ...p99 !== undefined && { p99 },
      cpu: half.cpu,
    };
  }
}

/** Compiles the helper programs. */
export async function openArena(): Promise<{ workshop: Workshop; arena: Arena }> {
  if (Deno.uid() !== 0) throw new Error("watching everything needs root");
  const workshop = new Workshop();
  try {
    const arena = new Arena(workshop, await workshop.compile("storm"), await workshop.compile("stamp"));
    return { workshop, arena };
  } catch (error) {
    workshop[Symbol.dispose]();
    throw error;
  }
}

/**
 * Sets the contest up.
 *
 * @returns The contest.
 */
export async function openWatch(): Promise<Contest> {
  const { workshop, arena } = await openArena();
  const penne = workshop.install(PENNE_BINARY, "penne");
  const watchers: Watcher[] = [
    ...BACKENDS.map((backend) => ({
      name: `penne ${backend}`,
      argv: [penne, "watch", "--backend", backend],
      reads: true,
    })),
    { name: "forkstat", argv: ["stdbuf", "-oL", "forkstat", "-l", "-e", "fork"], reads: false },
    { name: "bpftrace", argv: ["bpftrace", "-e", COUNTING], reads: false },
    { name: TOLD, argv: ["cat"], reads: true, told: true },
  ];
  const contestants: Contestant[] = [
    {
      name: NOBODY,
      measure: async () => {
        await arena.storm("net", STREAM.count, STREAM.rate);
        const net = await arena.storm("net", STORM.net, 0);
        const uts = await arena.storm("uts", STORM.uts, 0);
        return { net: net.wall, netCpu: net.cpu, uts: uts.wall, utsCpu: uts.cpu };
      },
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
      { name: "event", title: "from the start to the first event" },
      { name: "median", title: "from unshare's return to the line, median" },
      { name: "p99", title: "the same, 99th percentile" },
      { name: "seen", title: "of the stream, reported", unit: "%", digits: 1 },
      { name: "net", title: "the storm of net namespaces" },
      { name: "netCpu", title: "its processor time" },
      { name: "uts", title: "the storm of uts namespaces" },
      { name: "utsCpu", title: "its processor time" },
      { name: "told", title: `of the ${STORM.uts} uts namespaces, changes reported`, unit: "", digits: 0 },
      { name: "lost", title: "events reported as lost", unit: "", digits: 0 },
      { name: "cpu", title: "the watcher's processor time in that storm, and a second after", unit: "s" },
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
}

/**
 * Sets up the search for the highest rate at which nothing is lost.
 *
 * @returns The contest.
 */
export async function openWatchRate(): Promise<Contest> {
  const { workshop, arena } = await openArena();
  const penne = workshop.install(PENNE_BINARY, "penne");
  const watcher = { name: "penne ebpf", argv: [penne, "watch", "--backend", "ebpf"], reads: true };
  return {
    conditions: [
      `${RATE.count} times unshare(CLONE_NEWUTS) as fast as one process can, then ${RATE.seconds} s at half that rate, ` +
      "all of it written as text and read",
    ],
    metrics: [
      { name: "fastest", title: "events a second, as fast as one process can", unit: "thousand", digits: 1 },
      { name: "fastestMissed", title: `of ${RATE.count} of those, not reported`, unit: "", digits: 0 },
      { name: "fastestLost", title: "meanwhile reported as lost", unit: "", digits: 0 },
      { name: "rate", title: "events a second, the highest rate tried without a loss", unit: "thousand", digits: 1 },
      { name: "half", title: "events a second at half of that", unit: "thousand", digits: 1 },
      { name: "halfMissed", title: `of those in ${RATE.seconds} s, not reported`, unit: "", digits: 0 },
      { name: "halfLost", title: "meanwhile reported as lost", unit: "", digits: 0 },
      { name: "median", title: "at half the rate, from unshare's return to the line, median" },
      { name: "p99", title: "the same, 99th percentile" },
      { name: "cpu", title: "the watcher's share of a processor at half the rate", unit: "%", digits: 0 },
    ],
    contestants: [{ name: watcher.name, measure: (signal) => arena.rate(watcher, signal) }],
    baseline: watcher.name,
    warmUp: 0,
    mostRounds: 3,
    timeLimit: 3 * TIME_LIMIT,
    conclude: () => [],
    [Symbol.asyncDispose]: () => Promise.resolve(workshop[Symbol.dispose]()),
  };
}

function concludeWatch(outcome: Outcome): string[] {
  const slower = (name: string, metric: string) => {
    const above = outcome.above(name, NOBODY, metric, "median");
    const base = outcome.median(NOBODY, metric);
    return above === null || !base ? "?" : `${(above / base * 100).toFixed(1)} %`;
  };
  const storms = (name: string) =>
    `storm of net slower by ${slower(name, "net")} (processor time ${slower(name, "netCpu")}; goal ${GOAL.net} %), ` +
    `of uts by ${slower(name, "uts")} (${slower(name, "utsCpu")})`;
  return [
    ...BACKENDS.map((backend) => {
      const name = `penne ${backend}`;
      const median = (metric: string) => outcome.median(name, metric);
      if (median("start") === null) return `${name}: cannot tell`;
      return `${name}: first event ${median("event")?.toFixed(0) ?? "?"} ms (goal ${GOAL.start}), p99 ${
        median("p99")?.toFixed(2) ?? "?"
      } ms (goal ${GOAL.latency}), ${storms(name)}`;
    }),
    `bpftrace, only counting: ${storms("bpftrace")}`,
    `${TOLD}: p99 ${outcome.median(TOLD, "p99")?.toFixed(2) ?? "?"} ms`,
    `forkstat: ${storms("forkstat")}`,
  ];
}
