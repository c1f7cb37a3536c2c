// The protocol by which pesto(1) changes the ports of pasta(1), version 2, as bytes; pure.
//
// The server speaks first: a greeting, then each side with its rules, then a zero. The client answers with whole new tables
// and a zero. All numbers are big-endian. There is no acknowledgement.
//
//   greeting  "basil:s\0", u32 version, u32 bytes of a side's name, u32 bytes of an interface's name
//   side      u8 id, name[128], u32 capabilities, u32 count, count rules
//   table     u8 id, u32 count, count rules
//   rule      address[16], target[16], interface[16], u16 first, u16 last, u16 to, u8 protocol, u8 flags
//
// IPv4 addresses are written as IPv4-mapped ones.

import { AF } from "../../ffi/net/constants.ts";
import type { ForwardingRule, RuleLimits } from "../forward/rule.ts";

/** The sides of pasta whose ports are forwarded: those of the host, and those of the namespace. */
export const SIDE = { HOST: 1, SPLICE: 3 } as const;

/** Version of the protocol. */
const VERSION = 2;
const MAGIC = new TextEncoder().encode("basil:s\0");
const NAME_SIZE = 128;
const INTERFACE_SIZE = 16;
const GREETING_SIZE = MAGIC.length + 12;
const SIDE_SIZE = NAME_SIZE + 8;
const RULE_SIZE = 56;
/** Rules of a table, and sides, at most. */
const RULES_MAX = 255;
const SIDES_MAX = 8;

/** What a side can do. */
const CAN = { IPV4: 1, IPV6: 2, TCP: 4, UDP: 8, SCAN: 16, INTERFACE: 32 } as const;
const FLAG = { DUAL: 1, BEST_EFFORT: 2, SCAN: 4 } as const;
const PROTOCOLS = { TCP: 6, UDP: 17 } as const;

/** A side and its rules. */
export interface Side {
  /** Its number. */
  readonly id: number;
  /** Its name. */
  readonly name: string;
  /** What is on. */
  readonly limits: RuleLimits;
  /** Whether rules can follow listeners on the other side. */
  readonly follows: boolean;
  /** Its rules. */
  readonly rules: readonly ForwardingRule[];
}

/** A new table of one side. */
export interface Table {
  /** The side. */
  readonly id: number;
  /** Its rules. */
  readonly rules: readonly ForwardingRule[];
}

/** Bytes that are not of this protocol. */
export class PestoError extends Error {
  override readonly name = "PestoError";
}

