// What was reached, by how many flows, with how many bytes: a table of destinations, which does not grow without end.
//
// When there is no room, destinations whose flows have ended are counted among others: those that have not answered first, as
// who looks for ports makes thousands, and of these the oldest. Those whose first flow penne has forbidden, and senders that
// nobody has asked, have a limit of their own: thousands of them do not hide what was reached.

import type { IpWords } from "../../ffi/net/sockaddr.ts";
import { copyOf, ipWords, sameIp } from "../inet/ip_words.ts";

/** Destinations that are kept, and beside them those that penne has forbidden from the first flow on, and strangers. */
const KEPT_MAX = 8192;
const UNASKED_MAX = 2048;
/** Fraction of them that makes room at once, so that this is not needed for each new one. */
const MERGED = 1 / 16;
/** Destinations that are found without their key; a power of two. */
const RECENT = 64;

/** The flows to one destination. Bytes are those of flows that have ended. */
export class Total {
  flows = 0;
  active = 0;
  refused = 0;
  sent = 0;
  received = 0;
  /** When the last flow began or ended, milliseconds. */
  last: number;

  /**
   * @param protocol Protocol above IP.
   * @param inward Whether the flows were begun from outside.
   * @param address The address outside.
   * @param port The port outside; inside, of flows that were begun from outside.
   * @param name The name of the address.
   * @param first When the first flow began, milliseconds.
   * @param unasked Whether penne forbade its first flow, or nobody inside had asked for what came.
   * @param other Whether it is not kept, so that its flows are counted among others too.
   */
  constructor(
    readonly protocol: number,
    readonly inward: boolean,
    readonly address: IpWords,
    readonly port: number,
    readonly name: string | null,
    readonly first: number,
    readonly unasked: boolean,
    public other: boolean,
  ) {
    this.last = first;
  }

  /** Whether what it was asked has ever been answered. */
  get answered(): boolean {
    return (this.inward ? this.sent : this.received) > 0;
  }
}

/**
 * The destinations of one namespace.
 *
 * @example
 * ```ts
 * import { Totals } from "./totals.ts";
 * import { ipWords } from "../inet/ip_words.ts";
 * import { assert, assertEquals } from "@std/assert";
 *
 * const totals = new Totals(1, 1);
 * const at = (port: number) => totals.at(6, false, ipWords(4, 0, 0, 0xffff, 1), port, null, 0, false);
 * at(80).active = 1;
 * assertEquals(at(80), at(80));
 * assert(at(81).other);
 * ```
 */
export class Totals {
  /** Those that are kept, by what they are. */
  readonly kept = new Map<string, Total>();
  /** The flows to all others. */
  readonly other = new Total(0, false, ipWords(), 0, null, 0, false, false);
  #unasked = 0;
  /** New destinations that are not kept until ended ones are looked for again, as there were few, for both limits. */
  readonly #patience = [0, 0];
  /** Those that were asked for last, as making a key takes longer than all else that a flow costs here. */
  readonly #recent: (Total | undefined)[] = new Array(RECENT);

  /**
   * @param most Destinations that are kept.
   * @param mostUnasked How many are kept beside them that were forbidden, or have sent what nobody has asked for.
   */
  constructor(readonly most: number = KEPT_MAX, readonly mostUnasked: number = UNASKED_MAX) {}

  /**
   * The numbers of a destination; new ones, which nobody keeps, if there is no room for it.
   *
   * @param protocol Protocol above IP.
   * @param inward Whether the flow was begun from outside.
   * @param address The address outside.
   * @param port The port.
   * @param name The name of the address.
   * @param now Milliseconds.
   * @param unasked Whether penne forbids the flow, or nobody inside has asked for what has come.
   */
  at(
    protocol: number,
    inward: boolean,
    address: IpWords,
    port: number,
    name: string | null,
    now: number,
    unasked: boolean,
  ): Total {
    const { family, w0, w1, w2, w3 } = address;
    const place = (w3 ^ w3 >>> 16 ^ port) & RECENT - 1;
    const recent = this.#recent[place];
    if (
      recent !== undefined && !recent.other && recent.port === port && recent.protocol === protocol &&
      recent.inward === inward &&
      sameIp(recent.address, address) && recent.name === name
    ) return recent;
    const key = `${protocol}${inward ? "<" : ">"}${port},${w3},${w2},${w1},${w0},${family},${name ?? ""}`;
    const known = this.kept.get(key);
    if (known !== undefined) return this.#recent[place] = known;
    const full = unasked ? this.#unasked >= this.mostUnasked : this.kept.size - this.#unasked >= this.most;
    const other = full && !this.#makeRoom(unasked);
    const total = new Total(protocol, inward, copyOf(address), port, name, now, unasked, other);
    if (other) return total;
    if (unasked) this.#unasked++;
    this.kept.set(key, total);
    return this.#recent[place] = total;
  }

  /** Counts some destinations among others whose flows have ended; returns whether there are any. */
  #makeRoom(unasked: boolean): boolean {
    const kind = Number(unasked);
    if (this.#patience[kind]! > 0) {
      this.#patience[kind]!--;
      return false;
    }
    const most = Math.ceil((unasked ? this.mostUnasked : this.most) * MERGED);
    const ended = [...this.kept].filter(([, total]) => total.unasked === unasked && total.active === 0);
    ended.sort(([, a], [, b]) => Number(a.answered) - Number(b.answered) || a.last - b.last);
    for (const [key, total] of ended.slice(0, most)) {
      const { other } = this;
      other.flows += total.flows;
      other.refused += total.refused;
      other.sent += total.sent;
      other.received += total.received;
      other.last = Math.max(other.last, total.last);
      total.other = true;
      this.kept.delete(key);
      if (unasked) this.#unasked--;
    }
    // Going through all of them takes long.
    this.#patience[kind] = Math.max(0, most - ended.length);
    return ended.length > 0;
  }
}
