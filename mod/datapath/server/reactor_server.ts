// Serves taps on a reactor of the program.

import { orNull } from "../../../ffi/core/errno.ts";
import { self } from "../../../ffi/core/task.ts";
import { readText } from "../../../ffi/sys/file.ts";
import { HostAddresses } from "../../host/addresses.ts";
import { HostResolver } from "../../host/resolver.ts";
import type { ResolvConf } from "../../host/resolv_conf.ts";
import { decodeLink, getLink } from "../../netlink/link.ts";
import { NetlinkSocket } from "../../netlink/socket.ts";
import type { NetworkPlan } from "../../network/plan.ts";
import type { ReachRequest } from "../../network/reach.ts";
import type { TapLink } from "../../network/tap_link.ts";
import type { Reactor } from "../../reactor/reactor.ts";
import { Datapath } from "../datapath.ts";
import type { Resolver } from "../netif/rules.ts";

/** Serves taps. */
export interface TapServer extends Disposable {
  /**
   * Serves a tap from now on.
   *
   * @param link The tap, whose descriptor the caller continues to own.
   * @param plan What its namespace was given.
   * @param onDead Called once when the tap is gone.
   * @returns A function that stops serving it.
   */
  serve(link: TapLink, plan: ServedPlan, onDead: () => void): () => void;
}

/** The part of a plan that serving needs. */
export type ServedPlan = Pick<NetworkPlan, "outside" | "peerMac">;

/** Milliseconds without progress, and in all, that {@linkcode ReactorServer.drain} takes. */
const PATIENCE = 3000;
const PATIENCE_MAX = 60_000;

/** Index of an interface of the host, or 0. */
function interfaceIndex(name: string): number {
  if (name === "") return 0;
  return orNull(() => {
    using socket = new NetlinkSocket(self);
    return decodeLink(socket.get(getLink(name))).index;
  }) ?? 0;
}

/** Serves taps on a reactor. */
export class ReactorServer implements TapServer {
  #reactor: Reactor;
  #reach: ReachRequest;
  #resolver: HostResolver | null = null;
  #pingWarned = false;
  readonly #own = new HostAddresses();
  #onWarning: (message: string) => void;
  #datapaths = new Set<Datapath>();
  #onResolver: ((conf: ResolvConf) => void) | undefined;

  /**
   * @param reactor The loop.
   * @param reach What the namespaces reach.
   * @param onWarning Called with problems that are not worth failing for.
   * @param onResolver Called when the host's resolver configuration has changed.
   */
  constructor(
    reactor: Reactor,
    reach: ReachRequest,
    onWarning: (message: string) => void = () => {},
    onResolver?: (conf: ResolvConf) => void,
  ) {
    this.#reactor = reactor;
    this.#reach = reach;
    this.#onWarning = onWarning;
    this.#onResolver = onResolver;
  }

  /** The host's name servers: the requested ones, or the current ones of /etc/resolv.conf. */
  #resolvers(): () => readonly Resolver[] {
    const { dnsForward, dnsHost } = this.#reach;
    if (!dnsForward?.length) return () => [];
    if (dnsHost?.length) {
      const given = dnsHost.map((address) => ({ address, scope: 0 }));
      return () => given;
    }
    const resolver = this.#resolver ??= new HostResolver(this.#reactor, {
      onWarning: this.#onWarning,
      onChange: ({ conf }) => this.#onResolver?.(conf),
    });
    return () => resolver.conf.nameservers.map(({ address, zone }) => ({ address, scope: interfaceIndex(zone) }));
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

  serve(link: TapLink, { outside, peerMac }: ServedPlan, onDead: () => void): () => void {
    const options = {
      ...this.#reach,
      resolvers: this.#resolvers(),
      hostAddress: outside.addresses,
      scope: outside.index,
      own: this.#own,
      mac: peerMac,
      onPingRefused: () => this.#warnPing(),
    };
    const datapath = new Datapath(this.#reactor, link, options, onDead);
    this.#datapaths.add(datapath);
    return () => {
      this.#datapaths.delete(datapath);
      datapath[Symbol.dispose]();
    };
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

  /** Stops watching the host's resolver configuration. */
  [Symbol.dispose](): void {
    this.#resolver?.[Symbol.dispose]();
  }
}
