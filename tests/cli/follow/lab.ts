// A host whose network changes under a running penne, and what is inside meanwhile.

import { AT_ONCE } from "../../lib/end.ts";
import { asUser, penne, until } from "../../lib/helpers.ts";
import { becomes, type Daemon, must, NetLab } from "../../lib/netlab.ts";
import { processes } from "../../lib/processes.ts";

/** Programs that the tests of following need. */
export const NEEDS = [
  "root",
  "user",
  "user namespaces",
  "tun",
  "package:iproute2",
  "package:util-linux",
  "package:socat",
] as const;

/**
 * Milliseconds in which the inside must equal the host. penne needs less than 200: it waits 30 for the rest of a burst, or
 * 100 since it looked the last time. A machine that is busy with other tests may need any number of times that.
 */
const LATE = AT_ONCE;

/** Interfaces of the host that the families of a namespace are copied from; null for none. */
export type Templates = { readonly 4: string | null; readonly 6: string | null };

/** A served namespace. */
export interface Served {
  /** penne. */
  readonly daemon: Daemon;
  /** A process in the namespace. */
  readonly pid: number;
}

function program(script: string, asRoot: boolean): string[] {
  const argv = ["sh", "-c", script, penne()];
  return asRoot ? argv : asUser(argv);
}

/** A host and a peer. */
export class FollowLab {
  /** What makes a command line one of a process that has its own /etc; empty at first. */
  #etc: string[] = [];

  private constructor(readonly lab: NetLab) {}

