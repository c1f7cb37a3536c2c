// Codec of DHCPv6 messages between clients and servers, RFC 8415 sections 8 and 21; pure.

import { sameBytes } from "../inet/ip.ts";

/** Types of messages. */
export const TYPE6 = {
  SOLICIT: 1,
  ADVERTISE: 2,
  REQUEST: 3,
  CONFIRM: 4,
  RENEW: 5,
  REBIND: 6,
  REPLY: 7,
  RELEASE: 8,
  DECLINE: 9,
  INFORMATION: 11,
} as const;

/** Numbers of options. */
export const OPTION6 = {
  CLIENT: 1,
  SERVER: 2,
  ADDRESSES: 3,
  TEMPORARY: 4,
  ADDRESS: 5,
  WANTED: 6,
  PREFERENCE: 7,
  STATUS: 13,
  RAPID: 14,
  DNS: 23,
  SEARCH: 24,
  PREFIXES: 25,
  FQDN: 39,
} as const;

/** Status codes. */
export const STATUS = {
  SUCCESS: 0,
  NO_ADDRESSES: 2,
  NOT_ON_LINK: 4,
  USE_MULTICAST: 5,
  NO_PREFIXES: 6,
} as const;

/** Time that has no end, seconds. */
export const FOREVER6 = 0xffffffff;

/** An option: its number and its value. */
export type Option6 = readonly [code: number, value: Uint8Array];

/** A message. */
export interface Dhcp6Message {
  /** TYPE6.*. */
  readonly type: number;
  /** Number by which the client knows the answer, 24 bits. */
  readonly transaction: number;
  /** The options in their order; some may be there several times. */
  readonly options: readonly Option6[];
}

/** What holds addresses or prefixes: an option IA_NA, IA_TA or IA_PD. */
export interface Association {
  /** OPTION6.ADDRESSES, TEMPORARY or PREFIXES. */
  readonly code: number;
  /** The number that the client has chosen for it, 4 bytes. */
  readonly id: Uint8Array;
  /** The addresses in it, 16 bytes each. */
  readonly addresses: readonly Uint8Array[];
}

/** Bytes of a message before its options, and of an option before its value. */
const HEADER = 4;
/** Bytes of an IA before its options: the number, and for all but IA_TA two times. */
const IA_HEADER = { [OPTION6.ADDRESSES]: 12, [OPTION6.TEMPORARY]: 4, [OPTION6.PREFIXES]: 12 } as const;
/** Bytes of an address option before its options: the address, and two times. */
const ADDRESS_HEADER = 24;
const ADDRESS = 16;
/** Bytes that an option can hold. */
const VALUE_MAX = 65535;
/** IAs of one message that count: a client has one or two. */
const ASSOCIATIONS_MAX = 16;
/** Addresses of one IA that count: an answer has hardly room for more. */
export const ADDRESSES_MAX = 32;

/** The options in some bytes; null if they are malformed. */
function parseOptions(bytes: Uint8Array): Option6[] | null {
  const options: Option6[] = [];
  for (let at = 0; at < bytes.length;) {
    if (at + HEADER > bytes.length) return null;
    const code = bytes[at]! << 8 | bytes[at + 1]!;
    const length = bytes[at + 2]! << 8 | bytes[at + 3]!;
    at += HEADER;
    if (at + length > bytes.length) return null;
    options.push([code, bytes.subarray(at, at + length)]);
    at += length;
  }
  return options;
}

function encodeOptions(options: readonly Option6[]): Uint8Array {
  const out = new Uint8Array(options.reduce((sum, [, value]) => sum + HEADER + value.length, 0));
  let at = 0;
  for (const [code, value] of options) {
    out.set([code >> 8, code & 255, value.length >> 8, value.length & 255], at);
    out.set(value, at + HEADER);
    at += HEADER + value.length;
  }
  return out;
}

