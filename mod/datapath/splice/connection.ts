// One connection that is passed on: two sockets, and the bytes between them, which stay in the kernel.
//
// Theory of operation. Each direction takes bytes from one socket into a pipe and from there into the other socket. It takes
// some only when the pipe is empty and the other socket has room, so that a slow reader slows its writer down as it would
// without penne, and the pipe is given back as soon as it is empty. The end of a stream is passed on behind its last byte,
// and so is a reset. Both sockets are watched for edges: what is known of them holds until a call says otherwise.

import { E } from "../../../ffi/core/errno.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { atUrgent, probeWhenIdle, resetOnClose, shutdownWrite, unsent } from "../../../ffi/net/socket.ts";
import { type Pipe, splice } from "../../../ffi/net/splice.ts";
import { EPOLL } from "../../../ffi/sys/epoll.ts";
import type { Reactor, Registration } from "../../reactor/reactor.ts";
import { type Counted, END, type FlowFacts } from "../../flows/contract.ts";
import type { Ledger } from "../../flows/ledger.ts";
import { PROTOCOL } from "../../inet/header.ts";
import { copy } from "./copy.ts";
import { type Ends, factsOf } from "./ends.ts";
import { PIPES } from "./pipes.ts";

/** Bytes taken at once, and in one turn of a direction. */
const CHUNK = 1 << 20;
const TURN = 4 << 20;
/** Milliseconds between two looks whether the bytes before a reset have arrived, and for all of them. */
const LINGER_INTERVAL = 50;
const LINGER = 60_000;

/** Seconds between probes of a socket inside that is silent, and how many may stay unanswered. */
const PROBE_INTERVAL = 5;
const PROBES = 127;

/** All events, each reported when it comes. */
const EDGES = EPOLL.IN | EPOLL.PRI | EPOLL.OUT | EPOLL.RDHUP | EPOLL.ET;

/** What its events count as. */
const KIND = "spliced TCP connection";

/** One of the two sockets. */
class End {
  readonly s: number;
  registration: Registration | null = null;
  /** Whether reading, and writing, is worth a try. */
  readable = false;
  writable = false;
  /** Whether the other side has closed its sending half, so that reading is worth a try until the end. */
  closing = false;
  /** Whether an urgent byte has come. */
  urgent = false;
  /** Whether the connection has failed. Reading reports the end of the stream first, and then no error. */
  failed = false;
  /** Whether anything was heard of it but a failure. */
  connected = false;
  /** Whether the connection to it is broken. */
  broken = false;

  constructor(readonly fd: Fd) {
    this.s = fd.number;
  }
}

/** What goes from one socket to the other. */
class Direction {
  pipe: Pipe | null = null;
  /** Bytes in the pipe. */
  held = 0;
  /** Whether nothing more comes, and whether the other socket has been told. */
  ended = false;
  done = false;

  constructor(readonly from: End, readonly to: End) {}

  /** Gives the pipe back. */
  release(): void {
    if (this.pipe) PIPES.giveBack(this.pipe, this.held);
    this.pipe = null;
    this.held = 0;
  }

  /** Drops what is on the way, as nobody can take it any more. */
  abandon(): void {
    this.release();
    this.ended = this.done = true;
  }
}

/** Whoever has connections. */
export interface ConnectionOwner {
  readonly reactor: Reactor;
  /** What counts the bytes. */
  readonly ledger: Ledger;
  /** Called with the number of bytes that have arrived. */
  moved(bytes: number): void;
  /** Called when a connection has ended. */
  ended(connection: SplicedConnection): void;
}

/** A connection that is passed on. */
export class SplicedConnection implements Counted {
  slot = 0;
  readonly #outside: End;
  readonly #inside: End;
  readonly #toInside: Direction;
  readonly #toOutside: Direction;
  #scheduled = false;
  #finishing = false;
  #closed = false;
  /** Whether its socket inside is kept under observation. */
  #observed = false;
  readonly begunAt: number;

