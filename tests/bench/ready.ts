// Time until a namespace's network is usable, beside pasta.
//
// The timer (timer.c) starts each program and ends what stays. The network is usable when penne attach prints its line,
// when a program that goes to the background exits, or when a command executes its first instruction.

import { Ground } from "./ground.ts";
import type { Contest, Contestant, Outcome, Sample } from "./harness.ts";
import { time } from "./workshop.ts";

/** Milliseconds that the kernel needs to take an interface and namespaces apart. */
const PAUSE = 25;
const PENNE = "penne";
const PASTA = "pasta";
const ALONE = "penne, no network";

const METRICS = [
  { name: "attach", title: "attach: until ready" },
  { name: "background", title: "attach: until in the background" },
  { name: "first", title: "run: until first instruction" },
  { name: "end", title: "run: until end of true(1)" },
] as const;

function concludeReady(outcome: Outcome): string[] {
  return METRICS.map(({ name, title }) => {
    const [penne, pasta] = [outcome.median(PENNE, name), outcome.median(PASTA, name)];
    if (penne === null || pasta === null) return `${title}: cannot tell`;
    return `${title}: penne ${(penne / pasta).toFixed(2)} times pasta (${(penne - pasta).toFixed(2)} ms above)`;
  });
}

/**
 * Sets the contest up.
 *
 * @returns The contest.
 */
export async function openReady(): Promise<Contest> {
  const ground = await Ground.open();
  try {
    const { workshop, identity } = ground;
    const timer = await workshop.compile("timer");
    const first = await workshop.compile("first", ["-static", "-nostdlib"]);
    const holder = await ground.holder();
    const run = async (prefix: readonly string[], signal: AbortSignal): Promise<Sample> => {
      const start = await time(timer, [...prefix, first], identity, signal);
      if (start.first === null) throw new Error("the command did not report its start");
      const { end } = await time(timer, [...prefix, "true"], identity, signal);
      return { first: start.first, end };
    };
    const contestants: Contestant[] = [
      {
        name: PENNE,
        async measure(signal) {
          const { penne } = ground;
          const attach = [...penne, "attach", "--ready-fd", "1", `${holder.pid}`];
          const here = await time(timer, attach, identity, signal, { untilOutput: true });
          if (here.output === null) throw new Error("it did not report that it is ready");
          const behind = await time(timer, [...penne, "attach", "--background", `${holder.pid}`], identity, signal);
          const command = await run([...penne, "run", "--net=tap", "--"], signal);
          return { attach: here.output, background: behind.end, ...command };
        },
      },
      {
        name: PASTA,
        async measure(signal) {
          const { pasta } = ground;
          const { end } = await time(timer, [...pasta, `${holder.pid}`], identity, signal);
          // The only way in which it reports readiness.
          return { attach: end, background: end, ...await run([...pasta, "--"], signal) };
        },
      },
      { name: ALONE, measure: (signal) => run([...ground.penne, "run", "--"], signal) },
    ];
    return {
      conditions: [
        `as ${identity.name}, on a host with one uplink; the time begins right before the execve of each program`,
        "pasta goes to the background in either case of attach, and forwards no ports",
      ],
      metrics: METRICS,
      baseline: PASTA,
      contestants,
      pause: PAUSE,
      conclude: concludeReady,
      [Symbol.asyncDispose]: () => ground[Symbol.asyncDispose](),
    };
  } catch (error) {
    await ground[Symbol.asyncDispose]();
    throw error;
  }
}
