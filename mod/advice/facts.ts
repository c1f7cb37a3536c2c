// What is known of the network of a namespace when a program inside asks how to configure the interface.

import type { FamilyPlan } from "../network/plan.ts";

/** Facts for answers; plain data. Addresses have 4 or 16 bytes. */
export interface AdviceFacts {
  /** The families that are on. */
  readonly families: readonly Pick<FamilyPlan, "family" | "addresses" | "routes">[];
  /** MTU, bytes; 0 to say nothing of it. */
  readonly mtu: number;
  /** MAC address of penne's side, 6 bytes. */
  readonly mac: Uint8Array;
  /** Name servers, of both families. */
  readonly dns: readonly Uint8Array[];
  /** Search domains. */
  readonly search: readonly string[];
  /** Name of the host inside; null to say nothing of it. */
  readonly hostname: string | null;
  /** Full name of the host inside; null to say nothing of it. */
  readonly fqdn: string | null;
  /** Whether DHCPv6 is answered. */
  readonly dhcpv6: boolean;
}

/** A route that a program inside is to set. */
export interface AdvisedRoute {
  /** Destination, with zeros behind its prefix. */
  readonly destination: Uint8Array;
  /** Bits of the prefix. */
  readonly prefix: number;
  /** The gateway; null if destinations are on the link. */
  readonly gateway: Uint8Array | null;
}

/** What penne tells programs inside about one family. */
export interface FamilyAdvice {
  /** Addresses inside. */
  readonly addresses: readonly { readonly address: Uint8Array; readonly prefix: number }[];
  /** Gateway of the default route; null if there is none. */
  readonly gateway: Uint8Array | null;
  /** Whether there is a default route. */
  readonly leads: boolean;
  /** The routes beside the default route and those of the prefixes of the addresses; those on the link come first. */
  readonly routes: readonly AdvisedRoute[];
}
