/**
 * Messages of netlink(7) and their attributes; a pure codec.
 *
 * @example
 * ```ts
 * import { decodeMessages, encodeMessage, NLM_F } from "./mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const bytes = encodeMessage({ type: 18, flags: NLM_F.REQUEST, seq: 1, payload: new Uint8Array(16) });
 * assertEquals(decodeMessages(bytes).map(({ type, seq }) => [type, seq]), [[18, 1]]);
 * ```
 *
 * @module
 */

import { between, bytes as octets, type Check, list, object, that } from "../base/check.ts";
import {
  type Acknowledgement,
  type Attribute,
  decodeAcknowledgement as decodeAcknowledgementUnchecked,
  decodeAttributes as decodeAttributesUnchecked,
  decodeMessages as decodeMessagesUnchecked,
  encodeAttributes as encodeAttributesUnchecked,
  encodeMessage as encodeMessageUnchecked,
  listAttributes as listAttributesUnchecked,
  nested as nestedUnchecked,
  type NetlinkMessage,
  NLM_F,
  NLMSG,
} from "./message.ts";

export { NLM_F, NLMSG };
export type { Acknowledgement, Attribute, NetlinkMessage };

const u16: Check = between(0, 0xffff);
const checkMessage: Check = object(
  { type: u16, flags: u16, seq: between(0, 0xffffffff), payload: octets },
  ["type", "flags", "seq", "payload"],
);
const pair: Check = that("a type and a value", (value) => Array.isArray(value) && value.length === 2);
const attribute: Check = (value, argument) => {
  pair(value, argument);
  const [type, content] = value as [unknown, unknown];
  u16(type, `${argument}[0]`);
  octets(content, `${argument}[1]`);
};
const checkAttributes: Check = list(attribute);

/**
 * Encodes a message, starting with its `struct nlmsghdr`.
 *
 * @param message The message.
 * @returns Its bytes.
 * @throws {TypeError} If a value has the wrong type, or there is no such property.
 */
export function encodeMessage(message: NetlinkMessage): Uint8Array {
  checkMessage(message, "message");
  return encodeMessageUnchecked(message);
}

/**
 * Decodes the messages of a datagram.
 *
 * @param bytes The datagram.
 * @returns The messages; payloads are views of `bytes`.
 * @throws {TypeError} If it is not bytes.
 * @throws {RangeError} If a length is wrong.
 */
export function decodeMessages(bytes: Uint8Array): NetlinkMessage[] {
  octets(bytes, "bytes");
  return decodeMessagesUnchecked(bytes);
}

/**
 * Encodes attributes, each starting with its `struct nlattr`.
 *
 * @param attributes The attributes, in order.
 * @returns Their bytes, padded.
 * @throws {TypeError} If a value has the wrong type.
 */
export function encodeAttributes(attributes: readonly Attribute[]): Uint8Array {
  checkAttributes(attributes, "attributes");
  return encodeAttributesUnchecked(attributes);
}

/**
 * Lists attributes.
 *
 * @param bytes A message's payload after its fixed part, or a nested attribute's value.
 * @returns The attributes in order; their values are views of `bytes`.
 * @throws {TypeError} If it is not bytes.
 * @throws {RangeError} If a length is wrong.
 */
export function listAttributes(bytes: Uint8Array): Attribute[] {
  octets(bytes, "bytes");
  return listAttributesUnchecked(bytes);
}

/**
 * Decodes attributes; of several with the same type the last one counts.
 *
 * @param bytes A message's payload after its fixed part, or a nested attribute's value.
 * @returns The values by type, as views of `bytes`.
 * @throws {TypeError} If it is not bytes.
 * @throws {RangeError} If a length is wrong.
 */
export function decodeAttributes(bytes: Uint8Array): Map<number, Uint8Array> {
  octets(bytes, "bytes");
  return decodeAttributesUnchecked(bytes);
}

/**
 * Makes an attribute that contains attributes.
 *
 * @param type Its type.
 * @param attributes The attributes, in order.
 * @returns The attribute.
 * @throws {TypeError} If a value has the wrong type.
 */
export function nested(type: number, attributes: readonly Attribute[]): Attribute {
  u16(type, "type");
  checkAttributes(attributes, "attributes");
  return nestedUnchecked(type, attributes);
}

/**
 * Decodes an NLMSG_ERROR.
 *
 * @param message The message.
 * @returns Error number and explanation.
 * @throws {TypeError} If a value has the wrong type, or there is no such property.
 * @throws {RangeError} If it is truncated.
 */
export function decodeAcknowledgement(message: NetlinkMessage): Acknowledgement {
  checkMessage(message, "message");
  return decodeAcknowledgementUnchecked(message);
}
