// The ledger of a namespace: bytes of each flow while it lasts, and what was reached for good.
//
// Counting is for everybody, whether somebody asks or not, so it costs an addition: a flow has a slot, and its bytes are in
// arrays of numbers at that index. Slot 0 belongs to no flow, and takes what is counted for none.

import type { IpWords } from "../../ffi/net/sockaddr.ts";
import { PROTOCOL } from "../inet/header.ts";
import { type Counted, END, type FlowNames, type FlowObserver } from "./contract.ts";
import { type Total, Totals } from "./totals.ts";

/** Slots at first; there are twice as many each time that they are used up. */
const FIRST = 64;

/** Whether a flow that ended so was never open. */
function isRefusal(how: number): boolean {
  return how >= END.REFUSED && how <= END.NO_ROOM;
}

/**
 * Counts flows.
 *
 * @example
 * ```ts
 * import { Ledger } from "./ledger.ts";
 * import { END } from "./contract.ts";
 * import { ipWords } from "../inet/ip_words.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const [inside, outside] = [ipWords(4, 0, 0, 0xffff, 1), ipWords(4, 0, 0, 0xffff, 2)];
 * const facts = { protocol: 6, inward: false, inside, insidePort: 5, outside, outsidePort: 80, state: null };
 * const flow = { slot: 0, facts };
 * const ledger = new Ledger();
 * ledger.begin(flow, 6, outside, 80, false, 0);
 * ledger.sent[flow.slot]! += 7;
 * ledger.how[flow.slot] = END.CLOSED;
 * ledger.end(flow, 9);
 * const [{ flows, sent, first, last }] = [...ledger.totals.kept.values()] as [never];
 * assertEquals([flows, sent, first, last, flow.slot], [1, 7, 0, 9, 0]);
 * ```
 */
export class Ledger {
  /** Bytes of payload from the namespace, and to it, by slot. */
  sent = new Float64Array(FIRST);
  received = new Float64Array(FIRST);
  /** How the flow is about to end (END.*), by slot; 0 for the usual way. */
  how = new Uint8Array(FIRST);
  /** When each began, milliseconds, and its number. */
  since = new Float64Array(FIRST);
  numbers = new Float64Array(FIRST);
  /** The flow of each slot, and where it goes. */
  readonly flows: (Counted | null)[] = [null];
  readonly destinations: (Total | null)[] = [null];
  readonly #free: number[] = [];
  #count = 0;
  readonly totals = new Totals();
  /** Who is told of each flow; usually nobody. */
  observer: FlowObserver | null = null;
  /** Whether the namespace is served no longer, so that flows end by penne. */
  stopping = false;

  /** @param names Names of addresses, if anybody knows them. */
  constructor(readonly names: FlowNames | null = null) {}

  /**
   * Begins to count a flow.
   *
   * @param flow The flow, which gets a slot.
   * @param protocol Protocol above IP.
   * @param address Where it goes outside, or where it comes from.
   * @param port The port outside, or, of a flow from outside, the port inside.
   * @param inward Whether it was begun from outside.
   * @param now Milliseconds.
   * @param forbidden Whether penne forbids it; call {@linkcode Ledger.end} then.
   * @param known The address as the namespace knows it, for the name.
   */
  begin(
    flow: Counted,
    protocol: number,
    address: IpWords,
    port: number,
    inward: boolean,
    now: number,
    forbidden = false,
    known = address,
  ): void {
    const slot = this.#free.pop() ?? this.#grow();
    const name = inward || this.names === null ? null : this.names.nameOf(known);
    const total = this.totals.at(protocol, inward, address, port, name, now, forbidden);
    flow.slot = slot;
    this.flows[slot] = flow;
    this.destinations[slot] = total;
    this.since[slot] = now;
    this.numbers[slot] = ++this.#count;
    this.#begun(total, now);
    if (total.other) this.#begun(this.totals.other, now);
    if (this.observer !== null) this.observer.began(slot);
  }

  #begun(total: Total, now: number): void {
    total.flows++;
    total.active++;
    total.last = now;
  }

  /** Has another object stand for a flow from now on. */
  replace(flow: Counted, by: Counted): void {
    by.slot = flow.slot;
    flow.slot = 0;
    if (by.slot !== 0) this.flows[by.slot] = by;
  }

  /**
   * Ends a flow, if it has not ended. How is in {@linkcode Ledger.how}.
   *
   * @param flow The flow.
   * @param now Milliseconds.
   */
  end(flow: Counted, now: number): void {
    const { slot } = flow;
    if (slot === 0) return;
    const total = this.destinations[slot]!;
    let how = this.how[slot]!;
    // An answer shows that what has refused a datagram was not the peer's last word.
    const answered = (total.inward ? this.sent : this.received)[slot]! > 0;
    if (answered && (how === END.REFUSED || how === END.UNREACHABLE)) how = 0;
    if (how === 0) {
      how = this.stopping ? END.STOPPED : total.protocol === PROTOCOL.TCP ? END.CLOSED : END.TIMED_OUT;
    }
    if (this.observer !== null) this.observer.ended(slot, how);
    const refused = !answered && isRefusal(how);
    this.#ended(total, slot, refused, now);
    if (total.other) this.#ended(this.totals.other, slot, refused, now);
    flow.slot = 0;
    this.flows[slot] = this.destinations[slot] = null;
    this.sent[slot] = this.received[slot] = this.how[slot] = 0;
    this.#free.push(slot);
  }

  #ended(total: Total, slot: number, refused: boolean, now: number): void {
    total.active--;
    total.sent += this.sent[slot]!;
    total.received += this.received[slot]!;
    total.last = now;
    if (refused) total.refused++;
  }

  /**
   * Counts a datagram for the namespace that belongs to no flow: somebody has sent it without having been asked.
   *
   * @param protocol Protocol above IP.
   * @param from Its sender.
   * @param port The port inside.
   * @param bytes Bytes of payload.
   * @param now Milliseconds.
   */
  stranger(protocol: number, from: IpWords, port: number, bytes: number, now: number): void {
    const total = this.totals.at(protocol, true, from, port, null, now, true);
    total.received += bytes;
    total.last = now;
    if (total.other) this.totals.other.received += bytes;
  }

  /** Makes a slot. */
  #grow(): number {
    const slot = this.flows.length;
    if (slot === this.sent.length) {
      const wider = <T extends Float64Array | Uint8Array>(array: T, made: T): T => (made.set(array), made);
      this.sent = wider(this.sent, new Float64Array(2 * slot));
      this.received = wider(this.received, new Float64Array(2 * slot));
      this.since = wider(this.since, new Float64Array(2 * slot));
      this.numbers = wider(this.numbers, new Float64Array(2 * slot));
      this.how = wider(this.how, new Uint8Array(2 * slot));
    }
    this.flows.push(null);
    this.destinations.push(null);
    return slot;
  }
}
