// TCP connections segment by segment, and their timers: the test sets the clock, so hours pass at once. The tap is one end of
// a socket pair and the namespace is the test itself; the peer is a listener on this machine's loopback.

import "../lib/preload.ts";
import { assert, assertEquals } from "@std/assert";
import { Fd } from "../../ffi/core/fd.ts";
import { AF, SOCK } from "../../ffi/net/constants.ts";
import { call, out, self } from "../../ffi/core/task.ts";
import { RX } from "../../mod/datapath/netif/buffers.ts";
import { Netif } from "../../mod/datapath/netif/netif.ts";
import type { RuleOptions } from "../../mod/datapath/netif/rules.ts";
import { FD_BUDGET } from "../../mod/datapath/netif/fd_budget.ts";
import { Tcp } from "../../mod/datapath/tcp/tcp.ts";
import type { TcpFlow } from "../../mod/datapath/tcp/flow.ts";
import { finish, sum } from "../../mod/inet/checksum.ts";
import { ETHERNET, IPV4, PROTOCOL, VNET, VNET_FLAG } from "../../mod/inet/header.ts";
import { wordsOf } from "../../mod/inet/ip_words.ts";
import { KIND, Packet, parse } from "../../mod/inet/packet.ts";
import { FLAG, TCP_HEADER } from "../../mod/inet/tcp.ts";
import { Reactor } from "../../mod/reactor/reactor.ts";
import { test } from "../lib/helpers.ts";

const LOOPBACK_INSIDE = Uint8Array.of(10, 0, 0, 1);
const OWN = Uint8Array.of(10, 0, 0, 2);
const IP = VNET + ETHERNET;
const T = IP + IPV4;

/** A segment from penne. */
interface Segment {
  seq: number;
  flags: number;
  length: number;
}

/** A namespace with one connection; the test sends and receives every segment. */
class Inside implements AsyncDisposable {
  readonly reactor = new Reactor();
  readonly tcp: Tcp;
  readonly #tap: Fd;
  readonly #end: Fd;
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  /** The peer. */
  outside: Deno.TcpConn | undefined;
  /** Next sequence number of the namespace, and of penne. */
  seq = 1000;
  ack = 0;

