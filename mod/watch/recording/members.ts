// Reads members of JSON objects that may come from anyone: each is checked.

import type { NamespaceId } from "../../namespaces/id.ts";
import { type Slot, SLOTS } from "../facts/contract.ts";

/** Something in a file that is in no recording. */
export class FormatError extends Error {}

/** Refuses something in a file. @throws {FormatError} Always. */
export function refuse(what: string): never {
  throw new FormatError(`${what} is not what a recording has there`);
}

/** Reads members of an object, each of which has a certain type. */
export class Members {
  readonly #json: Readonly<Record<string, unknown>>;

  /** @throws {FormatError} If the value is no object. */
  constructor(value: unknown) {
    if (typeof value !== "object" || value === null || Array.isArray(value)) refuse("a value");
    this.#json = value as Readonly<Record<string, unknown>>;
  }

  /** Whether there is such a member. */
  has(name: string): boolean {
    return Object.hasOwn(this.#json, name);
  }

  /** The names of all members. */
  names(): readonly string[] {
    return Object.keys(this.#json);
  }

  /** Any value. */
  get(name: string): unknown {
    return this.has(name) ? this.#json[name] : refuse(`no "${name}"`);
  }

  /** Reads a member that may be null. */
  orNull<T>(read: (this: Members, name: string) => T, name: string): T | null {
    return this.get(name) === null ? null : read.call(this, name);
  }

  /** A string. */
  text(name: string): string {
    const value = this.get(name);
    return typeof value === "string" ? value : refuse(`"${name}"`);
  }

  /** True or false. */
  flag(name: string): boolean {
    const value = this.get(name);
    return typeof value === "boolean" ? value : refuse(`"${name}"`);
  }

  /** A whole number that fits into a JSON number. */
  whole(name: string): number {
    const value = this.get(name);
    return Number.isSafeInteger(value) ? value as number : refuse(`"${name}"`);
  }

  /** A whole number in a string. */
  big(name: string): bigint {
    const value = this.get(name);
    return typeof value === "string" && /^-?\d{1,20}$/.test(value) ? BigInt(value) : refuse(`"${name}"`);
  }

  /** One of some words. */
  word<const W extends string>(name: string, words: readonly W[]): W {
    const value = this.get(name);
    return words.find((word) => word === value) ?? refuse(`"${name}"`);
  }

  /** A word of capital letters and digits, as the name of an error. */
  name(name: string): string {
    const value = this.text(name);
    return /^[A-Z0-9_]{1,32}$/.test(value) ? value : refuse(`"${name}"`);
  }

  /** The id of a namespace, a number without a sign in a string. */
  digits(name: string): string {
    const value = this.text(name);
    return /^\d{1,20}$/.test(value) ? value : refuse(`"${name}"`);
  }

  /** The object itself as the identity of a namespace. */
  self(): NamespaceId {
    return { inum: this.whole("inum"), id: this.orNull(this.digits, "id") };
  }

  /** The identity of a namespace. */
  identity(name: string): NamespaceId {
    return new Members(this.get(name)).self();
  }

  /** Namespaces by slot. */
  slots(name: string): ReadonlyMap<Slot, NamespaceId> {
    const inner = new Members(this.get(name));
    return new Map(SLOTS.filter((slot) => inner.has(slot)).map((slot) => [slot, inner.identity(slot)]));
  }

  /** A list; each item is converted. */
  list<T>(name: string, read: (item: unknown) => T): T[] {
    const value = this.get(name);
    return Array.isArray(value) ? value.map(read) : refuse(`"${name}"`);
  }
}
