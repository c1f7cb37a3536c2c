// Serves network namespaces as a program of its own, in the network namespace it is started in: what the tests of the data
// path run. Takes one JSON argument (Request), says "ready", and ends with its standard input.

import { Agent } from "../../ffi/agent.ts";
import { AT_FDCWD, CLONE, O } from "../../ffi/consts.ts";
import { EPOLL } from "../../ffi/epoll.ts";
import { Fd } from "../../ffi/fd.ts";
import { cString } from "../../ffi/memory.ts";
import { open, read, waitChild, write } from "../../ffi/sys.ts";
import { call, out, self } from "../../ffi/task.ts";
import { type Datapath, serveTap } from "../../mod/datapath/serve.ts";
import { parseAddress, type TextOptions, toOptions } from "./options.ts";
import { HostResolver } from "../../mod/host/resolver.ts";
import { Reactor } from "../../mod/reactor/reactor.ts";
import type { FamilyConfig, TapLink } from "../../mod/tap/link.ts";

/** What to serve. */
export interface Request {
  /** Namespaces by their names in /run/netns. */
  guests: string[];
  mtu: number;
  ipv4: TextFamily | null;
  ipv6: TextFamily | null;
  options: TextOptions;
  /** Whether addresses are configured on the tap; not if it is behind a relay. */
  configure: boolean;
}

/** One family of a guest. */
export interface TextFamily {
  address: string;
  prefix: number;
  gateway: string;
}

const TUNSETIFF = 0x400454ca;
const TUNSETOFFLOAD = 0x400454d0;
const SIOCGIFHWADDR = 0x8927;
const IFF = { TAP: 2, NO_PI: 0x1000, VNET_HDR: 0x4000 } as const;
const TUN_F = { CSUM: 1, TSO4: 2, TSO6: 4 } as const;

function family(text: TextFamily | null): FamilyConfig | null {
  return text && { ...text, address: parseAddress(text.address), gateway: parseAddress(text.gateway) };
}

/** Makes a tap in a namespace, with an agent that enters it. */
function makeTap(guest: string): { tap: Fd; mac: Uint8Array } {
  using ns = open(self, `/run/netns/${guest}`, O.RDONLY);
  const agent = Agent.spawn();
  try {
    call(agent, "setns", ns, CLONE.NEWNET);
    const tap = agent.open("openat", AT_FDCWD, cString("/dev/net/tun"), O.RDWR | O.NONBLOCK | O.CLOEXEC);
    const request = new Uint8Array(40);
    request.set(cString("tap0"));
    new DataView(request.buffer).setUint16(16, IFF.TAP | IFF.NO_PI | IFF.VNET_HDR, true);
    call(self, "ioctl", tap, TUNSETIFF, out(request));
    call(self, "ioctl", tap, TUNSETOFFLOAD, TUN_F.CSUM | TUN_F.TSO4 | TUN_F.TSO6);
    call(self, "ioctl", tap, SIOCGIFHWADDR, out(request));
    return { tap, mac: request.slice(18, 24) };
  } finally {
    agent.close();
    waitChild(agent.pid);
  }
}

function ip(...args: string[]): void {
  const { success, stderr } = new Deno.Command("ip", { args }).outputSync();
  if (!success) throw new Error(`ip ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
}

function configure(guest: string, request: Request): void {
  const inside = (...args: string[]) => ip("-n", guest, ...args);
  inside("link", "set", "lo", "up");
  inside("link", "set", "tap0", "mtu", `${request.mtu}`, "txqueuelen", "10000", "up");
  for (const config of request.configure ? [request.ipv4, request.ipv6] : []) {
    if (!config) continue;
    const nodad = config.address.includes(":") ? ["nodad"] : [];
    inside("addr", "add", `${config.address}/${config.prefix}`, "dev", "tap0", ...nodad);
    inside("route", "add", "default", "via", config.gateway, "dev", "tap0");
  }
}

if (import.meta.main) {
  const request: Request = JSON.parse(Deno.args[0]!);
  using reactor = new Reactor();
  const paths: Datapath[] = [];
  const { resolvConf } = request.options;
  const resolver = resolvConf === undefined ? null : new HostResolver(reactor, { path: resolvConf });
  const resolvers = () => (resolver?.conf.nameservers ?? []).map(({ address }) => ({ address, scope: 0 }));
  for (const guest of request.guests) {
    const { tap, mac } = makeTap(guest);
    configure(guest, request);
    const link: TapLink = {
      tap,
      name: "tap0",
      mac,
      mtu: request.mtu,
      ipv4: family(request.ipv4),
      ipv6: family(request.ipv6),
    };
    const options = toOptions(request.options);
    paths.push(
      serveTap(reactor, link, { ...options, resolvers, onDead: () => write(1, new TextEncoder().encode("dead\n")) }),
    );
  }
  write(1, new TextEncoder().encode("ready\n"));
  const input = new Fd(0);
  const buffer = new Uint8Array(64);
  reactor.watch(input, EPOLL.IN, () => {
    if (read(input, buffer) === 0) return reactor.stop();
    // Any line asks for the counters.
    const state = paths.map(({ counters, flows }) => ({ ...counters, open: flows }));
    write(1, new TextEncoder().encode(`${JSON.stringify(state)}\n`));
  });
  reactor.run();
  for (const path of paths) path.close();
}
