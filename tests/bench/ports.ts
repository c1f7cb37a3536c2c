// Ports of the host that lead inside, beside pasta: throughput by the interface and from loopback to loopback, connections,
// datagrams, processor time, and a thousand ports.
//
// The servers run in namespaces: two for each contestant, at MTU 65520 and 1500. What comes from the "peer" takes the
// interface, and what comes from the host's loopback does not. socat takes two processes for each connection, which are joined
// by a UNIX socket. "direct" is a server on the host itself, the upper bound.

import { HOST4, makeNetwork, type Network } from "../datapath/lab/network.ts";
import { type Contest, type Metric, type Outcome, type Sample, summarise } from "./harness.ts";
import { asUser, type Entry, findProcess, inside, iperf, openEntry, type Server } from "./network.ts";
import { PENNE_BINARY, Workshop } from "./workshop.ts";

const LOOPBACK = "127.0.0.1";
const MTUS = [65520, 1500] as const;
/** Ports of the servers: of iperf3, of questions and answers, of many connections, and of datagrams. */
const BULK = 5201;
const QUESTIONS = 7000;
const CROWD = 7001;
const FLOOD = 7002;
/** Connections that are open while throughput is measured. pasta takes six descriptors for each: not all hosts have them. */
const OPEN = [3000, 5000] as const;
/** Seconds of each measurement of exchanges, and of datagrams. */
const SECONDS = 0.3;
/** Published ports of which the time to ready and the memory are measured. */
const MANY = [40_000, 40_999] as const;

const PENNE = "penne";
const DEBIAN = "pasta";
const NEWER = "pasta-newer";
const ROUNDS = 7;

/** A process that leads ports inside, and what is added to the servers' ports on the host. */
interface Served {
  readonly pid: number | null;
  readonly shift: number;
}

/** Whether a process has died. */
function isDead({ pid }: Served): boolean {
  try {
    return pid !== null && !Deno.statSync(`/proc/${pid}`).isDirectory;
  } catch {
    return true;
  }
}

/** Somebody who leads ports inside. */
interface Gate {
  readonly name: string;
  /** One for each MTU. */
  readonly served: Served[];
  /** Starts it again, where it has died. */
  readonly reopen: ((mtu: number) => Promise<Served>) | null;
  /** Whether what comes from elsewhere, and datagrams, get in. */
  readonly onlyLocal: boolean;
  /** Its command line for a thousand ports, in the background with a pid file. */
  readonly publish: ((pid: number, pidFile: string) => string[]) | null;
}

const METRICS: readonly Metric[] = [
  { name: "tap65520", title: "TCP to inside by the interface, MTU 65520", unit: "Gbit/s" },
  { name: "tap1500", title: "TCP to inside by the interface, MTU 1500", unit: "Gbit/s" },
  { name: "in", title: "TCP to inside from loopback", unit: "Gbit/s" },
  { name: "out", title: "TCP from inside to loopback", unit: "Gbit/s" },
  ...OPEN.map((count) => ({
    name: `among${count}`,
    title: `TCP to inside from loopback, ${count} other connections open`,
    unit: "Gbit/s",
  })),
  { name: "connections", title: "connections, each with a request and a response", unit: "/s", digits: 0 },
  { name: "rr", title: "request and response", unit: "µs", digits: 1 },
  { name: "udp", title: "UDP to inside from loopback, 1400 bytes", unit: "Gbit/s" },
  { name: "udpTap", title: "UDP to inside by the interface, 1400 bytes", unit: "Gbit/s" },
  { name: "cost", title: "processor time for a GB from loopback", unit: "s" },
  { name: "tapCost", title: "processor time for a GB by the interface, MTU 65520", unit: "s" },
  { name: "ready", title: "1000 published ports: until ready", unit: "ms", digits: 1 },
  { name: "memory", title: "1000 published ports: private memory", unit: "MB", digits: 1 },
];

