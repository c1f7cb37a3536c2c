// Connections that end by a reset: `serve|connect ROLE ADDRESS PORT`. One side sends a byte and resets ("abort"), closes with
// a byte unread ("leave"), or sends much and resets when all of it is acknowledged ("pour"). The other side prints the error
// that it gets ("suffer"), sends until it gets one ("insist"), or reads only then and also prints how much it got ("late").

import { bind, connect, receiveAt, resetOnClose, sendAt, socket } from "../../../ffi/net/socket.ts";
import { MSG, SOCK } from "../../../ffi/net/constants.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { Block } from "../../../ffi/core/quick.ts";
import { E, errnoName } from "../../../ffi/core/errno.ts";
import { POLL } from "../../../ffi/core/consts.ts";
import { poll } from "../../../ffi/sys/poll.ts";
import { call, out, self } from "../../../ffi/core/task.ts";
import { parseIp } from "../../../mod/inet/ip.ts";
import { wordsOf } from "../../../mod/inet/ip_words.ts";

const [side, role, address, port] = Deno.args;
const memory = new Block(65536);
const POURED = 110_000;
const SIOCOUTQ = 0x5411;
const pause = () => new Promise((resolve) => setTimeout(resolve, 5));

async function connected(): Promise<number> {
  const target = wordsOf(parseIp(address!)!);
  const s = socket(target.family, SOCK.STREAM);
  if (side === "connect") {
    // A second connect(2) would take the error of a connection that has been reset by then.
    if (connect(s, target, Number(port)) === -E.EINPROGRESS) poll([{ fd: Fd.borrow(s), events: POLL.OUT }]);
    return s;
  }
  while (bind(s, target, Number(port)) < 0) await pause(); // a server that is exiting may still have the port
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
  // The peer's byte must have arrived before there is a connection to reset.
  while (receiveAt(s, memory.at, 1, MSG.DONTWAIT) === -E.EAGAIN) await pause();
  resetOnClose(s);
  fd.close();
  console.log("aborted");
} else if (role === "leave") {
  sendAt(s, memory.at, 1, MSG.NOSIGNAL);
  while (receiveAt(s, memory.at, 1, MSG.PEEK | MSG.DONTWAIT) === -E.EAGAIN) await pause();
  fd.close();
  console.log("left");
} else if (role === "pour") {
  for (let left = POURED; left > 0;) {
    const n = sendAt(s, memory.at, Math.min(left, 65536), MSG.DONTWAIT | MSG.NOSIGNAL);
    if (n > 0) left -= n;
    else await pause();
  }
  const unacknowledged = new Int32Array(1);
  do {
    await pause();
    call(self, "ioctl", s, SIOCOUTQ, out(new Uint8Array(unacknowledged.buffer)));
  } while (unacknowledged[0]! > 0);
  resetOnClose(s);
  fd.close();
  console.log("poured");
} else if (role === "insist") {
  console.log("connected");
  let n: number = -E.EAGAIN;
  while (n === -E.EAGAIN) {
    sendAt(s, memory.at, 1, MSG.DONTWAIT | MSG.NOSIGNAL);
    await pause();
    n = receiveAt(s, memory.at, 1, MSG.DONTWAIT);
  }
  console.log(n === 0 ? "end" : errnoName(-n));
} else if (role === "late") {
  console.log("connected");
  Deno.stdin.readSync(new Uint8Array(1));
  let total = 0;
  let n = 1;
  while (n > 0 || n === -E.EAGAIN) {
    n = receiveAt(s, memory.at, 65536, MSG.DONTWAIT);
    if (n > 0) total += n;
    if (n === -E.EAGAIN) await pause();
  }
  console.log(total === POURED ? "all" : `${total} bytes`, n === 0 ? "end" : errnoName(-n));
} else {
  sendAt(s, memory.at, 1, MSG.NOSIGNAL);
  let n = 1;
  while (n > 0 || n === -E.EAGAIN) {
    n = receiveAt(s, memory.at, 1, MSG.DONTWAIT);
    if (n === -E.EAGAIN) await pause();
  }
  console.log(n === 0 ? "end" : errnoName(-n));
}
