// Where the flows of a namespace go: what its addresses mean on the host, and what it must not reach.

import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { PROTOCOL } from "../../inet/header.ts";
import {
  embeddedIps,
  inPrefixWords,
  ipWords,
  isGroup,
  isHostOnly,
  isLinkScoped,
  isMulticast,
  sameIp,
  wordsOf,
} from "../../inet/ip_words.ts";
import type { ReachRequest } from "../../network/reach.ts";
import type { Admission } from "./admission.ts";

/** Where a flow goes. */
export interface Destination extends IpWords {
  /** Port. */
  readonly port: number;
  /** Index of the interface for a link-local address, or 0. */
  readonly scope: number;
  /** Address of the host's resolver if the flow goes there, or null. */
  readonly resolver: Uint8Array | null;
}

/** A name server of the host. */
export interface Resolver {
  /** 4 or 16 bytes. */
  readonly address: Uint8Array;
  /** Index of the interface for a link-local address, or 0. */
  readonly scope: number;
}

/** The request, and what it means on this host. Addresses have 4 or 16 bytes. */
export interface RuleOptions
  extends Pick<ReachRequest, "dnsForward" | "mapHostLoopback" | "mapGuestAddress" | "exclude" | "excludeHost"> {
  /** The host's resolvers, called for each flow to one. */
  readonly resolvers?: () => readonly Resolver[];
  /** The host's own addresses, for `mapGuestAddress`. */
  readonly hostAddress?: readonly Uint8Array[];
  /** Index of the host's interface for link-local destinations, or 0. */
  readonly scope?: number;
  /** What the host calls its own. */
  readonly own?: OwnAddresses;
}

/** The host's own addresses, as they are at the moment. */
export interface OwnAddresses {
  /** Whether an address is the host's own. */
  has(address: IpWords): boolean;
  /** Whether an address is the host's own, on its loopback interface. */
  hasOnLoopback(address: IpWords): boolean;
}

/** Milliseconds for which a resolver that has failed is avoided if there is another. */
const RESOLVER_PAUSE = 30_000;
/** Whether an address is in a short list; each new flow asks that several times. */
function isAmong(address: IpWords, list: readonly IpWords[]): boolean {
  for (const one of list) if (sameIp(one, address)) return true;
  return false;
}

const DNS_PORT = 53;
const DNS_TLS_PORT = 853;
/** Of servers. */
const DHCP_PORT = 67;

/** First half of the addresses of a link in IPv4: 169.254. */
const LINK_LOCAL4 = 0xa9fe;

const LOOPBACK4 = ipWords(4, 0, 0, 0xffff, 0x7f000001);
const LOOPBACK6 = ipWords(6, 0, 0, 0, 1);

/** The rules of one namespace. */
export class Rules {
  #dns: readonly IpWords[];
  #loopback: readonly IpWords[];
  readonly #guest: readonly IpWords[];
  #host: readonly IpWords[];
  readonly #exclude: readonly { prefix: IpWords; bits: number }[];
  #resolvers: () => readonly Resolver[];
  readonly #excludeHost: boolean;
  readonly #own: OwnAddresses | undefined;
  /** Index of the host's interface for link-local addresses, or 0. */
  scope: number;
  /** What decides about new flows if there is an allow list, or null. */
  admission: Admission | null = null;
  /** Times of the last failure of resolvers, in milliseconds. */
  readonly #failed = new Map<string, number>();

  /** @param options The request. */
  constructor(options: RuleOptions) {
    const list = (addresses: readonly Uint8Array[] = []) => addresses.map(wordsOf);
    this.#dns = list(options.dnsForward);
    this.#loopback = list(options.mapHostLoopback);
    this.#guest = list(options.mapGuestAddress);
    this.#host = list(options.hostAddress);
    this.#exclude = (options.exclude ?? []).map(({ address, prefix }) => ({ prefix: wordsOf(address), bits: prefix }));
    this.#resolvers = options.resolvers ?? (() => []);
    this.#excludeHost = options.excludeHost ?? false;
    this.#own = options.own;
    this.scope = options.scope ?? 0;
  }

  /** Takes what depends on the host's network as it is now; flows that exist go on. */
  renew(
    { dnsForward = [], mapHostLoopback = [], hostAddress = [], scope = 0, resolvers = () => [] }: RuleOptions,
  ): void {
    this.#dns = dnsForward.map(wordsOf);
    this.#loopback = mapHostLoopback.map(wordsOf);
    this.#host = hostAddress.map(wordsOf);
    this.scope = scope;
    this.#resolvers = resolvers;
  }

