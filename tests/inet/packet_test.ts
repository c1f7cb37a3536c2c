// Parsing frames: valid ones are understood, invalid ones refused, and nothing is read beyond the end.

import { assert, assertEquals } from "@std/assert";
import { finish, fold, sum } from "../../mod/inet/checksum.ts";
import { ETHERNET, PROTOCOL, VNET } from "../../mod/inet/header.ts";
import { addressSum } from "../../mod/inet/ip_words.ts";
import { KIND, Packet, parse, transportValid } from "../../mod/inet/packet.ts";
import { FLAG, synOptions } from "../../mod/inet/tcp.ts";
import { test } from "../lib/helpers.ts";

const IP = VNET + ETHERNET;

/** A frame with an IPv4 packet. */
function frame4(protocol: number, payload: Uint8Array, options = new Uint8Array()): Uint8Array {
  const bytes = new Uint8Array(IP + 20 + options.length + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint16(VNET + 12, 0x0800);
  view.setUint8(IP, 0x45 + options.length / 4);
  view.setUint16(IP + 2, 20 + options.length + payload.length);
  view.setUint16(IP + 8, 64 << 8 | protocol);
  bytes.set([10, 0, 0, 1, 10, 0, 0, 2], IP + 12);
  bytes.set(options, IP + 20);
  bytes.set(payload, IP + 20 + options.length);
  view.setUint16(IP + 10, finish(sum(view, IP, 20 + options.length, 0)));
  return bytes;
}

/** A frame with an IPv6 packet. */
function frame6(next: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(IP + 40 + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint16(VNET + 12, 0x86dd);
  view.setUint8(IP, 0x60);
  view.setUint16(IP + 4, payload.length);
  view.setUint16(IP + 6, next << 8 | 63);
  bytes[IP + 23] = 1;
  bytes[IP + 39] = 2;
  bytes.set(payload, IP + 40);
  return bytes;
}

function look(bytes: Uint8Array, length = bytes.length): [kind: number, packet: Packet] {
  const packet = new Packet();
  return [parse(new DataView(bytes.buffer), 0, length, packet), packet];
}

test("parse() finds addresses, protocol and payload of IPv4, with and without options", () => {
  for (const options of [new Uint8Array(), new Uint8Array([1, 1, 1, 0])]) {
    const [kind, p] = look(frame4(PROTOCOL.UDP, new Uint8Array(12), options));
    assertEquals(kind, KIND.IP);
    assertEquals([p.family, p.protocol, p.ttl, p.source.w3, p.destination.w3], [4, 17, 64, 0x0a000001, 0x0a000002]);
    assertEquals([p.transport, p.end], [IP + 20 + options.length, IP + 32 + options.length]);
  }
});

test("parse() ignores Ethernet padding", () => {
  const bytes = new Uint8Array(80);
  bytes.set(frame4(PROTOCOL.UDP, new Uint8Array(8)));
  assertEquals(look(bytes)[1].end, IP + 28);
});

test("parse() skips a bounded number of extension headers, and refuses source routes", () => {
  const udp = new Uint8Array(8);
  const extended = (types: number[], left = 0) => {
    const headers = types.flatMap((_, i) => [types[i + 1] ?? PROTOCOL.UDP, 0, 0, left, 0, 0, 0, 0]);
    return look(frame6(types[0]!, new Uint8Array([...headers, ...udp])));
  };
  const [kind, p] = extended([PROTOCOL.HOP_BY_HOP, PROTOCOL.DESTINATION, PROTOCOL.ROUTING]);
  assertEquals([kind, p.protocol, p.transport, p.ttl], [KIND.IP, 17, IP + 40 + 24, 63]);
  assertEquals(extended(new Array(9).fill(PROTOCOL.DESTINATION))[0], KIND.BAD);
  assertEquals(extended([PROTOCOL.ROUTING], 1)[0], KIND.BAD);
  assertEquals(extended([PROTOCOL.FRAGMENT])[0], KIND.FRAGMENT);
  // A header that claims to be longer than the packet.
  assertEquals(look(frame6(PROTOCOL.DESTINATION, new Uint8Array([17, 200, 0, 0, 0, 0, 0, 0])))[0], KIND.BAD);
});

test("parse() recognizes fragments", () => {
  for (const field of [0x2000, 0x0001, 0x3fff]) {
    const bytes = frame4(PROTOCOL.UDP, new Uint8Array(8));
    const view = new DataView(bytes.buffer);
    view.setUint16(IP + 6, field);
    view.setUint16(IP + 10, 0);
    view.setUint16(IP + 10, finish(sum(view, IP, 20, 0)));
    assertEquals(look(bytes)[0], KIND.FRAGMENT);
  }
});

test("parse() refuses every truncation and every flipped bit of an IPv4 header", () => {
  const bytes = frame4(PROTOCOL.UDP, new Uint8Array(8));
  for (let length = 0; length < bytes.length; length++) assertEquals(look(bytes, length)[0], KIND.BAD);
  for (let bit = 0; bit < 160; bit++) {
    const wrong = bytes.slice();
    wrong[IP + (bit >> 3)]! ^= 1 << (bit & 7);
    assertEquals(look(wrong)[0], KIND.BAD);
  }
  const six = frame6(PROTOCOL.UDP, new Uint8Array(8));
  for (let length = 0; length < six.length; length++) assertEquals(look(six, length)[0], KIND.BAD);
});

test("parse() reads nothing beyond a frame of noise", () => {
  let state = 99;
  for (let round = 0; round < 20_000; round++) {
    const bytes = new Uint8Array(24 + round % 120);
    for (let i = 0; i < bytes.length; i++) bytes[i] = state = (Math.imul(state, 1103515245) + 12345) >>> 16 & 0xff ^ i;
    new DataView(bytes.buffer).setUint16(VNET + 12, round & 1 ? 0x0800 : 0x86dd);
    bytes[IP] = round & 1 ? 0x40 | bytes[0]! & 15 : 0x60;
    const [kind, p] = look(bytes);
    if (kind === KIND.IP || kind === KIND.FRAGMENT) assert(p.transport <= p.end && p.end <= bytes.length);
  }
});

test("transportValid() verifies a checksum, and trusts an offloaded one", () => {
  for (const six of [false, true]) {
    const payload = new Uint8Array(11).map((_, i) => i * 37);
    const bytes = six ? frame6(PROTOCOL.UDP, payload) : frame4(PROTOCOL.UDP, payload);
    const view = new DataView(bytes.buffer);
    const [, p] = look(bytes);
    view.setUint16(p.transport + 6, 0);
    view.setUint16(
      p.transport + 6,
      finish(sum(view, p.transport, 11, addressSum(p.source, p.destination) + PROTOCOL.UDP + 11)),
    );
    assert(transportValid(view, p));
    bytes[p.transport + 9]! ^= 4;
    assert(!transportValid(view, p));
    bytes[0] = 1; // VIRTIO_NET_HDR_F_NEEDS_CSUM
    assert(transportValid(view, look(bytes)[1]));
  }
});

test("fold() and finish() follow RFC 1071", () => {
  assertEquals(fold(0x2ddf0), 0xddf2);
  assertEquals(finish(0x2ddf0), 0x220d);
  assertEquals(fold(0xffff), 0xffff);
  assertEquals(fold(0x1fffe), 0xffff);
});

test("synOptions() handles any bytes, including truncated options and lengths of zero", () => {
  const options = (...bytes: number[]) => synOptions(new DataView(new Uint8Array(bytes).buffer), 0, bytes.length, 4);
  const none = { mss: 536, windowShift: -1, sack: false };
  assertEquals(options(2, 0, 5, 0xb4), none);
  assertEquals(options(2, 4, 5), none);
  assertEquals(options(2), none);
  assertEquals(options(8, 10, 0, 0), none);
  assertEquals(options(0, 3, 3, 7), none);
  assertEquals(options(1, 1, 1, 3, 3, 200), { ...none, windowShift: 14 });
  assertEquals(options(2, 4, 0, 1), { ...none, mss: 88 });
  assertEquals(options(4, 2, 2, 4, 5, 0xb4), { mss: 1460, windowShift: -1, sack: true });
  assertEquals(synOptions(new DataView(new ArrayBuffer(0)), 0, 0, 6).mss, 1220);
  assertEquals(FLAG.SYN | FLAG.ACK, 0x12);
});
