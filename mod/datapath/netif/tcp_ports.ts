// The host's TCP ports that connections of a namespace get: a part of those that the kernel chooses from.
//
// Towards one destination each connection needs a port of its own, until it has ended and often for a minute longer
// (TIME_WAIT). One namespace could take them all, from the host's programs and from other namespaces. So the kernel is told
// which ports a socket may get (IP_LOCAL_PORT_RANGE, Linux 6.3). The last eighth is for the host's programs alone. Of the
// others, three quarters go to any namespace, and the last quarter is divided among the namespaces.

import { orNull } from "../../../ffi/core/errno.ts";
import { self } from "../../../ffi/core/task.ts";
import { IP, IPPROTO } from "../../../ffi/net/constants.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { setOption } from "../../../ffi/net/socket.ts";
import { readText } from "../../../ffi/sys/file.ts";
import { cached } from "./fd_budget.ts";

/** What the kernel has by default. */
const DEFAULT = "32768 60999";
/** The fraction that the host's programs keep, and that of the others which is divided. */
const HOSTS = 1 / 8;
const DIVIDED = 1 / 4;

/** Milliseconds for which a destination counts as one whose ports are all taken, and how many such there may be. */
const FULL = 200;
const FULL_MAX = 64;

/** The first and the last of some ports. */
export type Range = readonly [first: number, last: number];

/**
 * Reads a setting of IPv4, which counts for IPv6 too, ip-sysctl.
 *
 * @param name Its name.
 * @param otherwise The value if it cannot be read.
 */
export function ipSetting(name: string, otherwise: string): string {
  return orNull(() => readText(self, `/proc/sys/net/ipv4/${name}`)) ?? otherwise;
}

/** The ports that the kernel chooses from for programs that ask for any; read again after a second. */
export const portRange: () => Range = cached(() => {
  const [first, last] = ipSetting("ip_local_port_range", DEFAULT).trim().split(/\s+/).map(Number);
  return [first!, last!];
});

const namespaces: TcpPorts[] = [];

/** Where a connection goes. */
type Destination = IpWords & { readonly port: number };

function keyOf({ family, w0, w1, w2, w3, port }: Destination): string {
  return `${family} ${w0} ${w1} ${w2} ${w3} ${port}`;
}

/**
 * The TCP ports of one namespace.
 *
 * @example
 * ```ts
 * import { TcpPorts } from "./tcp_ports.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const range = () => [40000, 40799] as const;
 * using one = new TcpPorts(range);
 * assertEquals(one.parts, [[40000, 40699]]);
 * using other = new TcpPorts(range);
 * assertEquals(one.parts, [[40000, 40524], [40525, 40611]]);
 * assertEquals(other.parts, [[40000, 40524], [40612, 40698]]);
 * ```
 */
export class TcpPorts implements Disposable {
  /** Index of the part where a port was found last. */
  #found = 0;
  /** When the ports towards destinations were found to be all taken, milliseconds. */
  readonly #full = new Map<string, number>();

  /** @param range The ports to take from. */
  constructor(readonly range: () => Range = portRange) {
    namespaces.push(this);
  }

  /** The parts that it may have: that of all namespaces, and that of its own. */
  get parts(): Range[] {
    const [first, last] = this.range();
    const all = Math.floor((last - first + 1) * (1 - HOSTS));
    if (namespaces.length === 1) return [[first, first + Math.max(0, all - 1)]];
    const common = Math.ceil(all * (1 - DIVIDED));
    const own = Math.floor((all - common) / namespaces.length);
    const start = first + common + own * namespaces.indexOf(this);
    const parts: Range[] = [[first, first + Math.max(0, common - 1)]];
    if (own > 0) parts.push([start, start + own - 1]);
    return parts;
  }

  /** Limits the ports that a socket may get; a kernel before Linux 6.3 cannot. */
  limit(s: number): void {
    const { parts } = this;
    const [first, last] = parts[this.#found % parts.length]!;
    setOption(s, IPPROTO.IP, IP.LOCAL_PORT_RANGE, last << 16 | first);
  }

  /**
   * Lets a socket try the other part, as all ports of the first one are taken.
   *
   * @returns Whether there is another one.
   */
  limitOtherwise(s: number): boolean {
    if (this.parts.length < 2) return false;
    this.#found ^= 1;
    this.limit(s);
    return true;
  }

  /**
   * Notes that all ports towards a destination are taken. The kernel looks at each of them to find that out, in the time of
   * other namespaces, so it is not asked again for a moment.
   *
   * @param to The destination.
   * @param now Milliseconds.
   */
  noteFull(to: Destination, now: number): void {
    if (this.#full.size >= FULL_MAX) this.#full.clear();
    this.#full.set(keyOf(to), now);
  }

  /** Whether all ports towards a destination were taken a moment ago. */
  isFull(to: Destination, now: number): boolean {
    if (this.#full.size === 0) return false;
    const at = this.#full.get(keyOf(to));
    if (at === undefined) return false;
    if (now - at < FULL) return true;
    this.#full.delete(keyOf(to));
    return false;
  }

  /** Gives the part back. */
  [Symbol.dispose](): void {
    const place = namespaces.indexOf(this);
    if (place >= 0) namespaces.splice(place, 1);
  }
}
