// Checks what a namespace with a network is to reach, and how; pure.

import { usage } from "../base/errors.ts";
import { formatIp, inPrefix, parseIp } from "../inet/ip.ts";
import type { NameServer } from "../host/resolv_conf.ts";
import { type AllowRule, isNameRule } from "../inet/allow.ts";
import { onePerFamily } from "./request.ts";

/** A block of addresses. */
export interface AddressBlock {
  /** Any address in it, 4 or 16 bytes. */
  readonly address: Uint8Array;
  /** Length of the prefix, bits. */
  readonly prefix: number;
}

/** What is reached; every property has the meaning of the option it names. Addresses have 4 or 16 bytes. */
export interface ReachRequest {
  /** Addresses inside, one per family, whose ports 53 and 853 are the host's resolver: `--dns-forward`. */
  readonly dnsForward?: readonly Uint8Array[];
  /** Resolvers to forward to, one per family, instead of those of the host's /etc/resolv.conf: `--dns-host`. */
  readonly dnsHost?: readonly NameServer[];
  /** Addresses inside, one per family, that stand for the host's loopback: `--map-host-loopback`; none by default. */
  readonly mapHostLoopback?: readonly Uint8Array[];
  /** Whether the gateways of the namespace stand for the host's loopback, instead of those: `--map-gw`. */
  readonly mapGateway?: boolean;
  /** Addresses inside, one per family, that stand for the host's own address: `--map-guest-addr`; none by default. */
  readonly mapGuestAddress?: readonly Uint8Array[];
  /** Addresses that are not reached: `--exclude`. */
  readonly exclude?: readonly AddressBlock[];
  /** What alone is reached, if it is not excluded: `--allow`; everything by default. */
  readonly allow?: readonly AllowRule[];
  /** Whether no address of the host itself is reached, unless it is mapped: `--exclude host`. */
  readonly excludeHost?: boolean;
  /** Source addresses of traffic that leaves the host, one per family: `--outbound`. */
  readonly outbound?: readonly Uint8Array[];
  /** Whether an address that a program inside chooses as its source is not that of the host's socket; false by default. */
  readonly anySource?: boolean;
  /** Interfaces by which it leaves: `--outbound-if4`, `--outbound-if6`. */
  readonly outboundInterfaces?: { readonly 4?: string; readonly 6?: string };
  /**
   * Protocols of which no packet is taken; without `ndp`, no IPv6 address has a neighbour, and without `multicast`, nothing
   * comes in that is sent to multicast groups.
   */
  readonly off?: readonly ("tcp" | "udp" | "icmp" | "ndp" | "dhcp" | "dhcpv6" | "ra" | "multicast")[];
  /** What programs inside are told that configure the interface themselves, beside its addresses and routes. */
  readonly tell?: TellRequest;
}

/** What is told to programs that configure the interface themselves. */
export interface TellRequest {
  /**
   * Name servers: `--dns`. By default the addresses of `dnsForward`, or else those of the host's name servers that can be
   * reached. "host" also has the host's loopback inside, if it is reached, stand for a name server on it.
   */
  readonly dns?: readonly Uint8Array[] | "host";
  /** Search domains: `--search`; those of the host by default. */
  readonly search?: readonly string[];
  /** The search domain if the host has none. */
  readonly domain?: string;
  /** Name of the host inside: `--hostname`; not told by default. */
  readonly hostname?: string;
  /** Its full name: `--fqdn`; not told by default. */
  readonly fqdn?: string;
}

/** Where the host's resolver is inside by default. */
export const RESOLVER_INSIDE = {
  /** A link-local address, which is never behind a gateway. */
  4: parseIp("169.254.1.1")!,
  /** Of the block for local use of RFC 8215. */
  6: parseIp("64:ff9b:1::35")!,
} as const;

/**
 * Refuses a request that contradicts itself.
 *
 * @example
 * ```ts
 * import { checkReach } from "./reach.ts";
 * import { assertThrows } from "@std/assert";
 *
 * checkReach({ mapHostLoopback: [Uint8Array.of(192, 0, 2, 1)] });
 * assertThrows(() => checkReach({ mapHostLoopback: [Uint8Array.of(127, 0, 0, 1)] }), Error, "loopback address");
 * ```
 *
 * @param request The request.
 * @throws {PenneError} A usage error.
 */
export function checkReach(request: ReachRequest): void {
  const { mapHostLoopback = [], mapGuestAddress = [], exclude = [] } = request;
  const check = (option: string, addresses: readonly Uint8Array[] = [], loopback = false) =>
    void onePerFamily(option, addresses, (address) => address, { loopback });
  check("--dns-forward", request.dnsForward);
  onePerFamily("--dns-host", request.dnsHost ?? [], ({ address }) => address, { anything: true });
  check("--map-host-loopback", mapHostLoopback);
  if (request.mapGateway && mapHostLoopback.length > 0) {
    throw usage("use --map-gw with --map-host-loopback: choose one");
  }
  const name = request.allow?.find(isNameRule)?.name;
  if (name !== undefined && !request.dnsForward?.length) {
    throw usage(`use --allow ${name}: no address inside leads to the host's resolver, so no name is resolved`, [
      "--dns-forward ADDRESS chooses one; penne run has one unless --dns says otherwise",
    ]);
  }
  check("--map-guest-addr", mapGuestAddress);
  check("--outbound", request.outbound, true);
  const taken = new Map<string, string>();
  for (
    const [option, addresses] of [
      ["--map-host-loopback", mapHostLoopback],
      ["--map-guest-addr", mapGuestAddress],
    ] as const
  ) {
    for (const address of addresses) {
      const text = formatIp(address);
      const other = taken.get(text);
      if (other) throw usage(`use ${text} for ${option} and for ${other}: choose two`);
      taken.set(text, option);
      if (exclude.some((block) => inPrefix(address, block.address, block.prefix))) {
        throw usage(`use ${text} for ${option}: --exclude rules it out`);
      }
    }
  }
}
