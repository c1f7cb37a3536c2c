// Codec of info files: `key=value` lines, as strict as snap-confine reads them; pure.
//
// Every line ends with a newline; a line that starts with # is a comment. Of several lines with the same key the first one
// counts. Anything else is an error that names the line.

import { isNamespaceType, NAMESPACE_TYPES, type NamespaceType } from "../../namespaces/types.ts";
import type { ProcessIdentity } from "./identity.ts";

/** An info file is malformed. */
export class InfoError extends Error {
  /** Always "InfoError". */
  override readonly name = "InfoError";
}

/**
 * Decodes the lines of an info file.
 *
 * @example
 * ```ts
 * import { decodeLines, InfoError } from "./info.ts";
 * import { assertEquals, assertThrows } from "@std/assert";
 *
 * const text = (s: string) => new TextEncoder().encode(s);
 * assertEquals(decodeLines(text("# by hand\nkey=a=b\nkey=c\nnone=\n")), new Map([["key", "a=b"], ["none", ""]]));
 * assertThrows(() => decodeLines(text("a=1\nb\n")), InfoError, "line 2 is not a key=value assignment");
 * ```
 *
 * @param bytes The file.
 * @returns Values by key.
 * @throws {InfoError} If a line is malformed.
 */
export function decodeLines(bytes: Uint8Array): Map<string, string> {
  const values = new Map<string, string>();
  const decoder = new TextDecoder();
  for (let at = 0, number = 1; at < bytes.length; number++) {
    const newline = bytes.indexOf(10, at);
    const end = newline < 0 ? bytes.length : newline;
    const line = bytes.subarray(at, end);
    at = end + 1;
    if (line.includes(0)) throw new InfoError(`line ${number} contains NUL byte`);
    if (newline < 0) throw new InfoError(`line ${number} does not end with a newline`);
    const text = decoder.decode(line);
    if (text.startsWith("#")) continue;
    if (text.startsWith("[")) throw new InfoError(`line ${number} contains unexpected section`);
    const equals = text.indexOf("=");
    if (equals < 0) throw new InfoError(`line ${number} is not a key=value assignment`);
    if (equals === 0) throw new InfoError(`line ${number} contains empty key`);
    const key = text.slice(0, equals);
    if (!values.has(key)) values.set(key, text.slice(equals + 1));
  }
  return values;
}

/**
 * Encodes the lines of an info file.
 *
 * @example
 * ```ts
 * import { encodeLines } from "./info.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(new TextDecoder().decode(encodeLines([["a", "1"], ["b", "x\ny"]])), "a=1\nb=x?y\n");
 * ```
 *
 * @param entries Keys and values; control characters become `?`.
 * @returns The file.
 */
export function encodeLines(entries: Iterable<readonly [string, string]>): Uint8Array {
  let text = "";
  // deno-lint-ignore no-control-regex
  for (const [key, value] of entries) text += `${key}=${value.replace(/[\x00-\x1f\x7f]/g, "?")}\n`;
  return new TextEncoder().encode(text);
}

/** How a namespace is kept: mounted on its file, or by a process in it. */
export type KeptBy = "mount" | "holder";

/** The record of a namespace. */
export interface KeptNamespace {
  /** How it is kept. */
  readonly by: KeptBy;
  /** Inode number. */
  readonly inum: number;
  /** Device of the nsfs file system. */
  readonly device: string;
  /** Its id, which is never reused; null before Linux 6.18. */
  readonly id: string | null;
}

/** The base a set is built on; a set whose base changes is stale. */
export interface Base {
  /** Its path, which serves as its name. */
  readonly path: string;
  /** Device of its file system; null if it is not recorded. */
  readonly device: string | null;
}

/** The record of a set. */
export interface KeptInfo {
  /** Its name. */
  readonly name: string;
  /** The user that root keeps it for; null if it belongs to the user that made it. */
  readonly user: number | null;
  /** A random number: another set of the same name has a different one. */
  readonly token: string;
  /** When it was made, RFC 3339. */
  readonly created: string;
  /** The user that made it. */
  readonly creator: number;
  /** What it was made from, for people: `process 4711 (sshd)`, `command make test`. */
  readonly source: string;
  /** Its namespaces. */
  readonly namespaces: ReadonlyMap<NamespaceType, KeptNamespace>;
  /** The process that keeps the namespaces which are not mounted. */
  readonly holder: ProcessIdentity | null;
  /** PID 1 of its pid namespace, which ends with it. */
  readonly init: ProcessIdentity | null;
  /** The pid namespace of the pids above: its id or, before Linux 6.18, its inode number. */
  readonly pids: string;
  /** The base it is built on. */
  readonly base: Base | null;
  /** The user's own value; a set with a different one is stale. */
  readonly key: string | null;
}

/** The record in a file of snap-confine's own, which lists no namespaces. */
export type SparseInfo = Pick<KeptInfo, "base" | "key">;

const VERSION = "1";

function encodeProcess({ pid, start, inode }: ProcessIdentity): string {
  return `${pid} ${start} ${inode ?? "-"}`;
}

function decodeProcess(key: string, text: string | undefined): ProcessIdentity | null {
  if (text === undefined) return null;
  const found = /^([1-9]\d{0,9}) (\d{1,20}) (\d{1,20}|-)$/.exec(text);
  if (!found) throw new InfoError(`${key} is not a process's pid, start and inode`);
  return { pid: Number(found[1]), start: found[2]!, inode: found[3] === "-" ? null : found[3]! };
}

