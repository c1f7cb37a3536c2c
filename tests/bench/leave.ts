// How long a server stays after the name of its namespace, or the process in it, disappears.
//
// The time is taken by leave.c: from right before the execve of the command that takes the name or process away until the
// server ends. A server that stays once is not waited for again: the table says so, and that case is skipped.

import { Ground, type Name, type Served, type Server } from "./ground.ts";
import type { Contest, Contestant, Outcome, Sample } from "./harness.ts";

/** Milliseconds that penne may take. */
const GOAL = 50;
/** Seconds after which a server counts as staying. */
const PATIENCE = 5;
/** Milliseconds that the kernel needs to take namespaces apart. */
const PAUSE = 25;
/** Milliseconds for all cases, if the server stays in each. */
const TIME_LIMIT = 60_000;
const SERVERS = ["penne", "pasta"] as const;

/** What is removed, and how. */
interface Case {
  readonly served: Served;
  readonly commands: readonly (readonly string[])[];
}

/** One way in which a namespace disappears. */
interface Way {
  readonly name: string;
  readonly title: string;
  /** Does the part of the set-up that is not timed; what it starts goes into the stack. */
  prepare(ground: Ground, stack: AsyncDisposableStack): Promise<Case>;
}

async function named(ground: Ground, stack: AsyncDisposableStack, directory?: string): Promise<Name> {
  const name = await ground.name(directory);
  stack.defer(() => ground.forget(name));
  return name;
}

/** A way in which a name disappears. */
function byName(name: string, title: string, commands: (path: string) => string[][], directory?: string): Way {
  return {
    name,
    title,
    async prepare(ground, stack) {
      const it = await named(ground, stack, directory);
      return { served: { by: "names", names: [it] }, commands: commands(it.path) };
    },
  };
}

/** A way in which a name disappears in a mount namespace in which it is not a mount point. */
function elsewhere(name: string, title: string, command: (path: string) => string[]): Way {
  return {
    name,
    title,
    async prepare(ground, stack) {
      const it = await named(ground, stack);
      const { pid } = stack.use(await ground.elsewhere(it.path));
      const commands = [["nsenter", `--mount=/proc/${pid}/ns/mnt`, "--", ...command(it.path)]];
      return { served: { by: "names", names: [it] }, commands };
    },
  };
}

/** A way in which the last process in a namespace ends. */
function byProcess(name: string, title: string, by: "pid" | "fd"): Way {
  return {
    name,
    title,
    async prepare(ground, stack) {
      const holder = stack.use(await ground.holder());
      return { served: { by, holder }, commands: [["kill", "-KILL", `${holder.pid}`]] };
    },
  };
}

