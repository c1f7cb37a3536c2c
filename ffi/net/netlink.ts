// Addresses of netlink(7) sockets, and receiving what the kernel itself has sent.

import type { Fd } from "../core/fd.ts";
import { Block, quick } from "../core/quick.ts";
import { NR } from "../core/syscalls.ts";
import { call, out, self } from "../core/task.ts";
import { AF } from "./constants.ts";

/** Bytes of `struct sockaddr_nl`: {u16 family, u16 padding, u32 port, u32 groups}. */
const ADDRESS = 12;
const PORT = 4;
const GROUPS = 8;

/**
 * Binds a netlink socket to a port that the kernel chooses.
 *
 * @param socket The socket.
 * @param groups Multicast groups to join, bit n-1 for group n.
 * @returns The port.
 * @throws {SysError} EPERM if the groups need a privilege.
 */
export function bindNetlink(socket: Fd, groups: number): number {
  const address = new Uint8Array(ADDRESS);
  const view = new DataView(address.buffer);
  view.setUint16(0, AF.NETLINK, true);
  view.setUint32(GROUPS, groups, true);
  call(self, "bind", socket, address, ADDRESS);
  call(self, "getsockname", socket, out(address), out(new Uint8Array([ADDRESS, 0, 0, 0])));
  return view.getUint32(PORT, true);
}

/** The sender's address, then its size. */
const sender = new Block(ADDRESS + 4);

/**
 * Receives a datagram from the kernel, recvfrom(2). Other programs can write to the socket too; they are ignored.
 *
 * @param socket The socket.
 * @param to Where to.
 * @returns Bytes received, 0 if another program has sent the datagram, or a negative error number.
 */
export function receiveFromKernel(socket: Fd, to: Block): number {
  const { view, at } = sender;
  view.setUint32(ADDRESS, ADDRESS, true);
  const n = quick(NR.recvfrom, socket.number, to.at, to.bytes.length, 0, at, at + ADDRESS);
  return n > 0 && view.getUint32(PORT, true) !== 0 ? 0 : n;
}
