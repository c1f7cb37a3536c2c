// What following the host costs: the data path beside that of --no-follow, while the host stays as it is, and while addresses
// of another interface of it change 20 times a second. Both sides of a pair have the same host.

import type { Network } from "../../datapath/lab/network.ts";
import { type Contest, type Outcome, pairedRatio } from "../harness.ts";
import { type Entry, METRICS, openServers, penneServer, SHORT } from "../network.ts";
import { PENNE_BINARY, Workshop } from "../workshop.ts";

/** The contestants: whether each follows, and whether the host changes. */
const PAIRS = [
  { title: "the host stays as it is", still: "still", follows: "follows", changes: false },
  { title: "the host changes", still: "still-busy", follows: "follows-busy", changes: true },
] as const;
/** Milliseconds between two changes, and for which wake-ups are counted. */
const EVERY = 50;
const IDLE = 5000;
/** Most times that they are counted: after its start a namespace asks for neighbours and routers. */
const TRIES = 12;

/** Changes an interface of the host that no namespace has anything of. */
function change(network: Network): AsyncDisposable {
  const child = new Deno.Command("ip", {
    args: ["-n", network.host, "-force", "-batch", "-"],
    stdin: "piped",
    stdout: "null",
    stderr: "null",
  }).spawn();
  const writer = child.stdin.getWriter();
  let round = 0;
  const timer = setInterval(() => {
    const kind = round++ % 2 === 0 ? "add" : "del";
    writer.write(new TextEncoder().encode(`addr ${kind} 10.77.0.1/32 dev lo\n`)).catch(() => {});
  }, EVERY);
  return {
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      await writer.close().catch(() => {});
      await child.status;
    },
  };
}

/** How often the threads of a process have gone to sleep by themselves. */
function sleeps(pid: number): number {
  return [...Deno.readDirSync(`/proc/${pid}/task`)].reduce((sum, { name }) => {
    const text = Deno.readTextFileSync(`/proc/${pid}/task/${name}/status`);
    return sum + Number(/^voluntary_ctxt_switches:\t(\d+)/m.exec(text)![1]);
  }, 0);
}

/** Wake-ups of each server in some seconds in which nothing happens: the least of several counts. */
async function wakeUps(entries: readonly Entry[]): Promise<Record<string, number>> {
  const least: Record<string, number> = {};
  for (let tries = 0; tries < TRIES; tries++) {
    const before = entries.map(({ pid }) => sleeps(pid!));
    await new Promise((resolve) => setTimeout(resolve, IDLE));
    entries.forEach(({ name, pid }, i) => {
      least[name] = Math.min(least[name] ?? Infinity, sleeps(pid!) - before[i]!);
    });
    if (Object.values(least).every((count) => count === 0)) break;
  }
  return least;
}

/** A line for each pair and metric, and one for the wake-ups. */
function conclude(outcome: Outcome, idle: Readonly<Record<string, number>>): string[] {
  const figures = (name: string, metric: string) =>
    outcome.results.find((result) => result.name === name)?.figures[metric] ?? [];
  const ratios = PAIRS.flatMap(({ title, still, follows }) =>
    METRICS.map(({ name, title: what }) => {
      const ratio = pairedRatio(figures(follows, name), figures(still, name));
      if (!ratio) return `${title}: ${what}: too few pairs`;
      const [mean, low, high] = [ratio.mean, ratio.low, ratio.high].map((figure) => figure.toFixed(3));
      return `${title}: ${what}: ${mean} × that of --no-follow (95 % interval ${low} to ${high}, ${ratio.pairs} pairs)`;
    })
  );
  const counts = Object.entries(idle).map(([name, count]) => `${name} ${count}`).join(", ");
  return [...ratios, `wake-ups in ${IDLE / 1000} s at idle: ${counts}`];
}

/** Sets up the contest. */
export async function openFollow(): Promise<Contest> {
  const workshop = new Workshop();
  const servers = PAIRS.flatMap(({ still, follows }) => [
    penneServer(still, workshop.install(PENNE_BINARY, `p-${still}`), "--no-follow"),
    penneServer(follows, workshop.install(PENNE_BINARY, `p-${follows}`)),
  ]);
  const busy = PAIRS.filter(({ changes }) => changes).flatMap(({ still, follows }): string[] => [still, follows]);
  const nothing: AsyncDisposable = { [Symbol.asyncDispose]: () => Promise.resolve() };
  let idle: Record<string, number> = {};
  return await openServers(workshop, servers, {
    ...{ mtu: 65520, delay: 0, direct: false, ...SHORT },
    meanwhile: (name, network) => busy.includes(name) ? change(network) : nothing,
    look: async (entries) => idle = await wakeUps(entries),
  }, (outcome) => conclude(outcome, idle));
}