/** Starts the servers in a namespace. pasta of 2023 answers datagrams from the port inside, which must be that outside. */
function serve(network: Network, programs: Programs, within: readonly string[], shift = 0): void {
  network.spawn(network.host, [...within, "iperf3", "-s", "-p", `${BULK}`]);
  network.spawn(network.host, [...within, programs.rr, "server", `${QUESTIONS}`]);
  network.spawn(network.host, [...within, programs.crowd, "server", `${CROWD}`]);
  network.spawn(network.host, [...within, programs.flood, "server", `${FLOOD + shift}`]);
}

type Programs = Readonly<Record<"rr" | "crowd" | "flood", string>>;

/** Options that lead the servers' ports inside. */
function portOptions(shift: number): string[] {
  const spec = (ports: readonly number[]) => ports.map((port) => `${port + shift}:${port}`).join(",");
  return ["-t", spec([BULK, QUESTIONS, CROWD]), "-u", `${FLOOD + shift}`, "-T", "none", "-U", "none"];
}

/** Leads ports inside by socat. */
async function openSocat(network: Network, programs: Programs, shift: number, directory: string): Promise<Gate> {
  const holder = network.spawn(network.host, [...asUser, "unshare", "-Urn", "sleep", "3600"]);
  await findProcess(holder, "sleep");
  const within = ["nsenter", "-t", `${holder.pid}`, "-U", "-n", "--"];
  const { code } = await network.run(network.host, [...within, "ip", "link", "set", "lo", "up"]);
  if (code !== 0) throw new Error("socat's namespace has no loopback");
  serve(network, programs, within);
  for (const port of [BULK, QUESTIONS]) {
    const path = `${directory}/${port}`;
    network.spawn(network.host, [...within, "socat", `UNIX-LISTEN:${path},fork`, `TCP4:${LOOPBACK}:${port}`]);
    network.spawn(network.host, ["socat", `TCP4-LISTEN:${port + shift},fork,reuseaddr`, `UNIX-CONNECT:${path}`]);
  }
  return { name: "socat", served: [{ pid: null, shift }], reopen: null, onlyLocal: true, publish: null };
}

/** Time until a thousand ports are there, and the memory of who has them. */
async function publish(network: Network, argv: (pid: number, pidFile: string) => string[], directory: string) {
  const holder = network.spawn(network.host, [...asUser, "unshare", "-Urn", "sleep", "3600"]);
  await findProcess(holder, "sleep");
  const pidFile = `${directory}/pid`;
  const start = performance.now();
  const { code, stderr } = await network.run(network.host, [...asUser, ...argv(holder.pid, pidFile)], { cwd: "/" });
  const ready = performance.now() - start;
  if (code !== 0) throw new Error(`1000 ports: ${stderr}`);
  const pid = Number(await Deno.readTextFile(pidFile));
  const text = await Deno.readTextFile(`/proc/${pid}/smaps_rollup`);
  const field = (name: string) => Number(new RegExp(`^${name}: +(\\d+)`, "m").exec(text)![1]);
  const memory = (field("Private_Clean") + field("Private_Dirty")) / 1024;
  Deno.kill(pid, "SIGTERM");
  await network.stop(holder);
  await Deno.remove(pidFile);
  return { ready, memory };
}

/** Opens many connections while something is measured; null if they cannot be opened. */
async function crowded<T>(count: number, argv: readonly string[], body: () => Promise<T>): Promise<T | null> {
  const [program, ...args] = [...argv, `${count}`];
  const crowd = new Deno.Command(program!, { args, stdin: "piped", stdout: "piped", stderr: "null" }).spawn();
  const reader = crowd.stdout.getReader();
  try {
    const { value } = await reader.read();
    return Number(new TextDecoder().decode(value)) === count ? await body() : null;
  } finally {
    reader.cancel();
    await crowd.stdin.close().catch(() => {});
    await crowd.status;
  }
}

/**
 * Sets up the contest.
 *
 * @returns The contest.
 */
