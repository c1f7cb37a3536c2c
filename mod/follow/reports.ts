// The socket of rtnetlink(7) by which the kernel reports changes of the host's network.

import type { Fd } from "../../ffi/core/fd.ts";
import { self } from "../../ffi/core/task.ts";
import { AF, NETLINK, SOCK } from "../../ffi/net/constants.ts";
import { bindNetlink } from "../../ffi/net/netlink.ts";

/** Groups of rtnetlink(7): links, and addresses, routes and rules of both families; routes by nexthop objects, too. */
const GROUPS = [1, 5, 7, 8, 9, 11, 19, 32].reduce((bits, group) => bits | 1 << group - 1, 0) >>> 0;

/**
 * Opens a socket that reports changes from now on.
 *
 * @returns The socket, which does not block.
 * @throws {SysError} If it cannot be opened.
 */
export function openReports(): Fd {
  const socket = self.open("socket", AF.NETLINK, SOCK.RAW | SOCK.NONBLOCK | SOCK.CLOEXEC, NETLINK.ROUTE);
  try {
    bindNetlink(socket, GROUPS);
    return socket;
  } catch (error) {
    socket.close();
    throw error;
  }
}
