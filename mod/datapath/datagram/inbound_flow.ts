// Datagrams that a peer has begun to send to a port of the host, and the answers, which leave by that port.

import { bind, setOption } from "../../../ffi/net/socket.ts";
import { SO, SOL_SOCKET } from "../../../ffi/net/constants.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { EPOLL } from "../../../ffi/sys/epoll.ts";
import type { OpenPort } from "../../forward/ports.ts";
import type { Packet } from "../../inet/packet.ts";
import type { Destination } from "../netif/rules.ts";
import { type Udp, UdpFlow } from "./udp.ts";

/** Datagrams between a peer outside and a port inside. */
export class InboundFlow extends UdpFlow {
  readonly #local: IpWords;

  /**
   * @param udp UDP of the namespace.
   * @param p Addresses: the one inside as the source, the peer's as the namespace is to see it as the destination.
   * @param ports The ports of both: `inside << 16 | outside`.
   * @param local The host's address that the peer sends to.
   * @param listener The host's port; its socket must allow others (SO_REUSEPORT).
   */
  constructor(udp: Udp, p: Packet, ports: number, local: IpWords, readonly listener: OpenPort) {
    super(udp, p, ports);
    this.#local = local;
  }

  override get inward(): boolean {
    return true;
  }

  /** Opens the flow to a peer; returns whether it is open. */
  begin(peer: Destination, p: Packet): boolean {
    return this.openTo(peer, p, EPOLL.IN);
  }

  protected override bind(): number {
    setOption(this.s, SOL_SOCKET, SO.REUSEPORT, 1);
    return bind(this.s, this.#local, this.listener.port);
  }

  // The peer learns nothing, as from any host that is out of memory.
  protected override refused(): void {}
}
