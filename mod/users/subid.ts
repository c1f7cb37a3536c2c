// Subordinate ids, looked up as newuidmap does: in /etc/subuid and /etc/subgid, subuid(5), or by the service of NSS for them.

import { orNull, SysError } from "../../ffi/core/errno.ts";
import { readText } from "../../ffi/sys/file.ts";
import { self } from "../../ffi/core/task.ts";
import { runTool } from "../agents/tool.ts";
import { attempt } from "../base/errors.ts";
import { askNss, NSS_TIMEOUT, nsswitch, otherServices, passwd, toolFailure } from "./lookup.ts";
import { servicesOf } from "./nsswitch.ts";
import { users } from "./passwd.ts";

/** A range of subordinate ids. */
export interface SubIdRange {
  /** First id. */
  readonly start: number;
  /** Number of ids. */
  readonly count: number;
}

/** What a look-up of subordinate ids has found, and where. */
export interface SubIdLookup {
  /** The ranges. */
  readonly ranges: readonly SubIdRange[];
  /** Where was looked, such as `/etc/subuid`. */
  readonly looked: string;
  /** Where was not looked and why, a clause for messages; null if everywhere was. */
  readonly unseen: string | null;
  /** Ranges that the file grants to others; with another service it has no effect. */
  readonly others: readonly SubIdRange[];
  /** As many ids as are usual that the file grants to nobody; null if it has none left. */
  readonly free: SubIdRange | null;
}

/** The first id that useradd(8) grants, and how many it grants to each user: SUB_UID_MIN, SUB_UID_COUNT of login.defs(5). */
const USUAL: SubIdRange = { start: 100_000, count: 65_536 };

/** The first number that is no id: the greatest one of 32 bits means "none". */
const ID_END = 2 ** 32 - 1;
/** How many owners of ranges getent is asked about. */
const OWNERS_MAX = 100;

/** A number as strtoul(3) reads it in any base; null if it is none. */
function number(text: string): number | null {
  const match = /^\s*\+?(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9]\d*)$/.exec(text);
  if (!match) return null;
  const digits = match[1]!;
  const value = /^0[0-7]/.test(digits) ? parseInt(digits, 8) : Number(digits);
  return value < 2 ** 64 ? value : null;
}

/** The owner and the range of a line; null if the line is none. */
function parseLine(line: string): { owner: string; range: SubIdRange } | null {
  const [owner = "", first = "", second = ""] = line.split(":");
  const [start, count] = [number(first), number(second)];
  if (owner === "" || start === null || count === null || start >= ID_END || count === 0) return null;
  return { owner, range: { start, count: Math.min(count, ID_END - start) } };
}

/**
 * Finds the ranges of an owner in the text of /etc/subuid or /etc/subgid.
 *
 * Lines are read as shadow does: numbers in base 10, 8 (after 0) or 16 (after 0x), more fields are ignored, and lines that
 * are not `OWNER:START:COUNT` are skipped. Ids beyond the last one are cut off.
 *
 * @example
 * ```ts
 * import { parseSubIds } from "./subid.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const text = "alice:100000:65536\nbob:165536:65536\n1000:0x493e0:10\n";
 * assertEquals(parseSubIds(text, ["alice", "1000"]), [{ start: 100000, count: 65536 }, { start: 300000, count: 10 }]);
 * ```
 *
 * @param text The file.
 * @param owners The user's name and id, as text.
 * @returns The ranges, in the order of the file.
 */
export function parseSubIds(text: string, owners: readonly string[]): SubIdRange[] {
  return text.split("\n").flatMap((line) => {
    const entry = parseLine(line);
    return entry && owners.includes(entry.owner) ? [entry.range] : [];
  });
}

/**
 * Finds ids that may be granted to somebody: who is granted those of another user can be that user in its containers.
 *
 * @example
 * ```ts
 * import { freeSubIds } from "./subid.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(freeSubIds(""), { start: 100000, count: 65536 });
 * assertEquals(freeSubIds("bob:165536:65536\nalice:100000:65536\n"), { start: 231072, count: 65536 });
 * assertEquals(freeSubIds("bob:1:4294967294\n"), null);
 * ```
 *
 * @param text /etc/subuid or /etc/subgid.
 * @returns As many ids as are usual, which no line grants; null if there are none up to the last id.
 */
