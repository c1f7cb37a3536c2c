// The names that the forwarded resolver has answered with addresses: what each address was called, and until when.
//
// Anybody may ask: an allow list, which admits what was answered for its names, and whoever lists flows. What is known is
// bounded; the answer that is the longest ago is forgotten first.

import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { wordsOf } from "../../inet/ip_words.ts";
import type { DnsAnswer } from "../../inet/dns.ts";
import type { Reactor } from "../../reactor/reactor.ts";

/** Addresses that are known of one namespace, and names of one address. */
const ADDRESSES_MAX = 4096;
const NAMES_MAX = 16;
/** Seconds for which an answer counts at most, whatever it says. */
const TTL_MAX = 86_400;
/**
 * Milliseconds for which an answer counts at least, and beyond its time: some programs keep what they have resolved for half
 * a minute without regard to that time, and a connection may begin at its very end.
 */
const LEAST = 30_000;
const GRACE = 5_000;
/** Messages that are kept while the codec is loaded. */
const WAITING_MAX = 64;

type Codec = typeof import("../../inet/dns.ts");

/** A name that an address was answered for. */
export interface ResolvedName {
  /** The name that was asked for, in lower case and without a final dot. */
  readonly name: string;
  /** Until when that is valid, in milliseconds of the loop's clock. */
  readonly until: number;
}

/** What identifies an address. */
function keyOf({ family, w0, w1, w2, w3 }: IpWords): number | string {
  return family === 4 ? w3 : `${w0},${w1},${w2},${w3}`;
}

/**
 * Addresses and their names.
 *
 * @example
 * ```ts
 * import { ResolvedNames } from "./resolved_names.ts";
 * import { ipWords, wordsOf } from "../../inet/ip_words.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const names = new ResolvedNames();
 * const address = Uint8Array.of(192, 0, 2, 7);
 * names.learn({ name: "example.org", addresses: [{ address, ttl: 60 }] }, 1000);
 * assertEquals(names.nameOf(wordsOf(address)), "example.org");
 * assertEquals(names.validOf(wordsOf(address), 66_000).map(({ name }) => name), ["example.org"]);
 * assertEquals(names.validOf(wordsOf(address), 66_001), []);
 * assertEquals(names.nameOf(ipWords(4)), null);
 * ```
 */
export class ResolvedNames {
  /** By what identifies the address, the one that was answered last at the end; its names with the latest first. */
  readonly #known = new Map<number | string, ResolvedName[]>();
  #codec: Codec | null = null;
  /** Messages that wait for the codec; null if it is not being loaded. */
  #waiting: Uint8Array[] | null = null;

  /** @param max Addresses that are known at most. */
  constructor(readonly max: number = ADDRESSES_MAX) {}

  /** How many addresses are known. */
  get size(): number {
    return this.#known.size;
  }

  /**
   * Takes a message of the resolver. The codec is loaded with the first one, as many programs resolve no name.
   *
   * @param message The message; anything.
   * @param reactor The loop.
   */
  hear(message: Uint8Array, reactor: Reactor): void {
    if (this.#codec) {
      const answer = this.#codec.readAnswer(message);
      if (answer) this.learn(answer, reactor.now);
      return;
    }
    const waiting = this.#waiting ?? [];
    if (waiting.length < WAITING_MAX) waiting.push(message.slice());
    if (this.#waiting) return;
    this.#waiting = waiting;
    reactor.await(
      import("../../inet/dns.ts").then((codec) => {
        this.#codec = codec;
        for (const one of waiting.splice(0)) this.hear(one, reactor);
      }).catch(() => void (this.#waiting = null)), // as where the files may not be read any more
    );
  }

  /**
   * Takes the addresses of an answer.
   *
   * @param answer The answer.
   * @param now Milliseconds of the loop's clock.
   */
  learn({ name, addresses }: Pick<DnsAnswer, "name" | "addresses">, now: number): void {
    for (const { address, ttl } of addresses) {
      const key = keyOf(wordsOf(address));
      const before = this.#known.get(key) ?? [];
      const until = now + Math.max(Math.min(ttl, TTL_MAX) * 1000 + GRACE, LEAST);
      // An earlier answer may be valid for longer: what it promised is kept.
      const earlier = before.find((one) => one.name === name)?.until ?? 0;
      const others = before.filter((one) => one.name !== name).slice(0, NAMES_MAX - 1);
      this.#known.delete(key);
      this.#known.set(key, [{ name, until: Math.max(until, earlier) }, ...others]);
      if (this.#known.size > this.max) this.#known.delete(this.#known.keys().next().value!);
    }
  }

  /**
   * The names for which an address is valid, the one that was answered last first.
   *
   * @param address The address.
   * @param now Milliseconds of the loop's clock.
   * @returns The names; none if it was not answered, or is not valid any more.
   */
  validOf(address: IpWords, now: number): readonly ResolvedName[] {
    if (this.#known.size === 0) return [];
    return this.#known.get(keyOf(address))?.filter(({ until }) => now <= until) ?? [];
  }

  /**
   * The name that an address was answered for last, valid or not.
   *
   * @param address The address.
   * @returns The name, in ASCII; null if none is known.
   */
  nameOf(address: IpWords): string | null {
    if (this.#known.size === 0) return null;
    const [last] = this.#known.get(keyOf(address)) ?? [];
    return last?.name ?? null;
  }
}
