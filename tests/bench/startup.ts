// Time until a command runs in new namespaces, and until everything has ended, beside unshare, bwrap and pasta.
//
// The timer (timer.c) starts each contestant, so the bench's own runtime is not part of the figures. Every contestant runs
// two commands in each round: first.c, which reports the time of its first instruction, and true(1).

import type { Contest, Contestant, Outcome, Sample } from "./harness.ts";
import { anybody, PENNE_BINARY, PENNE_MISSING, time, Workshop } from "./workshop.ts";

/** Milliseconds that penne may take beyond a program of the same runtime that does nothing. */
const GOAL = 6;
const PENNE = "penne";
const HELLO = "hello-world";
/** The shortest possible program: it waits neither for the console nor for the end of the event loop. */
const HELLO_SCRIPT = 'Deno.stdout.writeSync(new TextEncoder().encode("hello\\n")); Deno.exit(0);\n';

function concludeStartup(outcome: Outcome): string[] {
  const difference = (of: "median" | "min") => {
    // The script cannot read that clock, so its output is compared with the command's output.
    const first = outcome.above(PENNE, HELLO, "output", of);
    const end = outcome.above(PENNE, HELLO, "end", of);
    if (first === null || end === null) return "cannot tell";
    return `first instruction ${first.toFixed(2)} ms, end ${end.toFixed(2)} ms`;
  };
  return [
    `penne above hello-world: ${difference("median")} (goal ${GOAL} ms)`,
    `  by the medians, the first instruction by the first output; by the least of each: ${difference("min")}`,
  ];
}

/** Adds the state of /dev/net/tun, which some systems reserve for root, to pasta's error. */
function explainTun(contestant: Contestant): Contestant {
  const state = () =>
    Deno.stat("/dev/net/tun").then(({ mode }) => `has mode ${((mode ?? 0) & 0o777).toString(8)}`, () => "is missing");
  const measure = async (signal: AbortSignal) => {
    try {
      return await contestant.measure(signal);
    } catch (error) {
      const { message } = error as Error;
      throw /\btun\b/.test(message) ? new Error(`${message}: /dev/net/tun ${await state()}`) : error;
    }
  };
  return { ...contestant, measure };
}

/**
 * Sets the contest up.
 *
 * @returns The contest.
 */
export async function openStartup(): Promise<Contest> {
  const workshop = new Workshop();
  try {
    const timer = await workshop.compile("timer");
    const first = await workshop.compile("first", ["-static", "-nostdlib"]);
    const built = await Deno.stat(PENNE_BINARY).then(() => true, () => false);
    const penne = built ? [workshop.install(PENNE_BINARY, "penne"), "run", "--"] : null;
    const hello = penne
      ? await workshop.compileScript("hello", HELLO_SCRIPT, penne[0]!).catch((error: Error) => error)
      : new Error(PENNE_MISSING);
    const identity = await anybody();
    const run = (argv: readonly string[], signal: AbortSignal) => time(timer, argv, identity, signal);
    const runner = (name: string, prefix: readonly string[] | null): Contestant => ({
      name,
      async measure(signal): Promise<Sample> {
        if (!prefix) throw new Error(PENNE_MISSING);
        const start = await run([...prefix, first], signal);
        if (start.first === null || start.output === null) throw new Error("the command did not report its start");
        const whole = await run([...prefix, "true"], signal);
        return { first: start.first, output: start.output, end: whole.end };
      },
    });
    return {
      conditions: [
        `as ${identity.name}; the time begins right before the execve of each program`,
        "the end is that of the program when its command is true(1); hello-world has no command",
      ],
      metrics: [
        { name: "first", title: "first instruction" },
        { name: "output", title: "first output" },
        { name: "end", title: "end" },
      ],
      baseline: PENNE,
      contestants: [
        runner("no namespaces", []),
        {
          name: HELLO,
          async measure(signal): Promise<Sample> {
            if (hello instanceof Error) throw hello;
            const { output, end } = await run([hello], signal);
            if (output === null) throw new Error("it printed nothing");
            return { output, end };
          },
        },
        runner(PENNE, penne),
        explainTun(runner("pasta", ["pasta", "--config-net", "--"])),
        runner("unshare", ["unshare", "-Urnpf", "--mount-proc"]),
        runner("bwrap", ["bwrap", "--unshare-all", "--bind", "/", "/", "--proc", "/proc"]),
      ],
      conclude: concludeStartup,
      [Symbol.asyncDispose]: async () => await workshop[Symbol.dispose](),
    };
  } catch (error) {
    workshop[Symbol.dispose]();
    throw error;
  }
}
