// For tests of programs that configure an interface themselves: a host, and namespaces where nothing is configured.

import { penne, sh, until } from "../lib/helpers.ts";
import { type Daemon, must, NetLab } from "../lib/netlab.ts";

/** The interface of the host, and the name of that inside. */
export const DEVICE = "up0";

/** Files of the host: the resolver's configuration. */
const RESOLV_CONF = "nameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch one.example two.example\n";

/**
 * Gives a program a mount namespace with a copy of /etc: what it writes there is in the directory, and nowhere else.
 *
 * @param directory Where the copy is; it is made if it is missing.
 * @param argv The program.
 * @returns The command line.
 */
export function privately(directory: string, argv: string[]): string[] {
  const script = `d=$1; shift
    if [ ! -e "$d/etc" ]; then cp -a /etc "$d/etc" && rm -f "$d/etc/resolv.conf" && : >"$d/etc/resolv.conf" || exit; fi
    mount --bind "$d/etc" /etc && mount -t tmpfs none /run && exec "$@"`;
  return ["unshare", "--mount", "sh", "-c", script, "sh", directory, ...argv];
}

/** Addresses, routes and MTU, without what says where they are from. */
export interface Setup {
  readonly addresses: string[];
  readonly routes: string[];
  readonly mtu: number;
}

/** A host with a network, and namespaces that it serves. */
export class AdviceLab implements AsyncDisposable {
  private constructor(readonly lab: NetLab, readonly directory: string) {}

  static async open(): Promise<AdviceLab> {
    const directory = await Deno.makeTempDir();
    const lab = await NetLab.open();
    lab.defer(() => Deno.remove(directory, { recursive: true }));
    const made = new AdviceLab(lab, directory);
    await lab.usual();
    await lab.ip(lab.host, "route", "add", "10.9.0.0/16", "via", "192.0.2.9");
    await Deno.writeTextFile(`${directory}/resolv.conf`, RESOLV_CONF);
    return made;
  }

  /** A directory for files of one program. */
  async place(): Promise<string> {
    return await Deno.makeTempDir({ dir: this.directory });
  }

  /** Starts penne on the host, which has a resolv.conf of its own, and waits until the namespace has its interface. */
  async serve(netns: string, argv: string[], configured: boolean): Promise<Daemon> {
    const script = `mount --bind "$1" /etc/resolv.conf && shift && exec "$@"`;
    const hosted = ["unshare", "--mount", "sh", "-c", script, "sh", `${this.directory}/resolv.conf`, ...argv];
    const daemon = this.lab.start(this.lab.in(this.lab.host, hosted), { cwd: "/" });
    let over = false;
    daemon.ended.then(() => over = true);
    // One that is configured is ready when penne says so.
    const path = `/sys/class/net/${DEVICE}`;
    let there = false;
    while (!there && !over) {
      there = configured
        ? daemon.output().includes('"event":"ready"')
        : (await sh(["ip", "-n", netns, "link", "show", DEVICE])).code === 0;
      if (!there) await new Promise((resolve) => setTimeout(resolve, 20));
    }
    if (over) throw new Error(`${argv.join(" ")} ended, without ${path}: ${daemon.errors()}`);
    return daemon;
  }

  /** A namespace with an interface that is not configured; options are those of `penne attach`. */
  async blank(options: string[] = []): Promise<string> {
    const netns = await this.lab.netns("blank");
    await this.serve(netns, [penne(), "attach", "--no-config-net", ...options, netns], false);
    return netns;
  }

  /** A namespace that penne has configured. */
  async configured(options: string[] = []): Promise<string> {
    const netns = await this.lab.netns("set");
    await this.serve(netns, [penne(), "attach", "--status-fd", "1", ...options, netns], true);
    return netns;
  }

  /** A namespace with an interface that is not configured; options are those of `penne pasta`. */
  async pasta(options: string[]): Promise<string> {
    const netns = await this.lab.netns("pasta");
    const ports = ["-t", "none", "-u", "none", "-T", "none", "-U", "none"];
    const argv = [penne(), "pasta", "-f", "-q", ...ports, "--netns", `/run/netns/${netns}`, ...options];
    await this.serve(netns, argv, false);
    return netns;
  }

