// Where a flow from inside goes: the meaning of addresses, and what is not reached at all.

import { E } from "../../../ffi/core/errno.ts";
import { bind, bindPort, bindToDevice, setOption, socket } from "../../../ffi/net/socket.ts";
import { IPPROTO, IPV6, SO, SOCK, SOL_SOCKET } from "../../../ffi/net/constants.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { type Packet, PROTOCOL } from "../../inet/packet.ts";
import type { Flow } from "./flows.ts";

/** Where a flow goes. */
export interface Destination extends IpWords {
  /** Port. */
  port: number;
  /** Index of the interface for a link-local address, or 0. */
  scope: number;
  /** The resolver that it is, or null. */
  resolver: Uint8Array | null;
}

/** An address and the bits of it that count. */
export interface Prefix {
  /** 4 or 16 bytes. */
  readonly address: Uint8Array;
  /** Bits. */
  readonly bits: number;
}

/** A name server of the host's. */
export interface Resolver {
  /** 4 or 16 bytes. */
  readonly address: Uint8Array;
  /** Index of the interface that a link-local address is on, or 0. */
  readonly scope: number;
}

/** What is reached, and how. Addresses are 4 or 16 bytes; each may be given for both families. */
export interface RuleOptions {
  /** Addresses inside whose ports 53 (DNS) and 853 (DNS over TLS) are the host's resolver. */
  readonly dnsForward?: readonly Uint8Array[];
  /** The host's resolvers, asked anew for each flow. */
  readonly resolvers?: () => readonly Resolver[];
  /** Addresses inside that stand for the host's loopback, 127.0.0.1 and ::1; nothing of it is reached otherwise. */
  readonly mapHostLoopback?: readonly Uint8Array[];
  /** Addresses inside that stand for the host's own address (`hostAddress`). */
  readonly mapGuestAddress?: readonly Uint8Array[];
  /** The host's own address, for `mapGuestAddress`. */
  readonly hostAddress?: readonly Uint8Array[];
  /** Destinations that are not reached. */
  readonly exclude?: readonly Prefix[];
  /** Source address of what is sent from the host. */
  readonly outbound?: readonly Uint8Array[];
  /** Interface of the host by which IPv4 leaves. */
  readonly outboundInterface4?: string;
  /** Interface of the host by which IPv6 leaves. */
  readonly outboundInterface6?: string;
  /** Index of the host's interface that link-local destinations are on, or 0. */
  readonly scope?: number;
}

/** Milliseconds for which a resolver that has failed is not asked, if there is another. */
const RESOLVER_PAUSE = 30_000;
const DNS_PORT = 53;
const DNS_TLS_PORT = 853;

/** An address of 4 or 16 bytes as words. */
export function words(address: Uint8Array): IpWords {
  const view = new DataView(address.buffer, address.byteOffset, address.length);
  if (address.length === 4) return { family: 4, w0: 0, w1: 0, w2: 0xffff, w3: view.getInt32(0) };
  return { family: 6, w0: view.getInt32(0), w1: view.getInt32(4), w2: view.getInt32(8), w3: view.getInt32(12) };
}

/** Whether two addresses are the same. */
export function sameWords(a: IpWords, b: IpWords): boolean {
  return a.family === b.family && a.w3 === b.w3 && a.w2 === b.w2 && a.w1 === b.w1 && a.w0 === b.w0;
}

/** Sets an address to another one. */
export function copyWords(to: IpWords, { family, w0, w1, w2, w3 }: IpWords): void {
  to.family = family;
  to.w0 = w0;
  to.w1 = w1;
  to.w2 = w2;
  to.w3 = w3;
}

const LOOPBACK: Readonly<Record<number, IpWords>> = {
  4: { family: 4, w0: 0, w1: 0, w2: 0xffff, w3: 0x7f000001 },
  6: { family: 6, w0: 0, w1: 0, w2: 0, w3: 1 },
};

