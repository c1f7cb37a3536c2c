// Serves taps on a reactor of the program.

import { orNull } from "../../../ffi/core/errno.ts";
import { readText } from "../../../ffi/sys/file.ts";
import { self } from "../../../ffi/core/task.ts";
import type { OnConfined } from "../../confine/agents.ts";
import type { Keeper } from "../../follow/keeper.ts";
import type { PestoSocket } from "../../pesto/server.ts";
import { ControlSockets } from "../../control/sockets.ts";
import { HostAddresses } from "../../host/addresses.ts";
import { HostResolver, RESOLV_CONF } from "../../host/resolver.ts";
import { DEFAULT_SERVER, formatNameServer, type NameServer, needsScope, scopeOf } from "../../host/resolv_conf.ts";
import { inPrefix, parseIp } from "../../inet/ip.ts";
import type { NamespaceRules } from "../../forward/rule_table.ts";
import { wordsOf } from "../../inet/ip_words.ts";
import type { NamespaceId } from "../../namespaces/id.ts";
import { decodeLink, getLink, type Link } from "../../netlink/link.ts";
import { NetlinkSocket } from "../../netlink/socket.ts";
import type { NetworkPlan } from "../../network/plan.ts";
import type { ReachRequest } from "../../network/reach.ts";
import type { TapLink } from "../../network/tap_link.ts";
import type { Reactor } from "../../reactor/reactor.ts";
import type { Agent } from "../../../ffi/agent/agent.ts";
import { type Forwarding, type Hold, NO_PORTS } from "../../forward/ports.ts";
import { Datapath } from "../datapath.ts";
import { LocalPath } from "../local.ts";
import type { FrameWatch } from "../netif/frame_watch.ts";
import { holdInside } from "../splice/inside.ts";
import type { EgressOptions } from "../netif/egress.ts";
import type { Resolver, RuleOptions } from "../netif/rules.ts";
import type { Admitting } from "./admitting.ts";
import { type HostNames, standIns, toldFacts, type ToldPlan } from "./told.ts";

/** Serves taps. */
export interface TapServer extends Disposable {
  /**
   * Serves a namespace from now on.
   *
   * @param link Its tap, whose descriptor the caller continues to own; null if it has none, but something is held there.
   * @param plan What it was given; null without a tap.
   * @param onDead Called once when the tap is gone.
   * @param known What is known of the namespace.
   * @returns A function that stops serving it.
   */
  serve(link: TapLink | null, plan: ServedPlan | null, onDead: () => void, known?: KnownNamespace): () => void;
}

/** What a server may know of a namespace, besides its tap. */
export interface KnownNamespace {
  /** The namespace; it gets a control socket then. */
  readonly netns?: NamespaceId | undefined;
  /** What is held in the namespace for its ports; owned by the server from now on. */
  readonly held?: Held | null;
  /** Its ports, if they are not those that the server was given for the first namespace; owned by the server from now on. */
  readonly ports?: Forwarding;
  /** What it was given, for a server that has the host followed; null if it is not to be. */
  readonly followed?: NetworkPlan | null;
  /** Called with its rules, before anything is forwarded. */
  readonly onRules?: (rules: NamespaceRules) => void;
}

/** An agent in a namespace, and what it keeps open there. */
export interface Held {
  /** The agent. */
  readonly agent: Agent;
  /** What it keeps open. */
  readonly hold: Hold;
}

/** The part of a plan that serving needs. */
export type ServedPlan = ToldPlan & Pick<NetworkPlan, "outside">;

const MAPPED = parseIp("::ffff:0.0.0.0")!;
const LOOPBACK6 = parseIp("::1")!;
/** Milliseconds without progress, and in all, that {@linkcode ReactorServer.drain} takes. */
const PATIENCE = 3000;
const PATIENCE_MAX = 60_000;

function findInterface(which: string | number): Link | null {
  return orNull(() => {
    using socket = new NetlinkSocket(self);
    return decodeLink(socket.get(getLink(which)));
  });
}

/** Index of an interface of the host, or 0. */
function interfaceIndex(which: string | number): number {
  return findInterface(which)?.index ?? 0;
}

function hasInterface(index: number): boolean {
  return interfaceIndex(index) === index;
}

/**
 * The address that a name server is really reached at: an IPv4 address may be written as one of IPv6, `::ffff:192.0.2.1`,
 * and the unspecified address means this machine, whose answers come from its loopback address.
 */
function actual(address: Uint8Array): Uint8Array {
  if (inPrefix(address, MAPPED, 96)) return actual(address.subarray(12));
  if (address.some((byte) => byte !== 0)) return address;
  return address.length === 4 ? DEFAULT_SERVER.address : LOOPBACK6;
}

/** Whether a program listens on the UDP port of DNS. */
function hasNameServer(): boolean {
  return ["udp", "udp6"].some((table) => {
    const text = orNull(() => readText(self, `/proc/thread-self/net/${table}`)) ?? "";
    return /^ *\d+: [0-9A-F]+:0035 /m.test(text);
  });
}

/** What a namespace has at the moment. */
interface Served {
  link: TapLink;
  plan: ServedPlan;
}

