// The data path of one namespace: reads frames from its tap, passes them to their protocol, and runs the flows' time-outs.

import { E } from "../../ffi/core/errno.ts";
import { EPOLL } from "../../ffi/sys/epoll.ts";
import { AF } from "../../ffi/net/constants.ts";
import type { IpWords } from "../../ffi/net/sockaddr.ts";
import { self } from "../../ffi/core/task.ts";
import { readAt, socket } from "../../ffi/net/socket.ts";
import { Listeners } from "../forward/listeners.ts";
import { type Forwarding, NO_PORTS, type OpenPort } from "../forward/ports.ts";
import type { ForwardingRule } from "../forward/rule.ts";
import type { NamespaceRules, RuleTable } from "../forward/rule_table.ts";
import type { Ledger } from "../flows/ledger.ts";
import { PROTOCOL } from "../inet/header.ts";
import { sameIp } from "../inet/ip_words.ts";
import { KIND, Packet, parse } from "../inet/packet.ts";
import { raiseOpenFilesLimit } from "../../ffi/sys/process.ts";
import type { TapLink } from "../network/tap_link.ts";
import type { Reactor, Registration, Timer } from "../reactor/reactor.ts";
import { Adviser } from "./advice/adviser.ts";
import { Echo } from "./datagram/echo.ts";
import { ECHO_BUDGET, PORT_BUDGET } from "./datagram/number_spaces.ts";
import { Udp } from "./datagram/udp.ts";
import { IncomingFragments } from "./fragment/incoming.ts";
import { Inbound } from "./forward/inbound.ts";
import { LoopbackPorts, outboundError } from "./forward/outbound.ts";
import { PortTable } from "./forward/port_table.ts";
import { Groups } from "./multicast/groups.ts";
import { answerArp } from "./neighbour/arp.ts";
import { answerNeighbour } from "./neighbour/ndp.ts";
import { FRAME_MAX, RX } from "./netif/buffers.ts";
import type { EgressOptions } from "./netif/egress.ts";
import { FD_BUDGET } from "./netif/fd_budget.ts";
import { FLOW_GARBAGE } from "./netif/flow_table.ts";
import { HELD_BUDGET } from "./netif/held.ts";
import { Netif, type NetifOptions } from "./netif/netif.ts";
import type { RuleOptions } from "./netif/rules.ts";
import type { Inside } from "./splice/inside.ts";
import { PIPES } from "./splice/pipes.ts";
import { Splices } from "./splice/splices.ts";
import { TcpFlow } from "./tcp/flow.ts";
import { Tcp } from "./tcp/tcp.ts";

/** What the namespaces of this thread share. */
const BUDGETS = [FD_BUDGET, PORT_BUDGET, ECHO_BUDGET, HELD_BUDGET];
/** Frames, and bytes, read from one tap before others get their turn. */
const BATCH_FRAMES = 64;
const BATCH_BYTES = 512 << 10;
/** Milliseconds between calls of {@linkcode Flow.tick}. */
const TICK = 100;

/** Stands for the number of a protocol that is off: no packet has it. */
const OFF = -1;

/** Serves a tap on a reactor: TCP, UDP and ICMP echo over IPv4 and IPv6, address resolution, and DNS. */
export class Datapath implements NamespaceRules, Disposable {
  readonly #reactor: Reactor;
  readonly #netif: Netif;
  readonly #tcp: Tcp;
  readonly #udp: Udp;
  readonly #adviser: Adviser | null;
  readonly #echo: Echo;
  readonly #groups: Groups | null;
  readonly #fragments: IncomingFragments;
  readonly #inbound: Inbound;
  /** The ports of the host that lead into the namespace; they are closed with the data path. */
  readonly ports: PortTable;
  /** The ports inside that lead to the host; null if there are none, and can be none later. */
  outward: PortTable | null = null;
  readonly #splices: Splices;
  /** What is held in the namespace. */
  #inside: Inside | null = null;
  readonly #registration: Registration;
  readonly #packet = new Packet();
  readonly #onDead: () => void;
  #timer: Timer | null = null;
  #closed = false;
  readonly #tcpNumber: number;
  readonly #answersNeighbours: boolean;
  readonly #icmp: boolean;