const WAYS: readonly Way[] = [
  byName("netns-del", "ip netns del", (path) => [["ip", "netns", "del", path.replace(/.*\//, "")]], "/run/netns"),
  byName("umount", "umount, then unlink", (path) => [["umount", path], ["unlink", path]]),
  elsewhere("unlink-elsewhere", "unlink in another mount namespace", (path) => ["unlink", path]),
  elsewhere("mv-elsewhere", "mv in another mount namespace", (path) => ["mv", path, `${path}.moved`]),
  byProcess("pid", "the given PID is killed", "pid"),
  byProcess("fd", "fd:N, the last process is killed", "fd"),
];

/** Remarks on a server and a case beside the times. */
interface Notes {
  /** The commands' exit codes, and how often each occurred. */
  readonly codes: Map<string, number>;
  /** Why there are no times, or null. */
  out: string | null;
}

/** Makes one server leave in one way; returns milliseconds. */
async function leaveOnce(
  { ground, program, server, way, notes }: {
    ground: Ground;
    program: string;
    server: Server;
    way: Way;
    notes: Notes;
  },
): Promise<{ left: number; commands: number } | null> {
  await using stack = new AsyncDisposableStack();
  const { served, commands } = await way.prepare(ground, stack);
  const serving = stack.use(await ground.serve(server, served));
  const words = commands.flatMap((command, i) => i === 0 ? command : [";", ...command]);
  const answer = await ground.run([program, `${PATIENCE}`, `${serving.pid}`, ...words]);
  const [left, done, ...codes] = answer.trim().split(" ").map(Number);
  const said = commands.map(([command], i) => `${command} ${codes[i]}`).join(", ");
  notes.codes.set(said, (notes.codes.get(said) ?? 0) + 1);
  if (left! < 0) {
    notes.out = `stays: it was still running after ${PATIENCE} s`;
    return null;
  }
  const code = await serving.ended;
  if (code !== 0) throw new Error(`it left with exit code ${code}`);
  return { left: left! / 1e6, commands: done! / 1e6 };
}

/** One server, in all cases in which it leaves. */
function contestant(ground: Ground, program: string, server: Server, notesOf: ReadonlyMap<Way, Notes>): Contestant {
  return {
    name: server,
    async measure(signal): Promise<Sample> {
      const sample: { [metric: string]: number } = {};
      for (const way of WAYS) {
        const notes = notesOf.get(way)!;
        if (notes.out !== null) continue;
        signal.throwIfAborted();
        const figures = await leaveOnce({ ground, program, server, way, notes });
        if (!figures) continue;
        sample[way.name] = figures.left;
        sample[`${way.name}-commands`] = figures.commands;
      }
      if (Object.keys(sample).length === 0) throw new Error("it leaves in none of these cases");
      return sample;
    },
  };
}

function concludeLeave(outcome: Outcome, notesOf: ReadonlyMap<Server, ReadonlyMap<Way, Notes>>): string[] {
  const lines = [`medians, and the exit codes of the commands, warm-up included (penne's goal: ${GOAL} ms)`];
  for (const way of WAYS) {
    lines.push(`  ${way.title}`);
    for (const server of SERVERS) {
      const { codes, out } = notesOf.get(server)!.get(way)!;
      const [left, alone] = [way.name, `${way.name}-commands`].map((metric) => outcome.median(server, metric));
      const counts = [...codes].map(([said, times]) => `${said} (${times}×)`).join("; ") || "never tried";
      const figure = left != null && alone != null
        ? `median ${left.toFixed(2)} ms; the commands themselves took ${alone.toFixed(2)} ms`
        : out ?? outcome.results.find(({ name }) => name === server)?.unavailable ?? "no figure";
      lines.push(`    ${server}: ${figure}; ${counts}`);
    }
  }
  const medians = WAYS.map(({ name }) => outcome.median("penne", name));
  const reached = medians.filter((median) => median !== null && median <= GOAL).length;
  return [...lines, `penne reaches its goal in ${reached} of ${WAYS.length} ways`];
}

/**
 * Sets the contest up.
 *
 * @returns The contest.
 */
export async function openLeave(): Promise<Contest> {
  const ground = await Ground.open();
  try {
    const program = await ground.workshop.compile("leave");
    const blank = (): Notes => ({ codes: new Map(), out: null });
    const notesOf = new Map(SERVERS.map((server) => [server, new Map(WAYS.map((way) => [way, blank()]))]));
    return {
      conditions: [
        `as ${ground.identity.name}, in the foreground; the commands are root's`,
        "the time from right before the execve of the command until the server has ended (pidfd)",
      ],
      metrics: WAYS.map(({ name, title }) => ({ name, title })),
      baseline: "penne",
      contestants: SERVERS.map((server) => contestant(ground, program, server, notesOf.get(server)!)),
      warmUp: 2,
      pause: PAUSE,
      timeLimit: TIME_LIMIT,
      conclude: (outcome) => concludeLeave(outcome, notesOf),
      [Symbol.asyncDispose]: () => ground[Symbol.asyncDispose](),
    };
  } catch (error) {
    await ground[Symbol.asyncDispose]();
    throw error;
  }
}
