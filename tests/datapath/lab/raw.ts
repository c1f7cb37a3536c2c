// Sends crafted frames through a packet socket on tap0: `redirect` sends redirects and a source route; `arp` sends a request
// and prints the reply in hexadecimal.

import { GUEST4, HOST4, PEER4 } from "./network.ts";
import { type FrameSocket, openFrames } from "./frames.ts";
import { finish, sum } from "../../../mod/inet/checksum.ts";
import { parseIp } from "../../../mod/inet/ip.ts";

/** An IPv4 packet in a frame. */
function packet(
  frames: FrameSocket,
  protocol: number,
  to: string,
  payload: Uint8Array,
  options = new Uint8Array(),
): Uint8Array {
  const header = 20 + options.length;
  const frame = new Uint8Array(14 + header + payload.length);
  const view = new DataView(frame.buffer);
  frame.set(frames.gateway, 0);
  frame.set(frames.mac, 6);
  view.setUint16(12, 0x0800);
  view.setUint8(14, 0x40 | header / 4);
  view.setUint16(16, header + payload.length);
  view.setUint16(22, 64 << 8 | protocol);
  frame.set(parseIp(GUEST4.address)!, 26);
  frame.set(parseIp(to)!, 30);
  frame.set(options, 34);
  view.setUint16(24, finish(sum(view, 14, header, 0)));
  frame.set(payload, 14 + header);
  return frame;
}

if (Deno.args[0] === "arp") {
  using frames = openFrames("tap0");
  const request = new Uint8Array(42);
  request.fill(0xff, 0, 6);
  request.set(frames.mac, 6);
  request.set([8, 6, 0, 1, 8, 0, 6, 4, 0, 1], 12);
  request.set(frames.mac, 22);
  request.set(parseIp(GUEST4.address)!, 28);
  request.set(parseIp("10.77.0.99")!, 38);
  frames.send(request);
  const end = Date.now() + 60_000;
  while (Date.now() < end) {
    const frame = frames.receive();
    if (frame && frame[12] === 8 && frame[13] === 6 && frame[21] === 2) {
      console.log(Array.from(frame, (byte) => byte.toString(16).padStart(2, "0")).join(""));
      break;
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

if (Deno.args[0] === "redirect") {
  using frames = openFrames("tap0");
  // ICMP redirects that send the peer's traffic to 127.0.0.1 and to the host's own address.
  for (const way of ["127.0.0.1", HOST4]) {
    const message = new Uint8Array(8 + 28);
    const view = new DataView(message.buffer);
    view.setUint16(0, 5 << 8 | 1);
    message.set(parseIp(way)!, 4);
    message.set(packet(frames, 6, PEER4, new Uint8Array(8)).subarray(14), 8);
    view.setUint16(2, finish(sum(view, 0, message.length, 0)));
    frames.send(packet(frames, 1, PEER4, message));
  }
  // A loose source route to 127.0.0.1 through the host; the option has the final destination.
  const syn = new Uint8Array(20);
  new DataView(syn.buffer).setUint32(0, 40000 << 16 | 4000);
  syn[12] = 5 << 4;
  syn[13] = 2;
  const route = new Uint8Array([131, 7, 4, 127, 0, 0, 1, 0]);
  frames.send(packet(frames, 6, "127.0.0.1", syn, route));
  console.log("sent");
}
