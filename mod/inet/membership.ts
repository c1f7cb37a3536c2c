// Membership of multicast groups as hosts report it: IGMP of all versions (RFC 1112, RFC 2236, RFC 3376) and MLD of both
// (RFC 2710, RFC 3810); pure.

import { type IpWords, readIp4, readIp6 } from "../../ffi/net/sockaddr.ts";
import { finish, fold, sum } from "./checksum.ts";
import { ipWords } from "./ip_words.ts";
import { MLD } from "./mld.ts";

/** Types of records, RFC 3376 section 4.2.12 and RFC 3810 section 5.2.12. */
export const RECORD = { IS_INCLUDE: 1, IS_EXCLUDE: 2, TO_INCLUDE: 3, TO_EXCLUDE: 4, ALLOW: 5, BLOCK: 6 } as const;

/** Types of messages. */
export const IGMP = { QUERY: 0x11, REPORT1: 0x12, REPORT2: 0x16, LEAVE: 0x17, REPORT3: 0x22 } as const;

/** What a host says about one group. Those of the first versions are said with the types of the last. */
export interface MembershipRecord {
  /** RECORD.*; an unknown one is left out. */
  readonly type: number;
  /** The group. */
  readonly group: IpWords;
  /** The sources that the type is about. */
  readonly sources: readonly IpWords[];
  /** Whether a leave is never reported: IGMP version 1. */
  readonly silent: boolean;
}

/** Records of one message that are taken, as many as the largest packet has; and sources of one record. */
const RECORDS_MAX = 8192;
const SOURCES_MAX = 256;
const HEADER = 8;

function read(view: DataView, at: number, family: number): IpWords {
  const words = ipWords();
  if (family === 4) readIp4(view, at, words);
  else readIp6(view, at, words);
  return words;
}

/** Decodes a report of the last version, whose header both protocols have in common. */
function decodeRecords(view: DataView, at: number, end: number, family: number): MembershipRecord[] | null {
  const size = family === 4 ? 4 : 16;
  const records: MembershipRecord[] = [];
  let next = at + HEADER;
  for (let left = Math.min(RECORDS_MAX, view.getUint16(at + 6)); left > 0; left--) {
    if (next + 4 + size > end) return null;
    const type = view.getUint8(next);
    const auxiliary = view.getUint8(next + 1) * 4;
    const count = view.getUint16(next + 2);
    const first = next + 4 + size;
    const after = first + count * size + auxiliary;
    if (after > end) return null;
    const sources = Array.from(
      { length: Math.min(count, SOURCES_MAX) },
      (_, i) => read(view, first + i * size, family),
    );
    if (type >= RECORD.IS_INCLUDE && type <= RECORD.BLOCK) {
      records.push({ type, group: read(view, next + 4, family), sources, silent: false });
    }
    next = after;
  }
  return records;
}

function joins(group: IpWords, silent = false): MembershipRecord[] {
  return [{ type: RECORD.TO_EXCLUDE, group, sources: [], silent }];
}

function leaves(group: IpWords): MembershipRecord[] {
  return [{ type: RECORD.TO_INCLUDE, group, sources: [], silent: false }];
}

/**
 * Decodes a message of IGMP.
 *
 * @example
 * ```ts
 * import { decodeIgmp, RECORD } from "./membership.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const leave = Uint8Array.of(0x17, 0, 0x08, 0x04, 224, 0, 0, 251); // IGMPv2
 * const [record] = decodeIgmp(new DataView(leave.buffer), 0, 8)!;
 * assertEquals([record!.type, record!.group.w3 >>> 0], [RECORD.TO_INCLUDE, 0xe00000fb]);
 * ```
 *
 * @param view Memory that holds it.
 * @param at Where it begins.
 * @param end Where it ends.
 * @returns What it says; null if it is malformed or no report.
 */
export function decodeIgmp(view: DataView, at: number, end: number): MembershipRecord[] | null {
  if (end - at < HEADER || fold(sum(view, at, end - at, 0)) !== 0xffff) return null;
  const type = view.getUint8(at);
  if (type === IGMP.REPORT3) return decodeRecords(view, at, end, 4);
  const group = read(view, at + 4, 4);
  if (type === IGMP.REPORT1 || type === IGMP.REPORT2) return joins(group, type === IGMP.REPORT1);
  return type === IGMP.LEAVE ? leaves(group) : null;
}

/**
 * Decodes a message of MLD, whose checksum the caller has verified.
 *
 * @param view Memory that holds it.
 * @param at Where it begins.
 * @param end Where it ends.
 * @returns What it says; null if it is malformed or no report.
 */
export function decodeMld(view: DataView, at: number, end: number): MembershipRecord[] | null {
  if (end - at < HEADER) return null;
  const type = view.getUint8(at);
  if (type === MLD.REPORT2) return decodeRecords(view, at, end, 6);
  if (type !== MLD.REPORT1 && type !== MLD.DONE || end - at < HEADER + 16) return null;
  const group = read(view, at + HEADER, 6);
  return type === MLD.REPORT1 ? joins(group) : leaves(group);
}

/**
 * A general query of IGMP version 1, RFC 1112 appendix I: all hosts report within ten seconds which groups they are in.
 *
 * @returns The message.
 */
export function encodeQuery1(): Uint8Array {
  const message = new Uint8Array(HEADER);
  const view = new DataView(message.buffer);
  view.setUint8(0, IGMP.QUERY);
  view.setUint16(2, finish(sum(view, 0, HEADER, 0)));
  return message;
}
