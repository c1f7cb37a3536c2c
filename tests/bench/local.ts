// Ports of the host that lead inside, reached by the host's loopback: throughput, latency and processor time.
//
// The servers run in the namespaces, and the clients on the host. socat takes two processes for each connection, which are
// joined by a UNIX socket; "direct" is a server on the host itself, the upper bound.

import { makeNetwork, type Network } from "../datapath/lab/network.ts";
import { type Contest, type Metric, type Outcome, type Sample, summarise } from "./harness.ts";
import { asUser, type Entry, findProcess, inside, iperf, openEntry, penneServer } from "./network.ts";
import { PENNE_BINARY, Workshop } from "./workshop.ts";

const ADDRESS = "127.0.0.1";
/** Ports of the servers: of iperf3, and of questions and answers. */
const BULK = 5201;
const QUESTIONS = 7000;
const PASTA = "pasta";

/** Someone who leads ports inside. */
interface Gate {
  /** What runs clients, and the process whose time counts. */
  readonly entry: Entry;
  /** What is added to the servers' ports on the host. */
  readonly shift: number;
}

const METRICS: readonly Metric[] = [
  { name: "in", title: "TCP to inside", unit: "Gbit/s" },
  { name: "out", title: "TCP from inside", unit: "Gbit/s" },
  { name: "udp", title: "UDP to inside, 1400 bytes", unit: "Gbit/s" },
  { name: "rr", title: "request and response", unit: "µs", digits: 1 },
  { name: "crr", title: "connection, request and response", unit: "µs", digits: 1 },
  { name: "cost", title: "processor time for a GB to inside", unit: "s" },
];

/** Options that lead the servers' ports inside. */
function portOptions(shift: number): string[] {
  const spec = `${BULK + shift}:${BULK},${QUESTIONS + shift}:${QUESTIONS}`;
  return ["-t", spec, "-u", spec];
}

/** Starts the servers in a namespace. */
function serve(network: Network, rr: string, within: readonly string[]): void {
  network.spawn(network.host, [...within, "iperf3", "-s", "-p", `${BULK}`]);
  network.spawn(network.host, [...within, rr, "server", `${QUESTIONS}`]);
}

/** Leads ports inside by socat. */
async function openSocat(network: Network, rr: string, shift: number, directory: string): Promise<Gate> {
  const holder = network.spawn(network.host, [...asUser, "unshare", "-Urn", "sleep", "3600"]);
  await findProcess(holder, "sleep");
  const within = ["nsenter", "-t", `${holder.pid}`, "-U", "-n", "--"];
  const { code } = await network.run(network.host, [...within, "ip", "link", "set", "lo", "up"]);
  if (code !== 0) throw new Error("socat's namespace has no loopback");
  serve(network, rr, within);
  for (const port of [BULK, QUESTIONS]) {
    const path = `${directory}/${port}`;
    network.spawn(network.host, [...within, "socat", `UNIX-LISTEN:${path},fork`, `TCP4:${ADDRESS}:${port}`]);
    network.spawn(network.host, ["socat", `TCP4-LISTEN:${port + shift},fork,reuseaddr`, `UNIX-CONNECT:${path}`]);
  }
  return { entry: { name: "socat", inside: ["ip", "netns", "exec", network.host], pid: null }, shift };
}

/**
 * Sets up the contest.
 *
 * @returns The contest.
 */
export async function openLocal(): Promise<Contest> {
  const workshop = new Workshop();
  const rr = await workshop.compile("rr");
  const network = await makeNetwork({ guests: 1 });
  const directory = await Deno.makeTempDir();
  await Deno.chmod(directory, 0o777); // socat makes its UNIX sockets there as the test user
  const dispose = async () => {
    await network[Symbol.asyncDispose]();
    workshop[Symbol.dispose]();
    await Deno.remove(directory, { recursive: true });
  };
  try {
    await network.must(network.host, ["sysctl", "-qw", "net.ipv4.ip_local_port_range=32768 65535"]);
    const client = ["ip", "netns", "exec", network.host];
    const gates: Gate[] = [];
    serve(network, rr, []);
    gates.push({ entry: { name: "direct", inside: client, pid: null }, shift: 0 });
    const penne = penneServer("penne", workshop.install(PENNE_BINARY, "penne"));
    const servers = [
      { ...penne, argv: (mtu: number, pid: number) => [...penne.argv(mtu, pid), ...portOptions(10_000)] },
      {
        name: PASTA,
        comm: "passt",
        argv: (
          _: number,
          pid: number,
        ) => ["pasta", "--config-net", "-f", ...portOptions(20_000), "-T", "none", "-U", "none", `${pid}`],
      },
    ];
    for (const [i, server] of servers.entries()) {
      const entry = await openEntry(network, server, 65520);
      serve(network, rr, entry.inside);
      gates.push({ entry: { ...entry, inside: client }, shift: 10_000 * (i + 1) });
    }
    gates.push(await openSocat(network, rr, 20_500, directory));
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const measure = async ({ entry, shift }: Gate, signal: AbortSignal): Promise<Sample> => {
      const to = [ADDRESS, "-p", `${BULK + shift}`];
      const into = await iperf(entry, signal, [], 3, to);
      const out = await iperf(entry, signal, ["-R"], 3, to);
      const sample: Record<string, number> = { in: into.rate, out: out.rate };
      for (const kind of ["rr", "crr"]) {
        sample[kind] = Number(await inside(entry, [rr, kind, ADDRESS, `${QUESTIONS + shift}`, "0.2"], signal));
      }
      // pasta of 2023 loses iperf3 in a flood of datagrams, and socat has no way for them.
      if (![PASTA, "socat"].includes(entry.name)) {
        sample.udp = (await iperf(entry, signal, ["-u", "-b", "0", "-l", "1400"], 3, to)).rate;
      }
      return entry.pid === null ? sample : { ...sample, cost: into.cost };
    };
    return {
      conditions: [`from ${ADDRESS} of the host, to servers in a namespace of the test user`],
      metrics: METRICS,
      contestants: gates.map((gate) => ({ name: gate.entry.name, measure: (signal) => measure(gate, signal) })),
      baseline: "penne",
      warmUp: 1,
      timeLimit: 20_000,
      conclude,
      [Symbol.asyncDispose]: dispose,
    };
  } catch (error) {
    await dispose();
    throw error;
  }
}

/** penne against pasta, round by round. */
function conclude(outcome: Outcome): string[] {
  const figures = (name: string, metric: string) =>
    outcome.results.find((result) => result.name === name)?.figures[metric] ?? [];
  const goals: [string, string, number, boolean][] = [
    ["in", "TCP to inside", 1, true],
    ["out", "TCP from inside", 1, true],
    ["rr", "request and response", 1.2, false],
    ["crr", "connection, request and response", 1.25, false],
  ];
  return goals.map(([metric, title, goal, more]) => {
    const theirs = figures(PASTA, metric);
    const summary = summarise(figures("penne", metric).flatMap((ours, i) => theirs[i] ? [ours / theirs[i]] : []));
    if (!summary) return `${title}: no peer to compare with`;
    const quartile = more ? summary.lower : summary.upper;
    const met = more ? quartile >= goal : quartile <= goal;
    return `${title}: ${quartile.toFixed(2)} × pasta in three rounds of four (median ${summary.median.toFixed(2)}), ` +
      `goal ${more ? "≥" : "≤"} ${goal}: ${met ? "met" : "missed"}`;
  });
}
