// penne beside an earlier build of itself, to see whether a change costs anything: `deno task bench --before FILE before-start`.
//
// Rounds are interleaved, and each figure is divided by its neighbour's; the output is the geometric mean of these
// ratios with its 95 % interval.

import { Place } from "../../enter/places.ts";
import { type Contest, type Contestant, type Metric, type Outcome, pairedRatio, type Sample } from "../harness.ts";
import { openArena, STORM } from "../watch.ts";
import { METRICS, openServers, penneServer, SHORT } from "../network.ts";
import { anybody, PENNE_BINARY, time, Workshop } from "../workshop.ts";

const BEFORE = "before";
const NOW = "now";

/** A line for each metric: how many times the earlier build's figure the present one's is. */
function conclude(metrics: readonly Metric[], outcome: Outcome): string[] {
  const figures = (name: string, metric: string) =>
    outcome.results.find((result) => result.name === name)?.figures[metric] ?? [];
  return metrics.map(({ name, title }) => {
    const ratio = pairedRatio(figures(NOW, name), figures(BEFORE, name));
    if (!ratio) return `${title}: too few pairs`;
    const [mean, low, high] = [ratio.mean, ratio.low, ratio.high].map((figure) => figure.toFixed(3));
    return `${title}: ${mean} × before (95 % interval ${low} to ${high}, ${ratio.pairs} pairs)`;
  });
}

/** Commands whose start and end are measured, by the name of the metric. */
const COMMANDS: readonly (Metric & { argv: (pid: number) => readonly string[] })[] = [
  { name: "none", title: "penne run --net=none -- true", argv: () => ["run", "--net=none", "--", "true"] },
  { name: "tap", title: "penne run -- true", argv: () => ["run", "--", "true"] },
  { name: "enter", title: "penne enter PID -- true", argv: (pid) => ["enter", `${pid}`, "--", "true"] },
];

/** Starts: from the execve of penne to its end. */
export async function openStartBefore(before: string): Promise<Contest> {
  const workshop = new Workshop();
  const timer = await workshop.compile("timer");
  const identity = await anybody();
  const place = await Place.all({ user: true });
  const contestant = (name: string, source: string): Contestant => {
    const program = workshop.install(source, name);
    return {
      name,
      async measure(signal): Promise<Sample> {
        const sample: Record<string, number> = {};
        for (const { name, argv } of COMMANDS) {
          sample[name] = (await time(timer, [program, ...argv(place.pid)], identity, signal)).end;
        }
        return sample;
      },
    };
  };
  return {
    conditions: [`as ${identity.name}; from the execve of penne to its end`],
    metrics: COMMANDS,
    baseline: BEFORE,
    contestants: [contestant(BEFORE, before), contestant(NOW, PENNE_BINARY)],
    conclude: (outcome) => conclude(COMMANDS, outcome),
    async [Symbol.asyncDispose]() {
      workshop[Symbol.dispose]();
      await place[Symbol.asyncDispose]();
    },
  };
}

/** Storms of new namespaces while penne watches: what the storm takes, and what penne takes. */
export async function openStormBefore(before: string): Promise<Contest> {
  const { workshop, arena } = await openArena();
  const metrics = [
    { name: "net", title: `processor time of a storm of ${STORM.net} net namespaces` },
    { name: "uts", title: `processor time of a storm of ${STORM.uts} uts namespaces` },
    { name: "cpu", title: "processor time of penne meanwhile", unit: "s" },
  ];
  const contestant = (name: string, source: string): Contestant => {
    const watcher = { name, argv: [workshop.install(source, name), "watch"], reads: true };
    return {
      name,
      async measure(signal): Promise<Sample> {
        const { netCpu, utsCpu, cpu } = await arena.measure(watcher, signal) as Record<string, number>;
        return { net: netCpu!, uts: utsCpu!, cpu: cpu! };
      },
    };
  };
  return {
    conditions: ["as root; the best back end there is"],
    metrics,
    baseline: BEFORE,
    timeLimit: 120_000,
    contestants: [contestant(BEFORE, before), contestant(NOW, PENNE_BINARY)],
    conclude: (outcome) => conclude(metrics, outcome),
    [Symbol.asyncDispose]: async () => await workshop[Symbol.dispose](),
  };
}

/** The data path at MTU 65520. */
export function openNetworkBefore(before: string): Promise<Contest> {
  const workshop = new Workshop();
  const servers = [[BEFORE, before], [NOW, PENNE_BINARY]].map(([name, source]) =>
    penneServer(name!, workshop.install(source!, `penne-${name}`))
  );
  return openServers(
    workshop,
    servers,
    { mtu: 65520, delay: 0, direct: false, ...SHORT },
    (outcome) => conclude(METRICS, outcome),
  );
}
