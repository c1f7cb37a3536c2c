// Writes the file format of libpcap, pcap-savefile(5): a header of the file, and one before each frame.

/** Bytes of the header of a file, and of that of a frame. */
export const PCAP_HEADER = 24;
export const PCAP_RECORD = 16;
/** Bytes of a frame that are recorded at most, as pasta(1) has it. */
export const PCAP_SNAPLEN = 65535;

/** Times are in microseconds; readers see the byte order from it. */
const MAGIC = 0xa1b2c3d4;
const LINKTYPE_ETHERNET = 1;

/**
 * Writes the header of a file of Ethernet frames.
 *
 * @example
 * ```ts
 * import { PCAP_HEADER, PCAP_RECORD, writePcapHeader, writePcapRecord } from "./pcap.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const view = new DataView(new ArrayBuffer(PCAP_HEADER + PCAP_RECORD));
 * assertEquals(writePcapHeader(view, 0), PCAP_HEADER);
 * assertEquals(writePcapRecord(view, PCAP_HEADER, 1500.25, 70_000), 65535);
 * assertEquals([view.getUint32(24, true), view.getUint32(28, true), view.getUint32(36, true)], [1, 500_250, 70_000]);
 * ```
 *
 * @param view Where to.
 * @param at Offset in it.
 * @returns Offset behind the header.
 */
export function writePcapHeader(view: DataView, at: number): number {
  view.setUint32(at, MAGIC, true);
  view.setUint16(at + 4, 2, true); // version 2.4
  view.setUint16(at + 6, 4, true);
  view.setUint32(at + 8, 0, true);
  view.setUint32(at + 12, 0, true);
  view.setUint32(at + 16, PCAP_SNAPLEN, true);
  view.setUint32(at + 20, LINKTYPE_ETHERNET, true);
  return at + PCAP_HEADER;
}

/**
 * Writes the header of a frame, which follows it.
 *
 * @param view Where to.
 * @param at Offset in it.
 * @param time When the frame passed, milliseconds since 1970.
 * @param length Bytes of the frame.
 * @returns Bytes of the frame that are to follow.
 */
export function writePcapRecord(view: DataView, at: number, time: number, length: number): number {
  const seconds = Math.floor(time / 1000);
  const recorded = Math.min(length, PCAP_SNAPLEN);
  view.setUint32(at, seconds, true);
  view.setUint32(at + 4, Math.floor((time - seconds * 1000) * 1000), true);
  view.setUint32(at + 8, recorded, true);
  view.setUint32(at + 12, length, true);
  return recorded;
}
