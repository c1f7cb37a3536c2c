// Time until a command runs in existing namespaces, beside nsenter and ip netns.
//
// The timer (timer.c) starts each contestant. There are two targets: a named network namespace, which every contestant can
// enter, and a process with a namespace of every kind, entered as root and (except by ip netns) as the test user.

import { Place } from "../enter/places.ts";
import type { Contest, Contestant, Outcome, Sample } from "./harness.ts";
import { anybody, type Identity, PENNE_BINARY, PENNE_MISSING, runTool, time, Workshop } from "./workshop.ts";

const PENNE = "penne";
const NSENTER = "nsenter";
const HELLO = "hello-world";
/** The shortest possible program: it waits neither for the console nor for the end of the event loop. */
const HELLO_SCRIPT = 'Deno.stdout.writeSync(new TextEncoder().encode("hello\\n")); Deno.exit(0);\n';
/** Milliseconds that the kernel needs to clean up. */
const PAUSE = 10;

const METRICS = [
  { name: "net", title: "a net namespace by name: first instruction" },
  { name: "netEnd", title: "a net namespace by name: end of true(1)" },
  { name: "all", title: "all kinds by PID: first instruction" },
  { name: "allEnd", title: "all kinds by PID: end of true(1)" },
  { name: "user", title: "all kinds by PID, unprivileged: first instruction" },
] as const;

function concludeEnter(outcome: Outcome): string[] {
  return METRICS.flatMap(({ name, title }) => {
    const penne = outcome.median(PENNE, name);
    const parts = [NSENTER, "ip netns exec", HELLO].flatMap((other) => {
      const theirs = outcome.median(other, name);
      return penne === null || theirs === null
        ? []
        : [`${(penne / theirs).toFixed(2)} times ${other} (${(penne - theirs).toFixed(2)} ms above)`];
    });
    return parts.length ? [`${title}: penne ${parts.join(", ")}`] : [];
  });
}

/**
 * Sets the contest up.
 *
 * @returns The contest.
 */
export async function openEnter(): Promise<Contest> {
  if (Deno.uid() !== 0) throw new Error("entering a named net namespace needs root");
  const workshop = new Workshop();
  const places: Place[] = [];
  try {
    const timer = await workshop.compile("timer");
    const first = await workshop.compile("first", ["-static", "-nostdlib"]);
    const built = await Deno.stat(PENNE_BINARY).then(() => true, () => false);
    const penne = built ? workshop.install(PENNE_BINARY, "penne") : null;
    const hello = penne
      ? await workshop.compileScript("hello", HELLO_SCRIPT, penne).catch((error: Error) => error)
      : new Error(PENNE_MISSING);
    const name = `penne-bench-${Deno.pid}`;
    await runTool(["ip", "netns", "add", name]);
    workshop.defer(() => new Deno.Command("ip", { args: ["netns", "del", name] }).outputSync());
    const user = await anybody();
    const root: Identity = { ...user, name: "root", as: (argv) => argv };
    const mine = await Place.all();
    places.push(mine);
    const theirs = await Place.all({ user: true });
    places.push(theirs);
    const start = async (identity: Identity, argv: readonly string[], signal: AbortSignal): Promise<number> => {
      const timing = await time(timer, [...argv, first], identity, signal);
      if (timing.first === null) throw new Error("the command did not report its start");
      return timing.first;
    };
    const end = async (argv: readonly string[], signal: AbortSignal) =>
      (await time(timer, [...argv, "true"], root, signal)).end;
    const runner = (
      title: string,
      net: readonly string[],
      all: ((pid: number) => readonly string[]) | null,
    ): Contestant => ({
      name: title,
      async measure(signal): Promise<Sample> {
        const sample = { net: await start(root, net, signal), netEnd: await end(net, signal) };
        if (!all) return sample;
        return {
          ...sample,
          all: await start(root, all(mine.pid), signal),
          allEnd: await end(all(mine.pid), signal),
          user: await start(user, all(theirs.pid), signal),
        };
      },
    });
    const missing: Contestant = {
      name: PENNE,
      measure: () => Promise.reject(new Error(PENNE_MISSING)),
    };
    return {
      conditions: [
        `as root, and as ${user.name}; the time begins right before the execve of each program`,
        "hello-world is an empty program on the same runtime: its first output and its end",
      ],
      metrics: METRICS,
      baseline: NSENTER,
      pause: PAUSE,
      contestants: [
        penne
          ? runner(PENNE, [penne, "enter", `netns:${name}`, "--"], (pid) => [penne, "enter", `${pid}`, "--"])
          : missing,
        runner(
          NSENTER,
          ["nsenter", `--net=/run/netns/${name}`, "--"],
          (pid) => ["nsenter", "-t", `${pid}`, "-a", "--preserve-credentials", "--"],
        ),
        runner("ip netns exec", ["ip", "netns", "exec", name], null),
        {
          name: HELLO,
          async measure(signal): Promise<Sample> {
            if (hello instanceof Error) throw hello;
            const { output, end } = await time(timer, [hello], root, signal);
            if (output === null) throw new Error("it printed nothing");
            return { net: output, netEnd: end, all: output, allEnd: end };
          },
        },
      ],
      conclude: concludeEnter,
      [Symbol.asyncDispose]: async () => {
        for (const place of places) await place[Symbol.asyncDispose]();
        workshop[Symbol.dispose]();
      },
    };
  } catch (error) {
    for (const place of places) await place[Symbol.asyncDispose]();
    workshop[Symbol.dispose]();
    throw error;
  }
}
