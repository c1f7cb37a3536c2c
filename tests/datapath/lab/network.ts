// A small network for tests: a "peer", a "host" next to it, and guests that only penne connects with the host. penne is the
// compiled program, run by an unprivileged user who owns the guests.

import { assertMatch } from "@std/assert";
import { quick } from "../../../ffi/core/quick.ts";
import { NR } from "../../../ffi/core/syscalls.ts";
import { AF, SOL_SOCKET } from "../../../ffi/net/constants.ts";
import { getOption } from "../../../ffi/net/socket.ts";
import { openPid } from "../../../ffi/sys/process.ts";
import { asUser, penne, ROOT } from "../../lib/helpers.ts";

/** How to make the network. */
export interface Plan {
  /** MTU of the guests' interface. */
  mtu?: number;
  /** Number of guests. */
  guests?: number;
  /** Whether guests have copies of the host's addresses. */
  copy?: boolean;
  /** Further options of `penne attach`. */
  options?: string[];
  /** A directory that penne sees as /etc. */
  etc?: string;
  /**
   * A relay that loses, repeats, reorders and delays packets, between the namespace and penne ("inside") or between the
   * host and the peer ("outside").
   */
  relay?: { where: "inside" | "outside"; delay: number; jitter: number; loss: number; repeat: number };
  /** Limit of open files for penne. */
  files?: number;
  /** Groups that the host allows to have ping sockets; all by default. */
  pingGroups?: string;
  /** Whether penne is run by root. */
  root?: boolean;
  /** What penne has to do without: SO_PEEK_OFF of TCP sockets, as before Linux 6.9, or pipes of a size that is known. */
  without?: "peek offset" | "large pipes" | undefined;
}

/** One family of a guest. */
interface Family {
  address: string;
  prefix: number;
  gateway: string;
}

/** Addresses. */
export const HOST4 = "198.51.100.1";
export const PEER4 = "198.51.100.2";
export const HOST6 = "2001:db8:1::1";
export const PEER6 = "2001:db8:1::2";
export const GUEST4: Family = { address: "10.77.0.2", prefix: 24, gateway: "10.77.0.1" };
export const GUEST6: Family = { address: "fd77::2", prefix: 64, gateway: "fd77::1" };

/** Environment of what runs in the network: Deno must not ask the resolver for its own updates. */
const ENV = { DENO_NO_UPDATE_CHECK: "1" };

/** Option that tells the family of a socket, socket(7). */
const SO_DOMAIN = 39;

let serial = 0;

