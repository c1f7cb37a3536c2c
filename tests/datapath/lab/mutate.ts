// Sends invalid frames on tap0: `COUNT SEED`. Each has an error that a correct receiver must notice, so nothing of them may
// appear outside. Prints the number of frames sent.

import { parseIp } from "../../../mod/inet/ip.ts";
import { finish, sum } from "../../../mod/inet/checksum.ts";
import { openFrames } from "./frames.ts";
import { GUEST4, GUEST6, PEER4, PEER6 } from "./network.ts";

const [count, seed] = Deno.args.map(Number);
let state = seed! | 1;
const random = (below: number): number => {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return (state >>> 0) % below;
};

using frames = openFrames("tap0");

interface Built {
  frame: Uint8Array;
  view: DataView;
  six: boolean;
  protocol: number;
  ip: number;
  transport: number;
}

/** A correct packet to the peer: TCP, UDP or an echo request, with some payload. */
function build(): Built {
  const six = random(2) === 1;
  const kind = random(3);
  const protocol = kind === 0 ? 6 : kind === 1 ? 17 : six ? 58 : 1;
  const header = kind === 0 ? 20 : 8;
  const payload = 1 + random(200);
  const ipHeader = six ? 40 : 20;
  const frame = new Uint8Array(14 + ipHeader + header + payload);
  for (let i = 14 + ipHeader; i < frame.length; i++) frame[i] = random(256);
  const view = new DataView(frame.buffer);
  frame.set(frames.gateway, 0);
  frame.set(frames.mac, 6);
  view.setUint16(12, six ? 0x86dd : 0x0800);
  if (six) {
    view.setUint8(14, 0x60);
    view.setUint16(18, header + payload);
    view.setUint16(20, protocol << 8 | 64);
    frame.set(parseIp(GUEST6.address)!, 22);
    frame.set(parseIp(PEER6)!, 38);
  } else {
    view.setUint8(14, 0x45);
    view.setUint16(16, 20 + header + payload);
    view.setUint16(22, 64 << 8 | protocol);
    frame.set(parseIp(GUEST4.address)!, 26);
    frame.set(parseIp(PEER4)!, 30);
  }
  const transport = 14 + ipHeader;
  if (kind === 0) {
    view.setUint8(transport + 12, 5 << 4);
    view.setUint8(transport + 13, 2); // SYN
    view.setUint16(transport + 2, 1 + random(6000));
  } else if (kind === 1) view.setUint16(transport + 4, header + payload);
  else view.setUint16(transport, (six ? 128 : 8) << 8);
  const built = { frame, view, six, protocol, ip: 14, transport };
  fixTransport(built);
  fixHeader(built);
  return built;
}

function fixHeader({ view, six, ip }: Built): void {
  if (six) return;
  view.setUint16(ip + 10, 0);
  view.setUint16(ip + 10, finish(sum(view, ip, (view.getUint8(ip) & 15) * 4, 0)));
}

function fixTransport({ view, frame, six, protocol, transport, ip }: Built): void {
  const at = transport + (protocol === 6 ? 16 : protocol === 17 ? 6 : 2);
  const length = frame.length - transport;
  view.setUint16(at, 0);
  const pseudo = protocol === 1 ? 0 : sum(view, ip + (six ? 8 : 12), six ? 32 : 8, protocol + length);
  view.setUint16(at, finish(sum(view, transport, length, pseudo)) || 0xffff);
}

const MUTATIONS: ((b: Built) => Uint8Array)[] = [
  // Cut off.
  ({ frame }) => frame.subarray(0, 14 + random(frame.length - 15)),
  // A flipped bit of the IPv4 header, which the checksum covers; for IPv6 a wrong version.
  ({ frame, six, ip }) => {
    if (six) frame[ip] = random(16) << 4 & 0x9f | 0x10;
    else frame[ip + random(20)]! ^= 1 << random(8);
    return frame;
  },
  // A flipped bit behind it, which the transport checksum covers.
  ({ frame, transport }) => {
    frame[transport + random(frame.length - transport)]! ^= 1 << random(8);
    return frame;
  },
  // A length beyond the frame, or within the header.
  (b) => {
    const { view, frame, six, ip } = b;
    if (six) view.setUint16(ip + 4, frame.length - 54 + 1 + random(60000));
    else view.setUint16(ip + 2, random(2) ? random(20) : frame.length - 14 + 1 + random(60000));
    fixHeader(b);
    return frame;
  },
  // A header length that is too small or beyond the packet, with a correct checksum.
  (b) => {
    if (b.six) b.frame[b.ip] = 0;
    else {
      b.frame[b.ip] = 0x40 | random(5);
      fixHeader(b);
    }
    return b.frame;
  },
  // The same for the transport header.
  (b) => {
    if (b.protocol === 6) b.frame[b.transport + 12] = random(5) << 4;
    else if (b.protocol === 17) b.view.setUint16(b.transport + 4, random(2) ? random(8) : b.frame.length);
    else b.frame[b.transport] = 200 + random(50);
    fixTransport(b);
    return b.frame;
  },
  // A fragment.
  (b) => {
    if (b.six) return chain(b, [44], 0);
    b.view.setUint16(b.ip + 6, 1 + random(0x1fff) & 0x1fff | 0x2000);
    fixHeader(b);
    return b.frame;
  },
  // Chains of extension headers: too long, with a source route, or truncated.
  (b) => {
    if (!b.six) return new Uint8Array(random(1500)).map(() => random(256));
    const choice = random(3);
    if (choice === 0) return chain(b, Array.from({ length: 20 }, () => [0, 60][random(2)]!), 0);
    if (choice === 1) return chain(b, [0, 60, 43], 0);
    return chain(b, [60], 255);
  },
  // Noise with a known EtherType.
  () => {
    const frame = new Uint8Array(14 + random(1400)).map(() => random(256));
    frame.set(frames.gateway, 0);
    new DataView(frame.buffer).setUint16(12, [0x0800, 0x0806, 0x86dd, 0x8100, random(65536)][random(5)]!);
    return frame;
  },
  // A valid segment of a connection that does not exist; penne resets it.
  (b) => {
    if (b.protocol !== 6) return b.frame.subarray(0, 20);
    b.frame[b.transport + 13] = [0, 1, 16, 17, 20, 24, 4][random(7)]!;
    fixTransport(b);
    return b.frame;
  },
];

/** Inserts extension headers, which all claim a length, before the transport header of an IPv6 packet. */
function chain({ frame, view, ip, transport }: Built, types: number[], length: number): Uint8Array {
  const result = new Uint8Array(frame.length + 8 * types.length);
  result.set(frame.subarray(0, transport));
  result.set(frame.subarray(transport), transport + 8 * types.length);
  const out = new DataView(result.buffer);
  const last = view.getUint8(ip + 6);
  out.setUint8(ip + 6, types[0]!);
  types.forEach((type, i) => {
    const at = transport + 8 * i;
    result[at] = types[i + 1] ?? last;
    result[at + 1] = length;
    if (type === 43) result[at + 3] = 1; // segments left
    if (type === 44) out.setUint16(at + 2, 1 + random(8000) << 3 & 0xfff8 | 1);
  });
  out.setUint16(ip + 4, result.length - 54);
  return result;
}

let sent = 0;
for (let i = 0; i < count!; i++) {
  if (frames.send(MUTATIONS[random(MUTATIONS.length)]!(build()))) sent++;
}
console.log(sent);
