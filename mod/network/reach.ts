// What a namespace with a network reaches, and how: the wishes, checked against themselves.

import { familyOf, formatIp, inPrefix, parseIp, unusable } from "../inet/ip.ts";
import { usage } from "../base/errors.ts";

/** A block of addresses. */
export interface AddressBlock {
  /** Any address in it, 4 or 16 bytes. */
  readonly address: Uint8Array;
  /** Length of the prefix, bits. */
  readonly prefix: number;
}

/** What is reached; every property has the meaning of the option of that name. Addresses have 4 or 16 bytes. */
export interface ReachRequest {
  /** Addresses inside, one a family, whose ports 53 and 853 are the host's resolver: `--dns-forward`. */
  readonly dnsForward?: readonly Uint8Array[];
  /** The host's resolver to forward to, in place of those of /etc/resolv.conf: `--dns-host`. */
  readonly dnsHost?: readonly Uint8Array[];
  /** Addresses inside, one a family, that stand for the host's loopback: `--map-host-loopback`; none by default. */
  readonly mapHostLoopback?: readonly Uint8Array[];
  /** Addresses inside, one a family, that stand for the host's own address: `--map-guest-addr`; none by default. */
  readonly mapGuestAddress?: readonly Uint8Array[];
  /** What is not reached: `--exclude`. */
  readonly exclude?: readonly AddressBlock[];
  /** Source addresses of what leaves the host, one a family: `--outbound`. */
  readonly outbound?: readonly Uint8Array[];
  /** Interfaces by which it leaves: `--outbound-if4`, `--outbound-if6`. */
  readonly outboundInterfaces?: { readonly 4?: string; readonly 6?: string };
}

/** Where the host's resolver is to be found inside unless told otherwise. */
export const RESOLVER_INSIDE = {
  /** Link-local, as nobody else's network has it behind a gateway. */
  4: parseIp("169.254.1.1")!,
  /** Of the block for local use of RFC 8215. */
  6: parseIp("64:ff9b:1::35")!,
} as const;

function checkOne(what: string, addresses: readonly Uint8Array[] = [], loopback = false): void {
  const seen = new Set<number>();
  for (const address of addresses) {
    const shown = `use ${what} ${formatIp(address)}`;
    const reason = unusable(address);
    if (reason && !(loopback && /loopback/.test(reason))) throw usage(`${shown}: ${reason}`);
    if (seen.has(familyOf(address))) {
      throw usage(`${shown}: there is one for IPv${address.length === 4 ? 4 : 6} already`);
    }
    seen.add(familyOf(address));
  }
}

/**
 * Refuses what contradicts itself.
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
 * @param request What is asked for.
 * @throws {PenneError} A usage error.
 */
export function checkReach(request: ReachRequest): void {
  checkOne("--dns-forward", request.dnsForward);
  checkOne("--dns-host", request.dnsHost, true);
  checkOne("--map-host-loopback", request.mapHostLoopback);
  checkOne("--map-guest-addr", request.mapGuestAddress);
  checkOne("--outbound", request.outbound, true);
  const taken = new Map<string, string>();
  for (
    const [option, addresses] of [
      ["--map-host-loopback", request.mapHostLoopback],
      ["--map-guest-addr", request.mapGuestAddress],
    ] as const
  ) {
    for (const address of addresses ?? []) {
      const text = formatIp(address);
      const other = taken.get(text);
      if (other) throw usage(`use ${text} for ${option} and for ${other}: choose two`);
      taken.set(text, option);
      const block = request.exclude?.find((one) => inPrefix(address, one.address, one.prefix));
      if (block) throw usage(`use ${text} for ${option}: --exclude rules it out`);
    }
  }
}