/** Serves taps on a reactor. */
export class ReactorServer implements TapServer {
  #reactor: Reactor;
  #reach: ReachRequest;
  #resolver: HostResolver | null = null;
  /** The same file for programs inside that ask for more than the resolver does. */
  #hostNames: HostResolver | null = null;
  #pingWarned = false;
  /** Whether the name servers of --dns-host have been looked at. */
  #checked = false;
  readonly #own = new HostAddresses();
  #onWarning: (message: string) => void;
  #datapaths = new Set<Datapath | LocalPath>();
  /** What is served, by the tap as it was when it began to be. */
  #served = new Map<TapLink, { readonly now: Served; readonly datapath: Datapath }>();
  readonly #control: ControlSockets;
  readonly #pesto: PestoSocket | null;
  #pestoServer: Disposable | null = null;
  /** The agent that has penne's former rights; null while penne has them, and "none" if nobody has them any more. */
  keeper: Keeper["agent"] | "none" | null = null;
  /** Called with the calls that an agent in a namespace may still make; null if it may make any. */
  onConfined: OnConfined | null = () => {};
  /** Who sees the frames of namespaces that are served from now on. */
  frames: FrameWatch | null = null;
  /** What decides about the flows of namespaces that are served from now on, if there is an allow list. */
  admitting: Admitting | null = null;
  /** Ports for the first namespace. */
  #ports: Forwarding;

  /**
   * @param reactor The loop.
   * @param reach What the namespaces reach.
   * @param onWarning Called with problems that are not worth failing for.
   * @param ports Ports of the host that lead to the first namespace that is served; closed with it, or with this.
   * @param pesto The socket by which pesto(1) changes the ports of that namespace; owned by this from now on.
   */
  constructor(
    reactor: Reactor,
    reach: ReachRequest,
    onWarning: (message: string) => void = () => {},
    ports: Forwarding = NO_PORTS,
    pesto: PestoSocket | null = null,
  ) {
    this.#pesto = pesto;
    this.#ports = ports;
    this.#reactor = reactor;
    this.#control = new ControlSockets(reactor);
    const { outboundInterfaces: names = {} } = reach;
    // SO_BINDTODEVICE takes no alternative name that is longer than a name.
    const real = Object.entries(names).map(([version, name]) => [version, findInterface(name)?.name ?? name]);
    this.#reach = { ...reach, outboundInterfaces: Object.fromEntries(real) };
    this.#onWarning = onWarning;
  }

  /**
   * The host's name servers: the requested ones, or the current ones of /etc/resolv.conf.
   *
   * @param link Index of the interface for requested link-local addresses without a zone.
   * @param dnsForward Addresses inside that lead to them.
   */
  #resolvers(link: number, dnsForward: readonly Uint8Array[]): () => readonly Resolver[] {
    const { dnsHost } = this.#reach;
    if (!dnsForward.length) return () => [];
    if (dnsHost?.length) {
      const given = (server: NameServer) => {
        const scope = server.zone === "" && needsScope(server.address) ? link : scopeOf(server, interfaceIndex);
        return { address: actual(server.address), scope };
      };
      if (!this.#checked) dnsHost.forEach((server) => this.#check(server, given(server), "of --dns-host"));
      this.#checked = true;
      return () => dnsHost.map(given);
    }
    const named = (server: NameServer) => ({
      address: actual(server.address),
      scope: scopeOf(server, interfaceIndex),
    });
    if (!this.#resolver) {
      const resolver = this.#resolver = new HostResolver(this.#onWarning);
      for (const server of resolver.nameservers) this.#check(server, named(server), `of ${RESOLV_CONF}`);
      if (resolver.isDefault && !hasNameServer()) {
        this.#onWarning(`${RESOLV_CONF} names no name server, and none listens on this machine: no names are found`);
      }
    }
    const resolver = this.#resolver;
    return () => resolver.nameservers.map(named);
  }

