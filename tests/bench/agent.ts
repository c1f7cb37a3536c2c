// What an agent costs: its memory, and the time to start it in six new namespaces beside a bare clone(2) into them.
//
// The time of Agent.spawn is taken in this process, the one of the clone inside a small C program that stays (clone.c):
// both from right before the call until it returns. The kernel takes namespaces apart some time after their last process
// ends, so there is a pause between two measurements.

import { Agent } from "../../ffi/agent/agent.ts";
import { setAffinity, stayOnProcessor, waitChild } from "../../ffi/sys/process.ts";
import { self } from "../../ffi/core/task.ts";
import { DEFAULT_NAMESPACES, namespaceFlag } from "../../mod/namespaces/types.ts";
import { until } from "../lib/helpers.ts";
import type { Contest, Outcome, Sample } from "./harness.ts";
import { PENNE_BINARY, PENNE_MISSING, signalChild, Workshop } from "./workshop.ts";

/** Microseconds that an agent may cost beyond the clone. */
const GOAL = 150;
/** Milliseconds that the kernel needs to take a set of namespaces apart. */
const PAUSE = 25;
const CLONE_VM = 0x100;
const CLONE_VFORK = 0x4000;
const SIX = DEFAULT_NAMESPACES.reduce((flags, type) => flags | namespaceFlag(type), 0);

const AGENT = "Agent.spawn";
const PINNED = "Agent.spawn, one processor";
const BARE = "clone";
const SHARED = "clone, CLONE_VM|CLONE_VFORK";

/** clone.c, running. */
class Cloner implements AsyncDisposable {
  #child: Deno.ChildProcess;
  #writer: WritableStreamDefaultWriter<Uint8Array>;
  #reader: ReadableStreamDefaultReader<Uint8Array>;

  constructor(program: string) {
    this.#child = new Deno.Command(program, { stdin: "piped", stdout: "piped" }).spawn();
    this.#writer = this.#child.stdin.getWriter();
    this.#reader = this.#child.stdout.getReader();
  }

