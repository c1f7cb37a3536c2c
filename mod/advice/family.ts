// What the plan of a network means for a program inside that configures the interface itself; pure.

import { AF } from "../../ffi/net/constants.ts";
import { type Family, inPrefix, sameBytes } from "../inet/ip.ts";
import { preferredDefault } from "../network/routes.ts";
import type { AdviceFacts, AdvisedRoute, FamilyAdvice } from "./facts.ts";

/**
 * An address with zeros behind its prefix.
 *
 * @example
 * ```ts
 * import { prefixOf } from "./family.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(prefixOf(Uint8Array.of(10, 1, 2, 3), 12), Uint8Array.of(10, 0, 0, 0));
 * ```
 *
 * @param address 4 or 16 bytes.
 * @param bits Length of the prefix.
 * @returns As many bytes.
 */
export function prefixOf(address: Uint8Array, bits: number): Uint8Array {
  return address.map((byte, i) => byte & 0xff << Math.min(8, Math.max(0, 8 * (i + 1) - bits)));
}

/**
 * Collects what penne tells programs inside about one family.
 *
 * @param facts What is known.
 * @param family AF_INET or AF_INET6.
 * @returns The advice; null if the family is off.
 */
export function familyAdvice({ families }: AdviceFacts, family: Family): FamilyAdvice | null {
  const plan = families.find((one) => one.family === family);
  if (!plan) return null;
  const addresses = plan.addresses.map(({ local, prefix }) => ({ address: local, prefix }));
  const first = preferredDefault(plan.routes);
  const routes: AdvisedRoute[] = [];
  for (const { destination, prefix, hops } of plan.routes) {
    const [hop] = hops;
    // Of several next hops the first one stands for all: every gateway is penne.
    const gateway = hop?.gateway ?? null;
    if (!destination || prefix === 0 || gateway && gateway.length !== destination.length) continue;
    // DHCP tells one address of IPv4: the prefixes of others are on the link all the same.
    const told = family === AF.INET ? addresses.slice(0, 1) : addresses;
    const own = !gateway && told.some((one) => one.prefix === prefix && inPrefix(one.address, destination, prefix));
    const known = routes.some((other) => other.prefix === prefix && sameBytes(other.destination, destination));
    if (!own && !known) routes.push({ destination, prefix, gateway });
  }
  const via = first?.hops[0]?.gateway ?? null;
  return {
    addresses,
    gateway: via && (family === AF.INET) === (via.length === 4) ? via : null,
    leads: first !== undefined,
    routes: routes.toSorted((a, b) => Number(a.gateway !== null) - Number(b.gateway !== null)),
  };
}
