// The way out of the host: source address and interface of the sockets of flows.

import { E } from "../../../ffi/core/errno.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { bind, bindToDevice, getOption, setOption, socket } from "../../../ffi/net/socket.ts";
import { IP, IPPROTO, IPV6, SO, SOCK, SOL_SOCKET } from "../../../ffi/net/constants.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { ipWords, isGroup, isHostOnly, isLinkScoped, sameIp, wordsOf } from "../../inet/ip_words.ts";
import type { ReachRequest } from "../../network/reach.ts";
import type { Flow } from "./flow_table.ts";
import { type SourcePlan, Sources } from "./sources.ts";

/** Source addresses and interfaces. */
export interface EgressOptions extends Pick<ReachRequest, "outbound" | "outboundInterfaces" | "anySource"> {
  /** What the namespace has inside. */
  readonly sources?: readonly SourcePlan[];
}

/** The addresses of a flow: of the namespace, and of the peer as the namespace knows it. */
export type FlowEnds = Pick<Flow, "inside" | "outside">;

/** Binds sockets. */
export class Egress {
  readonly #outbound: readonly IpWords[];
  readonly #interfaces: EgressOptions["outboundInterfaces"];
  readonly #anySource: boolean;
  #sources: Sources;

  constructor({ outbound = [], outboundInterfaces, anySource = false, sources = [] }: EgressOptions) {
    this.#outbound = outbound.map(wordsOf);
    this.#interfaces = outboundInterfaces;
    this.#anySource = anySource;
    this.#sources = new Sources(sources);
  }

  /** Takes what the namespace has inside from now on. */
  renew({ sources = [] }: EgressOptions): void {
    this.#sources = new Sources(sources, this.#sources);
  }

  /**
   * The source address that a flow must have on the host; null if that is the host's choice.
   *
   * @param ends The addresses of the flow.
   * @param to The destination on the host.
   * @returns The address that was asked for, or that a program inside has chosen.
   */
  sourceOf({ inside, outside }: FlowEnds, to: IpWords): IpWords | null {
    if (isLinkScoped(to) || isHostOnly(to)) return null;
    const given = this.#outbound.find(({ family }) => family === to.family);
    if (given || this.#anySource) return given ?? null;
    return this.#sources.isChosen(inside, to) && sameIp(outside, to) && !isGroup(to) ? inside : null;
  }

  /** Whether an interface is given for the family. */
  hasInterface(family: number): boolean {
    return !!this.#interfaces?.[family === 4 ? 4 : 6];
  }

  /** Index of the interface that is given for the family; 0 if there is none, or not at the moment. */
  interfaceIndex(family: number): number {
    const device = this.#interfaces?.[family === 4 ? 4 : 6];
    const s = device ? socket(family, SOCK.DGRAM) : -1;
    if (s < 0) return 0;
    using _closed = new Fd(s);
    return bindToDevice(s, device!) < 0 ? 0 : Math.max(0, getOption(s, SOL_SOCKET, SO.BINDTOIFINDEX));
  }

  /**
   * Binds a socket to the source address and the interface for a destination.
   *
   * @param s The socket, not yet connected.
   * @param to The destination.
   * @param from Its source address; null for the host's choice.
   * @param port Local port to try, or 0; if it is taken, the kernel chooses one. Without any, connect(2) does.
   * @returns 0, or a negative error number.
   */
  bind(s: number, to: IpWords, from: IpWords | null, port?: number): number {
    if (to.family === 6) setOption(s, IPPROTO.IPV6, IPV6.V6ONLY, 1);
    if (isHostOnly(to)) return 0; // loopback is reached from any address and by no other interface
    const device = this.#interfaces?.[to.family === 4 ? 4 : 6];
    if (device) {
      const error = bindToDevice(s, device);
      if (error < 0) return error;
    }
    if (port && bind(s, from ?? ipWords(to.family), port) === 0) return 0;
    if (!from) return 0;
    // The same port can lead to several destinations if it is chosen when the destination is known.
    if (port === undefined) setOption(s, IPPROTO.IP, IP.BIND_ADDRESS_NO_PORT, 1);
    const error = bind(s, from, 0);
    // The host may have lost an address that is still inside.
    return error === -E.EADDRNOTAVAIL && !this.#outbound.includes(from) ? 0 : error;
  }
}