  /**
   * @param reactor The loop; it may serve any number of namespaces.
   * @param link The tap and the configuration inside. The caller continues to own the descriptor but must not use it.
   * @param options What is reached, and how.
   * @param onDead Called once when the tap is gone, and the namespace with it.
   * @throws {SysError} If the tap cannot be watched.
   */
  constructor(reactor: Reactor, link: TapLink, options: NetifOptions, onDead: () => void) {
    raiseOpenFilesLimit(); // each flow needs a descriptor
    this.#reactor = reactor;
    this.#onDead = onDead;
    const off = options.off ?? [];
    this.#tcpNumber = off.includes("tcp") ? OFF : PROTOCOL.TCP;
    this.#answersNeighbours = !off.includes("ndp");
    this.#icmp = !off.includes("icmp");
    this.#netif = new Netif(reactor, link, options);
    this.#tcp = new Tcp(this.#netif);
    this.#adviser = options.facts ? new Adviser(this.#netif, options.facts, off, options.router ?? false) : null;
    this.#udp = new Udp(this.#netif, this.#adviser, off.includes("udp"));
    this.#echo = new Echo(this.#netif);
    const receivesGroups = !off.includes("udp") && !off.includes("multicast");
    this.#groups = this.#netif.groups = receivesGroups ? new Groups(this.#netif, this.#udp, options) : null;
    this.#fragments = new IncomingFragments(this.#netif, this.#whole);
    this.#splices = new Splices(reactor, this.#netif.ledger);
    this.#inbound = new Inbound(this.#netif, this.#tcp, this.#udp, this.#splices, this.#watchTime);
    this.ports = new PortTable(this.#inbound, {
      families: { [AF.INET]: link.ipv4 !== null, [AF.INET6]: link.ipv6 !== null },
      protocols: { TCP: true, UDP: true },
    });
    this.#registration = reactor.watch(link.tap, EPOLL.IN, (events) => this.#readable(events), "interface");
    for (const budget of BUDGETS) budget.countNamespace(1);
  }

  /** What its flows have moved, and where they went. */
  get ledger(): Ledger {
    return this.#netif.ledger;
  }

  /** Grows whenever something has come from the namespace. */
  get received(): number {
    return this.#netif.received + this.#splices.progress;
  }

  /** Number of TCP connections with data from the namespace that is still to come or to be passed on. */
  get unfinished(): number {
    return this.#netif.table.list.filter((flow) => flow instanceof TcpFlow && flow.unfinished).length +
      this.#splices.unfinished;
  }

  /**
   * Forwards what arrives at ports of the host into the namespace, and what arrives at ports inside to the host.
   *
   * @param forwarding The ports; those that are open are closed with the data path.
   * @param inside What is held in the namespace, which the data path owns from now on; null if nothing may be. Listeners
   * are not followed without its tables, no port leads out, and what comes from the host's loopback takes the interface.
   * @throws {PenneError} If a port inside cannot be opened.
   * @throws {SysError} If a port cannot be watched, or the listeners cannot be read.
   */
  forward(forwarding: Forwarding, inside: Inside | null): void {
    const { local = "usual", outward = [], opened = [], changing = false } = forwarding;
    this.#inside = inside;
    if (inside) {
      this.#inbound.bypass = { inside, local };
      PIPES.prepare();
    }
    if (inside && (outward.length > 0 || opened.length > 0 || changing)) this.#lead(outward, inside, opened);
    this.ports.begin(forwarding, inside?.tables ?? null);
  }

  leadOut(): RuleTable | null {
    if (!this.outward && this.#inside) this.#lead([], this.#inside);
    return this.outward;
  }

  /** Opens ports inside that lead to the host. */
  #lead(rules: readonly ForwardingRule[], inside: Inside, open: readonly OpenPort[] = []): void {
    const netif = this.#netif;
    const ports = new LoopbackPorts(
      this.#reactor,
      { near: inside.socket, far: socket, outward: true, ...netif.admission && { admits: netif.admits } },
      this.#splices,
    );
    const table = this.outward = new PortTable(ports, this.ports.limits, this.#inbound, inside);
    this.ports.back = ports;
    table.begin({ ...NO_PORTS, open }, () => new Listeners(self, "loopback"));
    const failure = table.add(rules);
    if (failure) throw outboundError(failure);
  }

  /**
   * Takes what the namespace has inside, and what the host has, from now on; flows that exist go on.
   *
   * @param link The configuration inside.
   * @param options What is reached, and how.
   */
  renew(link: TapLink, options: RuleOptions & EgressOptions): void {
    this.#netif.link = link;
    this.#netif.rules.renew(options);
    this.#netif.egress.renew(options);
    this.#adviser?.advertise();
    this.#groups?.renew();
  }

  /** Whether a flow has an address inside. */
  uses(address: IpWords): boolean {
    return this.#netif.table.list.some(({ inside }) => sameIp(inside, address));
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
      if (netif.frames !== null) netif.frames.frame(RX.bytes, at, n, false);
      // A datagram stays in RX until others of its flow have come; all other frames are done with.
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
    this.#watchTime();
  }

  /** Has time-outs run while there are flows. */
  readonly #watchTime = () => {
    if (this.#timer !== null || this.#netif.table.list.length === 0) return;
    this.#timer = this.#reactor.after(TICK, this.#tick);
  };

  /** Handles a frame; returns whether its memory is still needed. */
  #frame(at: number, length: number): boolean {
    const netif = this.#netif;
    const p = this.#packet;
    netif.received++;
    const kind = parse(RX.view, at, length, p);
    if (kind === KIND.IP) {
      netif.learn(RX.view, p.link);
      if (p.protocol === this.#tcpNumber) {
        this.#tcp.input(p);
        return false;
      }
      if (p.protocol === PROTOCOL.UDP) return this.#udp.input(p);
      if (p.protocol === (p.family === 4 ? PROTOCOL.ICMP : PROTOCOL.ICMPV6)) {
        const isNeighbour = p.family === 6 && this.#answersNeighbours &&
          (answerNeighbour(netif, p) || this.#adviser?.isSolicited(p));
        if (isNeighbour || p.family === 6 && this.#groups?.takes(p)) return false;
        if (this.#icmp) this.#echo.input(p);
        return false;
      }
      if (p.protocol === PROTOCOL.IGMP && p.family === 4) this.#groups?.hear(p);
    } else if (kind === KIND.ARP) {
      answerArp(netif, p.network, p.end);
      return false;
    } else if (kind === KIND.FRAGMENT) {
      netif.learn(RX.view, p.link);
      this.#udp.flush();
      this.#fragments.input(p);
    }
    return false;
  }

  /** Handles a packet that has come in fragments; neighbour discovery must not (RFC 6980). */
  readonly #whole = (p: Packet) => {
    if (p.protocol === this.#tcpNumber) this.#tcp.input(p);
    else if (p.protocol === PROTOCOL.UDP) {
      if (this.#udp.input(p)) this.#udp.flush();
    } else if (this.#icmp && p.protocol === (p.family === 4 ? PROTOCOL.ICMP : PROTOCOL.ICMPV6)) this.#echo.input(p);
    this.#tcp.finishBatch();
    this.#watchTime();
  };

  readonly #tick = () => {
    const { list } = this.#netif.table;
    const { now } = this.#reactor;
    // From the end, as a flow that is removed is replaced by the last one.
    for (let i = list.length - 1; i >= 0; i--) list[i]?.tick(now);
    FLOW_GARBAGE.collectLater(this.#reactor, FD_BUDGET.taken);
    this.#timer = list.length > 0 && !this.#closed ? this.#reactor.after(TICK, this.#tick) : null;
  };

  #dead(): void {
    if (this.#closed) return;
    this[Symbol.dispose]();
    this.#onDead();
  }

  /** Closes all flows and stops; the tap stays open. */
  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.ledger.stopping = true;
    for (const budget of BUDGETS) budget.countNamespace(-1);
    this.ports[Symbol.dispose]();
    this.outward?.[Symbol.dispose]();
    this.outward?.ports[Symbol.dispose]();
    this.#inbound[Symbol.dispose]();
    this.#splices[Symbol.dispose]();
    this.#inside?.[Symbol.dispose]();
    this.#netif.tcpPorts[Symbol.dispose]();
    this.#registration.remove();
    this.#timer?.cancel();
    this.#adviser?.[Symbol.dispose]();
    this.#groups?.[Symbol.dispose]();
    this.#fragments[Symbol.dispose]();
    this.#netif.admission?.[Symbol.dispose]();
    const { list } = this.#netif.table;
    while (list.length > 0) list[list.length - 1]!.close();
    this.#udp[Symbol.dispose]();
  }
}