  /**
   * Where a flow goes: the one place where this is decided, for each protocol, once for a flow.
   *
   * @param to The destination as the namespace knows it.
   * @param protocol Protocol above IP.
   * @param port Destination port, or 0.
   * @returns The destination on the host, or null if it must not be reached.
   */
  destination(to: IpWords, protocol: number, port: number): Destination | null {
    const ported = protocol === PROTOCOL.TCP || protocol === PROTOCOL.UDP;
    if (ported && (port === DNS_PORT || port === DNS_TLS_PORT) && this.isResolver(to)) {
      if (this.admission !== null) return protocol === PROTOCOL.TCP ? this.#filtered(this.admission, port) : null;
      const resolver = this.resolver(to.family === 4 ? 4 : 16);
      if (!resolver) return null;
      return { ...wordsOf(resolver.address), port, scope: resolver.scope, resolver: resolver.address };
    }
    if (this.admission !== null && !this.admission.admits(to, protocol, port)) return null;
    if (isAmong(to, this.#loopback)) return this.unmapped(to.family === 4 ? LOOPBACK4 : LOOPBACK6, port);
    if (isAmong(to, this.#guest)) {
      const host = this.#host.find(({ family }) => family === to.family);
      return host ? this.unmapped(host, port) : null;
    }
    if (isGroup(to) && (protocol !== PROTOCOL.UDP || !isMulticast(to) && !this.#broadcasts(port))) return null;
    return this.#forbids(to) ? null : this.unmapped(to, port);
  }

  /** Where a connection to the resolver goes whose questions are looked at; null if it may not be: they are encrypted. */
  #filtered(admission: Admission, port: number): Destination | null {
    const stream = port === DNS_PORT ? admission.stream() : -1;
    return stream > 0 ? this.unmapped(LOOPBACK4, stream) : null;
  }

  /** Whether an address inside leads to the host's resolver. */
  isResolver(address: IpWords): boolean {
    return isAmong(address, this.#dns);
  }

  /**
   * Whether a name may stand for an address. It may not for one that means something else inside, nor for the host or a
   * link, whoever controls the name (DNS rebinding).
   *
   * @param address The address.
   */
  mayBeNamed(address: IpWords): boolean {
    const near = (one: IpWords) =>
      isHostOnly(one) || isGroup(one) || isLinkScoped(one) || one.family === 4 && one.w3 >>> 16 === LINK_LOCAL4 ||
      (this.#own?.has(one) ?? false);
    return !this.isMapped(address) && ![address, ...embeddedIps(address)].some(near);
  }

  /**
   * Whether a broadcast may be sent to a port. It reaches the host's programs too, and nothing prevents that. A client of
   * DHCP inside would get an address that is of no use there.
   */
  #broadcasts(port: number): boolean {
    return !this.#excludeHost && port !== DHCP_PORT;
  }

  /** Whether what is sent to a group, or to all on a link, may reach the host's programs too, as members beside others. */
  get reachesHost(): boolean {
    return !this.#excludeHost;
  }

  /** Whether an address is the host's own. */
  isOwn(address: IpWords): boolean {
    return this.#own?.has(address) ?? false;
  }

  /** Whether an address of the network must not be reached: nothing beside the host would reach it, or it is excluded. */
  #forbids(address: IpWords): boolean {
    return isHostOnly(address) || this.#excludes(address) || address.family === 6 &&
        embeddedIps(address).some((inner) => this.#excludes(inner));
  }

  #excludes(address: IpWords): boolean {
    const own = this.#own;
    if (own && (this.#excludeHost ? own.has(address) : own.hasOnLoopback(address))) return true;
    return this.#exclude.some(({ prefix, bits }) => inPrefixWords(address, prefix, bits));
  }

  /**
   * Whether the namespace gets what an address of the network sends without having been asked.
   *
   * @param from The address. One that means something else inside would be taken for that.
   */
  admits(from: IpWords): boolean {
    if (this.isMapped(from)) return false;
    return !isGroup(from) && !this.#forbids(from);
  }

  /** The address inside that stands for the host's loopback; null if there is none of the family. */
  loopbackInside(family: number): IpWords | null {
    return this.#loopback.find((address) => address.family === family) ?? null;
  }

  /** The address inside that stands for the host's own address; null if there is none of the family. */
  hostInside(family: number): IpWords | null {
    return this.#guest.find((address) => address.family === family) ?? null;
  }

  /** Whether an address means something else inside. */
  isMapped(address: IpWords): boolean {
    return isAmong(address, this.#dns) || isAmong(address, this.#loopback) || isAmong(address, this.#guest);
  }

  /**
   * A resolver that has not failed recently, or else the one whose failure is the oldest; undefined if there is none.
   *
   * @param size Bytes of an address of the family that is preferred.
   */
  resolver(size: number): Resolver | undefined {
    const all = this.#resolvers();
    const failedAt = ({ address }: Resolver) => this.#failed.get(address.join(".")) ?? -Infinity;
    const since = performance.now() - RESOLVER_PAUSE;
    const good = all.filter((resolver) => failedAt(resolver) < since);
    // Prefer the same family, although any resolver can answer any question.
    if (good.length > 0) return good.find(({ address }) => address.length === size) ?? good[0];
    return all.toSorted((a, b) => failedAt(a) - failedAt(b))[0];
  }

  /** Records that a resolver is unreachable or does not answer: others are preferred for a while. */
  resolverFailed(address: Uint8Array): void {
    this.#failed.set(address.join("."), performance.now());
  }

  /** The interface of an address that is valid on one link only, or 0. */
  scopeOf(address: IpWords): number {
    return isLinkScoped(address) ? this.scope : 0;
  }

  /** The destination of an address that means the same outside. */
  unmapped(address: IpWords, port: number): Destination {
    const { family, w0, w1, w2, w3 } = address;
    return { family, w0, w1, w2, w3, port, scope: this.scopeOf(address), resolver: null };
  }
}
