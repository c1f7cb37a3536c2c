// Codec of the bootstrap message and its answer, in all dialects; pure.
//
// Theory of operation. The message is one netlink-like frame on a stream: a header of 16 bytes (struct nlmsghdr), then
// attributes of {u16 length, u16 type, data, zeros up to a multiple of 4}, with integers in the host's byte order. It comes
// from a container runtime over a pipe, and a process with all privileges reads it. So the decoder accepts only what the
// encoder makes: every length is checked against the bytes that are left, every step moves forward, and whatever decodes
// encodes to the same bytes again.

import { concat, NLMSG } from "../netlink/message.ts";

/** A dialect of the protocol: that of runc 1.0 (`seed`), 1.1, or 1.2 and later. */
export type Dialect = "seed" | "1.1" | "1.2";

/** Every dialect. */
export const DIALECTS: readonly Dialect[] = ["seed", "1.1", "1.2"];

/** Size of the header, bytes. */
export const HEADER_SIZE = 16;

const MESSAGE_TYPE = 62000;
const ATTRIBUTE_HEADER = 4;
const ATTRIBUTE_MAX = 0xffff;

/** An attribute with a 32-bit number. */
export interface NumberAttribute {
  /** `cloneFlags`: namespaces to make, CLONE_NEW* of clone(2). `setgroup`, `rootless`: 0 or 1. */
  readonly name: "cloneFlags" | "setgroup" | "rootless";
  /** The number. */
  readonly value: number;
}

/** An attribute with a text. */
export interface TextAttribute {
  /**
   * - `namespaces`: namespaces to join, `type:path` separated by commas.
   * - `uidMap`, `gidMap`: lines of `inside outside count`. `uidMapPath`, `gidMapPath`: newuidmap(1), newgidmap(1).
   * - `oomScoreAdj`: content for /proc/self/oom_score_adj. `timeOffsets`: content for /proc/PID/timens_offsets (1.2).
   */
  readonly name: "namespaces" | "uidMap" | "gidMap" | "oomScoreAdj" | "uidMapPath" | "gidMapPath" | "timeOffsets";
  /** Its bytes without the final NUL; a path need not be UTF-8. */
  readonly value: Uint8Array;
}

/** An attribute with a list of texts. */
export interface ListAttribute {
  /** Paths to open in the new mount namespace; empty where none is needed (1.1). */
  readonly name: "mountSources";
  /** The bytes of each without its final NUL. */
  readonly value: readonly Uint8Array[];
}

/** An attribute of a bootstrap message. */
export type Attribute = NumberAttribute | TextAttribute | ListAttribute;

/** The attributes by name: their numbers, what they contain, and the only dialect that has them. */
export const ATTRIBUTES: Readonly<Record<Attribute["name"], { type: number; kind: Kind; dialect?: Dialect }>> = {
  cloneFlags: { type: 27281, kind: "number" },
  namespaces: { type: 27282, kind: "text" },
  uidMap: { type: 27283, kind: "text" },
  gidMap: { type: 27284, kind: "text" },
  setgroup: { type: 27285, kind: "number" },
  oomScoreAdj: { type: 27286, kind: "text" },
  rootless: { type: 27287, kind: "number" },
  uidMapPath: { type: 27288, kind: "text" },
  gidMapPath: { type: 27289, kind: "text" },
  // One number with two meanings.
  mountSources: { type: 27290, kind: "list", dialect: "1.1" },
  timeOffsets: { type: 27290, kind: "text", dialect: "1.2" },
};

type Kind = "number" | "text" | "list";

/** A bootstrap message. */
export interface BootstrapMessage {
  /** `nlmsg_flags`, which readers ignore; runc sends 1 (NLM_F_REQUEST). */
  readonly flags?: number;
  /** `nlmsg_seq`, which readers ignore. */
  readonly sequence?: number;
  /** `nlmsg_pid`, which readers ignore. */
  readonly pid?: number;
  /** The attributes in order, each at most once. */
  readonly attributes: readonly Attribute[];
}

/** A message that cannot be decoded; the reason is in the protocol's words where it has some. */
export class BootstrapMessageError extends Error {
  /** Always "BootstrapMessageError". */
  override readonly name = "BootstrapMessageError";
}

function fail(what: string): never {
  throw new BootstrapMessageError(what);
}

function attributeName(type: number, dialect: Dialect): Attribute["name"] | null {
  for (const [name, entry] of Object.entries(ATTRIBUTES)) {
    if (entry.type === type && (entry.dialect ?? dialect) === dialect) return name as Attribute["name"];
  }
  return null;
}

const pad = (length: number) => (length + 3) & ~3;

/** Length of the longest message, with each attribute once at its greatest length. */
const MESSAGE_MAX = HEADER_SIZE + (ATTRIBUTE_MAX + 1) * new Set(Object.values(ATTRIBUTES).map(({ type }) => type)).size;

