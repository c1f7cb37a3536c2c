// Sends fragments on tap0 of packets that never become whole, IPv4 and IPv6 in turn: `COUNT`. Each has a place, a size and an
// identification by chance. Prints the number of frames that were read from the interface meanwhile.

import { finish, sum } from "../../mod/inet/checksum.ts";
import { parseIp } from "../../mod/inet/ip.ts";
import { openFrames } from "../datapath/lab/frames.ts";
import { GUEST4, GUEST6, PEER4, PEER6 } from "../datapath/lab/network.ts";

const count = Number(Deno.args[0]);
let state = 791;
const random = (below: number): number => {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return (state >>> 0) % below;
};

/** Frames that were read from the interface. */
const read = () => Number(Deno.readTextFileSync("/sys/class/net/tap0/statistics/tx_packets"));
const before = read();

/** Waits until a condition holds; the time only ends a test that hangs. */
async function until(condition: () => boolean): Promise<void> {
  const end = Date.now() + 120_000;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`${read() - before} frames were read in time`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

using frames = openFrames("tap0");
for (let i = 0; i < count; i++) {
  const six = i % 2 === 1;
  const piece = 8 * (1 + random(170));
  const offset = random(3) ? 0 : 8 * random(8000);
  const header = six ? 48 : 20;
  const frame = new Uint8Array(14 + header + piece);
  const view = new DataView(frame.buffer);
  frame.set(frames.gateway, 0);
  frame.set(frames.mac, 6);
  view.setUint16(12, six ? 0x86dd : 0x0800);
  const id = random(10) ? random(2 ** 16) : 7;
  if (six) {
    view.setUint8(14, 0x60);
    view.setUint16(18, 8 + piece);
    view.setUint16(20, 44 << 8 | 64);
    frame.set(parseIp(GUEST6.address)!, 22);
    frame.set(parseIp(PEER6)!, 38);
    view.setUint32(54, 17 << 24 | offset | 1);
    view.setUint32(58, id);
  } else {
    view.setUint8(14, 0x45);
    view.setUint16(16, 20 + piece);
    view.setUint16(18, id);
    view.setUint16(20, 0x2000 | offset / 8);
    view.setUint16(22, 64 << 8 | 17);
    frame.set(parseIp(GUEST4.address)!, 26);
    frame.set(parseIp(PEER4)!, 30);
    view.setUint16(24, finish(sum(view, 14, 20, 0)));
  }
  await until(() => frames.send(frame));
  // What is not read in time is lost.
  if (i % 200 === 199) await until(() => read() - before > i);
}
console.log(read() - before);
