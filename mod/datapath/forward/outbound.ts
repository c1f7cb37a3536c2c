// Takes what arrives at ports from the loopback of one side to that of the other: connections and datagrams.

import { E } from "../../../ffi/core/errno.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { type Peer, receiveTo } from "../../../ffi/net/listener.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { PenneError } from "../../base/errors.ts";
import { portError } from "../../forward/open.ts";
import type { OpenPort } from "../../forward/ports.ts";
import type { ChangeFailure } from "../../forward/rule_table.ts";
import { PROTOCOL } from "../../inet/header.ts";
import { ipWords, wordsOf } from "../../inet/ip_words.ts";
import type { Reactor } from "../../reactor/reactor.ts";
import type { OpenSocket } from "../splice/datagrams.ts";
import { isLoopback, loopbackOf, type Splices } from "../splice/splices.ts";
import { PortSet, TURN } from "./port_set.ts";

/** Both sides of ports. */
export interface Sides {
  /** Opens a socket on the side of the ports. */
  readonly near: OpenSocket;
  /** Opens one on the other side. */
  readonly far: OpenSocket;
  /** Whether the ports are inside, and lead to the host. */
  readonly outward: boolean;
  /**
   * Whether what comes to a port may go on; everything may by default.
   *
   * @param to The loopback address that the peer knows, or another that the port leads to.
   * @param protocol PROTOCOL.*.
   * @param port The port.
   * @param from The sender.
   */
  readonly admits?: (to: IpWords, protocol: number, port: number, from: Pick<Peer, "address" | "port">) => boolean;
}

/** Ports on one side, which lead to the other one. */
export class LoopbackPorts extends PortSet {
  readonly #local = ipWords();

  /**
   * @param reactor The loop.
   * @param sides Both sides.
   * @param splices What passes bytes on.
   */
  constructor(reactor: Reactor, readonly sides: Sides, readonly splices: Splices) {
    super(reactor);
  }

  /** The address on the other side that the peer is taken to; null if it is not on loopback. */
  #target({ rule }: OpenPort): IpWords | null {
    const { address } = this.peer;
    if (!isLoopback(address)) return null;
    const target = rule.target ? wordsOf(rule.target) : loopbackOf(address.family);
    return target.family === address.family ? target : null;
  }

  protected override removed(ports: ReadonlySet<OpenPort>): void {
    this.splices.datagrams.endOf(ports);
  }

  /** Whether what comes to a port may go on: to the loopback address that the peer knows, or to another target. */
  #admits({ port, to, rule: { target } }: OpenPort, protocol: number): boolean {
    const { admits } = this.sides;
    if (!admits) return true;
    const { peer } = this;
    return target
      ? admits(wordsOf(target), protocol, to, peer)
      : admits(loopbackOf(peer.address.family), protocol, port, peer);
  }

  protected override connected(port: OpenPort, fd: Fd): boolean {
    const to = this.#target(port);
    const { far, outward } = this.sides;
    return to !== null && this.#admits(port, PROTOCOL.TCP) &&
      this.splices.accept(fd, far, to, port.to, this.peer, outward) !== -E.ESRCH;
  }

  protected override receive(port: OpenPort): void {
    for (let i = 0; i < TURN; i++) {
      const n = receiveTo(port.fd.number, this.peer, this.#local);
      if (n < 0) {
        if (n === -E.EAGAIN) return;
        continue; // an error of an earlier datagram
      }
      const to = this.#target(port);
      if (!to || this.peer.port === 0 || !this.#admits(port, PROTOCOL.UDP)) continue;
      const way = { ...this.sides, from: port, to };
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
  return portError(failure.failed, true);
}