  /** Makes them; without addresses and routes if the host is offline. */
  static async open(online: boolean = true): Promise<FollowLab> {
    const lab = await NetLab.open();
    try {
      await lab.ip(lab.host, "link", "set", "up0", "addrgenmode", "none");
      if (online) await lab.usual();
      return new FollowLab(lab);
    } catch (error) {
      await lab[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Changes the host. */
  async host(...lines: string[]): Promise<void> {
    for (const line of lines) await this.lab.ip(this.lab.host, ...line.split(" "));
  }

  /** Makes a second network of the host, with 10.3.0.2 there and 10.3.0.1 at the peer. The inside has nothing of it. */
  async secondNetwork(): Promise<void> {
    const { lab } = this;
    await lab.ip(lab.host, "link", "add", "eth1", "type", "veth", "peer", "name", "eth2", "netns", lab.peer);
    for (const [netns, device, address] of [[lab.host, "eth1", "10.3.0.2"], [lab.peer, "eth2", "10.3.0.1"]] as const) {
      await lab.ip(netns, "link", "set", device, "up");
      await lab.ip(netns, "addr", "add", `${address}/24`, "dev", device);
    }
  }

  /** Gives what is started from now on an /etc of its own, above the real one; it is changed by shell commands. */
  async ownEtc(): Promise<(commands: string) => Promise<void>> {
    const script = `set -e; mount -t tmpfs none /mnt; mkdir /mnt/u /mnt/w
      mount -t overlay none -o lowerdir=/etc,upperdir=/mnt/u,workdir=/mnt/w /etc; exec sleep 1000`;
    const holder = this.lab.start(["unshare", "--mount", "sh", "-c", script], { cwd: "/" });
    await becomes(holder, "sleep");
    this.#etc = ["nsenter", `--mount=/proc/${holder.child.pid}/ns/mnt`, "--"];
    return async (commands) => void await must([...this.#etc, "sh", "-ec", commands], { cwd: "/" });
  }

  #onHost(argv: string[]): Daemon {
    return this.lab.start(this.lab.in(this.lab.host, [...this.#etc, ...argv]), { cwd: "/" });
  }

  /** Starts `penne run` on the host. */
  async run(asRoot: boolean, ...options: string[]): Promise<Served> {
    const script = `exec "$0" run --status-fd 1 --log-level info ${options.join(" ")} -- sleep 1000`;
    const daemon = this.#onHost(program(script, asRoot));
    await ready(daemon);
    return { daemon, pid: Number(/"child":(\d+)/.exec(daemon.output())![1]) };
  }

  /** Starts a process in a namespace of its own; returns its pid. */
  async #hold(asRoot: boolean): Promise<number> {
    const argv = ["unshare", ...asRoot ? [] : ["--user", "--map-root-user"], "--net", "sleep", "1000"];
    const holder = this.lab.start(asRoot ? argv : asUser(argv), { cwd: "/" });
    await becomes(holder, "sleep");
    return holder.child.pid;
  }

  /** Starts penne on the host as pasta(1) is started, with a process or a command. */
  async pasta(asRoot: boolean, how: "pid" | "command", ...options: string[]): Promise<Served> {
    const own = `1000.${crypto.getRandomValues(new Uint32Array(1))[0]}`;
    const holder = how === "pid" ? await this.#hold(asRoot) : null;
    const target = how === "pid" ? ["--foreground", `${holder}`] : ["sleep", own];
    const none = ["-t", "none", "-u", "none", "-T", "none", "-U", "none"];
    const argv = [penne(), "pasta", "--config-net", "--quiet", ...none, ...options, ...target];
    const daemon = this.#onHost(asRoot ? argv : asUser(argv));
    const sleeping = () => processes().find(({ cmdline }) => cmdline.join(" ") === `sleep ${own}`)?.pid;
    if (holder === null) await until("the command runs", () => sleeping() !== undefined);
    const pid = holder ?? sleeping()!;
    await until(
      "it has an interface that is up",
      () => Deno.readTextFileSync(`/proc/${pid}/net/route`).includes("00000000"),
    );
    return { daemon, pid };
  }

  /** Starts `penne attach` on the host, to the namespace of a new process. */
  async attach(asRoot: boolean, how: "pid" | "fd", ...options: string[]): Promise<Served> {
    const pid = await this.#hold(asRoot);
    const target = how === "pid" ? `${pid}` : "fd:9";
    const open = how === "pid" ? "" : `exec 9</proc/${pid}/ns/net;`;
    const script = `${open} exec "$0" attach --status-fd 1 --log-level info ${options.join(" ")} ${target}`;
    const daemon = this.#onHost(program(script, asRoot));
    await ready(daemon);
    return { daemon, pid };
  }

  /** A command line that runs in a served namespace. */
  inside({ pid }: Served, argv: string[]): string[] {
    return ["nsenter", `--net=/proc/${pid}/ns/net`, "--", ...argv];
  }

  /** Addresses and routes of one family on an interface. */
  async picture(where: string[], family: 4 | 6, device: string): Promise<string[]> {
    const ip = async (...args: string[]) =>
      JSON.parse(await must([...where, "ip", `-${family}`, "-j", ...args]) || "[]");
    const links = await ip("addr", "show", "dev", device);
    const addresses = links.flatMap(({ addr_info = [] }) => addr_info)
      .filter(({ scope }: { scope: string }) => scope === "global")
      .map((one: Record<string, unknown>) => `${one["local"]}/${one["prefixlen"]}`);
    const routes = (await ip("route", "show", "dev", device))
      .filter(({ dst }: { dst: string }) => !dst.startsWith("fe80:") && !dst.startsWith("ff00:"))
      .map(({ dst, gateway, metric, metrics, prefsrc }: Record<string, string>) =>
        JSON.stringify({ dst, gateway, metric, ...metrics?.length && { metrics }, prefsrc })
      );
    return [...addresses, ...routes].sort();
  }

  /** Waits until the inside equals the host; returns how long that took, in milliseconds. */
  async equal(served: Served, templates: Templates = { 4: "up0", 6: "up0" }): Promise<number> {
    const start = performance.now();
    for (;;) {
      const differences = await this.differences(served, templates);
      const elapsed = performance.now() - start;
      if (differences.length === 0) return elapsed;
      if (elapsed > LATE) {
        throw new Error(`the inside differs from the host: ${differences.join("; ")}\n${served.daemon.errors()}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  /** What differs inside from the host at this moment. */
  async differences(served: Served, templates: Templates): Promise<string[]> {
    const name = await this.name(served);
    const found: string[] = [];
    for (const family of [4, 6] as const) {
      const inside = await this.picture(this.inside(served, []), family, name);
      const device = templates[family];
      const wanted = device ? await this.picture(this.lab.in(this.lab.host, []), family, device) : LOCAL[family];
      if (inside.join("\n") !== wanted.join("\n")) found.push(`${inside.join(", ")} instead of ${wanted.join(", ")}`);
    }
    return found;
  }

  /** Name of the interface inside. */
  async name({ pid }: Served): Promise<string> {
    const links = JSON.parse(await must(["nsenter", `--net=/proc/${pid}/ns/net`, "--", "ip", "-j", "link"]));
    return links.map(({ ifname }: { ifname: string }) => ifname).find((name: string) => name !== "lo");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.lab[Symbol.asyncDispose]();
  }
}

/** What a family has inside without a network. */
const LOCAL = {
  4: [
    "169.254.2.1/16",
    JSON.stringify({ dst: "169.254.0.0/16", prefsrc: "169.254.2.1" }),
    JSON.stringify({ dst: "default", gateway: "169.254.2.2" }),
  ].sort(),
  6: [JSON.stringify({ dst: "default", gateway: "fe80::1", metric: 1024 })],
};

async function ready(daemon: Daemon): Promise<void> {
  let over = false;
  daemon.ended.then(() => over = true);
  await until("penne is ready", () => over || daemon.output().includes('"event":"ready"'));
  if (over) throw new Error(`penne ended: ${daemon.errors()}`);
}