/** Appends to bytes. */
class Writer {
  readonly #bytes: number[] = [];
  u8(value: number): this {
    this.#bytes.push(value);
    return this;
  }
  u16(value: number): this {
    return this.u8(value >> 8).u8(value & 255);
  }
  u32(value: number): this {
    return this.u16(value >>> 16).u16(value & 0xffff);
  }
  raw(bytes: Uint8Array, size = bytes.length): this {
    for (let i = 0; i < size; i++) this.#bytes.push(bytes[i] ?? 0);
    return this;
  }
  get bytes(): Uint8Array {
    return Uint8Array.from(this.#bytes);
  }
}

/** More bytes are needed. */
const MORE = Symbol();

/** Takes bytes one after the other; throws MORE at their end. */
class Taker {
  #at = 0;
  readonly #view: DataView;
  constructor(readonly bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }
  raw(size: number): Uint8Array {
    if (this.#at + size > this.bytes.length) throw MORE;
    return this.bytes.slice(this.#at, this.#at += size);
  }
  #skip(size: number): number {
    if (this.#at + size > this.bytes.length) throw MORE;
    return (this.#at += size) - size;
  }
  u8(): number {
    return this.#view.getUint8(this.#skip(1));
  }
  u16(): number {
    return this.#view.getUint16(this.#skip(2));
  }
  u32(): number {
    return this.#view.getUint32(this.#skip(4));
  }
  /** Refuses what comes after the end. */
  end(): void {
    if (this.#at < this.bytes.length) throw new PestoError("there is more after the end");
  }
}

/** Calls a function; null if it needs more bytes. */
function untilEnd<T>(body: () => T): T | null {
  try {
    return body();
  } catch (error) {
    if (error === MORE) return null;
    throw error;
  }
}

const MAPPED = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff);

function writeAddress(to: Writer, address: Uint8Array | null): void {
  if (address?.length === 4) to.raw(MAPPED).raw(address);
  else to.raw(address ?? new Uint8Array(16));
}

function takeAddress(from: Taker): Uint8Array {
  const bytes = from.raw(16);
  return MAPPED.every((byte, i) => bytes[i] === byte) ? bytes.slice(12) : bytes;
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}

/** The text in front of the first NUL, which must be there. */
function takeText(from: Taker, size: number): string {
  const bytes = from.raw(size);
  const end = bytes.indexOf(0);
  if (end < 0) throw new PestoError("a name has no end");
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(0, end));
  } catch {
    throw new PestoError("a name is not text");
  }
}

function writeRule(to: Writer, rule: ForwardingRule): void {
  writeAddress(to, rule.address);
  writeAddress(to, rule.target);
  to.raw(new TextEncoder().encode(rule.interface ?? ""), INTERFACE_SIZE);
  to.u16(rule.first).u16(rule.last).u16(rule.to).u8(PROTOCOLS[rule.protocol]);
  to.u8((rule.address ? 0 : FLAG.DUAL) | (rule.bestEffort ? FLAG.BEST_EFFORT : 0) | (rule.scan ? FLAG.SCAN : 0));
}

function takeRule(from: Taker): ForwardingRule {
  const [address, target] = [takeAddress(from), takeAddress(from)];
  const name = takeText(from, INTERFACE_SIZE);
  const [first, last, to, number, flags] = [from.u16(), from.u16(), from.u16(), from.u8(), from.u8()];
  const protocol = number === PROTOCOLS.TCP ? "TCP" : number === PROTOCOLS.UDP ? "UDP" : null;
  if (!protocol) throw new PestoError(`there is no protocol ${number}`);
  if (last < first) throw new PestoError(`the range ${first}-${last} has no ports`);
  const dual = (flags & FLAG.DUAL) !== 0;
  if (dual && !isZero(address)) throw new PestoError("an address is for both families");
  if (/[/\s]/.test(name)) throw new PestoError("no interface has such a name");
  return {
    protocol,
    address: dual ? null : address,
    interface: name === "" ? null : name,
    first,
    last,
    to,
    target: isZero(target) ? null : target,
    bestEffort: (flags & FLAG.BEST_EFFORT) !== 0,
    scan: (flags & FLAG.SCAN) !== 0,
  };
}

function takeRules(from: Taker): ForwardingRule[] {
  const count = from.u32();
  if (count > RULES_MAX) throw new PestoError(`${count} rules are too many`);
  return Array.from({ length: count }, () => takeRule(from));
}

/**
 * What a server says.
 *
 * @example
 * ```ts
 * import { decodeState, encodeState, SIDE } from "./wire.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const limits = { families: { 2: true, 10: true }, protocols: { TCP: true, UDP: true } } as const;
 * const sides = [{ id: SIDE.HOST, name: "HOST", limits, follows: true, rules: [] }];
 * const bytes = encodeState(sides);
 * assertEquals(decodeState(bytes), sides);
 * assertEquals(decodeState(bytes.subarray(0, 100)), null); // there is more to come
 * ```
 *
 * @param sides The sides.
 * @returns The bytes.
 */
export function encodeState(sides: readonly Side[]): Uint8Array {
  const to = new Writer().raw(MAGIC).u32(VERSION).u32(NAME_SIZE).u32(INTERFACE_SIZE);
  for (const { id, name, limits: { families, protocols }, follows, rules } of sides) {
    to.u8(id).raw(new TextEncoder().encode(name), NAME_SIZE);
    to.u32(
      (families[AF.INET] ? CAN.IPV4 : 0) | (families[AF.INET6] ? CAN.IPV6 : 0) | (protocols.TCP ? CAN.TCP : 0) |
        (protocols.UDP ? CAN.UDP : 0) | (follows ? CAN.SCAN : 0) | CAN.INTERFACE,
    );
    to.u32(rules.length);
    for (const rule of rules) writeRule(to, rule);
  }
  return to.u8(0).bytes;
}

function takeSide(from: Taker, id: number): Side {
  const name = takeText(from, NAME_SIZE);
  const can = from.u32();
  const has = (bit: number) => (can & bit) !== 0;
  return {
    id,
    name,
    limits: {
      families: { [AF.INET]: has(CAN.IPV4), [AF.INET6]: has(CAN.IPV6) },
      protocols: { TCP: has(CAN.TCP), UDP: has(CAN.UDP) },
    },
    follows: has(CAN.SCAN),
    rules: takeRules(from),
  };
}

/** Takes what has a number other than 0 in front, until there is a 0. */
function takeUntilZero<T>(from: Taker, take: (id: number) => T): T[] {
  const list: T[] = [];
  for (let id = from.u8(); id !== 0; id = from.u8()) {
    if (list.length === SIDES_MAX) throw new PestoError("there are too many sides");
    list.push(take(id));
  }
  from.end();
  return list;
}

/**
 * What a server has said.
 *
 * @param bytes What has come of it.
 * @returns The sides; null if there is more to come.
 * @throws {PestoError} If it is not of this protocol or version.
 */
export function decodeState(bytes: Uint8Array): Side[] | null {
  return untilEnd(() => {
    const from = new Taker(bytes);
    const known = Math.min(bytes.length, MAGIC.length);
    if (!MAGIC.subarray(0, known).every((byte, i) => bytes[i] === byte)) throw new PestoError("it is not pasta's");
    from.raw(MAGIC.length);
    const version = from.u32();
    if (version !== VERSION) throw new PestoError(`it speaks version ${version} of the protocol, not ${VERSION}`);
    const sizes = [from.u32(), from.u32()];
    if (sizes[0] !== NAME_SIZE || sizes[1] !== INTERFACE_SIZE) throw new PestoError(`its names have ${sizes} bytes`);
    return takeUntilZero(from, (id) => takeSide(from, id));
  });
}

/** Bytes of what a server says, and of what a client says, at most. */
export const STATE_MAX = GREETING_SIZE + SIDES_MAX * (1 + SIDE_SIZE + RULES_MAX * RULE_SIZE) + 1;
export const UPDATE_MAX = SIDES_MAX * (5 + RULES_MAX * RULE_SIZE) + 1;

/**
 * What a client says.
 *
 * @param tables The new tables.
 * @returns The bytes.
 */
export function encodeUpdate(tables: readonly Table[]): Uint8Array {
  const to = new Writer();
  for (const { id, rules } of tables) {
    to.u8(id).u32(rules.length);
    for (const rule of rules) writeRule(to, rule);
  }
  return to.u8(0).bytes;
}

/**
 * What a client has said.
 *
 * @param bytes What has come of it.
 * @returns The tables; null if there is more to come.
 * @throws {PestoError} If it is not of this protocol, or a table is there twice.
 */
export function decodeUpdate(bytes: Uint8Array): Table[] | null {
  return untilEnd(() => {
    const from = new Taker(bytes);
    const seen = new Set<number>();
    return takeUntilZero(from, (id) => {
      if (seen.has(id)) throw new PestoError(`table ${id} is there twice`);
      seen.add(id);
      return { id, rules: takeRules(from) };
    });
  });
}
