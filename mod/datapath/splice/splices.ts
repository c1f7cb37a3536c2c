// The connections of one namespace that go from loopback to loopback, without its interface.

import { E } from "../../../ffi/core/errno.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { IPPROTO, SOCK, TCP } from "../../../ffi/net/constants.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { connect, resetOnClose, setOption } from "../../../ffi/net/socket.ts";
import type { Peer } from "../../../ffi/net/listener.ts";
import { type Counted, END } from "../../flows/contract.ts";
import type { Ledger } from "../../flows/ledger.ts";
import { PROTOCOL } from "../../inet/header.ts";
import { ipWords } from "../../inet/ip_words.ts";
import type { Reactor, Timer } from "../../reactor/reactor.ts";
import { FD_BUDGET } from "../netif/fd_budget.ts";
import { type OpenSocket, SplicedDatagrams } from "./datagrams.ts";
import { type ConnectionOwner, SplicedConnection } from "./connection.ts";
import { copyOfPeer, type Ends, factsOf } from "./ends.ts";

const LOOPBACK4 = ipWords(4, 0, 0, 0xffff, 0x7f000001);
const LOOPBACK6 = ipWords(6, 0, 0, 0, 1);

/** Descriptors of a connection. */
const DESCRIPTORS = 2;
/** Milliseconds after which a connection is observed, as most have ended by then. */
const OBSERVED_AFTER = 5000;
/** Bytes below which what has moved may be a question or an answer. */
const SMALL = 1 << 16;

/** The loopback address of a family. */
export function loopbackOf(family: number): IpWords {
  return family === 4 ? LOOPBACK4 : LOOPBACK6;
}

/** Whether an address is one of the loopback interface: 127.0.0.0/8 or ::1. */
export function isLoopback({ family, w0, w1, w2, w3 }: IpWords): boolean {
  return family === 4 ? w3 >>> 24 === 127 : w0 === 0 && w1 === 0 && w2 === 0 && w3 === 1;
}

/** Connections that are passed on. */
export class Splices implements ConnectionOwner, Disposable {
  readonly #connections = new Set<SplicedConnection>();
  #timer: Timer | null = null;
  /** Datagrams that take the same way. */
  readonly datagrams: SplicedDatagrams;
  /** Number of times that bytes have moved. */
  progress = 0;

  /**
   * @param reactor The loop.
   * @param ledger What counts its flows.
   */
  constructor(readonly reactor: Reactor, readonly ledger: Ledger) {
    this.datagrams = new SplicedDatagrams(reactor, ledger);
  }

  /** Number of connections with bytes from the namespace that are still to come or to be passed on. */
  get unfinished(): number {
    let count = 0;
    for (const connection of this.#connections) if (connection.unfinished) count++;
    return count;
  }

  /** Notes that bytes have arrived. */
  moved(bytes: number): void {
    this.progress++;
    if (bytes < SMALL) this.reactor.expectAnswer();
  }

  /** Notes the end of a connection. */
  ended(connection: SplicedConnection): void {
    if (!this.#connections.delete(connection)) return;
    for (let i = 0; i < DESCRIPTORS; i++) FD_BUDGET.countFlow(-1);
    this.ledger.end(connection, this.reactor.now);
  }

  /** Begins to count a connection. */
  #count(counted: Counted, ends: Ends): void {
    const { inward, peer, to, port } = ends;
    this.ledger.begin(counted, PROTOCOL.TCP, inward ? peer.address : to, port, inward, this.reactor.now);
  }

  /**
   * Passes a connection on.
   *
   * @param accepted The connection, which is closed here.
   * @param open Opens a socket on the other side.
   * @param to Address on the other side.
   * @param port Port on the other side.
   * @param peer Who has connected.
   * @param fromInside Whether the connection comes from the namespace.
   * @returns 0, or a negative error number; the connection is reset then, except for -ESRCH: there is no way to the other
   * side any more, and the connection is left alone.
   */
  accept(accepted: Fd, open: OpenSocket, to: IpWords, port: number, peer: Peer, fromInside: boolean): number {
    const ends: Ends = { inward: !fromInside, peer: copyOfPeer(peer), to, port };
    const mayOpen = FD_BUDGET.mayOpen(DESCRIPTORS * this.#connections.size);
    const s = mayOpen ? open(to.family, SOCK.STREAM) : -E.EMFILE;
    if (s === -E.ESRCH) return s;
    if (s < 0) return this.#refuse(accepted, s, ends);
    const fd = new Fd(s);
    // Programs decide what they send together; here nothing waits for more.
    setOption(s, IPPROTO.TCP, TCP.NODELAY, 1);
    setOption(accepted.number, IPPROTO.TCP, TCP.NODELAY, 1);
    const error = connect(s, to, port);
    if (error < 0 && error !== -E.EINPROGRESS) {
      fd.close();
      return this.#refuse(accepted, error, ends);
    }
    const connection = fromInside
      ? new SplicedConnection(this, fd, accepted, ends)
      : new SplicedConnection(this, accepted, fd, ends);
    this.#count(connection, ends);
    this.#connections.add(connection);
    this.#timer ??= this.reactor.after(OBSERVED_AFTER, this.#observe);
    for (let i = 0; i < DESCRIPTORS; i++) FD_BUDGET.countFlow(1);
    try {
      connection.begin();
    } catch {
      connection.close();
      return -E.ENOMEM;
    }
    this.reactor.expectAnswer();
    return 0;
  }

  /** Observes the connections that have become old. */
  readonly #observe = () => {
    const before = this.reactor.now - OBSERVED_AFTER;
    for (const connection of this.#connections) if (connection.begunAt <= before) connection.observe();
    this.#timer = this.#connections.size > 0 ? this.reactor.after(OBSERVED_AFTER, this.#observe) : null;
  };

  #refuse(accepted: Fd, error: number, ends: Ends): number {
    const refused: Counted = { slot: 0, facts: factsOf(ends, PROTOCOL.TCP, "connecting") };
    this.#count(refused, ends);
    this.ledger.how[refused.slot] = error === -E.ECONNREFUSED ? END.REFUSED : END.NO_ROOM;
    this.ledger.end(refused, this.reactor.now);
    resetOnClose(accepted.number);
    accepted.close();
    return error;
  }

  /** Closes everything. */
  [Symbol.dispose](): void {
    this.datagrams[Symbol.dispose]();
    this.#timer?.cancel();
    for (const connection of [...this.#connections]) connection.close();
  }
}
