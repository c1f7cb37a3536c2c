// What a namespace was refused: how often, and what, as far as that is bounded.

import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { copyOf, sameIp } from "../../inet/ip_words.ts";

/** Different destinations and names that are remembered; the one that was refused the longest ago is forgotten first. */
const REMEMBERED_MAX = 256;

/** Something that was refused. */
export interface Refusal {
  /** Protocol above IP; null for a question about a name. */
  readonly protocol: number | null;
  /** The destination as the namespace knows it; null for a question. */
  readonly address: IpWords | null;
  /** Its port; 0 for a protocol without ports, or a question. */
  readonly port: number;
  /** The name that was asked for; or the last one that the destination was answered for, or null. */
  readonly name: string | null;
  /** How often. */
  readonly count: number;
  /** When it was refused first and last, in milliseconds of the loop's clock. */
  readonly firstAt: number;
  readonly lastAt: number;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/**
 * The refusals of one namespace.
 *
 * @example
 * ```ts
 * import { Refusals } from "./refusals.ts";
 * import { ipWords } from "../../inet/ip_words.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const refusals = new Refusals();
 * const to = ipWords(4, 0, 0, 0xffff, 0x0a000001);
 * refusals.destination(6, to, 443, null, 1000);
 * refusals.destination(6, to, 443, null, 2000);
 * refusals.question("example.net", 3000);
 * assertEquals([refusals.destinations, refusals.questions], [2, 1]);
 * assertEquals(refusals.list.map(({ port, name, count }) => [port, name, count]), [[443, null, 2], [0, "example.net", 1]]);
 * ```
 */
export class Refusals {
  /** Connections, datagrams and echo requests that were refused. */
  destinations = 0;
  /** Questions about names that were refused. */
  questions = 0;
  readonly #remembered = new Map<string, Mutable<Refusal>>();
  /** The last one: floods are of one destination. */
  #last: Mutable<Refusal> | null = null;
  /** Called for each thing that is refused for the first time, or again after it was forgotten. */
  onNew: ((refusal: Refusal) => void) | null = null;

  /** What was refused, the latest last. */
  get list(): readonly Refusal[] {
    return [...this.#remembered.values()];
  }

  /**
   * Notes that a destination was refused.
   *
   * @param protocol Protocol above IP.
   * @param address The destination as the namespace knows it; copied.
   * @param port Its port, or 0.
   * @param name The name that it was answered for, or null.
   * @param now Milliseconds.
   */
  destination(protocol: number, address: IpWords, port: number, name: string | null, now: number): void {
    this.destinations++;
    const last = this.#last;
    if (last?.address && last.protocol === protocol && last.port === port && sameIp(last.address, address)) {
      last.count++;
      last.lastAt = now;
      return;
    }
    const { w0, w1, w2, w3, family } = address;
    const key = `${protocol} ${port} ${family} ${w0} ${w1} ${w2} ${w3}`;
    this.#note(key, now) ?? this.#add(key, { protocol, address: copyOf(address), port, name }, now);
  }

  /**
   * Notes that a question was refused.
   *
   * @param name The name, in ASCII.
   * @param now Milliseconds.
   */
  question(name: string, now: number): void {
    this.questions++;
    const key = `? ${name}`;
    this.#note(key, now) ?? this.#add(key, { protocol: null, address: null, port: 0, name }, now);
  }

  #note(key: string, now: number): Refusal | null {
    const known = this.#remembered.get(key);
    if (!known) return null;
    known.count++;
    known.lastAt = now;
    this.#remembered.delete(key);
    this.#remembered.set(key, known);
    return this.#last = known;
  }

  #add(key: string, what: Pick<Refusal, "protocol" | "address" | "port" | "name">, now: number): void {
    const made = this.#last = { ...what, count: 1, firstAt: now, lastAt: now };
    this.#remembered.set(key, made);
    if (this.#remembered.size > REMEMBERED_MAX) this.#remembered.delete(this.#remembered.keys().next().value!);
    this.onNew?.(made);
  }
}