function terminated(name: Attribute["name"], text: Uint8Array): Uint8Array {
  if (text.includes(0)) throw new RangeError(`Attribute ${name} has a NUL inside`);
  return concat(text, new Uint8Array(1));
}

function attributeData(attribute: Attribute): Uint8Array {
  const { name, value } = attribute;
  if (typeof value !== "number") {
    return value instanceof Uint8Array
      ? terminated(name, value)
      : concat(...value.map((text) => terminated(name, text)));
  }
  const data = new Uint8Array(4);
  if (value !== value >>> 0) throw new RangeError(`Attribute ${name} is not a 32-bit number: ${value}`);
  new DataView(data.buffer).setUint32(0, value, true);
  return data;
}

/**
 * Encodes a bootstrap message.
 *
 * @example
 * ```ts
 * import { encodeBootstrap } from "./message.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const value = new TextEncoder().encode("pid:/proc/self/ns/pid");
 * const bytes = encodeBootstrap({
 *   flags: 1,
 *   attributes: [{ name: "cloneFlags", value: 0x40000000 }, { name: "namespaces", value }],
 * }, "1.2");
 * assertEquals(bytes.length, 52);
 * ```
 *
 * @param message The message.
 * @param dialect The dialect.
 * @returns Its bytes.
 * @throws {RangeError} If an attribute is too long, is given twice, is not of this dialect, or has a NUL inside.
 */
export function encodeBootstrap(message: BootstrapMessage, dialect: Dialect): Uint8Array<ArrayBuffer> {
  const { flags = 0, sequence = 0, pid = 0, attributes } = message;
  const parts = [new Uint8Array(HEADER_SIZE)];
  const seen = new Set<number>();
  for (const attribute of attributes) {
    const { type } = ATTRIBUTES[attribute.name];
    if (attributeName(type, dialect) !== attribute.name) {
      throw new RangeError(`Attribute ${attribute.name} does not exist in dialect ${dialect}`);
    }
    if (seen.has(type)) throw new RangeError(`Attribute ${attribute.name} is given twice`);
    seen.add(type);
    const data = attributeData(attribute);
    const length = ATTRIBUTE_HEADER + data.length;
    if (length > ATTRIBUTE_MAX) {
      throw new RangeError(`Attribute ${attribute.name} has ${data.length} bytes, more than its length can say`);
    }
    const part = new Uint8Array(pad(length));
    const view = new DataView(part.buffer);
    view.setUint16(0, length, true);
    view.setUint16(2, type, true);
    part.set(data, ATTRIBUTE_HEADER);
    parts.push(part);
  }
  const bytes = concat(...parts);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, bytes.length, true);
  view.setUint16(4, MESSAGE_TYPE, true);
  view.setUint16(6, flags, true);
  view.setUint32(8, sequence, true);
  view.setUint32(12, pid, true);
  return bytes;
}

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/**
 * Reads the length of a message from its header, for reading from a stream.
 *
 * @example
 * ```ts
 * import { bootstrapLength, encodeBootstrap, HEADER_SIZE } from "./message.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const header = encodeBootstrap({ attributes: [] }, "1.2").subarray(0, HEADER_SIZE);
 * assertEquals(bootstrapLength(header), HEADER_SIZE);
 * ```
 *
 * @param header The first 16 bytes, or fewer if the stream has ended.
 * @returns The length of the whole message, with its header.
 * @throws {BootstrapMessageError} If it is not the header of a bootstrap message, or the length is impossible.
 */
export function bootstrapLength(header: Uint8Array): number {
  if (header.length < HEADER_SIZE) fail(`invalid netlink header length ${header.length}`);
  const view = viewOf(header);
  const type = view.getUint16(4, true);
  if (type === NLMSG.ERROR) fail("failed to read netlink message");
  if (type !== MESSAGE_TYPE) fail(`unexpected msg type ${type}`);
  const length = view.getUint32(0, true);
  if (length < HEADER_SIZE) fail(`invalid netlink message length ${length}: the header alone has ${HEADER_SIZE}`);
  if (length > MESSAGE_MAX) fail(`invalid netlink message length ${length}: no message has more than ${MESSAGE_MAX}`);
  return length;
}

function decodeData(name: Attribute["name"], where: string, data: Uint8Array): Attribute {
  const { kind } = ATTRIBUTES[name];
  if (kind === "number") {
    if (data.length !== 4) fail(`${where} has ${data.length} bytes of data, not 4`);
    return { name: name as NumberAttribute["name"], value: viewOf(data).getUint32(0, true) };
  }
  if (kind === "list" && data.length === 0) return { name: name as ListAttribute["name"], value: [] };
  if (data.at(-1) !== 0) fail(`${where} does not end with a NUL`);
  if (kind === "text") {
    if (data.indexOf(0) !== data.length - 1) fail(`${where} has a NUL inside`);
    return { name: name as TextAttribute["name"], value: data.slice(0, -1) };
  }
  const value: Uint8Array[] = [];
  for (let at = 0; at < data.length;) {
    const end = data.indexOf(0, at);
    value.push(data.slice(at, end));
    at = end + 1;
  }
  return { name: name as ListAttribute["name"], value };
}

