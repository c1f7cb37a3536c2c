// Netlink messages and their attributes, netlink(7): a pure codec.

import { text } from "../../ffi/core/memory.ts";

/** Types of control messages. */
export const NLMSG = { NOOP: 1, ERROR: 2, DONE: 3, OVERRUN: 4 } as const;

/** Flags of messages. */
export const NLM_F = {
  REQUEST: 1,
  MULTI: 2,
  ACK: 4,
  DUMP_INTR: 0x10,
  ROOT: 0x100,
  MATCH: 0x200,
  /** ROOT and MATCH. */
  DUMP: 0x300,
  REPLACE: 0x100,
  EXCL: 0x200,
  CREATE: 0x400,
  APPEND: 0x800,
  /** In an error: it does not repeat the request's payload. */
  CAPPED: 0x100,
  /** In an error: attributes follow. */
  ACK_TLVS: 0x200,
} as const;

/** Bytes of `struct nlmsghdr`. */
export const NLMSG_HEADER = 16;
const NLA_HEADER = 4;
/** NLA_F_NESTED and NLA_F_NET_BYTEORDER are flags in the type. */
const NLA_TYPE_MASK = 0x3fff;
const NLA_F_NESTED = 0x8000;
const NLMSGERR_ATTR_MSG = 1;

/** A message. */
export interface NetlinkMessage {
  /** NLMSG_*, or what the protocol defines, such as RTM_NEWLINK. */
  readonly type: number;
  /** NLM_F_*. */
  readonly flags: number;
  /** Number of the request, also in its answers. */
  readonly seq: number;
  /** The bytes after the header. */
  readonly payload: Uint8Array;
}

/** Rounds up to the alignment of messages and attributes. */
function align(length: number): number {
  return length + 3 & ~3;
}

