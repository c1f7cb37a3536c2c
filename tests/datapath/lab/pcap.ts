// Reads captures strictly: every byte must be accounted for.

import { assert, assertEquals } from "@std/assert";

/** A recorded frame. */
export interface Recorded {
  /** Milliseconds since 1970. */
  readonly time: number;
  readonly bytes: Uint8Array;
}

/**
 * The frames of a capture of Ethernet in the format of libpcap. Where it may be `cut`, what is incomplete at the end is left
 * out.
 */
export function readPcap(file: Uint8Array, end: "whole" | "cut" = "whole"): Recorded[] {
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  if (end === "cut" && file.length < 24) return [];
  assert(file.length >= 24, `the header has ${file.length} bytes`);
  const header = [0, 8, 12, 16, 20].map((at) => view.getUint32(at, true));
  assertEquals(header, [0xa1b2c3d4, 0, 0, 65535, 1]);
  assertEquals([view.getUint16(4, true), view.getUint16(6, true)], [2, 4]);
  const frames: Recorded[] = [];
  for (let at = 24; at < file.length;) {
    if (end === "cut" && at + 16 > file.length) break;
    assert(at + 16 <= file.length, `${file.length - at} bytes of a header at the end`);
    const [seconds, micro, recorded, length] = [0, 4, 8, 12].map((offset) => view.getUint32(at + offset, true));
    assert(micro! < 1_000_000 && recorded === Math.min(length!, 65535) && length! >= 14, `frame ${frames.length}`);
    at += 16;
    if (end === "cut" && at + recorded! > file.length) break;
    assert(at + recorded! <= file.length, `${file.length - at} of ${recorded} bytes at the end`);
    frames.push({ time: seconds! * 1000 + micro! / 1000, bytes: file.subarray(at, at += recorded!) });
  }
  return frames;
}

/** What a recorded IPv4 packet carries. */
export interface Carried {
  readonly source: string;
  readonly destination: string;
  readonly protocol: number;
  /** Ports of TCP and UDP. */
  readonly ports: readonly [number, number];
  /** Sequence number and flags of TCP. */
  readonly seq: number;
  readonly flags: number;
  readonly payload: Uint8Array;
}

/** Takes an IPv4 packet of TCP or UDP apart; null if it is none. */
export function carried({ bytes }: Recorded): Carried | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const protocol = bytes[23];
  if (view.getUint16(12) !== 0x0800 || protocol !== 6 && protocol !== 17) return null;
  const t = 14 + (bytes[14]! & 15) * 4;
  const header = protocol === 6 ? (bytes[t + 12]! >> 4) * 4 : 8;
  const ip = (at: number) => bytes.subarray(at, at + 4).join(".");
  return {
    source: ip(26),
    destination: ip(30),
    protocol,
    ports: [view.getUint16(t), view.getUint16(t + 2)],
    seq: protocol === 6 ? view.getUint32(t + 4) : 0,
    flags: protocol === 6 ? bytes[t + 13]! : 0,
    payload: bytes.subarray(t + header, 14 + view.getUint16(16)),
  };
}

/** What went in one direction of the only TCP connection to or from a port. */
export function streamOf(frames: readonly Carried[], from: number): Uint8Array {
  const segments = frames.filter(({ protocol, ports }) => protocol === 6 && ports[0] === from);
  const first = segments.find(({ flags }) => flags & 2)!.seq + 1;
  const parts = segments.filter(({ payload }) => payload.length > 0)
    .map(({ seq, payload }) => ({ at: seq - first >>> 0, payload }));
  const stream = new Uint8Array(Math.max(...parts.map(({ at, payload }) => at + payload.length)));
  for (const { at, payload } of parts) stream.set(payload, at);
  return stream;
}
