// Takes what arrives at ports inside a namespace to the host: connections and datagrams, from loopback to loopback.

import { E, errnoName, errnoText } from "../../../ffi/core/errno.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { receiveTo } from "../../../ffi/net/listener.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { socket } from "../../../ffi/net/socket.ts";
import { PenneError } from "../../base/errors.ts";
import type { OpenPort } from "../../forward/ports.ts";
import type { ChangeFailure } from "../../forward/rule_table.ts";
import { ipWords, wordsOf } from "../../inet/ip_words.ts";
import type { Reactor } from "../../reactor/reactor.ts";
import type { Inside } from "../splice/inside.ts";
import { isLoopback, loopbackOf, type Splices } from "../splice/splices.ts";
import { PortSet, TURN } from "./port_set.ts";

/** The ports of one namespace that lead to the host. */
export class Outbound extends PortSet {
  readonly #local = ipWords();

  /**
   * @param reactor The loop.
   * @param inside What is held in the namespace.
   * @param splices What passes bytes on.
   */
  constructor(reactor: Reactor, readonly inside: Inside, readonly splices: Splices) {
    super(reactor);
  }

  /** The address of the host that the peer is taken to; null if it is none of the namespace's loopback. */
  #target({ rule }: OpenPort): IpWords | null {
    const { address } = this.peer;
    if (!isLoopback(address)) return null;
    const target = rule.target ? wordsOf(rule.target) : loopbackOf(address.family);
    return target.family === address.family ? target : null;
  }

  protected override removed(ports: ReadonlySet<OpenPort>): void {
    this.splices.datagrams.endOf(ports);
  }

  protected override connected(port: OpenPort, fd: Fd): boolean {
    const to = this.#target(port);
    if (to) this.splices.accept(fd, socket, to, port.to, true);
    return to !== null;
  }

  protected override receive(port: OpenPort): void {
    for (let i = 0; i < TURN; i++) {
      const n = receiveTo(port.fd.number, this.peer, this.#local);
      if (n < 0) {
        if (n === -E.EAGAIN) return;
        continue; // an error of an earlier datagram
      }
      const to = this.#target(port);
      if (!to || this.peer.port === 0) continue;
      const way = { near: this.inside.socket, far: socket, from: port, to };
      this.splices.datagrams.deliver(way, this.peer, this.#local, n);
    }
  }
}

/**
 * The error of a port inside that cannot be opened.
 *
 * @param failure Why rules could not be added.
 * @returns The error.
 */
export function outboundError(failure: ChangeFailure): PenneError {
  if (failure.kind !== "port") return new PenneError(`lead ports out: ${failure.kind}`);
  const { rule: { protocol }, port, errno } = failure.failed;
  return new PenneError(`listen on ${protocol} port ${port} inside: ${errnoText(errno)} (${errnoName(errno)})`, {
    hints: errno === E.EADDRINUSE ? ["a program inside has the port"] : [],
  });
}
