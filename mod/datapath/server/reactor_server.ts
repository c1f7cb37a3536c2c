// Whoever serves taps: on a reactor of ours.

import { type Datapath, type DatapathOptions, serveTap } from "../datapath.ts";
import { HostResolver } from "../../host/resolver.ts";
import type { NameServer, ResolvConf } from "../../host/resolv_conf.ts";
import type { NetworkPlan } from "../../network/plan.ts";
import type { ReachRequest } from "../../network/reach.ts";
import { decodeLink, getLink } from "../../netlink/link.ts";
import { NetlinkSocket } from "../../netlink/socket.ts";
import { orNull } from "../../../ffi/core/errno.ts";
import { self } from "../../../ffi/core/task.ts";
import type { Reactor } from "../../reactor/reactor.ts";
import type { TapLink } from "../../network/tap_link.ts";

/** Whoever serves taps. */
export interface TapServer extends Disposable {
  /**
   * Serves a tap from now on; the descriptor stays the caller's.
   *
   * @param link The tap.
   * @param plan What its namespace was given.
   * @param onDead Called once when the tap is gone.
   * @returns Ends that.
   */
  serve(link: TapLink, plan: ServedPlan, onDead: () => void): () => void;
}

/** What of a plan the serving needs. */
export type ServedPlan = Pick<NetworkPlan, "outside" | "peerMac">;

/** Milliseconds without a step forward, and in all, for what has been sent to be handed on. */
const PATIENCE = 3000;
const PATIENCE_MAX = 60_000;

/** Index of an interface of the host's, or 0. */
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
  #onWarning: (message: string) => void;
  #datapaths = new Set<Datapath>();
  #onResolver: ((conf: ResolvConf) => void) | undefined;

  /**
   * @param reactor The loop.
   * @param reach What the namespaces reach.
   * @param onWarning Told of what could not be done and is not worth failing for.
   * @param onResolver Told when the host's resolver configuration has changed.
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

  /** The host's name servers: those that were given, or those of /etc/resolv.conf as it is now. */
  #resolvers(): () => readonly { address: Uint8Array; scope: number }[] {
    const { dnsHost } = this.#reach;
    if (dnsHost?.length) {
      const given = dnsHost.map((address) => ({ address, scope: 0 }));
      return () => given;
    }
    const resolver = this.#resolver ??= new HostResolver(this.#reactor, {
      onWarning: this.#onWarning,
      onChange: ({ conf }) => this.#onResolver?.(conf),
    });
    let [from, servers]: [readonly NameServer[], { address: Uint8Array; scope: number }[]] = [[], []];
    return () => {
      const { nameservers } = resolver.conf;
      if (nameservers !== from) {
        from = nameservers;
        servers = nameservers.map(({ address, zone }) => ({ address, scope: interfaceIndex(zone) }));
      }
      return servers;
    };
  }

  serve(link: TapLink, plan: ServedPlan, onDead: () => void): () => void {
    const reach = this.#reach;
    const { outside } = plan;
    const options: DatapathOptions = {
      ...reach.dnsForward?.length && { dnsForward: reach.dnsForward, resolvers: this.#resolvers() },
      ...reach.mapHostLoopback && { mapHostLoopback: reach.mapHostLoopback },
      ...reach.mapGuestAddress && { mapGuestAddress: reach.mapGuestAddress, hostAddress: outside.addresses },
      ...reach.exclude && { exclude: reach.exclude.map(({ address, prefix }) => ({ address, bits: prefix })) },
      ...reach.outbound && { outbound: reach.outbound },
      ...reach.outboundInterfaces?.[4] !== undefined && { outboundInterface4: reach.outboundInterfaces[4] },
      ...reach.outboundInterfaces?.[6] !== undefined && { outboundInterface6: reach.outboundInterfaces[6] },
      mac: plan.peerMac,
      scope: outside.index,
      onDead,
    };
    const datapath: Datapath = serveTap(this.#reactor, link, options);
    this.#datapaths.add(datapath);
    return () => {
      this.#datapaths.delete(datapath);
      datapath.close();
    };
  }

  /**
   * Hands on what was sent before the last process ended: as on any other host, a program may write, close and exit.
   *
   * @param interrupted Asked in between whether to give up.
   */
  drain(interrupted: () => boolean): void {
    const start = performance.now();
    let [steps, last] = [-1, start];
    for (;;) {
      const datapaths = [...this.#datapaths];
      if (datapaths.every(({ unfinished }) => unfinished === 0) || interrupted()) return;
      const now = performance.now();
      const received = datapaths.reduce((sum, { counters }) => sum + counters.received, 0);
      if (received !== steps) [steps, last] = [received, now];
      if (now - last > PATIENCE || now - start > PATIENCE_MAX) return;
      this.#reactor.turn(PATIENCE / 10);
    }
  }

  /** Follows the host's resolver no longer. */
  [Symbol.dispose](): void {
    this.#resolver?.[Symbol.dispose]();
  }
}