/** A view of the bytes. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Concatenates parts. */
export function concat(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/**
 * Encodes a message, starting with its `struct nlmsghdr`.
 *
 * @example
 * ```ts
 * import { decodeMessages, encodeMessage } from "./message.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const message = { type: 18, flags: 5, seq: 7, payload: new Uint8Array(4) };
 * assertEquals(decodeMessages(encodeMessage(message)), [message]);
 * ```
 *
 * @param message The message.
 * @returns Its bytes.
 */
export function encodeMessage({ type, flags, seq, payload }: NetlinkMessage): Uint8Array {
  const bytes = new Uint8Array(align(NLMSG_HEADER + payload.length));
  const view = viewOf(bytes);
  view.setUint32(0, NLMSG_HEADER + payload.length, true);
  view.setUint16(4, type, true);
  view.setUint16(6, flags, true);
  view.setUint32(8, seq, true);
  bytes.set(payload, NLMSG_HEADER);
  return bytes;
}

/**
 * Decodes the messages of a datagram.
 *
 * @param bytes The datagram.
 * @returns The messages; payloads are views of `bytes`.
 * @throws {RangeError} If a length is wrong.
 */
export function decodeMessages(bytes: Uint8Array): NetlinkMessage[] {
  const view = viewOf(bytes);
  const messages: NetlinkMessage[] = [];
  for (let at = 0; at < bytes.length;) {
    const length = at + NLMSG_HEADER <= bytes.length ? view.getUint32(at, true) : 0;
    if (length < NLMSG_HEADER || at + length > bytes.length) {
      throw new RangeError("Cannot decode a truncated netlink message");
    }
    messages.push({
      type: view.getUint16(at + 4, true),
      flags: view.getUint16(at + 6, true),
      seq: view.getUint32(at + 8, true),
      payload: bytes.subarray(at + NLMSG_HEADER, at + length),
    });
    at += align(length);
  }
  return messages;
}

/** An attribute: its type (without flags) and its value. */
export type Attribute = readonly [type: number, value: Uint8Array];

/**
 * Encodes attributes, each starting with its `struct nlattr`.
 *
 * @example
 * ```ts
 * import { decodeAttributes, encodeAttributes, u32 } from "./message.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const bytes = encodeAttributes([[4, u32(1500)], [1, new Uint8Array([1, 2, 3])]]);
 * assertEquals(bytes.length, 16);
 * assertEquals(decodeAttributes(bytes).get(1), new Uint8Array([1, 2, 3]));
 * ```
 *
 * @param attributes The attributes, in order.
 * @returns Their bytes, padded.
 */
export function encodeAttributes(attributes: readonly Attribute[]): Uint8Array {
  const bytes = new Uint8Array(attributes.reduce((sum, [, value]) => sum + align(NLA_HEADER + value.length), 0));
  const view = viewOf(bytes);
  let at = 0;
  for (const [type, value] of attributes) {
    view.setUint16(at, NLA_HEADER + value.length, true);
    view.setUint16(at + 2, type, true);
    bytes.set(value, at + NLA_HEADER);
    at += align(NLA_HEADER + value.length);
  }
  return bytes;
}

/**
 * Lists attributes.
 *
 * @param bytes A message's payload after its fixed part, or a nested attribute's value.
 * @returns The attributes in order; their values are views of `bytes`.
 * @throws {RangeError} If a length is wrong.
 */
export function listAttributes(bytes: Uint8Array): Attribute[] {
  const view = viewOf(bytes);
  const attributes: Attribute[] = [];
  for (let at = 0; at + NLA_HEADER <= bytes.length;) {
    const length = view.getUint16(at, true);
    if (length < NLA_HEADER || at + length > bytes.length) {
      throw new RangeError("Cannot decode a truncated netlink attribute");
    }
    attributes.push([view.getUint16(at + 2, true) & NLA_TYPE_MASK, bytes.subarray(at + NLA_HEADER, at + length)]);
    at += align(length);
  }
  return attributes;
}

/**
 * Decodes attributes; of several with the same type the last one counts.
 *
 * @param bytes A message's payload after its fixed part, or a nested attribute's value.
 * @returns The values by type, as views of `bytes`.
 * @throws {RangeError} If a length is wrong.
 */
export function decodeAttributes(bytes: Uint8Array): Map<number, Uint8Array> {
  return new Map(listAttributes(bytes));
}

/** Makes an attribute that contains attributes. */
export function nested(type: number, attributes: readonly Attribute[]): Attribute {
  return [type | NLA_F_NESTED, encodeAttributes(attributes)];
}

/** Encodes the value of an attribute of 8 bits. */
export function u8(value: number): Uint8Array {
  return Uint8Array.of(value);
}

/** Encodes the value of an attribute of 32 bits. */
export function u32(value: number): Uint8Array {
  return new Uint8Array(new Uint32Array([value]).buffer);
}

/** Decodes an attribute of 32 bits; undefined if it is missing or too short. */
export function readU32(value: Uint8Array | undefined): number | undefined {
  return value && value.length >= 4 ? viewOf(value).getUint32(0, true) : undefined;
}

/** The content of an NLMSG_ERROR. */
export interface Acknowledgement {
  /** Error number, 0 for success. */
  readonly errno: number;
  /** The kernel's explanation from the extended ACK, or null. */
  readonly text: string | null;
}

/**
 * Decodes an NLMSG_ERROR.
 *
 * @param message The message.
 * @returns Error number and explanation.
 * @throws {RangeError} If it is truncated.
 */
export function decodeAcknowledgement({ payload, flags }: NetlinkMessage): Acknowledgement {
  if (payload.length < 4 + NLMSG_HEADER) throw new RangeError("Cannot decode a truncated netlink error");
  const view = viewOf(payload);
  let said: string | null = null;
  if (flags & NLM_F.ACK_TLVS) {
    const request = flags & NLM_F.CAPPED ? NLMSG_HEADER : align(view.getUint32(4, true));
    const explanation = decodeAttributes(payload.subarray(Math.min(payload.length, 4 + request))).get(
      NLMSGERR_ATTR_MSG,
    );
    if (explanation) said = text(explanation);
  }
  return { errno: -view.getInt32(0, true), text: said };
}
