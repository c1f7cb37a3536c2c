// Many flows at once: `serve ADDRESS PORT` echoes TCP and UDP; `flows tcp|udp ADDRESS PORT COUNT` opens COUNT flows, lets each
// echo once, waits for a line on standard input, and lets each echo again. Raw sockets on one reactor, as Deno's cost more.

import { E } from "../../../ffi/core/errno.ts";
import { bind, connect, receiveAt, sendAt, socket } from "../../../ffi/net/socket.ts";
import { MSG, SO, SOCK, SOL_SOCKET } from "../../../ffi/net/constants.ts";
import { EPOLL } from "../../../ffi/sys/epoll.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { Block } from "../../../ffi/core/quick.ts";
import { call, out, self } from "../../../ffi/core/task.ts";
import { parseIp } from "../../../mod/inet/ip.ts";
import { wordsOf } from "../../../mod/inet/ip_words.ts";
import { Reactor } from "../../../mod/reactor/reactor.ts";

const [mode, ...rest] = Deno.args;
const reactor = new Reactor();
const memory = new Block(65536);

function serve(address: string, port: number): void {
  const target = wordsOf(parseIp(address)!);
  const listener = socket(target.family, SOCK.STREAM);
  call(self, "setsockopt", listener, SOL_SOCKET, SO.REUSEADDR, new Uint8Array([1, 0, 0, 0]), 4);
  if (bind(listener, target, port) < 0) throw new Error("bind");
  call(self, "listen", listener, 4096);
  reactor.watch(new Fd(listener), EPOLL.IN, () => {
    for (;;) {
      const s = self.raw("accept4", listener, null, null, SOCK.NONBLOCK | SOCK.CLOEXEC);
      if (s < 0) return;
      const fd = new Fd(s);
      const registration = reactor.watch(fd, EPOLL.IN, () => {
        const n = receiveAt(s, memory.at, 65536, MSG.DONTWAIT);
        if (n > 0) sendAt(s, memory.at, n, MSG.DONTWAIT | MSG.NOSIGNAL);
        else if (n !== -E.EAGAIN) {
          fd.close();
          registration.remove();
        }
      });
    }
  });
  const datagrams = socket(target.family, SOCK.DGRAM);
  call(self, "setsockopt", datagrams, SOL_SOCKET, SO.RCVBUF, new Uint8Array([0, 0, 32, 0]), 4);
  if (bind(datagrams, target, port) < 0) throw new Error("bind");
  const from = new Uint8Array(28);
  const data = new Uint8Array(2048);
  const length = new Uint32Array([28]);
  reactor.watch(new Fd(datagrams), EPOLL.IN, () => {
    for (let i = 0; i < 256; i++) {
      length[0] = 28;
      const flags = MSG.DONTWAIT;
      const n = self.raw("recvfrom", datagrams, out(data), 2048, flags, out(from), out(new Uint8Array(length.buffer)));
      if (n < 0) return;
      self.raw("sendto", datagrams, data, n, flags, from.subarray(0, length[0]!), length[0]!);
    }
  });
  console.log("ready");
  reactor.run();
}

/** Waits for a line on standard input. */
function line(): void {
  Deno.stdin.readSync(new Uint8Array(64));
}

function flows(kind: string, address: string, port: number, count: number): void {
  const target = wordsOf(parseIp(address)!);
  const sockets: number[] = [];
  const outcome: Record<string, number> = {};
  const note = (what: string) => outcome[what] = (outcome[what] ?? 0) + 1;
  const type = kind === "tcp" ? SOCK.STREAM : SOCK.DGRAM;
  const waiting = new Set<number>();
  let round = 0;
  const ask = (s: number) => {
    memory.view.setUint32(0, s);
    memory.view.setUint32(4, round);
    const n = sendAt(s, memory.at, 8, MSG.DONTWAIT | MSG.NOSIGNAL);
    if (n < 0) {
      note(`send ${n}`);
      waiting.delete(s);
    }
  };
  const open = () => {
    const s = socket(target.family, type);
    if (s < 0) return note(`socket ${s}`);
    const error = connect(s, target, port);
    if (error < 0 && error !== -E.EINPROGRESS) return note(`connect ${error}`);
    sockets.push(s);
    waiting.add(s);
    let connected = kind === "udp";
    if (connected) ask(s);
    const registration = reactor.watch(new Fd(s), EPOLL.IN | EPOLL.OUT | EPOLL.ET, (events) => {
      if (!connected && events & EPOLL.OUT && !(events & EPOLL.ERR)) {
        connected = true;
        ask(s);
      }
      let n: number;
      // Datagrams are sent again if their answer is late: then a second one follows, also of the round before.
      do n = receiveAt(s, memory.at, 65536, MSG.DONTWAIT); while (
        kind === "udp" && n === 8 && !(waiting.has(s) && memory.view.getUint32(4) === round)
      );
      if (n === -E.EAGAIN) return;
      if (n === 8 && memory.view.getUint32(0) === s && memory.view.getUint32(4) === round) note(`echo ${round}`);
      else {
        note(n < 0 ? `error ${n}` : n === 0 ? "end" : "wrong echo");
        registration.remove();
      }
      waiting.delete(s);
    });
  };
  const settle = (seconds: number, enough = 0) => {
    const end = performance.now() + seconds * 1000;
    let asked = performance.now();
    while (waiting.size > enough && performance.now() < end) {
      reactor.turn(10);
      if (kind === "udp" && performance.now() - asked > 1000) { // datagrams may be lost
        asked = performance.now();
        for (const s of waiting) ask(s);
      }
    }
  };
  const report = () => {
    settle(120);
    if (waiting.size > 0) outcome.silent = waiting.size;
    console.log(JSON.stringify(outcome));
  };
  // Not more at once than a listen queue holds.
  for (let i = 0; i < count; i += 100) {
    for (let j = 0; j < Math.min(100, count - i); j++) open();
    settle(2, 50);
  }
  report();
  line();
  round = 1;
  delete outcome.silent;
  for (let i = 0; i < sockets.length; i += 100) {
    for (const s of sockets.slice(i, i + 100)) {
      waiting.add(s);
      ask(s);
    }
    settle(2, 50);
  }
  report();
  line();
}

if (mode === "serve") serve(rest[0]!, Number(rest[1]));
else flows(rest[0]!, rest[1]!, Number(rest[2]), Number(rest[3]));