/**
 * Whether an address means the host itself without having been asked for: its loopback, in any guise, or no address.
 *
 * @param a The address.
 * @returns Whether it does.
 */
export function isHostOnly(a: IpWords): boolean {
  if (a.family === 4) {
    const first = a.w3 >>> 24;
    return first === 127 || first === 0;
  }
  if (a.w0 !== 0 || a.w1 !== 0) return false;
  // ::, ::1, IPv4-compatible and IPv4-mapped addresses; nothing else of ::/64 is ever routed.
  return true;
}

/** Whether an address is that of a group, or of everybody. */
export function isGroup(a: IpWords): boolean {
  return a.family === 4 ? a.w3 >>> 28 === 14 || a.w3 === -1 : a.w0 >>> 24 === 0xff;
}

/** Whether an IPv6 address is link-local: means something on one link alone. */
export function isLinkLocal(a: IpWords): boolean {
  return a.family === 6 && (a.w0 >>> 22 === 0x3fa || (a.w0 >>> 16 & 0xff0f) === 0xff02); // fe80::/10, groups of a link
}

function inPrefix(a: IpWords, { address, bits }: { address: IpWords; bits: number }): boolean {
  if (a.family !== address.family) return false;
  const pairs = a.family === 4
    ? [[a.w3, address.w3]]
    : [[a.w0, address.w0], [a.w1, address.w1], [a.w2, address.w2], [a.w3, address.w3]];
  let left = bits;
  for (const [x, y] of pairs) {
    if (left <= 0) return true;
    const mask = left >= 32 ? -1 : -1 << 32 - left;
    if (((x! ^ y!) & mask) !== 0) return false;
    left -= 32;
  }
  return true;
}

/** Decides for a namespace. */
export class Rules {
  /** Whether TCP sockets remember how far they were peeked at. */
  readonly peekOffset: boolean;
  readonly #dns: IpWords[];
  readonly #loopback: IpWords[];
  readonly #guest: IpWords[];
  readonly #host: IpWords[];
  readonly #exclude: { address: IpWords; bits: number }[];
  readonly #outbound: IpWords[];
  readonly #resolvers: () => readonly Resolver[];
  readonly #device4: string;
  readonly #device6: string;
  readonly #scope: number;
  /** When a resolver has failed last, in milliseconds. */
  readonly #failed = new Map<string, number>();
  readonly #secret = crypto.getRandomValues(new Int32Array(2));

  /** @param options What is reached, and how. */
  constructor(options: RuleOptions) {
    const list = (addresses: readonly Uint8Array[] = []) => addresses.map(words);
    this.#dns = list(options.dnsForward);
    this.#loopback = list(options.mapHostLoopback);
    this.#guest = list(options.mapGuestAddress);
    this.#host = list(options.hostAddress);
    this.#outbound = list(options.outbound);
    this.#exclude = (options.exclude ?? []).map(({ address, bits }) => ({ address: words(address), bits }));
    this.#resolvers = options.resolvers ?? (() => []);
    this.#device4 = options.outboundInterface4 ?? "";
    this.#device6 = options.outboundInterface6 ?? "";
    this.#scope = options.scope ?? 0;
    this.peekOffset = peekOffsetWorks();
  }

