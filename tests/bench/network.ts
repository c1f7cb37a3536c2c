// The data path beside pasta and slirp4netns: throughput, latency, processor time and memory, from a namespace to a peer.
//
// Each serves its own namespace on the same "host", which a veth pair joins to the "peer" that runs the servers; "direct"
// is the host itself, the upper bound. They run as the test user, who owns the user namespaces of the network
// namespaces: the unprivileged case.

import { makeNetwork, type Network, PEER4 } from "../datapath/lab/network.ts";
import { TEST_USER } from "../lib/helpers.ts";
import { type Contest, type Contestant, type Metric, type Outcome, type Sample, summarise } from "./harness.ts";
import { PENNE_BINARY, Workshop } from "./workshop.ts";

const PENNE = "penne";
const PEERS = ["pasta", "slirp4netns"];
const DIRECT = "direct";
/** Ports of the servers: one a round, because a closed connection keeps its port for a minute. */
const RR_PORT = 7000;
const RR_PORTS = 64;

/** A contestant. */
export interface Entry {
  readonly name: string;
  /** First words of a command line that runs inside. */
  readonly inside: readonly string[];
  /** The serving process, or null for the host itself. */
  readonly pid: number | null;
}

/** Runs what follows as the test user. */
export const asUser = ["setpriv", "--reuid", TEST_USER, "--regid", TEST_USER, "--init-groups", "--inh-caps=-all", "--"];

/** Processor time of the threads of a process, s; /proc/PID/stat would count in hundredths. */
export function processorTime(pid: number): number {
  const directory = `/proc/${pid}/task`;
  return [...Deno.readDirSync(directory)].reduce((sum, { name }) => {
    const [used] = Deno.readTextFileSync(`${directory}/${name}/schedstat`).split(" ");
    return sum + Number(used) / 1e9;
  }, 0);
}

/** Private memory of a process, MB. */
function privateMemory(pid: number): number {
  const text = Deno.readTextFileSync(`/proc/${pid}/smaps_rollup`);
  const field = (name: string) => Number(new RegExp(`^${name}: +(\\d+)`, "m").exec(text)![1]);
  return (field("Private_Clean") + field("Private_Dirty")) / 1024;
}

