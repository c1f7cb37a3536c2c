// The way out of the host: source address and interface of the sockets of flows.

import { bind, bindToDevice, setOption } from "../../../ffi/net/socket.ts";
import { IP, IPPROTO, IPV6 } from "../../../ffi/net/constants.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { ipWords, isHostOnly, isLinkScoped, wordsOf } from "../../inet/ip_words.ts";
import type { ReachRequest } from "../../network/reach.ts";

/** Source addresses and interfaces. */
export type EgressOptions = Pick<ReachRequest, "outbound" | "outboundInterfaces">;

/** Binds sockets. */
export class Egress {
  readonly #outbound: readonly IpWords[];
  readonly #interfaces: EgressOptions["outboundInterfaces"];

  constructor({ outbound = [], outboundInterfaces }: EgressOptions) {
    this.#outbound = outbound.map(wordsOf);
    this.#interfaces = outboundInterfaces;
  }

  /** Whether a source address is given for the family, which is not for addresses of the link only. */
  hasSource(family: number): boolean {
    return this.#outbound.some((address) => address.family === family);
  }

  /**
   * Binds a socket to the source address and the interface for a destination.
   *
   * @param s The socket, not yet connected.
   * @param to The destination.
   * @param port Local port to try, or 0; if it is taken, the kernel chooses one. Without any, connect(2) does.
   * @returns 0, or a negative error number.
   */
  bind(s: number, to: IpWords, port?: number): number {
    if (to.family === 6) setOption(s, IPPROTO.IPV6, IPV6.V6ONLY, 1);
    if (isHostOnly(to)) return 0; // loopback is reached from any address and by no other interface
    const device = this.#interfaces?.[to.family === 4 ? 4 : 6];
    if (device) {
      const error = bindToDevice(s, device);
      if (error < 0) return error;
    }
    const from = isLinkScoped(to) ? undefined : this.#outbound.find(({ family }) => family === to.family);
    if (port && bind(s, from ?? ipWords(to.family), port) === 0) return 0;
    if (!from) return 0;
    // The same port can lead to several destinations if it is chosen when the destination is known.
    if (port === undefined) setOption(s, IPPROTO.IP, IP.BIND_ADDRESS_NO_PORT, 1);
    return bind(s, from, 0);
  }
}
