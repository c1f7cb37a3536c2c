// A namespace's network interface as penne serves it: its tap, its addresses, its flows, and frames to it.

import type { Block } from "../../../ffi/core/quick.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { writeAt } from "../../../ffi/net/socket.ts";
import type { AdviceFacts } from "../../advice/facts.ts";
import { type Counted, END, type FlowFacts } from "../../flows/contract.ts";
import { Ledger } from "../../flows/ledger.ts";
import type { Keeper } from "../../follow/keeper.ts";
import { ETHERNET, ETHERTYPE, ipHeaderSize, VNET, writeIpHeader } from "../../inet/header.ts";
import { copyOf } from "../../inet/ip_words.ts";
import type { ReachRequest } from "../../network/reach.ts";
import type { TapLink } from "../../network/tap_link.ts";
import type { Reactor } from "../../reactor/reactor.ts";
import { TX } from "./buffers.ts";
import type { Admission, MakeAdmission } from "./admission.ts";
import { Egress, type EgressOptions } from "./egress.ts";
import { FD_BUDGET } from "./fd_budget.ts";
import type { FrameWatch } from "./frame_watch.ts";
import { type Flow, FlowTable } from "./flow_table.ts";
import { Held } from "./held.ts";
import { type Refusal, Refusals } from "./refusals.ts";
import { ResolvedNames } from "./resolved_names.ts";
import { type RuleOptions, Rules } from "./rules.ts";
import { TcpPorts } from "./tcp_ports.ts";

/** Bytes of a frame before its transport header. */
export function headersSize(family: number): number {
  return VNET + ETHERNET + ipHeaderSize(family);
}

/** How an interface is served. */
export interface NetifOptions extends RuleOptions, EgressOptions {
  /** MAC address of penne's side of the tap, 6 bytes. */
  readonly mac: Uint8Array;
  /** Makes what decides by the allow list, if there is one. */
  readonly makeAdmission?: MakeAdmission | null;
  /** The allow list; everything is allowed without one. */
  readonly allow?: ReachRequest["allow"];
  /** Called for each thing that is refused for the first time. */
  readonly onRefused?: ((refusal: Refusal) => void) | null;
  /** Called when an echo request cannot be sent because the host does not allow it. */
  readonly onPingRefused?: () => void;
  /** Protocols of which no packet is taken. */
  readonly off?: ReachRequest["off"];
  /** Who sees each frame. */
  readonly frames?: FrameWatch | null;
  /** What programs inside are told that configure the interface themselves; nothing by default. */
  readonly facts?: () => AdviceFacts;
  /** Who has the rights to look at the sockets inside, if penne has given them up; throws if nobody has them. */
  readonly keeper?: () => Keeper["agent"] | null;
  /** Called with a problem that is not worth failing for. */
  readonly onWarning?: (message: string) => void;
  /** Whether the interface is left to those programs, so that penne says that it is a router; false by default. */
  readonly router?: boolean;
}

/** Addresses of a packet to the namespace, and their sum. */
export type Addresses = Pick<Flow, "inside" | "outside" | "addresses">;

/** The groups that a namespace is in. */
export interface GroupHooks {
  /**
   * Notes a datagram that was sent to a group.
   *
   * @param to The group, and its port.
   * @param inside The port inside.
   * @param outside The port of the host.
   * @param payload What was sent.
   */
  sent(to: IpWords & { readonly port: number }, inside: number, outside: number, payload: Uint8Array): void;
  /** Whether datagrams of some group are received at a port. */
  has(family: number, port: number): boolean;
  /** Calls a function that binds a port of the host to all addresses, while those who receive at it make room. */
  makeRoom(family: number, port: number, bind: () => void): void;
}

/** The interface of a namespace that is served. */
export class Netif {
  /** Descriptor of the tap. */
  readonly tap: number;
  /** MAC address of penne's side of the tap. */
  readonly mac: Uint8Array;
  readonly rules: Rules;
  readonly egress: Egress;
  /** What decides about new flows if there is an allow list, or null. */
  readonly admission: Admission | null;
  readonly table = new FlowTable();
  /** UDP ports of the host that are open, beside the sockets of flows. */
  ports = 0;
  /** Memory of its data, and its part of the host's TCP ports. */
  readonly held = new Held();
  readonly tcpPorts = new TcpPorts();
  /** What the host's resolver has answered, and what was refused. */
  readonly names = new ResolvedNames();
  readonly refusals = new Refusals();
  /** What its flows have moved, and where they went. */
  readonly ledger = new Ledger(this.names);
  /** Frames received from the namespace. */
  received = 0;
  /** Who sees each frame; usually nobody. */
  readonly frames: FrameWatch | null;
  /** The groups that the namespace is in; null if it gets nothing that is sent to groups. */
  groups: GroupHooks | null = null;
  /** Called when the host refuses to send echo requests. */
  readonly onPingRefused: () => void;
  /** Destination and source of frames to the namespace, 12 bytes as words. */
  #mac0: number;
  #mac1: number;
  readonly #mac2: number;

