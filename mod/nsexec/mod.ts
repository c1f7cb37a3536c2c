/**
 * The message by which runc tells its bootstrap which namespaces to join and to make; a pure
 *
 * @example
 * ```ts
 * import { decodeBootstrap, encodeBootstrap } from "./mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const attributes = [{ name: "cloneFlags", value: 0x4000000 }] as const;
 * assertEquals(decodeBootstrap(encodeBootstrap({ attributes }, "1.2"), "1.2").attributes, attributes);
 * ```
 *
 * @module
 */

import { between, bytes as octets, type Check, list, object, oneOf, text, whole } from "../base/check.ts";
import {
  type Attribute,
  ATTRIBUTES,
  bootstrapLength as bootstrapLengthUnchecked,
  type BootstrapMessage,
  BootstrapMessageError,
  type BootstrapPids,
  decodeBootstrap as decodeBootstrapUnchecked,
  decodePids as decodePidsUnchecked,
  type Dialect,
  DIALECTS,
  encodeBootstrap as encodeBootstrapUnchecked,
  encodePids as encodePidsUnchecked,
  type ListAttribute,
  type NumberAttribute,
  type TextAttribute,
} from "./message.ts";

export { BootstrapMessageError };
export type { Attribute, BootstrapMessage, BootstrapPids, Dialect, ListAttribute, NumberAttribute, TextAttribute };

const u32: Check = between(0, 0xffffffff);
const checkDialect: Check = oneOf(...DIALECTS);
const named: Check = object({ name: oneOf(...Object.keys(ATTRIBUTES)), value: () => {} }, ["name", "value"]);
const VALUES = { number: u32, text: octets, list: list(octets) } as const satisfies Record<string, Check>;
const attribute: Check = (value, argument) => {
  named(value, argument);
  const { name, value: content } = value as { name: keyof typeof ATTRIBUTES; value: unknown };
  VALUES[ATTRIBUTES[name].kind](content, `${argument}.value`);
};
const checkMessage: Check = object(
  { flags: between(0, 0xffff), sequence: u32, pid: u32, attributes: list(attribute) },
  ["attributes"],
);
const checkPids: Check = object({ stage1: whole, stage2: whole }, ["stage1", "stage2"]);

/**
 * Encodes a bootstrap message.
 *
 * @param message The message.
 * @param dialect The dialect.
 * @returns Its bytes.
 * @throws {TypeError} If a value has the wrong type, or there is no such property.
 * @throws {RangeError} If an attribute is too long, is given twice, is not of this dialect, or has a NUL inside.
 */
export function encodeBootstrap(message: BootstrapMessage, dialect: Dialect): Uint8Array<ArrayBuffer> {
  checkMessage(message, "message");
  checkDialect(dialect, "dialect");
  return encodeBootstrapUnchecked(message, dialect);
}

/**
 * Reads the length of a message from its header, for reading from a stream.
 *
 * @param header The first 16 bytes, or fewer if the stream has ended.
 * @returns The length of the whole message, with its header.
 * @throws {TypeError} If it is not bytes.
 * @throws {BootstrapMessageError} If it is not the header of a bootstrap message, or the length is impossible.
 */
export function bootstrapLength(header: Uint8Array): number {
  octets(header, "header");
  return bootstrapLengthUnchecked(header);
}

/**
 * Decodes a bootstrap message.
 *
 * The result encodes to the same bytes again. So an attribute given twice, padding that is not zero, a missing NUL and
 * bytes after the last attribute are errors.
 *
 * @param bytes The whole message.
 * @param dialect The dialect.
 * @returns The message.
 * @throws {TypeError} If a value has the wrong type.
 * @throws {BootstrapMessageError} If the bytes are not exactly one message.
 */
export function decodeBootstrap(bytes: Uint8Array, dialect: Dialect): BootstrapMessage {
  octets(bytes, "bytes");
  checkDialect(dialect, "dialect");
  return decodeBootstrapUnchecked(bytes, dialect);
}

/**
 * Encodes the answer to a bootstrap message.
 *
 * @param pids The processes.
 * @returns A line.
 * @throws {TypeError} If a value has the wrong type, or there is no such property.
 */
export function encodePids(pids: BootstrapPids): string {
  checkPids(pids, "pids");
  return encodePidsUnchecked(pids);
}

/**
 * Decodes the answer to a bootstrap message.
 *
 * @param line The line, without the zero byte that comes before it in the dialects `seed` and 1.1.
 * @returns The processes.
 * @throws {TypeError} If it is not a string.
 * @throws {BootstrapMessageError} If the line is not such an answer.
 */
export function decodePids(line: string): BootstrapPids {
  text(line, "line");
  return decodePidsUnchecked(line);
}
