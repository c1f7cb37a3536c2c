// What connects a network namespace with penne: the tap's descriptor here, and its configuration there.

import type { Fd } from "../../ffi/core/fd.ts";

/** What one address family of a namespace was given. */
export interface FamilyConfig {
  /** First address inside: 4 or 16 bytes. */
  readonly address: Uint8Array;
  /** Bits of its prefix. */
  readonly prefix: number;
  /** Gateway of the default route, or null if there is none. */
  readonly gateway: Uint8Array | null;
}

/** A tap in a namespace. */
export interface TapLink {
  /**
   * The descriptor: non-blocking, frames with a `struct virtio_net_hdr` of 10 bytes before them, with checksum and TCP
   * segmentation offload.
   */
  readonly tap: Fd;
  /** Name of the interface inside. */
  readonly name: string;
  /** MAC address of the interface inside, 6 bytes. */
  readonly mac: Uint8Array;
  /** MTU of the interface, bytes. */
  readonly mtu: number;
  /** IPv4 inside, or null if it is off. */
  readonly ipv4: FamilyConfig | null;
  /** IPv6 inside (a global address, or the link-local one if there is no other), or null if it is off. */
  readonly ipv6: FamilyConfig | null;
}
