// What the code of multicast groups and the rest of the data path are to each other. In a program that the runtime gives no
// compiled code, the former is a bundle of its own, with its own copies of all classes: so only plain data and functions
// pass.

import type { GroupDatagram } from "../../../ffi/net/group.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import type { FollowLoop } from "../../follow/contract.ts";
import type { Keeper } from "../../follow/keeper.ts";

/** What a namespace is to the code of its groups. */
export interface MulticastScene {
  /** The loop. */
  readonly loop: Pick<FollowLoop, "watch" | "after">;
  /** Its tap, by the number of the descriptor. */
  readonly tap: number;
  /** The agent that has penne's former rights; null if penne has its rights. */
  readonly keeper: Keeper["agent"] | null;
  /** Index of the host's interface on whose link groups are joined; 0 if the host has no such interface. */
  index(family: number): number;
  /** Whether the namespace may reach a group at a port. */
  admits(group: IpWords, port: number): boolean;
  /** Whether it may have a port of the host. */
  mayClaim(port: number): boolean;
  /** Whether it may open another descriptor beside some that are those of groups. */
  mayOpen(own: number): boolean;
  /** Counts a descriptor that was opened, or closed (-1). */
  count(change: 1 | -1): void;
  /** Has ports of the host that it has already shared with others. */
  share(family: number, port: number): void;
  /** Writes a datagram of a group to the namespace. */
  deliver(group: IpWords, port: number, datagram: GroupDatagram): void;
  /** Writes a message of IGMP to all hosts in the namespace. */
  query(message: Uint8Array): void;
  /** Called with a problem. */
  onWarning(message: string): void;
}

/** The groups of a namespace. */
export interface Multicast extends Disposable {
  /** Takes a report of the namespace, whose checksum is right if it is one of MLD. */
  hear(view: DataView, at: number, end: number, family: number): void;
  /** Notes what the namespace has sent to a group, by a port of the host. */
  sent(group: IpWords, port: number, from: number, payload: Uint8Array): void;
  /** Notes from which port inside something was sent to a group. */
  used(group: IpWords, port: number): void;
  /** Whether datagrams of some group are received at a port. */
  has(family: number, port: number): boolean;
  /** Calls a function that binds a port, while those who receive at it make room. */
  makeRoom(family: number, port: number, bind: () => void): void;
  /** Takes what the host's network is now. */
  renew(): void;
}