  /** What a namespace has for a family. */
  async setup(netns: string, family: 4 | 6): Promise<Setup> {
    const { lab } = this;
    const [link] = await lab.json(netns, "addr", "show", "dev", DEVICE);
    const infos: { family: string; local: string; prefixlen: number }[] = link?.addr_info ?? [];
    const routes = await lab.json(netns, `-${family}`, "route", "show", "dev", DEVICE);
    return {
      addresses: infos.filter((info) => info.family === (family === 4 ? "inet" : "inet6"))
        .map(({ local, prefixlen }) => `${local}/${prefixlen}`)
        .filter((address) => !address.startsWith("fe80:")).sort(),
      routes: [...new Set<string>(routes.map(({ dst, gateway }) => `${dst} ${gateway ?? ""}`))]
        .filter((route) => !route.startsWith("fe80:") && !route.startsWith("ff00:")).sort(),
      mtu: link?.mtu,
    };
  }

  /** Waits until a namespace has for a family what another one has. */
  async equals(netns: string, other: string, family: 4 | 6): Promise<void> {
    await this.becomes(netns, family, await this.setup(other, family));
  }

  /** Waits until a namespace has something for a family; `called` replaces addresses that nobody can know before. */
  async becomes(netns: string, family: 4 | 6, wanted: Setup, called = (address: string) => address): Promise<void> {
    let found = "";
    const end = performance.now() + 60_000;
    for (;;) {
      const { addresses, ...rest } = await this.setup(netns, family);
      found = JSON.stringify({ addresses: addresses.map(called).sort(), ...rest });
      const text = JSON.stringify({ ...wanted, addresses: wanted.addresses.toSorted() });
      if (found === text) return;
      if (performance.now() > end) throw new Error(`${found} instead of ${text}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** A command line of systemd-networkd in a namespace, with a configuration. */
  networkd(netns: string, place: string, network: string): string[] {
    // Without udev it must not wait for it: a /sys that is read-only says that there is none.
    const script = `mount -t sysfs -o ro none /sys && mkdir -p /run/systemd/network && cd /run/systemd && mkdir netif &&
      mkdir netif/links netif/leases netif/lldp && chown -R systemd-network netif &&
      echo 0123456789abcdef0123456789abcdef >/etc/machine-id && printf '%s' "$1" >network/10.network &&
      exec /usr/lib/systemd/systemd-networkd`;
    return this.lab.in(netns, privately(place, ["sh", "-c", script, "sh", network]));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.lab[Symbol.asyncDispose]();
  }
}

/** Waits until a program has said something so often. */
export async function says(daemon: Daemon, pattern: RegExp, times = 1): Promise<void> {
  const global = new RegExp(pattern, "g");
  const said = () => (daemon.output() + daemon.errors()).match(global)?.length ?? 0;
  await until(`${pattern} ${times} times`, () => said() >= times);
}

/** Brings the interface up, as a program that configures it would. */
export async function bringUp(netns: string): Promise<void> {
  await must(["ip", "-n", netns, "link", "set", DEVICE, "up"]);
}

/** Makes link-local addresses usable at once, and the kernel take advertisements for itself or not. */
export async function prepare(netns: string, accepts: boolean): Promise<void> {
  const conf = `/proc/sys/net/ipv6/conf/${DEVICE}`;
  const script = `echo 0 >${conf}/accept_dad && echo ${accepts ? 1 : 0} >${conf}/accept_ra`;
  await must(["nsenter", `--net=/run/netns/${netns}`, "--", "sh", "-c", script]);
  await bringUp(netns);
  // The address is made when the kernel has seen that the interface has a carrier.
  const end = performance.now() + 60_000;
  let address = "";
  while (!address.includes("fe80:") && performance.now() < end) {
    address = await must(["ip", "-n", netns, "-6", "addr", "show", "dev", DEVICE, "scope", "link", "-tentative"]);
  }
}
