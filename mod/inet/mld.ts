// What is known of MLD without the code for memberships: the groups that a kernel joins for itself; pure.

import { type IpWords, readIp6 } from "../../ffi/net/sockaddr.ts";
import { ipWords } from "./ip_words.ts";

/** Types of messages, which are ones of ICMPv6 (RFC 2710, RFC 3810). */
export const MLD = { QUERY: 130, REPORT1: 131, DONE: 132, REPORT2: 143 } as const;

/** Bytes before the records of a report, or before the group of one of the first version. */
const HEADER = 8;
/** Bytes of a record and of an address. */
const [RECORD, ADDRESS] = [20, 16];

/** A group of a report. */
const group = ipWords();

/** Groups of IPv6 that the kernel joins for itself: ff02::1:ff00:0/104, and ff02::1, ff02::2, ff02::16, ff02::6a, ff05::2. */
export function isKernelGroup({ family, w0, w1, w2, w3 }: IpWords): boolean {
  const scope = w0 & 0xf_0000;
  if (family !== 6 || w0 >>> 24 !== 0xff || w0 & 0xf0_ffff || w1 !== 0) return false;
  if (scope === 0x2_0000 && w2 === 1) return w3 >>> 24 === 0xff;
  if (w2 !== 0) return false;
  return scope === 0x2_0000 ? w3 === 1 || w3 === 2 || w3 === 0x16 || w3 === 0x6a : scope === 0x5_0000 && w3 === 2;
}

/**
 * Whether a report is about groups of the kernel alone, as those are that it sends when an interface comes up. Allocates
 * nothing.
 *
 * @example
 * ```ts
 * import { isKernelReport } from "./mld.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const report = new Uint8Array(28);
 * report.set([143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 0xff, 2]);
 * report.set([1, 0xff, 1, 2, 3], 23); // ff02::1:ff01:203
 * assertEquals(isKernelReport(new DataView(report.buffer), 0, 28), true);
 * report.set([0, 0, 0, 0, 0xfb], 23); // ff02::fb, of mDNS
 * assertEquals(isKernelReport(new DataView(report.buffer), 0, 28), false);
 * ```
 *
 * @param view Memory that holds it.
 * @param at Where it begins.
 * @param end Where it ends.
 * @returns Whether it is; of what is malformed, the part that can be read counts.
 */
export function isKernelReport(view: DataView, at: number, end: number): boolean {
  if (view.getUint8(at) !== MLD.REPORT2) {
    if (at + HEADER + ADDRESS > end) return true;
    readIp6(view, at + HEADER, group);
    return isKernelGroup(group);
  }
  for (let next = at + HEADER; next + RECORD <= end;) {
    readIp6(view, next + 4, group);
    if (!isKernelGroup(group)) return false;
    next += RECORD + view.getUint16(next + 2) * ADDRESS + view.getUint8(next + 1) * 4;
  }
  return true;
}