export async function openPorts(): Promise<Contest> {
  const workshop = new Workshop();
  const [rr = "", crowd = "", flood = ""] = await Promise.all(
    ["rr", "crowd", "flood"].map((name) => workshop.compile(name)),
  );
  const programs: Programs = { rr, crowd, flood };
  const network = await makeNetwork({ guests: 1 });
  const directory = await Deno.makeTempDir();
  await Deno.chmod(directory, 0o777); // the test user makes sockets and pid files there
  const dispose = async () => {
    await network[Symbol.asyncDispose]();
    workshop[Symbol.dispose]();
    await Deno.remove(directory, { recursive: true });
  };
  try {
    await network.must(network.host, ["sysctl", "-qw", "net.ipv4.ip_local_port_range=45000 65535"]);
    serve(network, programs, []);
    const deaths = new Map<string, number>();
    const gates: Gate[] = [{
      name: "direct",
      served: [{ pid: null, shift: 0 }],
      reopen: null,
      onlyLocal: false,
      publish: null,
    }];
    const penne = workshop.install(PENNE_BINARY, PENNE);
    const contestants = [
      { name: PENNE, comm: PENNE, words: [penne, "pasta"] },
      { name: DEBIAN, comm: "passt", words: ["pasta"] },
      { name: NEWER, comm: "ld-linux", words: [NEWER] }, // by the loader of its own suite
    ];
    for (const [i, { name, comm, words }] of contestants.entries()) {
      const { success } = await new Deno.Command("sh", { args: ["-c", 'command -v "$0"', words[0]!], stdout: "null" })
        .output();
      if (!success) continue;
      const open = async (mtu: number): Promise<Served> => {
        const shift = 10_000 * (i + 1) + (mtu === MTUS[0] ? 0 : 2_500);
        const server: Server = {
          name,
          comm,
          argv: (_, pid) => [...words, "--config-net", "-f", "-m", `${mtu}`, ...portOptions(shift), `${pid}`],
        };
        const entry = await openEntry(network, server, mtu);
        serve(network, programs, entry.inside, shift);
        return { pid: entry.pid, shift };
      };
      const spec = `${MANY[0]}-${MANY[1]}`;
      const rest = ["-u", "none", "-T", "none", "-U", "none"];
      const publish = (
        pid: number,
        pidFile: string,
      ) => [...words, "--config-net", "-q", "-t", spec, ...rest, "-P", pidFile, `${pid}`];
      const served: Served[] = [];
      for (const mtu of MTUS) served.push(await open(mtu));
      gates.push({ name, served, reopen: open, onlyLocal: false, publish });
    }
    gates.push(await openSocat(network, programs, 37_000, directory));
    await new Promise((resolve) => setTimeout(resolve, 1000));

    const from = (netns: string, pid: number | null): Entry => ({
      name: netns,
      inside: ["ip", "netns", "exec", netns],
      pid,
    });
    const measureInto = async (sample: Record<string, number>, gate: Gate, signal: AbortSignal): Promise<void> => {
      const [first, second = first] = gate.served;
      const { pid, shift } = first!;
      const [local, remote] = [from(network.host, pid), from(network.peer, pid)];
      const bulk = (entry: Entry, to: string, at: number, options: string[] = []) =>
        iperf(entry, signal, options, 3, [to, "-p", `${BULK + at}`]);
      const into = await bulk(local, LOOPBACK, shift);
      Object.assign(sample, { in: into.rate, out: (await bulk(local, LOOPBACK, shift, ["-R"])).rate });
      const exchange = async (kind: string) =>
        Number(await inside(local, [rr, kind, LOOPBACK, `${QUESTIONS + shift}`, `${SECONDS}`], signal));
      Object.assign(sample, { rr: await exchange("rr"), connections: 1e6 / await exchange("crr") });
      if (pid !== null) sample.cost = into.cost;
      if (gate.onlyLocal) return;
      const tap = await bulk(remote, HOST4, shift);
      Object.assign(sample, { tap65520: tap.rate });
      if (pid !== null) sample.tapCost = tap.cost;
      sample.tap1500 = (await bulk(from(network.peer, second!.pid), HOST4, second!.shift)).rate;
      const datagrams = async (entry: Entry, to: string) =>
        Number(await inside(entry, [flood, to, `${FLOOD + shift}`, "1400", `${SECONDS}`], signal));
      for (const [name, entry, to] of [["udp", local, LOOPBACK], ["udpTap", remote, HOST4]] as const) {
        const rate = await datagrams(entry, to);
        if (rate > 0) sample[name] = rate;
      }
      const many = [...local.inside, programs.crowd, LOOPBACK, `${CROWD + shift}`];
      for (const count of OPEN) {
        const among = await crowded(count, many, () => bulk(local, LOOPBACK, shift));
        if (among) sample[`among${count}`] = among.rate;
      }
      if (gate.publish) Object.assign(sample, await publish(network, gate.publish, directory));
    };
    const measure = async (gate: Gate, signal: AbortSignal): Promise<Sample> => {
      for (const [i, mtu] of MTUS.entries()) {
        if (gate.reopen && isDead(gate.served[i]!)) gate.served[i] = await gate.reopen(mtu);
      }
      const sample: Record<string, number> = {};
      try {
        await measureInto(sample, gate, signal);
      } catch (error) {
        // A version of pasta that dies in a flood has the figures from before.
        if (!gate.served.some(isDead)) throw error;
        deaths.set(gate.name, (deaths.get(gate.name) ?? 0) + 1);
      }
      return sample;
    };
    return {
      conditions: [
        `from ${LOOPBACK} of the host, or from a peer to ${HOST4}, to servers in namespaces of the test user`,
        `at most ${ROUNDS} rounds`,
      ],
      metrics: METRICS,
      contestants: gates.map((gate) => ({ name: gate.name, measure: (signal) => measure(gate, signal) })),
      baseline: DEBIAN,
      warmUp: 1,
      mostRounds: ROUNDS,
      timeLimit: 30_000,
      conclude: (outcome) => [
        ...conclude(outcome),
        ...[...deaths].map(([name, count]) => `${name} has died in ${count} rounds, and was started again`),
      ],
      [Symbol.asyncDispose]: dispose,
    };
  } catch (error) {
    await dispose();
    throw error;
  }
}

