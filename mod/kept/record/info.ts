// Codec of info files: `key=value` lines, strict, as snap-confine reads them; pure.
//
// Lines end with a newline, a line with # first is a comment, the first of several lines with the same key counts, and
// everything else is an error that names the line.

import { isNamespaceType, NAMESPACE_TYPES, type NamespaceType } from "../../namespaces/types.ts";
import type { ProcessIdentity } from "./identity.ts";

/** An info file that is not one. */
export class InfoError extends Error {
  /** Always "InfoError". */
  override readonly name = "InfoError";
}

/**
 * Takes the text of an info file apart.
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
 * Makes the text of an info file.
 *
 * @example
 * ```ts
 * import { encodeLines } from "./info.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(new TextDecoder().decode(encodeLines([["a", "1"], ["b", "x\ny"]])), "a=1\nb=x?y\n");
 * ```
 *
 * @param entries Keys and values; what cannot be in a line becomes `?`.
 * @returns The file.
 */
export function encodeLines(entries: Iterable<readonly [string, string]>): Uint8Array {
  let text = "";
  // deno-lint-ignore no-control-regex
  for (const [key, value] of entries) text += `${key}=${value.replace(/[\x00-\x1f\x7f]/g, "?")}\n`;
  return new TextEncoder().encode(text);
}

/** How a namespace is kept: by a mount on its file, or by a process in it. */
export type KeptBy = "mount" | "holder";

/** What is recorded of a namespace. */
export interface KeptNamespace {
  /** What keeps it. */
  readonly by: KeptBy;
  /** Inode number. */
  readonly inum: number;
  /** Device of the namespaces' file system. */
  readonly device: string;
  /** Its id, never used again; null before Linux 6.18. */
  readonly id: string | null;
}

/** What a set is built on; one that has another is stale. */
export interface Base {
  /** Its path, which counts as its name. */
  readonly path: string;
  /** Device of its file system; null if it is not recorded. */
  readonly device: string | null;
}

/** What is recorded of a set. */
export interface KeptInfo {
  /** Its name. */
  readonly name: string;
  /** The user whom root has made it for. */
  readonly user: number | null;
  /** A number of its own: another set of the same name has another one. */
  readonly token: string;
  /** When it was made, RFC 3339. */
  readonly created: string;
  /** The user who has made it. */
  readonly creator: number;
  /** What it was made from, for people: `process 4711 (sshd)`, `command make test`. */
  readonly source: string;
  /** Its namespaces. */
  readonly namespaces: ReadonlyMap<NamespaceType, KeptNamespace>;
  /** The process that keeps what no mount keeps. */
  readonly holder: ProcessIdentity | null;
  /** PID 1 of its pid namespace, which ends with it. */
  readonly init: ProcessIdentity | null;
  /** The pid namespace in which those two have these pids: its id or, before Linux 6.18, its inode number. */
  readonly pids: string;
  /** What it is built on. */
  readonly base: Base | null;
  /** A value of the user's own; a set with another one is stale. */
  readonly key: string | null;
}

/** What a file of snap-confine's own has: which namespaces there are is not recorded. */
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
 * Makes an info file.
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
 * @param info What to record.
 * @param snap Whether snap-confine is to find its own key.
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
 * Reads an info file that penne has written.
 *
 * @param bytes The file.
 * @returns What is recorded.
 * @throws {InfoError} If it is malformed, or lacks something.
 */
export function decodeInfo(bytes: Uint8Array): KeptInfo {
  return infoOf(decodeLines(bytes));
}

/**
 * Reads an info file of snap-confine's layout, which need not be penne's.
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
 * @returns What is recorded: all, if penne has written it.
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
    if (value === undefined) throw new InfoError(`there is no ${key}`);
    if (!grammar.test(value)) throw new InfoError(`${key} is malformed`);
    return value;
  };
  const version = need("version", /^\d+$/);
  if (version !== VERSION) throw new InfoError(`it is of version ${version}, which this penne does not know`);
  const namespaces = new Map<NamespaceType, KeptNamespace>();
  for (const [key, value] of values) {
    if (!key.startsWith("namespace.")) continue;
    const type = key.slice("namespace.".length);
    if (!isNamespaceType(type)) throw new InfoError(`${key} is no kind of namespace`);
    namespaces.set(type, decodeNamespace(key, value));
  }
  if (namespaces.size === 0) throw new InfoError("there is no namespace");
  const holder = decodeProcess("holder", values.get("holder"));
  if (!holder && [...namespaces.values()].some(({ by }) => by === "holder")) throw new InfoError("there is no holder");
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
