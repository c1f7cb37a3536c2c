// Reports of membership, as kernels and routers write them, and what is malformed.

import { assertEquals } from "@std/assert";
import { finish, sum } from "../../mod/inet/checksum.ts";
import { formatIp, parseIp } from "../../mod/inet/ip.ts";
import { decodeIgmp, decodeMld, encodeQuery1, type MembershipRecord, RECORD } from "../../mod/inet/membership.ts";
import { isKernelGroup, isKernelReport } from "../../mod/inet/mld.ts";
import { wordsOf } from "../../mod/inet/ip_words.ts";
import type { IpWords } from "../../ffi/net/sockaddr.ts";
import { test } from "../lib/helpers.ts";

function text({ family, w0, w1, w2, w3 }: IpWords): string {
  const view = new DataView(new ArrayBuffer(16));
  [w0, w1, w2, w3].forEach((word, i) => view.setInt32(4 * i, word));
  return formatIp(new Uint8Array(view.buffer, family === 4 ? 12 : 0));
}

function brief(records: MembershipRecord[] | null): unknown {
  return records?.map(({ type, group, sources, silent }) => [type, text(group), sources.map(text), silent]) ?? null;
}

/** A message of IGMP with its checksum. */
function igmp(...bytes: number[]): DataView {
  const view = new DataView(Uint8Array.from(bytes).buffer);
  view.setUint16(2, 0);
  view.setUint16(2, finish(sum(view, 0, view.byteLength, 0)));
  return view;
}

function record(type: number, group: string, sources: string[], auxiliary: number = 0): number[] {
  const addresses = [group, ...sources].flatMap((address) => [...parseIp(address)!]);
  return [type, auxiliary, sources.length >> 8, sources.length & 255, ...addresses, ...Array(auxiliary * 4).fill(9)];
}

const read4 = (view: DataView) => brief(decodeIgmp(view, 0, view.byteLength));
const read6 = (...bytes: number[]) => brief(decodeMld(new DataView(Uint8Array.from(bytes).buffer), 0, bytes.length));

test("reports of all versions of IGMP say who joins and leaves what", () => {
  const group = [239, 1, 2, 3];
  assertEquals(read4(igmp(0x12, 0, 0, 0, ...group)), [[RECORD.TO_EXCLUDE, "239.1.2.3", [], true]]);
  assertEquals(read4(igmp(0x16, 0, 0, 0, ...group)), [[RECORD.TO_EXCLUDE, "239.1.2.3", [], false]]);
  assertEquals(read4(igmp(0x17, 0, 0, 0, ...group)), [[RECORD.TO_INCLUDE, "239.1.2.3", [], false]]);
  const records = [
    ...record(RECORD.ALLOW, "232.1.2.3", ["192.0.2.1", "192.0.2.9"], 1),
    ...record(9, "232.1.2.4", []),
    ...record(RECORD.BLOCK, "239.1.2.3", []),
  ];
  assertEquals(read4(igmp(0x22, 0, 0, 0, 0, 0, 0, 3, ...records)), [
    [RECORD.ALLOW, "232.1.2.3", ["192.0.2.1", "192.0.2.9"], false],
    [RECORD.BLOCK, "239.1.2.3", [], false],
  ]);
});

test("reports of both versions of MLD do, too", () => {
  const group = [...parseIp("ff05::77")!];
  assertEquals(read6(131, 0, 0, 0, 0, 0, 0, 0, ...group), [[RECORD.TO_EXCLUDE, "ff05::77", [], false]]);
  assertEquals(read6(132, 0, 0, 0, 0, 0, 0, 0, ...group), [[RECORD.TO_INCLUDE, "ff05::77", [], false]]);
  const records = record(RECORD.TO_EXCLUDE, "ff3e::77", ["2001:db8::1"]);
  assertEquals(read6(143, 0, 0, 0, 0, 0, 0, 1, ...records), [[RECORD.TO_EXCLUDE, "ff3e::77", ["2001:db8::1"], false]]);
});

test("what is malformed, or a query, says nothing", () => {
  assertEquals(read4(encodeView(encodeQuery1())), null);
  const whole = igmp(0x22, 0, 0, 0, 0, 0, 0, 1, ...record(RECORD.ALLOW, "232.1.2.3", ["192.0.2.1", "192.0.2.9"]));
  for (let length = 0; length < whole.byteLength; length++) {
    const cut = igmp(...new Uint8Array(whole.buffer, 0, length), ...length < 4 ? [0, 0, 0, 0] : []);
    assertEquals(brief(decodeIgmp(cut, 0, length)), null, `${length} bytes`);
  }
  whole.setUint8(9, 255);
  assertEquals(read4(whole), null, "the checksum is wrong");
  assertEquals(read4(igmp(...new Uint8Array(whole.buffer))), null, "more auxiliary data than there is");
  assertEquals(read6(131, 0, 0, 0, 0, 0, 0, 0, ...parseIp("ff05::77")!.subarray(1)), null);
  assertEquals(read6(143, 0, 0, 0, 0, 0, 255, 255), null);
});

function encodeView(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

test("groups that the kernel joins for itself are known", () => {
  const groups = ["ff02::1", "ff02::2", "ff02::16", "ff02::6a", "ff05::2", "ff02::1:ff12:3456"];
  const others = ["ff02::fb", "ff02::c", "ff02::1:2", "ff05::1", "ff12::1", "ff02::1:1ff:0", "ff02:1::1:ff12:3456"];
  for (const [list, expected] of [[groups, true], [others, false]] as const) {
    for (const group of list) assertEquals([group, isKernelGroup(wordsOf(parseIp(group)!))], [group, expected]);
  }
  const report = (...names: string[]) => {
    const records = names.flatMap((name) => record(RECORD.TO_EXCLUDE, name, ["2001:db8::1"], 1));
    const bytes = [143, 0, 0, 0, 0, 0, 0, names.length, ...records];
    return isKernelReport(new DataView(Uint8Array.from(bytes).buffer), 0, bytes.length);
  };
  assertEquals([report(...groups), report(...groups, "ff02::fb"), report()], [true, false, true]);
});