/**
 * Decodes a bootstrap message.
 *
 * The result encodes to the same bytes again. So an attribute given twice, padding that is not zero, a missing NUL and
 * bytes after the last attribute are errors.
 *
 * @example
 * ```ts
 * import { BootstrapMessageError, decodeBootstrap, encodeBootstrap } from "./message.ts";
 * import { assertEquals, assertThrows } from "@std/assert";
 *
 * const bytes = encodeBootstrap({ attributes: [{ name: "rootless", value: 1 }] }, "1.2");
 * assertEquals(decodeBootstrap(bytes, "1.2").attributes, [{ name: "rootless", value: 1 }]);
 * bytes[16] = 3;
 * assertThrows(() => decodeBootstrap(bytes, "1.2"), BootstrapMessageError, "less than its own header");
 * ```
 *
 * @param bytes The whole message.
 * @param dialect The dialect.
 * @returns The message.
 * @throws {BootstrapMessageError} If the bytes are not exactly one message.
 */
export function decodeBootstrap(bytes: Uint8Array, dialect: Dialect): BootstrapMessage {
  const length = bootstrapLength(bytes.subarray(0, HEADER_SIZE));
  if (length !== bytes.length) {
    fail(`failed to read netlink payload, ${bytes.length - HEADER_SIZE} != ${length - HEADER_SIZE}`);
  }
  const view = viewOf(bytes);
  const attributes: Attribute[] = [];
  const seen = new Set<number>();
  let at = HEADER_SIZE;
  while (at < length) {
    const left = length - at;
    if (left < ATTRIBUTE_HEADER) fail(`malformed netlink message: ${left} bytes follow the last attribute`);
    const size = view.getUint16(at, true);
    const type = view.getUint16(at + 2, true);
    const where = `malformed netlink message: attribute ${type} at byte ${at}`;
    const name = attributeName(type, dialect);
    if (name === null) fail(`unknown netlink message type ${type}`);
    if (size < ATTRIBUTE_HEADER) fail(`${where} has the length ${size}, less than its own header's`);
    if (pad(size) > left) fail(`${where} runs past the end: ${pad(size)} bytes with padding, and ${left} are left`);
    if (seen.has(type)) fail(`${where} is given twice`);
    seen.add(type);
    attributes.push(decodeData(name, where, bytes.subarray(at + ATTRIBUTE_HEADER, at + size)));
    if (bytes.subarray(at + size, at + pad(size)).some((byte) => byte !== 0)) fail(`${where} is not padded with zeros`);
    at += pad(size);
  }
  const [flags, sequence, pid] = [view.getUint16(6, true), view.getUint32(8, true), view.getUint32(12, true)];
  return { flags, sequence, pid, attributes };
}

/** The processes that a bootstrap has made, as penne sees them. */
export interface BootstrapPids {
  /** The process that joined and made namespaces; it ends at once, and the caller must wait for it. */
  readonly stage1: number;
  /** The container's first process. */
  readonly stage2: number;
}

/**
 * Encodes the answer to a bootstrap message.
 *
 * @example
 * ```ts
 * import { encodePids } from "./message.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(encodePids({ stage1: 7, stage2: 8 }), '{"stage1_pid":7,"stage2_pid":8}\n');
 * ```
 *
 * @param pids The processes.
 * @returns A line.
 */
export function encodePids({ stage1, stage2 }: BootstrapPids): string {
  return `{"stage1_pid":${stage1},"stage2_pid":${stage2}}\n`;
}

/**
 * Decodes the answer to a bootstrap message.
 *
 * @example
 * ```ts
 * import { decodePids } from "./message.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(decodePids('{"stage1_pid":7,"stage2_pid":8}\n'), { stage1: 7, stage2: 8 });
 * ```
 *
 * @param line The line, without the zero byte that comes before it in the dialects `seed` and 1.1.
 * @returns The processes.
 * @throws {BootstrapMessageError} If the line is not such an answer.
 */
export function decodePids(line: string): BootstrapPids {
  const found = /^\{"stage1_pid":([1-9]\d{0,9}),"stage2_pid":([1-9]\d{0,9})\}\n$/.exec(line);
  if (!found) fail(`no answer to a bootstrap message: ${JSON.stringify(line)}`);
  return { stage1: Number(found[1]), stage2: Number(found[2]) };
}
