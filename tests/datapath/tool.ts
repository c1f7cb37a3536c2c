// Connections that end by a reset: `serve|connect abort|suffer ADDRESS PORT`. One side sends a byte and resets, the other
// one tells what it is told.

import { bind, connect, E, MSG, receiveAt, resetOnClose, sendAt, SOCK, socket } from "../../ffi/net.ts";
import { Fd } from "../../ffi/fd.ts";
import { Block } from "../../ffi/quick.ts";
import { errnoName } from "../../ffi/errno.ts";
import { call, self } from "../../ffi/task.ts";
import { parseIp } from "../../mod/address/ip.ts";
import { words } from "../../mod/datapath/rules.ts";

const [side, role, address, port] = Deno.args;
const memory = new Block(16);
const pause = () => new Promise((resolve) => setTimeout(resolve, 5));

async function connected(): Promise<number> {
  const target = words(parseIp(address!)!);
  const s = socket(target.family, SOCK.STREAM);
  if (side === "connect") {
    while (true) {
      const result = connect(s, target, Number(port));
      if (result === 0 || result === -106) return s; // EISCONN
      await pause();
    }
  }
  bind(s, target, Number(port));
  call(self, "listen", s, 1);
  console.log("ready");
  while (true) {
    const result = self.raw("accept4", s, null, null, SOCK.NONBLOCK);
    if (result >= 0) return result;
    await pause();
  }
}

const s = await connected();
const fd = new Fd(s);
if (role === "abort") {
  sendAt(s, memory.at, 1, MSG.NOSIGNAL);
  // The other one's byte must have arrived, or there is nothing to reset yet.
  while (receiveAt(s, memory.at, 1, MSG.DONTWAIT) === E.AGAIN) await pause();
  resetOnClose(s);
  fd.close();
  console.log("aborted");
} else {
  sendAt(s, memory.at, 1, MSG.NOSIGNAL);
  let n = 1;
  while (n > 0 || n === E.AGAIN) {
    n = receiveAt(s, memory.at, 1, MSG.DONTWAIT);
    if (n === E.AGAIN) await pause();
  }
  console.log(n === 0 ? "end" : errnoName(-n));
}
