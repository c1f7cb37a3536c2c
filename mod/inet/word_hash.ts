// A keyed hash of words: without the key, no collisions can be constructed.

/**
 * HalfSipHash-1-3 (J.-P. Aumasson and D. J. Bernstein) over 32-bit words, one hash at a time, without an allocation.
 *
 * @example
 * ```ts
 * import { WordHash } from "./word_hash.ts";
 * import { assert, assertEquals } from "@std/assert";
 *
 * const hash = new WordHash(1, 2);
 * const of = (...words: number[]) => {
 *   hash.begin();
 *   for (const word of words) hash.add(word);
 *   return hash.end(words.length);
 * };
 * assertEquals(of(7, 9), of(7, 9));
 * assert(of(7, 9) !== of(9, 7));
 * ```
 */
export class WordHash {
  readonly #key0: number;
  readonly #key1: number;
  #v0 = 0;
  #v1 = 0;
  #v2 = 0;
  #v3 = 0;

  /**
   * @param key0 Half of the key.
   * @param key1 The other half.
   */
  constructor(key0: number, key1: number) {
    this.#key0 = key0;
    this.#key1 = key1;
  }

  /** Begins a hash. */
  begin(): void {
    this.#v0 = this.#key0;
    this.#v1 = this.#key1;
    this.#v2 = this.#key0 ^ 0x6c796765;
    this.#v3 = this.#key1 ^ 0x74656462;
  }

  #round(): void {
    let [v0, v1, v2, v3] = [this.#v0, this.#v1, this.#v2, this.#v3];
    v0 = v0 + v1 | 0;
    v1 = (v1 << 5 | v1 >>> 27) ^ v0;
    v0 = v0 << 16 | v0 >>> 16;
    v2 = v2 + v3 | 0;
    v3 = (v3 << 8 | v3 >>> 24) ^ v2;
    v0 = v0 + v3 | 0;
    v3 = (v3 << 7 | v3 >>> 25) ^ v0;
    v2 = v2 + v1 | 0;
    v1 = (v1 << 13 | v1 >>> 19) ^ v2;
    v2 = v2 << 16 | v2 >>> 16;
    this.#v0 = v0;
    this.#v1 = v1;
    this.#v2 = v2;
    this.#v3 = v3;
  }

  /** Adds a word. */
  add(word: number): void {
    this.#v3 ^= word;
    this.#round();
    this.#v0 ^= word;
  }

  /**
   * Ends the hash.
   *
   * @param words Number of words added.
   * @returns The hash, 32 bits.
   */
  end(words: number): number {
    this.add(words << 26);
    this.#v2 ^= 0xff;
    this.#round();
    this.#round();
    this.#round();
    return this.#v1 ^ this.#v3;
  }
}
