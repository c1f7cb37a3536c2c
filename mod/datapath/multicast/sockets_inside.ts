// Which UDP sockets inside get what is sent to groups: asked by sock_diag(7), of an agent that enters for a moment.

import { Fd } from "../../../ffi/core/fd.ts";
import { SysError } from "../../../ffi/core/errno.ts";
import { AF, IPPROTO, NETLINK } from "../../../ffi/net/constants.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { Entrance } from "../../follow/entrance.ts";
import { ipWords, isGroup, wordsOf } from "../../inet/ip_words.ts";
import { decodeSocket, dumpSockets, SOCKET_STATE } from "../../netlink/inet_diag.ts";
import type { MulticastScene } from "./contract.ts";
import { keyOf } from "./memberships.ts";

/** Where a socket gets datagrams: at a port, to any address of a family or to one group. */
export interface Receiver {
  /** The group; null for all addresses. */
  readonly group: IpWords | null;
  /** 4 or 6; a socket of IPv6 at all addresses may get those of IPv4 too. */
  readonly family: number;
  /** Port. */
  readonly port: number;
}

/** The receiver that a socket is by its address; null if it gets nothing that is sent to groups. */
export function receiverOf(address: Uint8Array, port: number): Receiver | null {
  let words = wordsOf(address);
  const { w0, w1, w2, w3 } = words;
  if (words.family === 6 && w0 === 0 && w1 === 0 && w2 === 0xffff) words = ipWords(4, 0, 0, 0xffff, w3);
  const isAny = words.family === 4 ? words.w3 === 0 : (w0 | w1 | w2 | w3) === 0;
  if (port === 0 || !isAny && !isGroup(words)) return null;
  return { group: isAny ? null : words, family: words.family, port };
}

/** Where the sockets of a namespace get datagrams. */
export class Receivers {
  /** Ports of sockets that are bound to a group, by its words. */
  readonly #bound = new Map<string, Set<number>>();
  /** Ports of sockets that are bound to all addresses of a family; those of IPv6 may get IPv4 too. */
  readonly #any: Readonly<Record<4 | 6, Set<number>>> = { 4: new Set(), 6: new Set() };

  readonly #all: { 4?: readonly number[]; 6?: readonly number[] } = {};

  /** Adds a socket. */
  add({ group, family, port }: Receiver): void {
    if (group === null) this.#any[family === 4 ? 4 : 6].add(port);
    else {
      const key = keyOf(group);
      const known = this.#bound.get(key);
      if (known) known.add(port);
      else this.#bound.set(key, new Set([port]));
    }
  }

  /** The ports of sockets that are bound to a group. */
  boundTo(group: IpWords): Iterable<number> {
    return this.#bound.get(keyOf(group)) ?? [];
  }

  /** The ports of sockets that get a group at any address. */
  atAny({ family }: IpWords): readonly number[] {
    const of = family === 4 ? 4 : 6;
    return this.#all[of] ??= [...new Set([...of === 4 ? this.#any[4] : [], ...this.#any[6]])];
  }

  /** Whether some socket gets what is sent to a group, at a port if one is given. */
  has(group: IpWords, port?: number): boolean {
    const bound = this.#bound.get(keyOf(group));
    if (port === undefined) return bound !== undefined || this.atAny(group).length > 0;
    return bound?.has(port) || this.#any[6].has(port) || group.family === 4 && this.#any[4].has(port);
  }
}

/** Looks at the sockets of one namespace. */
export class SocketsInside implements Disposable {
  readonly #entrance: Entrance;
  readonly #tap: Fd;

  /** @param scene The namespace. */
  constructor({ loop, keeper, tap }: MulticastScene) {
    this.#entrance = new Entrance(loop, keeper);
    this.#tap = Fd.borrow(tap);
  }

  /**
   * Looks.
   *
   * @returns The receivers.
   * @throws {SysError} If the kernel refuses it, and as {@linkcode Entrance.within} does.
   */
  look(): Receivers {
    const found = new Receivers();
    this.#entrance.within(this.#tap, (socket) => {
      for (const family of [AF.INET, AF.INET6]) {
        try {
          // A connected socket hears its peer only.
          for (const answer of socket.dump(dumpSockets(family, IPPROTO.UDP, SOCKET_STATE.CLOSE))) {
            const { address, port } = decodeSocket(answer);
            const receiver = receiverOf(address, port);
            if (receiver) found.add(receiver);
          }
        } catch (error) {
          // A kernel without IPv6 has no such sockets.
          if (family === AF.INET || !(error instanceof SysError)) throw error;
        }
      }
    }, NETLINK.SOCK_DIAG);
    return found;
  }

  /** Reaps agents that have not ended. */
  [Symbol.dispose](): void {
    this.#entrance[Symbol.dispose]();
  }
}
