// Memory of a process that serves namespaces: with one namespace, and for each further one.
//
// Read from /proc/PID/smaps_rollup when the process is ready and idle. Private memory is shared with no other process at
// that moment. Only one process of each program runs, so the executed part of the program counts too. The dirty part is
// what every further process of the program costs.

import { until } from "../lib/helpers.ts";
import { Ground, type Name, type Server } from "./ground.ts";
import type { Contest, Contestant, Outcome, Sample } from "./harness.ts";

/** How many namespaces one process serves. */
const COUNTS = [1, 50, 200] as const;
/** The figures hardly vary, and making the namespaces takes long. */
const ROUNDS = 5;
const TIME_LIMIT = 60_000;

const METRICS = [
  { name: "private", title: "private memory", unit: "kB", digits: 0 },
  { name: "dirty", title: "private dirty memory", unit: "kB", digits: 0 },
  { name: "resident", title: "resident size", unit: "kB", digits: 0 },
] as const;

const title = (server: Server, count: number) => `${server}, ${count} namespace${count === 1 ? "" : "s"}`;

/** Memory of a process, kB. */
function memoryOf(pid: number): Sample {
  const text = Deno.readTextFileSync(`/proc/${pid}/smaps_rollup`);
  const field = (name: string) => {
    const value = new RegExp(`^${name}:\\s*(\\d+) kB$`, "m").exec(text)?.[1];
    if (value === undefined) throw new Error(`process ${pid} has no ${name}`);
    return Number(value);
  };
  const dirty = field("Private_Dirty");
  return { private: field("Private_Clean") + dirty, dirty, resident: field("Rss") };
}

function contestant(ground: Ground, server: Server, names: readonly Name[]): Contestant {
  return {
    name: title(server, names.length),
    async measure(): Promise<Sample> {
      await using serving = await ground.serve(server, { by: "names", names });
      const { pid } = serving;
      const idle = () => /^State:\s*S/m.test(Deno.readTextFileSync(`/proc/${pid}/status`));
      await until(`process ${pid} is idle`, idle);
      return memoryOf(pid);
    },
  };
}

function concludeMemory(outcome: Outcome): string[] {
  const of = (server: Server, count: number, metric: string) => outcome.median(title(server, count), metric);
  const shown = (kilobytes: number | null) => kilobytes === null ? "?" : `${Math.round(kilobytes)} kB`;
  const process = ({ name, title }: typeof METRICS[number]) => {
    const [penne, pasta] = [of("penne", 1, name), of("pasta", 1, name)];
    const ratio = penne !== null && pasta !== null ? ` (ratio ${(penne / pasta).toFixed(2)})` : "";
    return `${title} of a process with one namespace: penne ${shown(penne)}, pasta ${shown(pasta)}${ratio}`;
  };
  // Only the dirty memory, which is also what a further pasta process costs.
  const further = COUNTS.slice(1).map((count) => {
    const [one, many, pasta] = [of("penne", 1, "dirty"), of("penne", count, "dirty"), of("pasta", 1, "dirty")];
    const each = one !== null && many !== null ? `${((many - one) / (count - 1)).toFixed(1)} kB` : "cannot tell";
    const whole = pasta === null ? null : pasta * count;
    return `each further namespace, of ${count}: ${each}; all of them: penne ${shown(many)}, pasta ${shown(whole)}`;
  });
  return [...METRICS.map(process), ...further];
}

/**
 * Sets the contest up.
 *
 * @returns The contest.
 */
export async function openMemory(): Promise<Contest> {
  const ground = await Ground.open();
  try {
    const names: Name[] = [];
    while (names.length < Math.max(...COUNTS)) names.push(await ground.name());
    return {
      conditions: [
        `as ${ground.identity.name}, in the foreground; at most ${ROUNDS} rounds`,
        "private memory: Private_Clean and Private_Dirty of /proc/PID/smaps_rollup; resident size: Rss",
        "pasta serves one namespace, so the sum is shown for several",
      ],
      metrics: METRICS,
      baseline: title("penne", 1),
      contestants: [
        ...COUNTS.map((count) => contestant(ground, "penne", names.slice(0, count))),
        contestant(ground, "pasta", names.slice(0, 1)),
      ],
      warmUp: 1,
      mostRounds: ROUNDS,
      timeLimit: TIME_LIMIT,
      conclude: concludeMemory,
      [Symbol.asyncDispose]: () => ground[Symbol.asyncDispose](),
    };
  } catch (error) {
    await ground[Symbol.asyncDispose]();
    throw error;
  }
}
