// Which UDP sockets inside get what is sent to groups: asked by sock_diag(7), of an agent that enters for a moment.

import { Fd } from "../../../ffi/core/fd.ts";
import { SysError } from "../../../ffi/core/errno.ts";
import { AF, IPPROTO, NETLINK } from "../../../ffi/net/constants.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { Entrance } from "../../follow/entrance.ts";
import { ipWords, isGroup, sameIp, wordsOf } from "../../inet/ip_words.ts";
import { decodeSocket, dumpSockets, SOCKET_STATE } from "../../netlink/inet_diag.ts";
import type { MulticastScene } from "./contract.ts";

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

/** Whether a receiver gets what is sent to a group. */
export function hears({ group, family }: Receiver, of: IpWords): boolean {
  return group === null ? family === of.family || family === 6 : sameIp(group, of);
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
  look(): Receiver[] {
    const found: Receiver[] = [];
    this.#entrance.within(this.#tap, (socket) => {
      for (const family of [AF.INET, AF.INET6]) {
        try {
          // A connected socket hears its peer only.
          for (const answer of socket.dump(dumpSockets(family, IPPROTO.UDP, SOCKET_STATE.CLOSE))) {
            const { address, port } = decodeSocket(answer);
            const receiver = receiverOf(address, port);
            if (receiver) found.push(receiver);
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
