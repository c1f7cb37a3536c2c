// A socket's error queue, recverr(7).

import type { CallRule } from "../core/call_rule.ts";
import { Block, quick } from "../core/quick.ts";
import { NR } from "../core/syscalls.ts";
import { IP, IPPROTO, IPV6, MSG } from "./constants.ts";
import {
  IOVEC,
  type IpWords,
  MSGHDR,
  MSGHDR_AT,
  readSockaddr,
  SOCKADDR_MAX,
  writeIovec,
  writePointer,
} from "./sockaddr.ts";

/** What {@linkcode takeError} needs. */
export const QUEUE_RULES: readonly CallRule[] = [
  { call: "recvmsg", why: "a flow: errors that routers have sent", test: "tests/confine/serve_test.ts" },
];

/** An error of a socket, `struct sock_extended_err` of recverr(7). */
export interface QueuedError {
  /** Positive error number. */
  readonly errno: number;
  /** Origin, SO_EE_ORIGIN_*: 1 is this machine, 2 ICMP, 3 ICMPv6. */
  readonly origin: number;
  /** Type of the ICMP message. */
  readonly type: number;
  /** Code of the ICMP message. */
  readonly code: number;
  /** The MTU, for errors that have one. */
  readonly info: number;
  /** Sender of the ICMP message; family 0 if there was no message. */
  readonly from: IpWords;
  /** Where the packet in question went, and the port; family 0 if the kernel does not say. */
  readonly to: IpWords;
  readonly port: number;
  /** Bytes of the packet in question that are in {@linkcode ERROR_DATA}. */
  readonly length: number;
}

const CONTROL = MSGHDR + IOVEC;
const CONTROL_SIZE = 256;
const DATA = CONTROL + CONTROL_SIZE;
const DATA_SIZE = 1024;
const NAME = DATA + DATA_SIZE;

/** Memory of {@linkcode takeError}: `struct msghdr`, `struct iovec`, control messages, data, an address. */
const block = new Block(NAME + SOCKADDR_MAX);

/** The beginning of the packet that the last error is about. */
export const ERROR_DATA: { readonly view: DataView; readonly at: number } = { view: block.view, at: DATA };

/**
 * Takes an error from a socket's error queue.
 *
 * @param s The socket, with IP_RECVERR or IPV6_RECVERR.
 * @returns The error, or null if the queue is empty.
 */
export function takeError(s: number): QueuedError | null {
  const { view, at } = block;
  writePointer(view, MSGHDR_AT.name, at + NAME);
  view.setUint32(MSGHDR_AT.nameLength, SOCKADDR_MAX, true);
  view.setUint16(NAME, 0, true);
  writeIovec(view, MSGHDR, at + DATA, DATA_SIZE);
  writePointer(view, MSGHDR_AT.iov, at + MSGHDR);
  view.setUint32(MSGHDR_AT.iovLength, 1, true);
  writePointer(view, MSGHDR_AT.control, at + CONTROL);
  view.setUint32(MSGHDR_AT.controlLength, CONTROL_SIZE, true);
  const length = quick(NR.recvmsg, s, at, MSG.ERRQUEUE | MSG.DONTWAIT, 0, 0, 0);
  if (length < 0) return null;
  const end = CONTROL + view.getUint32(MSGHDR_AT.controlLength, true);
  // struct cmsghdr {size_t length, int level, int type}
  for (let c = CONTROL; c + 16 <= end;) {
    const size = view.getUint32(c, true);
    const level = view.getInt32(c + 8, true);
    const type = view.getInt32(c + 12, true);
    const e = c + 16;
    if (level === IPPROTO.IP && type === IP.RECVERR || level === IPPROTO.IPV6 && type === IPV6.RECVERR) {
      const from = { family: 0, w0: 0, w1: 0, w2: 0, w3: 0 };
      readSockaddr(view, e + 16, from);
      const to = { family: 0, w0: 0, w1: 0, w2: 0, w3: 0 };
      const port = readSockaddr(view, NAME, to);
      return {
        errno: view.getUint32(e, true),
        origin: view.getUint8(e + 4),
        type: view.getUint8(e + 5),
        code: view.getUint8(e + 6),
        info: view.getUint32(e + 8, true),
        from,
        to,
        port,
        length,
      };
    }
    if (size < 16) break;
    c += size + 7 & ~7;
  }
  return null;
}
