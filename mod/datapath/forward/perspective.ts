// How the host's side looks from inside: which address a peer has there, and which one it reaches.
//
// A peer keeps its address, so that programs inside can tell their clients apart. Where the namespace could not answer to
// that address, because it would be itself or its own loopback, an address stands for it that leads out: the one that
// stands for the host's loopback or the host, if there is one, and else the gateway's.

import type { Peer } from "../../../ffi/net/listener.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { isHostOnly, isLinkScoped, sameIp, wordsOf } from "../../inet/ip_words.ts";
import type { FamilyConfig, TapLink } from "../../network/tap_link.ts";
import type { Rules } from "../netif/rules.ts";

/** What is known of one family inside. */
interface Side {
  readonly address: IpWords;
  readonly gateway: IpWords | null;
}

function side(config: FamilyConfig | null): Side | null {
  return config && { address: wordsOf(config.address), gateway: config.gateway && wordsOf(config.gateway) };
}

/** The addresses of one namespace. */
export class Perspective {
  readonly #of: { readonly link: TapLink; readonly rules: Rules };
  #link: TapLink | null = null;
  #ipv4: Side | null = null;
  #ipv6: Side | null = null;

  /** @param of The configuration inside, which may be renewed, and what the addresses outside mean. */
  constructor(of: { readonly link: TapLink; readonly rules: Rules }) {
    this.#of = of;
  }

  /** What the addresses outside mean. */
  get rules(): Rules {
    return this.#of.rules;
  }

  #side(family: number): Side | null {
    const { link } = this.#of;
    if (link !== this.#link) [this.#link, this.#ipv4, this.#ipv6] = [link, side(link.ipv4), side(link.ipv6)];
    return family === 4 ? this.#ipv4 : this.#ipv6;
  }

  /** The address inside that a peer of a family reaches; null if the family is off. */
  inside({ family }: IpWords): IpWords | null {
    return this.#side(family)?.address ?? null;
  }

  /**
   * The address that a peer has inside.
   *
   * @param peer The peer, as the host knows it.
   * @param inside The address inside that it reaches.
   * @returns The address; null if the namespace could not answer to any.
   */
  peer({ address }: Peer, inside: IpWords): IpWords | null {
    const side = this.#side(inside.family);
    const gateway = side?.gateway ?? null;
    if (isHostOnly(address)) return this.rules.loopbackInside(inside.family) ?? gateway;
    if (sameIp(address, inside) || side && sameIp(address, side.address)) {
      return this.rules.hostInside(inside.family) ?? gateway;
    }
    // Which link a link-local address is on is not known inside.
    if (isLinkScoped(address)) return gateway;
    return this.rules.isMapped(address) ? gateway : address;
  }
}
