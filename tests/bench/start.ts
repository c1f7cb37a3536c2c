// What each command of penne takes above a bare program: `Deno.exit(0)`, compiled with the same runtime and flags.
//
// Beside it the floor (programs/floor.ts): a program that does nothing but load the shim and make six namespaces. The timer
// (timer.c) starts every contestant; a bootstrap is started by the driver of the tests.

import { Place } from "../enter/places.ts";
import type { Contest, Contestant, Metric, Outcome, Sample } from "./harness.ts";
import { measureBootstrap } from "./nsexec.ts";
import { ROOT } from "../lib/helpers.ts";
import { anybody, type Identity, PENNE_BINARY, PENNE_MISSING, runTool, time, Workshop } from "./workshop.ts";

const PENNE = "penne";
const BARE = "bare program";

/** What is measured, and the milliseconds that penne may take above the bare program. */
const METRICS: readonly (Metric & { readonly goal: number })[] = [
  { name: "noneFirst", title: "run --net=none: first instruction", goal: 12 },
  { name: "none", title: "run --net=none: end of true(1)", goal: 16 },
  { name: "runFirst", title: "run: first instruction", goal: 22 },
  { name: "run", title: "run: end of true(1)", goal: 28 },
  { name: "enterFirst", title: "enter, all kinds: first instruction", goal: 12 },
  { name: "enter", title: "enter, all kinds: end of true(1)", goal: 12 },
  { name: "nsexec", title: "nsexec: end of stage 0", goal: 12 },
  { name: "wait", title: "wait for what is there: end", goal: 8 },
  { name: "version", title: "--version: end", goal: 2 },
];

function conclude(outcome: Outcome): string[] {
  const lines = METRICS.map(({ name, title, goal }) => {
    // The least figures are those that a busy machine has disturbed least.
    const [median, least] = (["median", "min"] as const).map((of) => outcome.above(PENNE, BARE, name, of)?.toFixed(2));
    return median === undefined
      ? `${title}: cannot tell`
      : `${title}: ${median} ms above the bare program by the medians, ${least} by the least of each (goal ${goal})`;
  });
  const [penne, pasta] = [PENNE, "pasta"].map((name) => outcome.median(name, "run"));
  return penne && pasta ? [...lines, `run: ${(penne / pasta).toFixed(2)} × pasta (goal 0.80)`] : lines;
}

/** A command that is timed twice: with a program that reports its first instruction, and with true(1). */
interface Command {
  readonly metric: string;
  readonly prefix: readonly string[];
  readonly identity: Identity;
}

/**
 * Sets the contest up.
 *
 * @returns The contest.
 */
export async function openStart(): Promise<Contest> {
  const workshop = new Workshop();
  const places: Place[] = [];
  try {
    const timer = await workshop.compile("timer");
    const first = await workshop.compile("first", ["-static", "-nostdlib"]);
    if (!await Deno.stat(PENNE_BINARY).then(() => true, () => false)) throw new Error(PENNE_MISSING);
    const penne = workshop.install(PENNE_BINARY, "penne");
    const bare = await workshop.compileScript("bare", "Deno.exit(0);\n", penne);
    const bundled = `${workshop.directory}/floor.js`;
    const source = `${ROOT}tests/bench/programs/floor.ts`;
    await runTool([
      Deno.execPath(),
      "bundle",
      "--quiet",
      "--minify",
      "--platform",
      "deno",
      "--output",
      bundled,
      source,
    ]);
    const floor = await workshop.compileScript("floor", await Deno.readTextFile(bundled), penne);
    const user = await anybody();
    const root: Identity = { ...user, name: "root", as: (argv) => argv };
    const place = await Place.all(Deno.uid() === 0 ? { user: true } : {});
    places.push(place);
    const commands = async (list: readonly Command[], signal: AbortSignal): Promise<Record<string, number>> => {
      const sample: Record<string, number> = {};
      for (const { metric, prefix, identity } of list) {
        const start = await time(timer, [...prefix, first], identity, signal);
        if (start.first === null) throw new Error("the command did not report its start");
        sample[`${metric}First`] = start.first;
        sample[metric] = (await time(timer, [...prefix, "/bin/true"], identity, signal)).end;
      }
      return sample;
    };
    const runner = (name: string, list: readonly Command[], more: Contestant["measure"] = () => ({})): Contestant => ({
      name,
      measure: async (signal): Promise<Sample> => ({ ...await commands(list, signal), ...await more(signal) }),
    });
    const end = async (argv: readonly string[], signal: AbortSignal) => (await time(timer, argv, user, signal)).end;
    const as = (metric: string, ...prefix: string[]): Command => ({ metric, prefix, identity: user });
    const bootstrap = (argv: readonly string[]) =>
      Deno.uid() === 0 ? { nsexec: measureBootstrap(argv, "1.1").end } : {};
    const entered = `${place.pid}`;
    return {
      conditions: [`as ${user.name}, nsexec as ${root.name}; the time begins right before the execve of each program`],
      metrics: METRICS,
      baseline: BARE,
      contestants: [
        {
          name: BARE,
          async measure(signal): Promise<Sample> {
            const took = await end([bare], signal);
            return Object.fromEntries(METRICS.map(({ name }) => [name, took]));
          },
        },
        runner("floor", [as("none", floor)]),
        runner(
          PENNE,
          [
            as("none", penne, "run", "--net=none", "--"),
            as("run", penne, "run", "--"),
            as("enter", penne, "enter", entered, "--"),
          ],
          async (signal) => ({
            ...bootstrap([penne, "nsexec", "--dialect", "1.1", "--", "sleep", "10"]),
            wait: await end([penne, "wait", "--for", "present", entered], signal),
            version: await end([penne, "--version"], signal),
          }),
        ),
        runner("unshare", [as("none", "unshare", "-Urnpf", "--mount-proc")]),
        runner("nsenter", [as("enter", "nsenter", "-t", entered, "-a", "--preserve-credentials", "--")]),
        runner("runc", [], () => bootstrap(["/usr/sbin/runc", "init"])),
        runner("pasta", [as("run", "pasta", "--config-net", "--")]),
        runner("pasta-newer", [as("run", "pasta-newer", "--config-net", "--")]),
      ],
      conclude,
      async [Symbol.asyncDispose]() {
        workshop[Symbol.dispose]();
        for (const place of places) await place[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    workshop[Symbol.dispose]();
    for (const place of places) await place[Symbol.asyncDispose]();
    throw error;
  }
}