  /** Makes it clone once and returns the milliseconds that took. */
  async clone(flags: number, signal: AbortSignal): Promise<number> {
    const stop = () => signalChild(this.#child, "SIGKILL");
    signal.addEventListener("abort", stop, { once: true });
    try {
      await this.#writer.write(new TextEncoder().encode(`${flags.toString(16)}\n`));
      let answer = "";
      while (!answer.endsWith("\n")) {
        const { value, done } = await this.#reader.read();
        if (done) throw new Error("clone.c ended");
        answer += new TextDecoder().decode(value);
      }
      const result = Number(answer);
      if (result < 0) throw new Error(`clone failed with error ${-result}`);
      return result / 1e6;
    } finally {
      signal.removeEventListener("abort", stop);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer.close().catch(() => {}); // at the end of file it leaves; it may have done so before
    await this.#reader.cancel();
    await this.#child.status;
  }
}

/** One line of /proc/PID/status. */
function status(pid: number, name: string): string {
  const found = new RegExp(`^${name}:\\s*(.*)$`, "m").exec(Deno.readTextFileSync(`/proc/${pid}/status`));
  if (!found) throw new Error(`process ${pid} has no ${name}`);
  return found[1]!;
}

/** Resident memory of an idle process, kB. */
async function residentSize(pid: number): Promise<number> {
  await until(`process ${pid} is idle`, () => status(pid, "State").startsWith("S"));
  return parseInt(status(pid, "VmRSS"));
}

/** The children of a process; empty if it has ended. */
function children(pid: number): number[] {
  try {
    return (Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`).match(/\d+/g) ?? []).map(Number);
  } catch {
    return [];
  }
}

/** A descendant that is PID 1 of its own pid namespace, or null. */
function findInit(pid: number): number | null {
  for (const child of children(pid)) {
    const found = /\s1$/.test(status(child, "NSpid")) ? child : findInit(child);
    if (found !== null) return found;
  }
  return null;
}

function spawnedSize(flags: number): Promise<number> {
  const agent = Agent.spawn(flags);
  return residentSize(agent.pid).finally(() => {
    agent.close();
    waitChild(agent.pid);
  });
}

/** Resident memory of the agent that is PID 1 of a sleeping command under the compiled penne, kB. */
async function initSize(): Promise<number> {
  if (!await Deno.stat(PENNE_BINARY).then(() => true, () => false)) throw new Error(PENNE_MISSING);
  const quiet = { stdin: "null", stdout: "null", stderr: "null" } as const;
  const penne = new Deno.Command(PENNE_BINARY, { args: ["run", "--", "sleep", "20"], ...quiet }).spawn();
  try {
    let init: number | null = null;
    // By then the agent has finished the set-up and only waits.
    const sleeps = () => {
      init = findInit(penne.pid);
      return init !== null && children(init).some((child) => status(child, "Name") === "sleep");
    };
    await until("penne runs its command", sleeps);
    return await residentSize(init!);
  } finally {
    signalChild(penne, "SIGTERM");
    await penne.status;
  }
}

/** Resident sizes in kB that could be read, and a line for each. */
async function sizes(): Promise<{ facts: Record<string, number>; lines: string[] }> {
  const facts: Record<string, number> = {};
  const lines: string[] = [];
  const take = async (key: string, what: string, measure: () => Promise<number>) => {
    try {
      facts[key] = await measure();
      lines.push(`resident size of an agent ${what}: ${facts[key]} kB`);
    } catch (error) {
      lines.push(`resident size of an agent ${what}: not available: ${(error as Error).message}`);
    }
  };
  await take("residentKb", "right after its start, idle", () => spawnedSize(0));
  await take("residentInNamespacesKb", "right after its start in six namespaces, idle", () => spawnedSize(SIX));
  await take("residentAsInitKb", "that is PID 1 of a command under dist/penne run", initSize);
  return { facts, lines };
}

function concludeAgent(outcome: Outcome): string[] {
  const above = (agent: string, clone: string) => {
    const milliseconds = outcome.above(agent, clone, "time");
    return milliseconds === null ? "cannot tell" : `${(milliseconds * 1000).toFixed(0)} µs`;
  };
  return [
    `Agent.spawn above bare clone: ${above(AGENT, BARE)} (goal: at most ${GOAL} µs above)`,
    `  kept on one processor, as penne run does it: ${above(PINNED, BARE)}`,
    `  above a clone with CLONE_VM|CLONE_VFORK, as Agent.spawn makes it: ${above(AGENT, SHARED)}`,
  ];
}

/** Starts an agent in six namespaces and ends it; only the start is timed. */
function spawnOnce(): Sample {
  const before = performance.now();
  const agent = Agent.spawn(SIX);
  const time = performance.now() - before;
  agent.close();
  waitChild(agent.pid);
  return { time };
}

/** The same with this thread pinned to its processor, so that the clone starts there too. */
function spawnPinned(): Sample {
  const affinity = stayOnProcessor();
  try {
    return spawnOnce();
  } finally {
    if (affinity) setAffinity(self, affinity);
  }
}

/**
 * Sets the contest up, and takes the sizes.
 *
 * @returns The contest.
 */
export async function openAgent(): Promise<Contest> {
  const { facts, lines } = await sizes();
  using workshop = new Workshop();
  const cloner = new Cloner(await workshop.compile("clone"));
  const clone = (name: string, flags: number) => ({
    name,
    measure: async (signal: AbortSignal): Promise<Sample> => ({ time: await cloner.clone(SIX | flags, signal) }),
  });
  return {
    conditions: [
      `as user ${Deno.uid()}; new namespaces: ${DEFAULT_NAMESPACES.join(", ")}`,
      "the time from right before the call until it has returned; the child of the bare clone exits at once",
      ...lines,
    ],
    metrics: [{ name: "time", title: "start in six namespaces", digits: 3 }],
    baseline: BARE,
    contestants: [
      clone(BARE, 0),
      clone(SHARED, CLONE_VM | CLONE_VFORK),
      { name: AGENT, measure: spawnOnce },
      { name: PINNED, measure: spawnPinned },
    ],
    warmUp: 10,
    pause: PAUSE,
    facts,
    conclude: concludeAgent,
    [Symbol.asyncDispose]: () => cloner[Symbol.asyncDispose](),
  };
}
