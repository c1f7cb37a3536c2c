// Unusual datagrams. `pour ADDRESS PORT` sends datagrams until it is killed. `ask LOCAL ADDRESS PORT COUNT` sends one from a
// local port to each of COUNT ports, and prints the number of answers. `sizes ADDRESS PORT SIZE…` sends datagrams of these
// sizes, first one by one, each when the one before is answered, then all at once, and prints the sizes of the answers.

import { bind, connect, receiveAt, sendAt, socket } from "../../../ffi/net/socket.ts";
import { MSG, SOCK } from "../../../ffi/net/constants.ts";
import { EPOLL } from "../../../ffi/sys/epoll.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { Block } from "../../../ffi/core/quick.ts";
import { parseIp } from "../../../mod/inet/ip.ts";
import { wordsOf } from "../../../mod/inet/ip_words.ts";
import { Reactor } from "../../../mod/reactor/reactor.ts";

const [mode, ...rest] = Deno.args;
const memory = new Block(65536);
const ANY = { family: 4, w0: 0, w1: 0, w2: 0xffff, w3: 0 };

if (mode === "pour") {
  const to = wordsOf(parseIp(rest[0]!)!);
  const s = socket(to.family, SOCK.DGRAM);
  connect(s, to, Number(rest[1]));
  console.log("ready");
  for (;;) sendAt(s, memory.at, 8, MSG.NOSIGNAL);
} else if (mode === "ask") {
  const [local, port, count] = [rest[0], rest[2], rest[3]].map(Number) as [number, number, number];
  const to = wordsOf(parseIp(rest[1]!)!);
  const s = socket(to.family, SOCK.DGRAM);
  bind(s, ANY, local);
  let received = 0;
  const take = () => {
    while (receiveAt(s, memory.at, 65536, MSG.DONTWAIT) >= 0) received++;
  };
  for (let i = 0; i < count; i++) {
    connect(s, to, port + i);
    sendAt(s, memory.at, 1, MSG.NOSIGNAL);
    await new Promise((resolve) => setTimeout(resolve, 1));
    take();
  }
  await new Promise((resolve) => setTimeout(resolve, 200));
  take();
  console.log(received);
} else {
  using reactor = new Reactor();
  const to = wordsOf(parseIp(rest[0]!)!);
  const s = socket(to.family, SOCK.DGRAM);
  using fd = new Fd(s);
  connect(s, to, Number(rest[1]));
  const answers: number[] = [];
  reactor.watch(fd, EPOLL.IN, () => void answers.push(receiveAt(s, memory.at, 65536, MSG.DONTWAIT)));
  const sizes = rest.slice(2).map(Number);
  let expected = 0;
  const send = (size: number) => {
    sendAt(s, memory.at, size, MSG.NOSIGNAL);
    expected++;
  };
  const settle = () => {
    const end = performance.now() + 30_000;
    while (answers.length < expected && performance.now() < end) reactor.turn(100);
  };
  for (const size of sizes) {
    send(size);
    settle();
  }
  sizes.forEach(send);
  settle();
  console.log(answers.join(" "));
}
