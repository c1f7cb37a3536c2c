// The groups that a namespace is in, by what it reports: as a router keeps them for one host (RFC 3376 section 6, RFC 3810
// section 7); pure.

import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { isGroup } from "../../inet/ip_words.ts";
import { type MembershipRecord, RECORD } from "../../inet/membership.ts";
import { isKernelGroup } from "../../inet/mld.ts";

/** Groups of a namespace at most. */
export const GROUPS_MAX = 256;
/** Sources of a group at most; the namespace filters by itself what it gets of others. */
const SOURCES_MAX = 64;
/** Milliseconds after which a member is gone that reports no leave, RFC 2236 section 8.4: two queries and an answer. */
export const SILENT_MAX = 260_000;

/** A group that the namespace is in. */
export interface Membership {
  /** The group. */
  readonly group: IpWords;
  /** Whether it wants all sources but those of the list, rather than those of the list alone. */
  excludes: boolean;
  /** The sources, by their words. */
  readonly sources: Map<string, IpWords>;
  /** When it was reported by a host that reports no leave; null if leaves are reported. */
  silentSince: number | null;
}

/** Words of an address as a key. */
export function keyOf({ w0, w1, w2, w3 }: IpWords): string {
  return `${w0}.${w1}.${w2}.${w3}`;
}

/**
 * The memberships of one namespace.
 *
 * @example
 * ```ts
 * import { Memberships } from "./memberships.ts";
 * import { RECORD } from "../../inet/membership.ts";
 * import { ipWords } from "../../inet/ip_words.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const memberships = new Memberships();
 * const group = ipWords(4, 0, 0, 0xffff, 0xe00000fb | 0);
 * const record = { group, sources: [], silent: false };
 * assertEquals(memberships.apply([{ ...record, type: RECORD.TO_EXCLUDE }], 0), true);
 * assertEquals(memberships.list.map(({ excludes }) => excludes), [true]);
 * memberships.apply([{ ...record, type: RECORD.TO_INCLUDE }], 0);
 * assertEquals(memberships.list, []);
 * ```
 */
export class Memberships {
  readonly #groups = new Map<string, Membership>();
  /** Whether a group was not taken because there are too many. */
  overflowed = false;

  /** All of them. */
  get list(): Membership[] {
    return [...this.#groups.values()];
  }

  /** Whether there are some. */
  get any(): boolean {
    return this.#groups.size > 0;
  }

  /** Whether some were reported by a host that reports no leave. */
  get anySilent(): boolean {
    return this.list.some(({ silentSince }) => silentSince !== null);
  }

  /** The membership of a group, or null. */
  find(group: IpWords): Membership | null {
    return this.#groups.get(keyOf(group)) ?? null;
  }

  /**
   * Takes what was reported.
   *
   * @param records The records.
   * @param now Milliseconds.
   * @returns Whether something has changed.
   */
  apply(records: readonly MembershipRecord[], now: number): boolean {
    let changed = false;
    for (const record of records) if (this.#take(record, now)) changed = true;
    return changed;
  }

  #take({ type, group, sources, silent }: MembershipRecord, now: number): boolean {
    if (!isGroup(group) || group.w3 === -1 && group.family === 4 || isKernelGroup(group)) return false;
    const key = keyOf(group);
    const before = this.#groups.get(key) ?? null;
    // What begins empty ends at once, if nothing is added.
    if (before === null && type === RECORD.BLOCK) return false;
    const known: Membership = before ?? { group, excludes: false, sources: new Map(), silentSince: null };
    const changed = change(known, type, sources);
    known.silentSince = silent ? now : null;
    if (!known.excludes && known.sources.size === 0) return this.#groups.delete(key);
    if (before === null) {
      if (this.#groups.size >= GROUPS_MAX) {
        this.overflowed = true;
        return false;
      }
      this.#groups.set(key, known);
    }
    return before === null || changed;
  }

  /** Removes the members that have not reported for too long and report no leave; returns whether there were some. */
  expire(now: number): boolean {
    let changed = false;
    for (const [key, { silentSince }] of this.#groups) {
      if (silentSince !== null && now - silentSince > SILENT_MAX) changed = this.#groups.delete(key);
    }
    return changed;
  }
}

/** Adds a source if there is room; returns whether it was added. */
function keep(sources: Map<string, IpWords>, source: IpWords): boolean {
  const key = keyOf(source);
  if (sources.size >= SOURCES_MAX || sources.has(key)) return false;
  sources.set(key, source);
  return true;
}

/**
 * Takes a record into a membership; returns whether that changes it. One report may have thousands of records, so each takes
 * about as long as its own sources.
 */
function change(known: Membership, type: number, sources: readonly IpWords[]): boolean {
  if (type === RECORD.ALLOW || type === RECORD.BLOCK) {
    const adds = (type === RECORD.ALLOW) !== known.excludes;
    const changes = (source: IpWords) => adds ? keep(known.sources, source) : known.sources.delete(keyOf(source));
    return sources.filter(changes).length > 0;
  }
  const excludes = type === RECORD.IS_EXCLUDE || type === RECORD.TO_EXCLUDE;
  const had = [...known.sources.keys()];
  known.sources.clear();
  for (const source of sources) keep(known.sources, source);
  const same = excludes === known.excludes && had.length === known.sources.size &&
    had.every((key) => known.sources.has(key));
  known.excludes = excludes;
  return !same;
}

/** What tells two states of a membership apart. */
export function describe({ excludes, sources }: Membership): string {
  return `${excludes ? "-" : "+"}${[...sources.keys()].sort()}`;
}
