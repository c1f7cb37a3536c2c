// Describes the tap of a namespace: its descriptor here, and its configuration inside.

import type { Fd } from "../../ffi/core/fd.ts";

/** The configuration of one address family. */
export interface FamilyConfig {
  /** First address inside: 4 or 16 bytes. */
  readonly address: Uint8Array;
  /** Bits of its prefix. */
  readonly prefix: number;
  /** Gateway of the default route; null if there is none. */
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
  /** IPv4 inside; null if it is off. */
  readonly ipv4: FamilyConfig | null;
  /** IPv6 inside, with a global address or else the link-local one; null if it is off. */
  readonly ipv6: FamilyConfig | null;
}
