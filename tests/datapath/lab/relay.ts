// A bad line: `A B {delay, jitter, loss, repeat}` forwards frames between two interfaces late, out of order, twice, or not at
// all. Offloads are passed on, so frames have up to 64 kB. Prints "ready".

import { EPOLL } from "../../../ffi/sys/epoll.ts";
import { Reactor } from "../../../mod/reactor/reactor.ts";
import { type FrameSocket, openFrames } from "./frames.ts";

const [a, b, text] = Deno.args;
const { delay, jitter, loss, repeat } = JSON.parse(text!) as Record<"delay" | "jitter" | "loss" | "repeat", number>;
const reactor = new Reactor();

// A fixed sequence: xorshift with a constant seed.
let state = 0x12345678;
function random(): number {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return (state >>> 0) / 2 ** 32;
}

function forward(from: FrameSocket, to: FrameSocket): void {
  reactor.watch(from.fd, EPOLL.IN, () => {
    for (let i = 0; i < 64; i++) {
      const frame = from.receive();
      if (!frame) return;
      if (random() < loss) continue;
      const times = random() < repeat ? 2 : 1;
      for (let k = 0; k < times; k++) {
        const wait = delay + (random() < 0.05 ? random() * jitter : 0);
        if (wait === 0) to.send(frame);
        else reactor.after(wait, () => to.send(frame));
      }
    }
  });
}

const [left, right] = [openFrames(a!, true), openFrames(b!, true)];
forward(left, right);
forward(right, left);
console.log("ready");
reactor.run();