export function freeSubIds(text: string): SubIdRange | null {
  const taken = text.split("\n").flatMap((line) => parseLine(line)?.range ?? []).sort((a, b) => a.start - b.start);
  let { start: free } = USUAL;
  for (const { start, count } of taken) if (start < free + USUAL.count) free = Math.max(free, start + count);
  return free + USUAL.count <= ID_END ? { start: free, count: USUAL.count } : null;
}

/**
 * Other names of a user that own ranges, which newuidmap accepts too.
 *
 * @returns The names, and where they could not be looked up.
 */
function aliases(text: string, uid: number): { names: string[]; unseen: string | null } {
  const owners = new Set(text.split("\n").flatMap((line) => parseLine(line)?.owner ?? []));
  const known = users(passwd());
  const names = known.filter((user) => user.uid === uid && owners.has(user.name)).map(({ name }) => name);
  const unknown = [...owners].filter((owner) => !/^\d+$/.test(owner) && !known.some(({ name }) => name === owner));
  const { others } = otherServices();
  if (names.length > 0 || unknown.length === 0 || others.length === 0) return { names, unseen: null };
  const answer = askNss(unknown.slice(0, OWNERS_MAX), others);
  return { names: answer.users.filter((user) => user.uid === uid).map(({ name }) => name), unseen: answer.unseen };
}

/**
 * Looks up the subordinate ids that this host grants to a user.
 *
 * @param kind The kind of ids.
 * @param uid The user's id.
 * @param name The user's name, or null if it is not known.
 * @returns The ranges, and where was looked.
 * @throws {PenneError} If a file exists but cannot be read.
 */
export function lookUpSubIds(kind: "user" | "group", uid: number, name: string | null): SubIdLookup {
  const [service = "files"] = servicesOf(nsswitch(), "subid");
  const file = subIdFile(kind);
  if (service !== "files") {
    const text = orNull(() => readText(self, file)) ?? "";
    return { ...askService(service, kind, name ?? `${uid}`), others: othersThan([], text), free: freeSubIds(text) };
  }
  const text = attempt(`read ${file}`, () => orNull(() => readText(self, file), "ENOENT") ?? "");
  const found = (owners: readonly string[], unseen: string | null): SubIdLookup => {
    const ranges = parseSubIds(text, owners);
    return { ranges, looked: file, unseen, others: othersThan(owners, text), free: freeSubIds(text) };
  };
  const own = found([...name === null ? [] : [name], `${uid}`], null);
  if (own.ranges.length > 0) return own;
  const { names, unseen } = aliases(text, uid);
  return found(names, unseen);
}

/** The ranges of all other owners. */
function othersThan(owners: readonly string[], text: string): SubIdRange[] {
  return text.split("\n").flatMap((line) => {
    const entry = parseLine(line);
    return entry && !owners.includes(entry.owner) ? [entry.range] : [];
  });
}

/** Asks a service of NSS by shadow's getsubids(1), which reads the files if the service cannot be had. */
function askService(
  service: string,
  kind: "user" | "group",
  owner: string,
): Pick<SubIdLookup, "ranges" | "looked" | "unseen"> {
  const looked = `${subIdFile(kind)} or its replacement in NSS (${service})`;
  const result = runTool("getsubids", [...kind === "group" ? ["-g"] : [], owner], { timeout: NSS_TIMEOUT });
  if (result instanceof SysError || result.late || result.status.signal !== null) {
    const unseen = `NSS (${service}) was not asked: ${toolFailure("getsubids", result)}`;
    return { ranges: [], looked: subIdFile(kind), unseen };
  }
  // Lines such as "0: alice 100000 65536".
  const ranges = result.output.split("\n").flatMap((line) => {
    const [, start, count] = /^\d+: .* (\d+) (\d+)$/.exec(line) ?? [];
    return start === undefined ? [] : parseLine(`x:${start}:${count}`)?.range ?? [];
  });
  return { ranges, looked, unseen: null };
}

/**
 * Returns the file that grants subordinate ids.
 *
 * @param kind The kind of ids.
 * @returns Its path.
 */
export function subIdFile(kind: "user" | "group"): string {
  return kind === "user" ? "/etc/subuid" : "/etc/subgid";
}