  constructor(readonly reactor: Reactor, public link: TapLink, options: NetifOptions) {
    this.tap = link.tap.number;
    this.mac = options.mac;
    this.onPingRefused = options.onPingRefused ?? (() => {});
    this.frames = options.frames ?? null;
    this.refusals.onNew = options.onRefused ?? null;
    this.rules = new Rules(options);
    this.egress = new Egress(options);
    this.admission = this.rules.admission = options.allow ? this.#decider(options, options.allow) : null;
    const addresses = new DataView(Uint8Array.of(...link.mac, ...options.mac).buffer);
    this.#mac0 = addresses.getInt32(0);
    this.#mac1 = addresses.getInt32(4);
    this.#mac2 = addresses.getInt32(8);
  }

  /** Descriptors that are open, or will be when a flow needs its own. */
  get descriptors(): number {
    return this.table.list.length + this.ports;
  }

  /** Whether what does not take the interface may reach a destination, by the allow list; notes it if not. */
  readonly admits = (
    to: IpWords,
    protocol: number,
    port: number,
    from: { readonly address: IpWords; readonly port: number },
  ): boolean => {
    if (this.admission?.admits(to, protocol, port) ?? true) return true;
    const { ledger, reactor: { now } } = this;
    this.refusals.destination(protocol, to, port, null, now);
    const inside = copyOf(from.address);
    const ends = { inside, insidePort: from.port, outside: to, outsidePort: port };
    const facts: FlowFacts = { protocol, inward: false, ...ends, state: null };
    const refused: Counted = { slot: 0, facts };
    ledger.begin(refused, protocol, to, port, false, now, true);
    ledger.how[refused.slot] = END.FORBIDDEN;
    ledger.end(refused, now);
    return false;
  };

  #decider({ makeAdmission }: NetifOptions, allow: NonNullable<ReachRequest["allow"]>): Admission {
    // Nothing may pass only because that code is missing.
    if (!makeAdmission) throw new Error("the code for allow lists is not loaded");
    const { reactor, egress, names, refusals, rules } = this;
    const mayOpen = (own: number) => FD_BUDGET.mayOpen(this.descriptors + own);
    const countDescriptor = (change: 1 | -1) => FD_BUDGET.countFlow(change);
    return makeAdmission({ reactor, egress, names, refusals, rules, mayOpen, countDescriptor }, allow);
  }

  /** Learns the sender of a frame: the interface inside may have changed its MAC address. */
  learn(view: DataView, link: number): void {
    const a = view.getInt32(link + 6);
    const b = view.getUint16(link + 10);
    if (this.#mac0 === a && this.#mac1 >>> 16 === b) return;
    if (view.getUint8(link + 6) & 1) return; // a group address cannot be the sender
    this.#mac0 = a;
    this.#mac1 = b << 16 | this.#mac1 & 0xffff;
  }

  /**
   * Writes the virtio-net header (nothing offloaded) and the Ethernet header of a frame.
   *
   * @param view Where to.
   * @param at Offset of the frame.
   * @param type ETHERTYPE.*.
   * @returns Offset of the IP header.
   */
  ethernet(view: DataView, at: number, type: number): number {
    view.setInt32(at, 0);
    view.setInt32(at + 4, 0);
    view.setInt16(at + 8, 0);
    view.setInt32(at + VNET, this.#mac0);
    view.setInt32(at + VNET + 4, this.#mac1);
    view.setInt32(at + VNET + 8, this.#mac2);
    view.setUint16(at + VNET + 12, type);
    return at + VNET + ETHERNET;
  }

  /**
   * Writes the headers of a frame up to and including IP's.
   *
   * @param view Where to.
   * @param at Offset of the frame.
   * @param flow Addresses of the packet.
   * @param protocol Protocol above IP.
   * @param length Bytes above IP.
   * @param ttl Time to live.
   * @returns Offset of the transport header.
   */
  headers(view: DataView, at: number, flow: Addresses, protocol: number, length: number, ttl = 64): number {
    const { inside, outside, addresses } = flow;
    const ip = this.ethernet(view, at, inside.family === 4 ? ETHERTYPE.IPV4 : ETHERTYPE.IPV6);
    return writeIpHeader(view, ip, outside, inside, addresses, protocol, length, ttl);
  }

  /** Sends the first `length` bytes of TX into the namespace. */
  write(length: number): void {
    this.writeFrom(TX, 0, length);
  }

  /** Sends `length` bytes of a block into the namespace, from an offset on. */
  writeFrom({ at, bytes }: Block, offset: number, length: number): void {
    writeAt(this.tap, at + offset, length);
    if (this.frames !== null) this.frames.frame(bytes, offset, length, true);
  }
}