/** Waits until a condition holds; the seconds only end a test that hangs. */
export async function until(what: string, condition: () => boolean | Promise<boolean>, seconds = 120): Promise<void> {
  const end = Date.now() + seconds * 1000;
  while (!await condition()) {
    if (Date.now() > end) throw new Error(`after ${seconds} s not yet: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Runs a command, which must succeed; returns its standard output. */
export async function must(argv: string[]): Promise<string> {
  const [program, ...args] = argv;
  const { success, stdout, stderr } = await new Deno.Command(program!, { args, stdin: "null" }).output();
  const text = new TextDecoder();
  if (!success) throw new Error(`${argv.join(" ")}: ${text.decode(stderr)}${text.decode(stdout)}`);
  return text.decode(stdout);
}

/** A command line in a namespace. */
export function within(netns: string, argv: string[]): string[] {
  return ["ip", "netns", "exec", netns, ...argv];
}

/** The network; disposing of it kills everything in it. */
export class Network implements AsyncDisposable {
  readonly host: string;
  readonly peer: string;
  readonly guests: string[];
  #children: Deno.ChildProcess[] = [];
  #server: Deno.ChildProcess | undefined;
  #status: ReadableStreamDefaultReader<string> | undefined;
  /** Keeps the guests alive. */
  #keeper: Deno.ChildProcess | undefined;

  constructor(readonly plan: Plan) {
    const prefix = `pdp${Deno.pid}x${serial++}`;
    this.host = `${prefix}h`;
    this.peer = `${prefix}p`;
    this.guests = Array.from({ length: plan.guests ?? 1 }, (_, i) => `${prefix}g${i}`);
  }

  /** The first guest, or the one behind a relay inside. */
  get guest(): string {
    return this.plan.relay?.where === "inside" ? this.#middle : this.guests[0]!;
  }

  /** The namespace in the middle: that of a relay outside, or the guest behind a relay inside. */
  get #middle(): string {
    return `${this.host}m`;
  }

  /** Starts the relay between two interfaces of a namespace. */
  async #relay(netns: string, a: string, b: string): Promise<void> {
    const script = `${ROOT}tests/datapath/lab/relay.ts`;
    const flags = ["run", "-A", "--quiet", "--no-check", "--v8-flags=--single-threaded"];
    const argv = [Deno.execPath(), ...flags, script, a, b, JSON.stringify(this.plan.relay)];
    const child = this.spawn(netns, argv, { stdout: "piped", stderr: "inherit" });
    const reader = child.stdout.getReader();
    await reader.read();
    reader.cancel();
  }

  /** Puts a guest behind a relay, which gets the namespace with the tap. */
  async #behindRelay(): Promise<void> {
    const relay = this.guests[0]!;
    const guest = this.#middle;
    await must(["ip", "netns", "add", guest]);
    await must(["ip", "-n", relay, "link", "add", "in0", "type", "veth", "peer", "name", "eth0", "netns", guest]);
    await this.must(relay, ["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"]);
    await must(["ip", "-n", relay, "link", "set", "in0", "mtu", `${this.plan.mtu ?? 65520}`, "up"]);
    const inside = (...args: string[]) => must(["ip", "-n", guest, ...args]);
    await inside("link", "set", "lo", "up");
    await inside("link", "set", "eth0", "mtu", `${this.plan.mtu ?? 65520}`, "up");
    for (const { address, prefix, gateway } of [GUEST4, GUEST6]) {
      const nodad = address.includes(":") ? ["nodad"] : [];
      await inside("addr", "add", `${address}/${prefix}`, "dev", "eth0", ...nodad);
      await inside("route", "add", "default", "via", gateway, "dev", "eth0");
    }
  }

  /** Makes the guests: network namespaces that the user owns. */
  async #makeGuests(): Promise<void> {
    const one = `unshare --net sh -c 'echo $$; exec sleep 3600' <&- &`;
    const script = `for i in $(seq ${this.guests.length}); do ${one} done; wait`;
    const [program, ...args] = asUser(["unshare", "--user", "--map-root-user", "sh", "-c", script]);
    this.#keeper = new Deno.Command(program!, { args, stdin: "null", stdout: "piped", stderr: "inherit" }).spawn();
    const reader = this.#keeper.stdout.pipeThrough(new TextDecoderStream()).getReader();
    let said = "";
    while (said.split("\n").length <= this.guests.length) {
      const { value, done } = await reader.read();
      if (done) throw new Error("cannot make the guests");
      said += value;
    }
    await reader.cancel();
    const pids = said.trim().split("\n");
    for (const [i, guest] of this.guests.entries()) {
      await must(["ip", "netns", "attach", guest, pids[i]!]);
      await must(["ip", "-n", guest, "link", "set", "lo", "up"]);
    }
  }

  async make(): Promise<void> {
    const { host, peer } = this;
    for (const netns of [host, peer]) await must(["ip", "netns", "add", netns]);
    await this.#makeGuests();
    if (this.plan.relay?.where === "outside") {
      const middle = this.#middle;
      await must(["ip", "netns", "add", middle]);
      await this.must(middle, ["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"]);
      await must(["ip", "-n", host, "link", "add", "veth0", "type", "veth", "peer", "name", "left0", "netns", middle]);
      await must(["ip", "-n", peer, "link", "add", "veth0", "type", "veth", "peer", "name", "right0", "netns", middle]);
      for (const name of ["left0", "right0"]) await must(["ip", "-n", middle, "link", "set", name, "up"]);
    } else {
      await must(["ip", "-n", host, "link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", peer]);
    }
    const ends = [[host, HOST4, HOST6, PEER4, PEER6], [peer, PEER4, PEER6, HOST4, HOST6]] as const;
    for (const [netns, a4, a6, gateway4, gateway6] of ends) {
      await must(["ip", "-n", netns, "link", "set", "lo", "up"]);
      await must(["ip", "-n", netns, "link", "set", "veth0", "up"]);
      await must(["ip", "-n", netns, "addr", "add", `${a4}/24`, "dev", "veth0"]);
      await must(["ip", "-n", netns, "addr", "add", `${a6}/64`, "dev", "veth0", "nodad"]);
      await must(["ip", "-n", netns, "route", "add", "default", "via", gateway4]);
      await must(["ip", "-n", netns, "route", "add", "default", "via", gateway6]);
    }
    await must(within(host, ["sysctl", "-qw", `net.ipv4.ping_group_range=${this.plan.pingGroups ?? "0 2147483647"}`]));
  }

  /** The command line that starts penne. */
  #command(): string[] {
    const { plan } = this;
    const families = plan.copy ? [] : [GUEST4, GUEST6].flatMap(({ address, prefix, gateway }) => [
      ...["--address", `${address}/${prefix}`],
      ...["--gateway", gateway],
    ]);
    const options = ["--status-fd", "1", "--ns-ifname", "tap0", "--mtu", `${plan.mtu ?? 65520}`, ...families];
    if (plan.relay?.where === "inside") options.push("--no-config-net", "--no-ra");
    const argv = [penne(), "attach", ...options, ...plan.options ?? [], ...this.guests];
    const attach = plan.root ? argv : asUser(argv);
    const limited = plan.files === undefined ? attach : ["prlimit", `--nofile=${plan.files}:${plan.files}`, ...attach];
    const script = `mount --bind ${plan.etc} /etc && exec "$@"`;
    const behind = plan.etc === undefined ? limited : ["unshare", "--mount", "sh", "-c", script, "sh", ...limited];
    const forgetful = `${ROOT}tests/datapath/lab/forgetful.ts`;
    const deno = [Deno.execPath(), "run", "-A", "--no-check", "--quiet", forgetful];
    return within(this.host, plan.without ? [...deno, plan.without, ...behind] : behind);
  }

  /** Starts penne on the host. */
  async serve(): Promise<void> {
    const { plan } = this;
    if (plan.relay?.where === "inside") await this.#behindRelay();
    const [program, ...args] = this.#command();
    const child = new Deno.Command(program!, { args, cwd: "/", stdin: "null", stdout: "piped", stderr: "inherit" })
      .spawn();
    this.#server = child;
    this.#status = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    for (let said = ""; !said.includes('"event":"ready"');) {
      const { value, done } = await this.#status.read();
      if (done) throw new Error(`penne has ended: ${said}`);
      said += value;
    }
    // What it loads and opens for that counts neither as a flow nor as growth.
    await until("penne follows the host", () => this.#listens());
    const loop = `${NR.epoll_pwait} `;
    await until("penne waits", () => Deno.readTextFileSync(`/proc/${child.pid}/syscall`).startsWith(loop));
    if (plan.relay?.where === "inside") {
      await must(["ip", "-n", this.guests[0]!, "link", "set", "tap0", "mtu", `${plan.mtu ?? 65520}`, "up"]);
      await this.#relay(this.guests[0]!, "tap0", "in0");
    }
    if (plan.relay?.where === "outside") await this.#relay(this.#middle, "left0", "right0");
  }

  /** Process id of penne. */
  get pid(): number {
    return this.#server!.pid;
  }

  /** The targets of penne's descriptors. */
  #files(): string[] {
    return [...Deno.readDirSync(`/proc/${this.pid}/fd`)].flatMap(({ name }) => {
      try {
        return [Deno.readLinkSync(`/proc/${this.pid}/fd/${name}`)];
      } catch {
        return []; // closed meanwhile
      }
    });
  }

  /** Number of penne's descriptors. */
  get descriptors(): number {
    return this.#files().length;
  }

  /** Whether penne has a socket that rtnetlink(7) tells of changes: it is bound, and so in the table of such sockets. */
  #listens(): boolean {
    const lines = Deno.readTextFileSync(`/proc/${this.pid}/net/netlink`).split("\n");
    const files = this.#files();
    return lines.some((line) => files.includes(`socket:[${line.trim().split(/ +/)[9]}]`));
  }

  /** Families of penne's sockets, AF_*, socket(7). */
  #families(): number[] {
    using pidfd = openPid(this.pid);
    return [...Deno.readDirSync(`/proc/${this.pid}/fd`)].flatMap(({ name }) => {
      const fd = quick(NR.pidfd_getfd, pidfd.number, Number(name), 0, 0, 0, 0);
      if (fd < 0) return []; // closed meanwhile
      const family = getOption(fd, SOL_SOCKET, SO_DOMAIN);
      quick(NR.close, fd, 0, 0, 0, 0, 0);
      return family < 0 ? [] : [family];
    });
  }

  /** Number of flows of all guests: each has a socket of an IP family. */
  get flows(): number {
    return this.#families().filter((family) => family === AF.INET || family === AF.INET6).length;
  }

  /** Memory of penne alone, kB: not that of the program's file, which is private or shared by what else is running. */
  get memory(): number {
    const text = Deno.readTextFileSync(`/proc/${this.pid}/smaps_rollup`);
    return Number(/^Anonymous: +(\d+)/m.exec(text)![1]);
  }

  /** A counter of the first guest's interface. */
  async statistic(name: "tx_packets" | "rx_dropped" | "rx_errors"): Promise<number> {
    return Number(await this.must(this.guests[0]!, ["cat", `/sys/class/net/tap0/statistics/${name}`]));
  }

  /** A TCP counter of the guest, from /proc/net/netstat. */
  async tcpStatistic(name: string): Promise<number> {
    const text = await this.must(this.guest, ["cat", "/proc/net/netstat"]);
    const [names, values] = text.split("\n").filter((line) => line.startsWith("TcpExt:")).map((line) =>
      line.split(" ")
    );
    return Number(values![names!.indexOf(name)]);
  }

  /** Starts a program in a namespace; the network kills it when it is disposed of. */
  spawn(netns: string, argv: string[], options: Deno.CommandOptions = {}): Deno.ChildProcess {
    const [program, ...args] = within(netns, argv);
    const child = new Deno.Command(program!, {
      args,
      stdin: "null",
      stdout: "null",
      stderr: "null",
      env: ENV,
      ...options,
    })
      .spawn();
    this.#children.push(child);
    return child;
  }

  /** Runs a program in a namespace to its end. */
  async run(netns: string, argv: string[], options: Deno.CommandOptions = {}): Promise<
    { code: number; stdout: string; stderr: string }
  > {
    const [program, ...args] = within(netns, argv);
    const { code, stdout, stderr } = await new Deno.Command(program!, { args, stdin: "null", env: ENV, ...options })
      .output();
    const text = new TextDecoder();
    return { code, stdout: text.decode(stdout), stderr: text.decode(stderr) };
  }

  /** Runs a program in a namespace, which must succeed. */
  must(netns: string, argv: string[]): Promise<string> {
    return must(within(netns, argv));
  }

  /** Kills the programs that were started, or one of them. */
  async stop(only?: Deno.ChildProcess): Promise<void> {
    const children = only ? [only] : this.#children;
    this.#children = this.#children.filter((child) => !children.includes(child));
    for (const child of children) {
      try {
        child.kill("SIGKILL");
      } catch {
        // It has exited.
      }
      await child.status;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Kill their children too: all processes in the namespaces.
    const middle = this.plan.relay ? [this.#middle] : [];
    for (const netns of [...middle, ...this.guests, this.peer]) {
      const { stdout } = await new Deno.Command("ip", { args: ["netns", "pids", netns], stderr: "null" }).output();
      for (const pid of new TextDecoder().decode(stdout).split("\n").filter(Boolean)) {
        try {
          Deno.kill(Number(pid), "SIGKILL");
        } catch {
          // It has exited.
        }
      }
    }
    await this.stop();
    try {
      this.#server?.kill("SIGTERM");
    } catch {
      // It has exited.
    }
    await this.#status?.cancel();
    await this.#server?.status;
    await this.#keeper?.status;
    for (const netns of [...middle, ...this.guests, this.peer, this.host]) {
      await new Deno.Command("ip", { args: ["netns", "del", netns], stderr: "null" }).output();
    }
  }
}

/** Makes the network and starts penne in it. */
export async function makeNetwork(plan: Plan = {}): Promise<Network> {
  const network = new Network(plan);
  try {
    await network.make();
    await network.serve();
    return network;
  } catch (error) {
    await network[Symbol.asyncDispose]();
    throw error;
  }
}

/** Waits until programs listen on a port in a namespace, by one socket or more. */
export async function listening(
  network: Network,
  netns: string,
  port: number,
  udp = false,
  sockets = 1,
): Promise<void> {
  await until(`a program listens on ${port}`, async () => {
    const { stdout } = await network.run(netns, ["ss", "-Hln", udp ? "-u" : "-t", `sport = :${port}`]);
    return stdout.split("\n").filter(Boolean).length >= sockets;
  });
}

/** Runs a program until its output matches; what it waits for may be lost, or late on a machine that is loaded. */
export async function runUntil(network: Network, netns: string, argv: string[], wanted: RegExp): Promise<void> {
  let said = "";
  for (let tries = 0; tries < 6; tries++) {
    const { stdout, stderr } = await network.run(netns, argv);
    said = stdout + stderr;
    if (wanted.test(said)) return;
  }
  assertMatch(said, wanted, argv.join(" "));
}