/** Waits until a child that executes one program after another has become the named one; returns its PID. */
export async function findProcess(child: Deno.ChildProcess, name: string): Promise<number> {
  for (let tries = 0; tries < 100; tries++) {
    try {
      if (Deno.readTextFileSync(`/proc/${child.pid}/comm`).trim().startsWith(name)) return child.pid;
    } catch {
      break;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`${name} did not start`);
}

/** A program that serves the namespace of a process. */
export interface Server {
  readonly name: string;
  /** The beginning of its process's name. */
  readonly comm: string;
  /** Its command line for a PID. */
  argv(mtu: number, pid: number): string[];
}

/** penne, from a binary. */
export function penneServer(name: string, binary: string, ...options: string[]): Server {
  const comm = binary.slice(binary.lastIndexOf("/") + 1);
  return { name, comm, argv: (mtu, pid) => [binary, "attach", ...options, "-m", `${mtu}`, `${pid}`] };
}

const NO_PORTS = ["-t", "-u", "-T", "-U"].flatMap((option) => [option, "none"]);
const OTHERS: readonly Server[] = [
  {
    name: "pasta",
    // pasta executes passt, and then the variant for this processor.
    comm: "passt",
    argv: (mtu, pid) => ["pasta", "--config-net", "-f", "-m", `${mtu}`, "--no-map-gw", ...NO_PORTS, `${pid}`],
  },
  {
    name: "slirp4netns",
    comm: "slirp4netns",
    argv: (mtu, pid) => ["slirp4netns", "-c", "-m", `${mtu}`, `${pid}`, "tap0"],
  },
];

/** Starts a server for a new namespace. */
export async function openEntry(network: Network, server: Server, mtu: number): Promise<Entry> {
  const { name, comm } = server;
  const holder = network.spawn(network.host, [...asUser, "unshare", "-Urn", "sleep", "3600"]);
  await findProcess(holder, "sleep");
  const child = network.spawn(network.host, [...asUser, ...server.argv(mtu, holder.pid)], { cwd: "/" });
  const pid = await findProcess(child, comm);
  const inside = ["nsenter", "-t", `${holder.pid}`, "-U", "-n", "--preserve-credentials", "--"];
  for (let tries = 0; tries < 200; tries++) {
    const { success, stdout } = await new Deno.Command(inside[0]!, {
      args: [...inside.slice(1), "ip", "route", "show", "default"],
      stderr: "null",
    }).output();
    if (success && stdout.length > 0) return { name, inside, pid };
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${name} provides no network`);
}

/** Runs a command line inside. */
export async function inside(entry: Entry, argv: readonly string[], signal: AbortSignal): Promise<string> {
  const [program, ...args] = [...entry.inside, ...argv];
  const { stdout } = await new Deno.Command(program!, { args, stdin: "null", stderr: "null", signal }).output();
  return new TextDecoder().decode(stdout);
}

/** Gbit/s that arrive, and processor seconds per gigabyte. */
export async function iperf(
  entry: Entry,
  signal: AbortSignal,
  options: string[] = [],
  tries = 3,
  to: readonly string[] = [PEER4],
): Promise<{ rate: number; cost: number }> {
  const long = options.includes("-n") ? [] : ["-t", "1"];
  const before = entry.pid === null ? 0 : processorTime(entry.pid);
  const { end, error } = JSON.parse(await inside(entry, ["iperf3", "-J", "-c", ...to, ...long, ...options], signal));
  if (error !== undefined) {
    // The server takes one client at a time and may still be busy with the last one.
    if (tries === 0) throw new Error(`iperf3: ${error}`);
    await new Promise((resolve) => setTimeout(resolve, 1000));
    return await iperf(entry, signal, options, tries - 1, to);
  }
  const used = entry.pid === null ? 0 : processorTime(entry.pid) - before;
  const udp = options.includes("-u");
  const bits = udp ? end.sum.bits_per_second * (1 - end.sum.lost_percent / 100) : end.sum_received.bits_per_second;
  const bytes = udp ? end.sum.bytes * (1 - end.sum.lost_percent / 100) : end.sum_received.bytes;
  return { rate: bits / 1e9, cost: used / (bytes / 1e9) };
}

/** The figures of every server. */
export const METRICS: readonly Metric[] = [
  { name: "up", title: "TCP from inside", unit: "Gbit/s" },
  { name: "down", title: "TCP to inside", unit: "Gbit/s" },
  { name: "udp", title: "UDP from inside, 1400 bytes", unit: "Gbit/s" },
  { name: "rr", title: "request and response", unit: "µs", digits: 1 },
  { name: "crr", title: "connection, request and response", unit: "µs", digits: 1 },
  { name: "upCost", title: "processor time for a GB from inside", unit: "s" },
  { name: "downCost", title: "processor time for a GB to inside", unit: "s" },
  { name: "memory", title: "private memory", unit: "MB", digits: 1 },
];

/**
 * Sets up the contest of penne and its peers.
 *
 * @param mtu The MTU inside.
 * @param delay Milliseconds that a relay between host and peer holds packets for, each way.
 * @returns The contest.
 */
export function openNetwork(mtu: number, delay = 0): Promise<Contest> {
  const workshop = new Workshop();
  const servers = [penneServer(PENNE, workshop.install(PENNE_BINARY, PENNE)), ...OTHERS];
  return openServers(workshop, servers, { mtu, delay, direct: true }, (outcome) => conclude(outcome, mtu));
}

/** Under which conditions servers are measured. */
export interface Conditions {
  /** The MTU inside. */
  readonly mtu: number;
  /** Milliseconds that a relay between host and peer holds packets for, each way. */
  readonly delay: number;
  /** Whether the host itself is measured too. */
  readonly direct: boolean;
  /** Bytes of a transfer of TCP and one of UDP, as iperf3(1) takes them; by default each lasts a second. */
  readonly amounts?: readonly [tcp: string, udp: string];
  /** Rounds that are thrown away; 1 by default. */
  readonly warmUp?: number;
  /** Time limit of one measurement, ms; that of the contest by default. */
  readonly timeLimit?: number;
  /** What goes on while a server is measured; it is disposed of afterwards. */
  readonly meanwhile?: (name: string, network: Network) => AsyncDisposable;
  /** Looks at the entries before the first measurement; returns facts. */
  readonly look?: (entries: readonly Entry[]) => Promise<Record<string, number>>;
}

/** Many short rounds, for a difference of one per cent: some 1.5 s for each contestant. */
export const SHORT = { amounts: ["400M", "40M"], warmUp: 3, timeLimit: 60_000 } as const;

const NOTHING: AsyncDisposable = { [Symbol.asyncDispose]: () => Promise.resolve() };

/**
 * Sets up a contest of any servers.
 *
 * @param workshop Where their programs are; disposed of with the contest.
 * @param servers The servers; the first one is the baseline.
 * @param conditions The conditions.
 * @param conclude Draws the conclusions.
 * @returns The contest.
 */
export async function openServers(
  workshop: Workshop,
  servers: readonly Server[],
  { mtu, delay, direct, amounts, warmUp = 1, timeLimit, meanwhile, look }: Conditions,
  conclude: (outcome: Outcome) => string[],
): Promise<Contest> {
  const rr = await workshop.compile("rr");
  const relay = { where: "outside", delay, jitter: 0, loss: 0, repeat: 0 } as const;
  const network = await makeNetwork(delay > 0 ? { mtu, relay } : { mtu });
  const dispose = async () => {
    await network[Symbol.asyncDispose]();
    workshop[Symbol.dispose]();
  };
  try {
    network.spawn(network.peer, ["iperf3", "-s"]);
    for (let i = 0; i < RR_PORTS; i++) network.spawn(network.peer, [rr, "server", `${RR_PORT + i}`]);
    await network.must(network.host, ["sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65535"]);
    const entries: Entry[] = [];
    if (direct) entries.push({ name: DIRECT, inside: ["ip", "netns", "exec", network.host], pid: null });
    const missing: Contestant[] = [];
    for (const server of servers) {
      try {
        entries.push(await openEntry(network, server, mtu));
      } catch (error) {
        missing.push({
          name: server.name,
          measure: () => {
            throw error;
          },
        });
      }
    }
    let round = 0;
    const facts = await look?.(entries);
    const measure = async (entry: Entry, signal: AbortSignal): Promise<Sample> => {
      await using _ = meanwhile?.(entry.name, network) ?? NOTHING;
      const port = `${RR_PORT + round++ % RR_PORTS}`;
      const [tcp, udp] = (amounts ?? []).map((amount) => ["-n", amount]);
      const up = await iperf(entry, signal, tcp);
      const down = await iperf(entry, signal, ["-R", ...tcp ?? []]);
      const sample: Record<string, number> = { up: up.rate, down: down.rate };
      sample.rr = Number(await inside(entry, [rr, "rr", PEER4, port, "0.2"], signal));
      sample.crr = Number(await inside(entry, [rr, "crr", PEER4, port, "0.2"], signal));
      sample.udp = (await iperf(entry, signal, ["-u", "-b", "0", "-l", "1400", ...udp ?? []])).rate;
      if (entry.pid !== null) {
        Object.assign(sample, { upCost: up.cost, downCost: down.cost, memory: privateMemory(entry.pid) });
      }
      return sample;
    };
    return {
      conditions: [
        `MTU ${mtu} inside, 1500 outside, ${
          2 * delay
        } ms round-trip time, to ${PEER4}; each serves a namespace of ${TEST_USER}, as that user`,
      ],
      metrics: METRICS,
      contestants: [
        ...entries.map((entry) => ({
          name: entry.name,
          measure: (signal: AbortSignal) => measure(entry, signal),
        })),
        ...missing,
      ],
      baseline: servers[0]!.name,
      warmUp,
      ...facts && { facts },
      ...timeLimit && { timeLimit },
      conclude,
      [Symbol.asyncDispose]: dispose,
    };
  } catch (error) {
    await dispose();
    throw error;
  }
}

/** penne against the better of the others, round by round. */
function conclude(outcome: Outcome, mtu: number): string[] {
  const figures = (name: string, metric: string) =>
    outcome.results.find((result) => result.name === name)?.figures[metric] ?? [];
  const ratios = (metric: string, better: (...figures: number[]) => number) =>
    figures(PENNE, metric).flatMap((ours, i) => {
      const theirs = PEERS.map((peer) => figures(peer, metric)[i]).filter((figure) => figure !== undefined);
      return theirs.length > 0 ? [ours / better(...theirs)] : [];
    });
  const goals: [string, string, number, boolean][] = [
    ["up", "TCP from inside", mtu > 9000 ? 1.1 : 4, true],
    ["down", "TCP to inside", mtu > 9000 ? 1.3 : 4, true],
    ["udp", "UDP", 1, true],
    ["rr", "request and response", 1.2, false],
    ["crr", "connection, request and response", 1.2, false],
  ];
  return goals.map(([metric, title, goal, more]) => {
    const summary = summarise(ratios(metric, more ? Math.max : Math.min));
    if (!summary) return `${title}: no peer to compare with`;
    // The worse quartile must meet the goal.
    const quartile = more ? summary.lower : summary.upper;
    const met = more ? quartile >= goal : quartile <= goal;
    return `${title}: ${quartile.toFixed(2)} × the better of the others in three rounds of four (median ${
      summary.median.toFixed(2)
    }), goal ${more ? "≥" : "≤"} ${goal}: ${met ? "met" : "missed"}`;
  });
}