  /** @param options Further rules. */
  constructor(options: RuleOptions = {}) {
    FD_BUDGET.countNamespace(1);
    const pair = new Int32Array(2);
    const bytes = new Uint8Array(pair.buffer);
    call(self, "socketpair", AF.UNIX, SOCK.DGRAM | SOCK.NONBLOCK | SOCK.CLOEXEC, 0, out(bytes));
    [this.#tap, this.#end] = [new Fd(pair[0]!), new Fd(pair[1]!)];
    const mac = Uint8Array.of(2, 0, 0, 0, 0, 1);
    const link = {
      tap: this.#tap,
      name: "tap0",
      mac,
      mtu: 1500,
      ipv4: { address: OWN, prefix: 24, gateway: LOOPBACK_INSIDE },
      ipv6: null,
    };
    this.tcp = new Tcp(new Netif(this.reactor, link, { mac, mapHostLoopback: [LOOPBACK_INSIDE], ...options }));
  }

  /** The connection, or undefined if it has ended. */
  get flow(): TcpFlow | undefined {
    return this.tcp.netif.table.list[0] as TcpFlow | undefined;
  }

  /** Sends a segment, by default without data, and to the port of the peer. */
  send(flags: number, window: number, size = 0, port = (this.#listener.addr as Deno.NetAddr).port): void {
    const { view, bytes } = RX;
    const length = T + TCP_HEADER + size;
    bytes.fill(0, 0, length);
    view.setUint8(0, VNET_FLAG.NEEDS_CSUM); // the packet has not left this machine
    view.setUint16(VNET + 12, 0x0800);
    view.setUint16(IP, 0x4500);
    view.setUint16(IP + 2, IPV4 + TCP_HEADER + size);
    view.setUint16(IP + 8, 64 << 8 | PROTOCOL.TCP);
    bytes.set(OWN, IP + 12);
    bytes.set(LOOPBACK_INSIDE, IP + 16);
    view.setUint16(IP + 10, finish(sum(view, IP, IPV4, 0)));
    view.setUint16(T, 40000);
    view.setUint16(T + 2, port);
    view.setInt32(T + 4, this.seq);
    view.setInt32(T + 8, this.ack);
    view.setUint8(T + 12, 5 << 4);
    view.setUint8(T + 13, flags);
    view.setUint16(T + 14, window);
    const packet = new Packet();
    assertEquals(parse(view, 0, length, packet), KIND.IP);
    this.tcp.input(packet);
    this.tcp.finishBatch();
    this.seq += size;
  }

  /** The segments received since the last call. */
  received(): Segment[] {
    const segments: Segment[] = [];
    const frame = new Uint8Array(70_000);
    const view = new DataView(frame.buffer);
    for (let n; (n = self.raw("read", this.#end, out(frame), frame.length)) > 0;) {
      const header = (view.getUint8(T + 12) >> 4) * 4;
      segments.push({ seq: view.getInt32(T + 4), flags: view.getUint8(T + 13), length: n - T - header });
    }
    return segments;
  }

  /** Connects with a window of some bytes, and makes the peer send data. */
  async connect(window: number, data: Uint8Array): Promise<void> {
    this.send(FLAG.SYN, window);
    this.outside = await this.#listener.accept();
    this.reactor.turn(1000);
    const [synAck] = this.received();
    assertEquals(synAck?.flags, FLAG.SYN | FLAG.ACK);
    this.seq++;
    this.ack = synAck!.seq + 1 | 0;
    this.send(FLAG.ACK, window);
    await this.outside.write(data);
    this.reactor.turn(1000);
  }

  /** Advances the clock until the timer of the connection expires. */
  wait(): void {
    const { flow, reactor } = this;
    reactor.now = flow!.toInside.timer.dueAt;
    flow!.tick(reactor.now);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.flow?.close();
    FD_BUDGET.countNamespace(-1);
    this.outside?.close();
    this.#listener.close();
    this.#tap.close();
    this.#end.close();
    this.reactor[Symbol.dispose]();
    await Promise.resolve();
  }
}

test("a closed window is probed as long as probes are answered, and used at once when it opens", async () => {
  await using inside = new Inside();
  await inside.connect(10_000, new Uint8Array(5000));
  const { ack } = inside;
  assertEquals(inside.received().filter(({ length }) => length > 0).map(({ seq, length }) => [seq, length]), [[
    ack,
    5000,
  ]]);
  // Data in flight was dropped and the window closed, as a kernel does that is out of memory.
  inside.send(FLAG.ACK, 0);
  for (let i = 0; i < 50; i++) {
    inside.wait();
    assertEquals(inside.received(), [{ seq: ack - 1 | 0, flags: FLAG.ACK, length: 0 }]);
    inside.send(FLAG.ACK, 0);
  }
  inside.send(FLAG.ACK, 10_000);
  const now = inside.reactor.now;
  inside.wait();
  assertEquals(inside.received().map(({ seq, length }) => [seq, length]), [[ack, 5000]]);
  assert(inside.reactor.now - now <= 1000, `${inside.reactor.now - now} ms until the data was sent again`);
});

test("unacknowledged data is retransmitted twelve times with growing pauses; then the connection is reset", async () => {
  await using inside = new Inside();
  await inside.connect(10_000, new Uint8Array(100));
  inside.received();
  let before = inside.reactor.now;
  const pauses: number[] = [];
  for (let i = 0; i < 12; i++) {
    inside.wait();
    pauses.push(Math.round(inside.reactor.now - before));
    before = inside.reactor.now;
    assertEquals(inside.received().map(({ seq, length }) => [seq, length]), [[inside.ack, 100]]);
  }
  assertEquals(pauses, pauses.toSorted((a, b) => a - b));
  inside.wait();
  assertEquals(inside.received().map(({ flags }) => flags), [FLAG.RST | FLAG.ACK]);
  assertEquals(inside.flow, undefined);
});

test("an idle namespace is probed after two hours and given up after nine probes", async () => {
  await using inside = new Inside();
  await inside.connect(10_000, new Uint8Array(1));
  inside.received();
  inside.ack = inside.ack + 1 | 0;
  inside.send(FLAG.ACK, 10_000);
  const start = inside.flow!.heardAt;
  const probes: number[] = [];
  for (let second = 60; inside.flow && second < 10_000; second++) {
    inside.flow.tick(start + 1000 * second);
    for (const { flags } of inside.received()) if (flags === FLAG.ACK) probes.push(second);
  }
  assertEquals(probes.length, 9);
  assertEquals(Math.round(probes[0]! / 60), 120);
  assertEquals(inside.flow, undefined);
});

test("a connection ends in order even if the last acknowledgement comes with the FIN", async () => {
  await using inside = new Inside();
  await inside.connect(10_000, new Uint8Array(5000));
  await inside.outside!.closeWrite();
  inside.reactor.turn(1000);
  assert(inside.received().some(({ flags }) => flags & FLAG.FIN));
  // More than the peer's socket holds, so that some of it is still in flight.
  for (let i = 0; i < 20; i++) inside.send(FLAG.ACK, 10_000, 30_000);
  // Closing the socket with unread data would reset the connection and lose what is in flight.
  inside.ack = inside.ack + 5001 | 0;
  inside.send(FLAG.FIN | FLAG.ACK, 10_000);
  assertEquals(inside.flow, undefined);
  const rest = new Uint8Array(100_000);
  let total = 0;
  for (let n; (n = await inside.outside!.read(rest)) !== null;) total += n;
  assertEquals(total, 600_000);
});

test("a resolver whose connection fails at once is avoided", async () => {
  const resolvers = [[224, 0, 0, 1], [127, 0, 0, 1]].map((bytes) => ({ address: Uint8Array.from(bytes), scope: 0 }));
  await using inside = new Inside({ dnsForward: [LOOPBACK_INSIDE], resolvers: () => resolvers });
  const { rules } = inside.tcp.netif;
  const resolver = () => rules.destination(wordsOf(LOOPBACK_INSIDE), PROTOCOL.TCP, 53)?.resolver;
  assertEquals(resolver(), resolvers[0]!.address);
  inside.send(FLAG.SYN, 10_000, 0, 53); // there are no TCP connections to a group
  assertEquals(inside.flow, undefined);
  assertEquals(resolver(), resolvers[1]!.address);
});