  /**
   * Where a packet's flow goes.
   *
   * @param p The packet.
   * @param protocol Its protocol.
   * @param port Its destination port, or 0.
   * @returns Where to, or null if that is not reached.
   */
  target(p: Packet, protocol: number, port: number): Destination | null {
    const to: IpWords = { family: p.family, w0: p.d0, w1: p.d1, w2: p.d2, w3: p.d3 };
    const same = (other: IpWords) => sameWords(to, other);
    const ported = protocol === PROTOCOL.TCP || protocol === PROTOCOL.UDP;
    if (ported && (port === DNS_PORT || port === DNS_TLS_PORT) && this.#dns.some(same)) {
      const resolver = this.#resolver(p.family === 4 ? 4 : 16);
      return resolver ? { ...words(resolver.address), port, scope: resolver.scope, resolver: resolver.address } : null;
    }
    if (this.#loopback.some(same)) return this.#at(LOOPBACK[p.family]!, port);
    if (this.#guest.some(same)) {
      const host = this.#host.find(({ family }) => family === p.family);
      return host ? this.#at(host, port) : null;
    }
    if (isHostOnly(to)) return null;
    // A broadcast would reach the host itself, with the host as its sender.
    if (isGroup(to) && (protocol !== PROTOCOL.UDP || to.family === 4 && to.w3 === -1)) return null;
    if (this.#exclude.some((prefix) => inPrefix(to, prefix))) return null;
    return this.#at(to, port);
  }

  /** A resolver that has not failed lately; the one whose failure is longest ago if all have. */
  #resolver(size: number): Resolver | undefined {
    const all = this.#resolvers();
    const failedAt = ({ address }: Resolver) => this.#failed.get(address.join(".")) ?? -Infinity;
    const since = performance.now() - RESOLVER_PAUSE;
    const good = all.filter((resolver) => failedAt(resolver) < since);
    // One of the same family if there is any; but the family makes no difference to a question.
    if (good.length > 0) return good.find(({ address }) => address.length === size) ?? good[0];
    return all.toSorted((a, b) => failedAt(a) - failedAt(b))[0];
  }

  /** Notes that a resolver is not there, or does not answer: others are asked for a while. */
  resolverFailed(address: Uint8Array): void {
    this.#failed.set(address.join("."), performance.now());
  }

  #at(address: IpWords, port: number): Destination {
    return { ...address, port, scope: isLinkLocal(address) ? this.#scope : 0, resolver: null };
  }

  /**
   * Makes a socket leave the host by the way that was asked for.
   *
   * @param s The socket, not yet connected.
   * @param target Where it will go.
   * @param port Local port to try, or 0.
   * @returns 0, or a negative error number.
   */
  prepare(s: number, target: Destination, port = 0): number {
    if (target.family === 6) setOption(s, IPPROTO.IPV6, IPV6.V6ONLY, 1);
    if (isHostOnly(target)) return 0; // the host's loopback has neither
    const device = target.family === 4 ? this.#device4 : this.#device6;
    if (device !== "") {
      const error = bindToDevice(s, device);
      if (error < 0) return error;
    }
    const from = this.#outbound.find(({ family }) => family === target.family);
    if (port !== 0) {
      if (from && !isLinkLocal(target)) {
        if (bind(s, from, port) === 0) return 0;
      } else if (bindPort(s, target.family, port) === 0) return 0;
    }
    return from && !isLinkLocal(target) ? bind(s, from, 0) : 0;
  }

  /** An initial sequence number that cannot be guessed from others, RFC 9293 section 3.4.1. */
  initialSequence(flow: Flow): number {
    let h = this.#secret[0]! ^ flow.ports;
    h = Math.imul(h ^ h >>> 15 ^ flow.d3, 0x85ebca6b);
    h = Math.imul(h ^ h >>> 13 ^ flow.s3 ^ this.#secret[1]!, 0xc2b2ae35);
    return (h ^ h >>> 16) + Math.trunc(performance.now() * 250) | 0;
  }
}

let peekOffset: boolean | undefined;

/** Whether TCP sockets of both families have SO_PEEK_OFF (Linux 6.9, and 6.11 for IPv6). */
function peekOffsetWorks(): boolean {
  if (peekOffset === undefined) {
    peekOffset = true;
    for (const family of [4, 6]) {
      const s = socket(family, SOCK.STREAM);
      if (s < 0) continue;
      using _fd = new Fd(s);
      if (setOption(s, SOL_SOCKET, SO.PEEK_OFF, 0) < 0) peekOffset = false;
    }
  }
  return peekOffset;
}

/** Error number for what is not reached. */
export const NOT_REACHED = -E.EACCES;