/**
 * Parses a message of a client or a server; those of relay agents have another form.
 *
 * @example
 * ```ts
 * import { encodeDhcp6, OPTION6, parseDhcp6, TYPE6 } from "./dhcp6_message.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const message = {
 *   type: TYPE6.SOLICIT,
 *   transaction: 0xfeed01,
 *   options: [[OPTION6.CLIENT, Uint8Array.of(0, 3, 0, 1, 2, 0, 0, 0, 0, 7)] as const],
 * };
 * assertEquals(parseDhcp6(encodeDhcp6(message)), message);
 * assertEquals(parseDhcp6(Uint8Array.of(1, 0, 0, 0, 0, 1, 0)), null);
 * ```
 *
 * @param bytes The payload of a datagram.
 * @returns The message; null if it is malformed.
 */
export function parseDhcp6(bytes: Uint8Array): Dhcp6Message | null {
  if (bytes.length < HEADER) return null;
  const options = parseOptions(bytes.subarray(HEADER));
  return options && { type: bytes[0]!, transaction: bytes[1]! << 16 | bytes[2]! << 8 | bytes[3]!, options };
}

/**
 * Encodes a message.
 *
 * @param message The message; a value has at most 65535 bytes.
 * @returns The payload of a datagram.
 */
export function encodeDhcp6({ type, transaction, options }: Dhcp6Message): Uint8Array {
  const encoded = encodeOptions(options.filter(([, { length }]) => length <= VALUE_MAX));
  const out = new Uint8Array(HEADER + encoded.length);
  out.set([type, transaction >> 16, transaction >> 8 & 255, transaction & 255]);
  out.set(encoded, HEADER);
  return out;
}

/**
 * The value of the first option with a number.
 *
 * @param message The message.
 * @param code OPTION6.*.
 */
export function optionOf({ options }: Dhcp6Message, code: number): Uint8Array | undefined {
  return options.find(([known]) => known === code)?.[1];
}

/**
 * The first IAs of a message, in their order, with the first addresses of each; one that is there twice counts once.
 *
 * @param message The message.
 * @returns The IAs; null if one is malformed.
 */
export function associationsOf({ options }: Dhcp6Message): Association[] | null {
  const found: Association[] = [];
  for (const [code, value] of options) {
    const header = IA_HEADER[code as keyof typeof IA_HEADER];
    if (header === undefined) continue;
    if (found.length === ASSOCIATIONS_MAX) break;
    const inner = value.length >= header ? parseOptions(value.subarray(header)) : null;
    if (!inner || inner.some(([kind, { length }]) => kind === OPTION6.ADDRESS && length < ADDRESS_HEADER)) return null;
    const id = value.slice(0, 4);
    if (found.some((other) => other.code === code && sameBytes(other.id, id))) continue;
    const addresses = inner.filter(([kind]) => kind === OPTION6.ADDRESS).slice(0, ADDRESSES_MAX)
      .map(([, address]) => address.subarray(0, ADDRESS));
    found.push({ code, id, addresses });
  }
  return found;
}

function u32(value: number): number[] {
  return [value >>> 24, value >>> 16 & 255, value >>> 8 & 255, value & 255];
}

/**
 * The option that holds an address.
 *
 * @param address 16 bytes.
 * @param seconds For how long it is preferred and valid: {@linkcode FOREVER6}, or 0 if it is not to be used any more.
 */
export function addressOption(address: Uint8Array, seconds: number): Option6 {
  return [OPTION6.ADDRESS, Uint8Array.of(...address, ...u32(seconds), ...u32(seconds))];
}

/**
 * The option with a status.
 *
 * @param code STATUS.*.
 * @param text Why, for people.
 */
export function statusOption(code: number, text: string): Option6 {
  return [OPTION6.STATUS, Uint8Array.of(code >> 8, code & 255, ...new TextEncoder().encode(text))];
}

/**
 * The option of an IA, whose client need not renew it.
 *
 * @param association Which.
 * @param options The options in it.
 */
export function associationOption({ code, id }: Association, options: readonly Option6[]): Option6 {
  const times = code === OPTION6.TEMPORARY ? [] : [...u32(FOREVER6), ...u32(FOREVER6)];
  const inner = encodeOptions(options);
  const value = new Uint8Array(id.length + times.length + inner.length);
  value.set(id);
  value.set(times, id.length);
  value.set(inner, id.length + times.length);
  return [code, value];
}
