// What confinement costs: penne beside penne --no-confine, in paired rounds.
//
// Both are the same program. Each figure of the confined one is divided by that of its neighbour, or the neighbour's is
// taken away from it; the output is the mean of these with its 95 % interval.

import { type Contest, type Contestant, type Metric, type Outcome, pairedRatio, type Sample } from "../harness.ts";
import { METRICS, openServers, penneServer } from "../network.ts";
import { anybody, PENNE_BINARY, time, Workshop } from "../workshop.ts";

const OPEN = "--no-confine";
const CONFINED = "confined";

const figuresOf = (outcome: Outcome, name: string, metric: string): readonly number[] =>
  outcome.results.find((result) => result.name === name)?.figures[metric] ?? [];

/** Starts and ends of a command, by the kind of network that it gets. */
const NETS = ["host", "none", "tap"] as const;
const STARTS: readonly Metric[] = NETS.map((net) => ({ name: net, title: `penne run --net=${net} -- true` }));

/** How many milliseconds confinement adds to a start: the median of the differences between neighbours. */
function concludeStart(outcome: Outcome): string[] {
  return STARTS.map(({ name, title }) => {
    const [open, confined] = [figuresOf(outcome, OPEN, name), figuresOf(outcome, CONFINED, name)];
    const differences = confined.slice(0, open.length).map((figure, i) => figure - open[i]!).sort((a, b) => a - b);
    if (differences.length < 3) return `${title}: too few pairs`;
    const at = (part: number) => differences[Math.floor(part * (differences.length - 1))]!.toFixed(2);
    return `${title}: ${at(0.5)} ms more (half of the differences are from ${at(0.25)} to ${at(0.75)})`;
  });
}

/** Starts: from the execve of penne to its end. */
export async function openStartConfined(): Promise<Contest> {
  const workshop = new Workshop();
  const timer = await workshop.compile("timer");
  const identity = await anybody();
  const program = workshop.install(PENNE_BINARY, "penne");
  const contestant = (name: string, options: readonly string[]): Contestant => ({
    name,
    async measure(signal): Promise<Sample> {
      const sample: Record<string, number> = {};
      for (const net of NETS) {
        const argv = [program, "run", `--net=${net}`, ...options, "--", "true"];
        sample[net] = (await time(timer, argv, identity, signal)).end;
      }
      return sample;
    },
  });
  return {
    conditions: [`as ${identity.name}; from the execve of penne to its end`],
    metrics: STARTS,
    baseline: OPEN,
    contestants: [contestant(OPEN, ["--no-confine"]), contestant(CONFINED, [])],
    conclude: concludeStart,
    [Symbol.asyncDispose]: async () => await workshop[Symbol.dispose](),
  };
}

/** How many times the figure of an unconfined penne that of a confined one is. */
function concludeNetwork(outcome: Outcome): string[] {
  return METRICS.map(({ name, title }) => {
    const ratio = pairedRatio(figuresOf(outcome, CONFINED, name), figuresOf(outcome, OPEN, name));
    if (!ratio) return `${title}: too few pairs`;
    const [mean, low, high] = [ratio.mean, ratio.low, ratio.high].map((figure) => figure.toFixed(3));
    return `${title}: ${mean} × ${OPEN} (95 % interval ${low} to ${high}, ${ratio.pairs} pairs)`;
  });
}

/** The data path at MTU 65520: throughput, latency, processor time and memory. */
export function openNetworkConfined(): Promise<Contest> {
  const workshop = new Workshop();
  const servers = [
    penneServer(OPEN, workshop.install(PENNE_BINARY, "penne-open"), "--no-confine"),
    penneServer(CONFINED, workshop.install(PENNE_BINARY, "penne-confined")),
  ];
  return openServers(workshop, servers, { mtu: 65520, delay: 0, direct: false, timeLimit: 20_000 }, concludeNetwork);
}