/** What is aimed at, as a ratio to pasta's figure, or null where none is set. */
const GOALS: readonly (readonly [metric: string, goal: number | null, more: boolean])[] = [
  ["tap65520", 1.3, true],
  ["tap1500", 4, true],
  ["in", 1, true],
  ["out", 1, true],
  ...OPEN.map((count) => [`among${count}`, null, true] as const),
  ["connections", 0.8, true],
  ["rr", null, false],
  ["udp", 1, true],
  ["udpTap", 1, true],
  ["cost", null, false],
  ["tapCost", null, false],
  ["ready", null, false],
  ["memory", null, false],
];

/** penne against each pasta, round by round. */
function conclude(outcome: Outcome): string[] {
  const figures = (name: string, metric: string) =>
    outcome.results.find((result) => result.name === name)?.figures[metric] ?? [];
  return GOALS.flatMap(([metric, goal, more]) => {
    const { title } = METRICS.find(({ name }) => name === metric)!;
    return [DEBIAN, NEWER].map((peer) => {
      const theirs = figures(peer, metric);
      const summary = summarise(figures(PENNE, metric).flatMap((ours, i) => theirs[i] ? [ours / theirs[i]] : []));
      if (!summary) return `${title}: nothing of ${peer} to compare with`;
      const { lower, median, upper } = summary;
      const middle = `${median.toFixed(2)} × ${peer} (half of the rounds: ${lower.toFixed(2)} to ${upper.toFixed(2)})`;
      if (goal === null) return `${title}: ${middle}`;
      const met = more ? median >= goal : median <= goal;
      return `${title}: ${middle}, goal ${more ? "≥" : "≤"} ${goal}: ${met ? "met" : "missed"}`;
    });
  });
}