function decodeNamespace(key: string, text: string): KeptNamespace {
  const found = /^(mount|holder) (\d{1,10}) (\d+:\d+) (\d{1,20}|-)$/.exec(text);
  if (!found) throw new InfoError(`${key} is not how a namespace is kept, its inode, device and id`);
  return {
    by: found[1] as KeptBy,
    inum: Number(found[2]),
    device: found[3]!,
    id: found[4] === "-" ? null : found[4]!,
  };
}

function baseOf(values: ReadonlyMap<string, string>): Base | null {
  const path = values.get("base-name");
  return path === undefined ? null : { path, device: values.get("base-device") ?? null };
}

/**
 * Encodes an info file.
 *
 * @example
 * ```ts
 * import { decodeInfo, encodeInfo } from "./info.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const info = {
 *   name: "build", user: null, token: "1f", created: "2026-01-01T00:00:00.000Z", creator: 0, source: "command make",
 *   namespaces: new Map([["net", { by: "mount", inum: 4026532189, device: "0:4", id: "77" }]] as const),
 *   holder: null, init: null, pids: "5", base: null, key: null,
 * };
 * assertEquals(decodeInfo(encodeInfo(info)), info);
 * ```
 *
 * @param info The record.
 * @param snap Whether to add the key that snap-confine reads.
 * @returns The file.
 */
export function encodeInfo(info: KeptInfo, snap = false): Uint8Array {
  const entries: [string, string][] = [];
  const add = (key: string, value: string | null) => {
    if (value !== null) entries.push([key, value]);
  };
  if (snap) add("base-snap-name", info.key ?? info.base?.path ?? "");
  add("version", VERSION);
  add("name", info.name);
  add("user", info.user === null ? null : `${info.user}`);
  add("set", info.token);
  add("created", info.created);
  add("creator", `${info.creator}`);
  add("source", info.source);
  for (const [type, { by, inum, device, id }] of info.namespaces) {
    add(`namespace.${type}`, `${by} ${inum} ${device} ${id ?? "-"}`);
  }
  add("holder", info.holder && encodeProcess(info.holder));
  add("init", info.init && encodeProcess(info.init));
  add("pids", info.pids);
  add("base-name", info.base?.path ?? null);
  add("base-device", info.base?.device ?? null);
  add("key", info.key);
  return encodeLines(entries);
}

/**
 * Decodes an info file that penne wrote.
 *
 * @param bytes The file.
 * @returns The record.
 * @throws {InfoError} If it is malformed or incomplete.
 */
export function decodeInfo(bytes: Uint8Array): KeptInfo {
  return infoOf(decodeLines(bytes));
}

/**
 * Decodes an info file of snap-confine's layout, whether penne or snap-confine wrote it.
 *
 * @example
 * ```ts
 * import { decodeSnapInfo } from "./info.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const info = decodeSnapInfo(new TextEncoder().encode("base-snap-name=core22\n"));
 * assertEquals(info, { base: null, key: "core22" });
 * ```
 *
 * @param bytes The file.
 * @returns The record; complete if penne wrote it.
 * @throws {InfoError} If it is malformed.
 */
export function decodeSnapInfo(bytes: Uint8Array): KeptInfo | SparseInfo {
  const values = decodeLines(bytes);
  if (values.has("version")) return infoOf(values);
  return { base: null, key: values.get("base-snap-name") || null };
}

function infoOf(values: ReadonlyMap<string, string>): KeptInfo {
  const need = (key: string, grammar: RegExp): string => {
    const value = values.get(key);
    if (value === undefined) throw new InfoError(`${key} is missing`);
    if (!grammar.test(value)) throw new InfoError(`${key} is malformed`);
    return value;
  };
  const version = need("version", /^\d+$/);
  if (version !== VERSION) throw new InfoError(`this penne does not know version ${version}`);
  const namespaces = new Map<NamespaceType, KeptNamespace>();
  for (const [key, value] of values) {
    if (!key.startsWith("namespace.")) continue;
    const type = key.slice("namespace.".length);
    if (!isNamespaceType(type)) throw new InfoError(`${key} is not a kind of namespace`);
    namespaces.set(type, decodeNamespace(key, value));
  }
  if (namespaces.size === 0) throw new InfoError("no namespace is recorded");
  const holder = decodeProcess("holder", values.get("holder"));
  if (!holder && [...namespaces.values()].some(({ by }) => by === "holder")) throw new InfoError("holder is missing");
  const user = values.get("user");
  return {
    name: need("name", /^[A-Za-z_][A-Za-z0-9_-]{0,63}$/),
    user: user === undefined ? null : Number(need("user", /^\d{1,10}$/)),
    token: need("set", /^[0-9a-f]+$/),
    created: need("created", /^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
    creator: Number(need("creator", /^\d{1,10}$/)),
    source: values.get("source") ?? "",
    namespaces: new Map(NAMESPACE_TYPES.flatMap((type) => namespaces.has(type) ? [[type, namespaces.get(type)!]] : [])),
    holder,
    init: decodeProcess("init", values.get("init")),
    pids: need("pids", /^\d{1,20}$/),
    base: baseOf(values),
    key: values.get("key") ?? null,
  };
}