  /**
   * @param owner Whoever it belongs to.
   * @param outside The socket on the host; closed here.
   * @param inside The one in the namespace; closed here. Either may still be connecting.
   * @param ends Addresses and ports of both.
   */
  constructor(readonly owner: ConnectionOwner, outside: Fd, inside: Fd, readonly ends: Ends) {
    this.begunAt = owner.reactor.now;
    const [a, b] = [this.#outside = new End(outside), this.#inside = new End(inside)];
    (ends.inward ? a : b).connected = true; // it was accepted
    this.#toInside = new Direction(a, b);
    this.#toOutside = new Direction(b, a);
  }

  /**
   * Begins to pass bytes on.
   *
   * @throws {SysError} If a socket cannot be watched; close it then.
   */
  begin(): void {
    for (const end of [this.#outside, this.#inside]) {
      end.registration = this.owner.reactor.watch(end.fd, EDGES, (events) => this.#onEvents(end, events), KIND);
    }
  }

  get facts(): FlowFacts {
    const [a, b] = [this.#toInside, this.#toOutside];
    const connected = this.#outside.connected && this.#inside.connected;
    const state = a.ended || b.ended || this.#closed ? "closing" : connected ? "open" : "connecting";
    return factsOf(this.ends, PROTOCOL.TCP, state);
  }

  /** Whether bytes from the namespace are on the way or may still come. */
  get unfinished(): boolean {
    return !this.#toOutside.done;
  }

  /**
   * Finds out whether anybody inside is left, as the kernel there says nothing when it forgets a connection: one whose
   * program has ended and whose peer never closes, and one that no program has accepted.
   */
  observe(): void {
    if (this.#observed || this.#closed) return;
    this.#observed = true;
    probeWhenIdle(this.#inside.s, PROBE_INTERVAL, PROBES);
  }

  #onEvents(end: End, events: number): void {
    const failed = (events & (EPOLL.ERR | EPOLL.HUP)) !== 0;
    if (failed || events & EPOLL.RDHUP) end.closing = true;
    // Without an error, it may just have been closed in both directions.
    if (events & EPOLL.ERR) {
      end.failed = true;
      if (!end.connected) this.owner.ledger.how[this.slot] = END.REFUSED;
    }
    end.connected = true;
    if (events & EPOLL.PRI) end.urgent = true;
    if (failed || events & (EPOLL.IN | EPOLL.PRI | EPOLL.RDHUP)) end.readable = true;
    if (failed || events & EPOLL.OUT) end.writable = true;
    // What is read no more does not tell of a reset.
    if (failed && (end === this.#inside ? this.#toOutside : this.#toInside).done) this.#broken(end);
    this.#pass();
  }

  /** Passes on what can be passed on, both ways. */
  readonly #pass = () => {
    if (this.#closed) return;
    this.#scheduled = false;
    const more = [this.#move(this.#toInside), this.#move(this.#toOutside)];
    if (this.#toInside.done && this.#toOutside.done) return this.#finish();
    if (more.includes(true)) this.#again();
  };

  /** Goes on after others had their turn. */
  #again(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.owner.reactor.soon(this.#pass);
  }

  /** Moves bytes in one direction; returns whether there is more to do at once. */
  #move(way: Direction): boolean {
    if (way.done) return false;
    const { from, to } = way;
    let moved = 0;
    for (;;) {
      if (way.held > 0) {
        if (!to.writable) break;
        const n = splice(way.pipe!.reader, to.s, way.held);
        if (n > 0) {
          way.held -= n;
          moved += n;
          continue;
        }
        if (n === -E.EAGAIN) to.writable = false;
        else this.#broken(to);
        break;
      }
      if (way.ended || !from.readable || !to.writable || moved >= TURN) break;
      if (from.urgent || !(way.pipe ??= PIPES.borrow())) {
        moved += this.#copy(way);
        continue;
      }
      const n = splice(from.s, way.pipe.writer, CHUNK);
      if (n > 0) {
        way.held = n;
        // So little cannot have filled the pipe: it was all that there was.
        if (n < way.pipe.slots && !from.closing) from.readable = false;
      } else if (n === -E.EAGAIN) from.readable = false;
      // Before an urgent byte, the end is reported although there are bytes.
      else if (n === 0 && atUrgent(from.s)) from.urgent = true;
      else {
        way.ended = true;
        if (n < 0) this.#broken(from);
      }
    }
    if (moved > 0) {
      const { ledger } = this.owner;
      (way === this.#toInside ? ledger.received : ledger.sent)[this.slot]! += moved;
      this.owner.moved(moved);
    }
    if (way.held > 0) return false;
    way.release();
    if (way.ended && !way.done) {
      way.done = true;
      if (!from.broken) {
        shutdownWrite(to.s);
        // A reset right behind the end of the stream makes no further event.
        if (from.failed) this.#broken(from);
      }
    }
    return !way.done && from.readable && to.writable && moved >= TURN;
  }

  /** Copies what is there in one direction; returns the bytes. */
  #copy(way: Direction): number {
    const { from, to } = way;
    const { read, written, error } = copy(from.s, to.s);
    if (error === -E.EAGAIN) to.writable = false;
    else if (error < 0) this.#broken(to);
    else if (read === -E.EAGAIN) from.readable = false;
    else if (read <= 0) {
      way.ended = true;
      if (read < 0) this.#broken(from);
    }
    return written;
  }

  /** Handles the failure of a socket: nothing goes there any more, and what it had to say is passed on first. */
  #broken(end: End): void {
    end.broken = true;
    const [towards, away] = end === this.#inside
      ? [this.#toInside, this.#toOutside]
      : [this.#toOutside, this.#toInside];
    towards.abandon();
    // Reading tells when all that came before has been read.
    end.readable = end.closing = true;
    if (!away.ended) this.#again();
  }

  /** Closes both sockets. If one was reset, so is the other, when what came before has arrived there. */
  #finish(): void {
    const [a, b] = [this.#outside, this.#inside];
    if (this.#finishing) return;
    this.#finishing = true;
    if (a.broken === b.broken) return this.close();
    const { how } = this.owner.ledger;
    if (how[this.slot] === 0) how[this.slot] = END.RESET;
    const whole = a.broken ? b : a;
    const { reactor } = this.owner;
    const start = reactor.now;
    const look = () => {
      if (this.#closed) return;
      if (unsent(whole.s) > 0 && reactor.now - start < LINGER) return void reactor.after(LINGER_INTERVAL, look);
      resetOnClose(whole.s);
      this.close();
    };
    look();
  }

  /** Ends it at once: both sockets are closed, and reset if bytes are on the way. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const way of [this.#toInside, this.#toOutside]) {
      if (!way.done) resetOnClose(way.to.s);
      way.abandon();
    }
    for (const { registration, fd } of [this.#outside, this.#inside]) {
      registration?.remove();
      fd.close();
    }
    this.owner.ended(this);
  }
}
