// ICMP echo, RFC 792 and RFC 4443, through the kernel's ping sockets (icmp(7)): no privilege is needed.

import {
  connect,
  E,
  getOption,
  IP,
  IPPROTO,
  IPV6 as IPV6_OPTION,
  MSG,
  receiveAt,
  sendAt,
  setOption,
  SO,
  SOCK,
  socket,
  SOL_SOCKET,
  type Words,
} from "../../ffi/net.ts";
import { EPOLL } from "../../ffi/epoll.ts";
import { Fd } from "../../ffi/fd.ts";
import { finish, fold, sum } from "../packet/checksum.ts";
import { IPV4, IPV6, type Packet, PROTOCOL, transportValid } from "../packet/packet.ts";
import type { Watched } from "../reactor/reactor.ts";
import { relayErrors } from "./errors.ts";
import { dropStrays, Flow } from "./flows.ts";
import { RX, TX } from "./memory.ts";
import { type Path, TX_IP } from "./path.ts";
import { isGroup, NOT_REACHED } from "./rules.ts";
import { sendUnreachable } from "./unreachable.ts";

const ICMP_HEADER = 8;
/** Types of echo messages. */
const ECHO = { 4: { request: 8, reply: 0 }, 6: { request: 128, reply: 129 } } as const;
/** Milliseconds without a message after which a flow ends. */
const TIMEOUT = 60_000;
/** Replies taken at once. */
const REPLIES_MAX = 32;

/** What all echo flows of a namespace share. */
export class Icmp {
  constructor(readonly path: Path) {}

  /**
   * Handles an ICMP or ICMPv6 message from the namespace; all but echo requests is none of our business.
   *
   * @param p The packet, in RX.
   */
  input(p: Packet): void {
    const { view } = RX;
    const { path } = this;
    const t = p.transport;
    const length = p.end - t;
    const kinds = p.family === 4 ? ECHO[4] : ECHO[6];
    const valid = length >= ICMP_HEADER && view.getUint16(t) === kinds.request << 8 &&
      (p.family === 4 ? fold(sum(view, t, length, 0)) === 0xffff : transportValid(view, p));
    if (!valid) {
      path.counters.dropped++;
      return;
    }
    const ports = view.getUint16(t + 4) << 16;
    const flow = (path.table.find(p, ports) ?? this.#open(p, ports)) as EchoFlow | null;
    if (flow === null) return;
    flow.usedAt = path.reactor.now;
    if (p.ttl !== flow.ttl) flow.setTtl(p.ttl);
    const send = () => sendAt(flow.s, RX.at + t, length, MSG.DONTWAIT | MSG.NOSIGNAL);
    let n = send();
    if (n < 0 && n !== E.AGAIN) n = send(); // the first may have told of an earlier error
  }

  #open(p: Packet, ports: number): EchoFlow | null {
    const { path } = this;
    const flow = new EchoFlow(path, p, ports);
    const word = RX.view.getInt32(p.transport + 4);
    const refuse = (error: number) => {
      flow.close();
      if (!isGroup({ family: p.family, w0: p.d0, w1: p.d1, w2: p.d2, w3: p.d3 })) {
        sendUnreachable(path, flow, error, word);
      }
      return null;
    };
    const target = path.rules.target(p, p.protocol, 0);
    if (target === null) return refuse(NOT_REACHED);
    if (!path.mayOpen()) {
      path.counters.limited++;
      return refuse(NOT_REACHED);
    }
    const s = socket(target.family, SOCK.DGRAM, target.family === 4 ? IPPROTO.ICMP : IPPROTO.ICMPV6);
    if (s < 0) {
      // Not in ping_group_range: as if nobody had answered.
      if (s !== E.ACCES) path.counters.limited++;
      return s === E.ACCES ? null : refuse(NOT_REACHED);
    }
    flow.fd = new Fd(s);
    flow.s = s;
    setOption(s, IPPROTO.IP, IP.RECVERR, 1);
    if (target.family === 6) setOption(s, IPPROTO.IPV6, IPV6_OPTION.RECVERR, 1);
    // The identifier on the way is the socket's port: the same one if nobody has it.
    let error = path.rules.prepare(s, target, ports >>> 16);
    if (error === 0) error = connect(s, target, 0, target.scope);
    if (error < 0) return refuse(error);
    dropStrays(s);
    try {
      flow.watched = path.reactor.watch(flow.fd, EPOLL.IN, flow.onEvents);
    } catch {
      path.counters.limited++;
      return refuse(NOT_REACHED);
    }
    path.counters.flows++;
    path.table.add(flow, p);
    return flow;
  }
}

/** Echo requests with one identifier to one address. */
class EchoFlow extends Flow {
  fd: Fd | null = null;
  s = -1;
  watched: Watched | null = null;
  ttl = 64;
  usedAt: number;

  constructor(readonly path: Path, p: Packet, ports: number) {
    super(p, ports);
    this.usedAt = path.reactor.now;
  }

  setTtl(ttl: number): void {
    this.ttl = ttl;
    if (this.family === 4) setOption(this.s, IPPROTO.IP, IP.TTL, ttl);
    else setOption(this.s, IPPROTO.IPV6, IPV6_OPTION.UNICAST_HOPS, ttl);
  }

  readonly onEvents = (events: number): void => {
    if (events & EPOLL.ERR) {
      relayErrors(this.path, this, this.s);
      getOption(this.s, SOL_SOCKET, SO.ERROR);
    }
    if (!(events & EPOLL.IN)) return;
    const t = TX_IP + (this.family === 4 ? IPV4 : IPV6);
    for (let i = 0; i < REPLIES_MAX; i++) {
      const n = receiveAt(this.s, TX.at + t, 65535 - IPV4, MSG.DONTWAIT);
      if (n < ICMP_HEADER) return;
      this.#reply(t, n);
    }
  };

  #reply(t: number, length: number): void {
    const { view } = TX;
    const inside: Words = { family: this.family, w0: this.s0, w1: this.s1, w2: this.s2, w3: this.s3 };
    const outside: Words = { family: this.family, w0: this.d0, w1: this.d1, w2: this.d2, w3: this.d3 };
    this.path.ip(outside, inside, this.protocol, length);
    view.setUint16(t, (this.family === 4 ? ECHO[4].reply : ECHO[6].reply) << 8);
    view.setUint16(t + 2, 0);
    view.setUint16(t + 4, this.ports >>> 16);
    const start = this.family === 4 ? 0 : this.path.pseudo(outside, inside, PROTOCOL.ICMPV6, length);
    view.setUint16(t + 2, finish(sum(view, t, length, start)));
    this.usedAt = this.path.reactor.now;
    this.path.write(t + length);
  }

  override tick(now: number): void {
    if (now - this.usedAt > TIMEOUT) this.close();
  }

  override close(): void {
    this.s = -1;
    this.fd?.close();
    this.watched?.remove();
    this.path.table.remove(this);
  }
}
