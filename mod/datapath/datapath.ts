// Serves a namespace: takes frames from its tap, hands them to whoever knows their protocol, and looks at the clock.

import { E } from "../../ffi/core/errno.ts";
import { EPOLL } from "../../ffi/sys/epoll.ts";
import { readAt } from "../../ffi/net/socket.ts";
import { raiseOpenFilesLimit } from "../../ffi/sys/process.ts";
import { KIND, Packet, parse, PROTOCOL } from "../inet/packet.ts";
import type { Reactor, Registration, Timer } from "../reactor/reactor.ts";
import type { TapLink } from "../network/tap_link.ts";
import { answerArp } from "./neighbour/arp.ts";
import { FRAME_MAX, RX } from "./netif/buffers.ts";
import { type Counters, Netif } from "./netif/netif.ts";
import { type RuleOptions, Rules } from "./netif/rules.ts";
import { Icmp } from "./datagram/echo.ts";
import { answerNeighbour } from "./neighbour/ndp.ts";
import { countNamespace } from "./netif/fd_budget.ts";
import { Tcp } from "./tcp/tcp.ts";
import { TcpFlow } from "./tcp/flow.ts";
import { FLOW_GARBAGE } from "./netif/tidy.ts";
import { Udp } from "./datagram/udp.ts";
import { refuseFragment } from "./icmp/problem.ts";

/** How a namespace is served. */
export interface DatapathOptions extends RuleOptions {
  /** MAC address of our side of the tap, 6 bytes. */
  readonly mac: Uint8Array;
  /** Called once when the tap is gone, and the namespace with it. */
  readonly onDead?: () => void;
}

/** A namespace that is being served. */
export interface Datapath extends Disposable {
  /** What has happened so far. */
  readonly counters: Readonly<Counters>;
  /** Number of flows. */
  readonly flows: number;
  /** Number of TCP connections whose data from inside has not all come yet. */
  readonly unfinished: number;
  /** Ends all flows and serves no more; the tap stays open. */
  close(): void;
}

/** Frames, and bytes, taken from one tap before others get their turn. */
const BATCH_FRAMES = 64;
const BATCH_BYTES = 512 << 10;
/** Milliseconds between looks at the flows. */
const TICK = 100;

/**
 * Serves a namespace on a reactor: TCP, UDP and ICMP echo of both families, address resolution, names.
 *
 * @param reactor The loop; it may serve any number of namespaces.
 * @param link The tap and what is configured inside. The descriptor stays the caller's; only this waits for it.
 * @param options What is reached, and how.
 * @returns The way to end that.
 * @throws {SysError} If the tap cannot be waited for.
 */
export function serveTap(reactor: Reactor, link: TapLink, options: DatapathOptions): Datapath {
  raiseOpenFilesLimit(); // each flow has one
  return new Server(reactor, link, options);
}

class Server implements Datapath {
  readonly #netif: Netif;
  readonly #tcp: Tcp;
  readonly #udp: Udp;
  readonly #icmp: Icmp;
  readonly #watched: Registration;
  readonly #packet = new Packet();
  readonly #onDead: (() => void) | undefined;
  readonly #reactor: Reactor;
  #timer: Timer | null = null;

  constructor(reactor: Reactor, link: TapLink, options: DatapathOptions) {
    this.#reactor = reactor;
    this.#onDead = options.onDead;
    this.#netif = new Netif(reactor, link, options.mac, new Rules(options));
    this.#tcp = new Tcp(this.#netif);
    this.#udp = new Udp(this.#netif);
    this.#icmp = new Icmp(this.#netif);
    this.#watched = reactor.watch(link.tap, EPOLL.IN, (events) => this.#readable(events));
    countNamespace(1);
  }

  get counters(): Readonly<Counters> {
    return this.#netif.counters;
  }

  get flows(): number {
    return this.#netif.table.size;
  }

  get unfinished(): number {
    return this.#netif.table.list.filter((flow) => flow instanceof TcpFlow && flow.unfinished).length;
  }

  #readable(events: number): void {
    const netif = this.#netif;
    let bytes = 0;
    let at = 0;
    for (let frames = 0; frames < BATCH_FRAMES && bytes < BATCH_BYTES; frames++) {
      const n = readAt(netif.tap, RX.at + at, FRAME_MAX);
      if (n <= 0) {
        if (n !== -E.EAGAIN && n !== -E.EINTR) return this.#dead();
        break;
      }
      bytes += n;
      // A datagram waits for others of its flow; anything else is done with.
      if (this.#frame(at, n)) {
        at += n + 7 & ~7;
        if (at + FRAME_MAX <= RX.bytes.length) continue;
        this.#udp.flush();
      } else if (at > 0) this.#udp.flush();
      at = 0;
    }
    this.#udp.flush();
    this.#tcp.finishBatch();
    if (events & EPOLL.ERR && bytes === 0) return this.#dead();
    if (this.#timer === null && netif.table.size > 0) this.#timer = this.#reactor.after(TICK, this.#tick);
  }

  /** Handles a frame; answers whether its memory is still needed. */
  #frame(at: number, length: number): boolean {
    const netif = this.#netif;
    const p = this.#packet;
    netif.counters.received++;
    const kind = parse(RX.view, at, length, p);
    if (kind === KIND.IP) {
      netif.learn(RX.view, p.link);
      if (p.protocol === PROTOCOL.TCP) {
        this.#tcp.input(p);
        return false;
      }
      if (p.protocol === PROTOCOL.UDP) return this.#udp.input(p);
      if (p.protocol === PROTOCOL.ICMP && p.family === 4 || p.protocol === PROTOCOL.ICMPV6 && p.family === 6) {
        if (p.family === 4 || !answerNeighbour(netif, p)) this.#icmp.input(p);
        return false;
      }
    } else if (kind === KIND.ARP) {
      answerArp(netif, p.network, p.end);
      return false;
    } else if (kind === KIND.FRAGMENT) refuseFragment(netif, p);
    netif.counters.dropped++;
    return false;
  }

  readonly #tick = () => {
    const { list } = this.#netif.table;
    const { now } = this.#reactor;
    // From the end: a flow that removes itself is replaced by the last one.
    for (let i = list.length - 1; i >= 0; i--) list[i]?.tick(now);
    if (list.length === 0) FLOW_GARBAGE.collectLater(this.#reactor, this.#quiet);
    this.#timer = list.length > 0 && !this.#netif.closed ? this.#reactor.after(TICK, this.#tick) : null;
  };

  readonly #quiet = () => this.#netif.table.size === 0;

  #dead(): void {
    if (this.#netif.closed) return;
    this.close();
    this.#onDead?.();
  }

  close(): void {
    if (this.#netif.closed) return;
    this.#netif.closed = true;
    countNamespace(-1);
    this.#watched.remove();
    this.#timer?.cancel();
    const { list } = this.#netif.table;
    while (list.length > 0) list[list.length - 1]!.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