  /** How the host finds names, for programs inside that ask. */
  readonly #names = (): HostNames => {
    const { dnsHost } = this.#reach;
    const { nameservers, search } = this.#hostNames ??= new HostResolver(this.#onWarning);
    const servers = dnsHost?.length ? dnsHost : nameservers;
    return { servers: servers.map(({ address }) => actual(address)), search };
  };

  /** Warns of a name server that cannot be reached for its zone. */
  #check(server: NameServer, { address, scope }: Resolver, of: string): void {
    if (!needsScope(address) || scope && hasInterface(scope)) return;
    const shown = `the name server ${formatNameServer(server)} ${of} cannot be reached`;
    const example = formatNameServer({ address, zone: "eth0" });
    this.#onWarning(
      server.zone
        ? `${shown}: there is no interface "${server.zone}"`
        : `${shown}: an address of a link needs the interface, as in ${example}`,
    );
  }

  /** Warns once. */
  #warnPing(): void {
    if (this.#pingWarned) return;
    this.#pingWarned = true;
    const range = (orNull(() => readText(self, "/proc/sys/net/ipv4/ping_group_range")) ?? "").trim().replace(
      /\s+/,
      " ",
    );
    this.#onWarning(
      `ping does not work inside: net.ipv4.ping_group_range of the host is "${range}", which allows none of penne's groups; ` +
        `as root, run: sysctl net.ipv4.ping_group_range="0 2147483647"`,
    );
  }

  /** What is reached by a gateway that stands for the host's loopback, and which addresses lead to its resolver for that. */
  #loopback({ ipv4, ipv6 }: TapLink) {
    const { mapGateway, mapHostLoopback } = this.#reach;
    const gateways = [ipv4, ipv6].flatMap((family) => family?.gateway ? [family.gateway] : []);
    const reach = { ...this.#reach, mapHostLoopback: mapGateway ? gateways : mapHostLoopback ?? [] };
    return { reach, standing: standIns(reach, reach.mapHostLoopback, this.#names) };
  }

  /** What a namespace reaches, as it depends on its network and the host's. */
  #reached({ link, plan: { outside, families } }: Served): RuleOptions & EgressOptions {
    const { reach, standing } = this.#loopback(link);
    const dnsForward = [...reach.dnsForward ?? [], ...standing];
    const resolvers = this.#resolvers(outside.index, dnsForward);
    return { ...reach, dnsForward, resolvers, hostAddress: outside.addresses, scope: outside.index, sources: families };
  }

  /**
   * Tells what a namespace has from now on; flows that exist go on.
   *
   * @param link The tap, as it was when it began to be served.
   * @param renewed Its network.
   * @param plan What the namespace was given.
   */
  renew(link: TapLink, renewed: TapLink, plan: ServedPlan): void {
    const served = this.#served.get(link);
    if (!served) return;
    [served.now.link, served.now.plan] = [renewed, plan];
    served.datapath.renew(renewed, this.#reached(served.now));
  }

  /** Whether a flow of a tap has an address inside. */
  uses(link: TapLink, address: Uint8Array): boolean {
    return this.#served.get(link)?.datapath.uses(wordsOf(address)) ?? false;
  }

  serve(
    link: TapLink | null,
    plan: ServedPlan | null,
    onDead: () => void,
    { netns, held = null, ports: given, onRules }: KnownNamespace = {},
  ): () => void {
    const inside = held && holdInside(held.agent, held.hold, this.onConfined);
    const path = link && plan ? this.#datapath(link, plan, onDead) : new LocalPath(this.#reactor, inside!);
    this.#datapaths.add(path);
    const ports = given ?? this.#ports;
    if (!given) this.#ports = NO_PORTS;
    onRules?.(path);
    path.forward(ports, inside);
    if (this.#pesto) {
      const tables = { host: path.ports, inside: path.outward };
      this.#pestoServer ??= this.#pesto.serve(this.#reactor, tables, this.#onWarning);
    }
    const silence = netns && this.#control.open(netns, path, path.ledger);
    return () => {
      this.#datapaths.delete(path);
      if (link) this.#served.delete(link);
      path[Symbol.dispose]();
      silence?.(); // who follows its flows has been told of their ends by now
    };
  }

  /** The data path of a tap. */
  #datapath(link: TapLink, plan: ServedPlan, onDead: () => void): Datapath {
    const now: Served = { link, plan };
    const options = {
      ...this.#reached(now),
      router: !plan.configure,
      facts: () => {
        const { reach, standing } = this.#loopback(now.link);
        return toldFacts(now.link, now.plan, reach, standing, this.#names);
      },
      own: this.#own,
      mac: plan.peerMac,
      frames: this.frames,
      ...this.admitting,
      onPingRefused: () => this.#warnPing(),
      keeper: () => {
        // A confined penne that starts an agent is killed.
        if (this.keeper === "none") throw new Error("penne has given up its rights, and no agent has kept them");
        return this.keeper;
      },
      onWarning: this.#onWarning,
    };
    const datapath = new Datapath(this.#reactor, link, options, onDead);
    this.#served.set(link, { now, datapath });
    return datapath;
  }

  /**
   * Passes on what was sent before the last process ended: a program may write, close and exit, as on any host.
   *
   * @param interrupted Called repeatedly; if it returns true, draining stops.
   */
  drain(interrupted: () => boolean): void {
    const start = performance.now();
    let [before, last] = [-1, start];
    for (;;) {
      const datapaths = [...this.#datapaths];
      if (datapaths.every(({ unfinished }) => unfinished === 0) || interrupted()) return;
      const now = performance.now();
      const frames = datapaths.reduce((sum, { received }) => sum + received, 0);
      if (frames !== before) [before, last] = [frames, now];
      if (now - last > PATIENCE || now - start > PATIENCE_MAX) return;
      this.#reactor.turn(PATIENCE / 10);
    }
  }

  /** Stops serving; the taps stay open. */
  [Symbol.dispose](): void {
    this.#pestoServer?.[Symbol.dispose]();
    this.#pesto?.[Symbol.dispose]();
    for (const datapath of this.#datapaths) datapath[Symbol.dispose]();
    this.#control[Symbol.dispose](); // who follows flows has been told of their ends by now
    this.#datapaths.clear();
    for (const port of this.#ports.open) port[Symbol.dispose]();
  }
}
