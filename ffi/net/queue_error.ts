// A socket's error queue, recverr(7).

import { Block, quick } from "../core/quick.ts";
import { NR } from "../core/syscalls.ts";
import { IP, IPPROTO, IPV6, MSG } from "./constants.ts";
import { IOVEC, type IpWords, MSGHDR, MSGHDR_AT, readSockaddr, writeIovec, writePointer } from "./sockaddr.ts";

/** What a socket's error queue has told of, `struct sock_extended_err` of recverr(7). */
export interface QueuedError {
  /** Positive error number. */
  errno: number;
  /** 1: this machine, 2: ICMP, 3: ICMPv6. */
  origin: number;
  type: number;
  code: number;
  /** An MTU, where the error has one. */
  info: number;
  /** Who has sent the ICMP message; family 0 if nobody has. */
  from: IpWords;
  /** Bytes of what the message was about, as far as the queue has it, from {@linkcode ERROR_DATA} on. */
  length: number;
}

const ERROR_SIZE = 1024;

/** Memory of {@linkcode takeError}: `struct msghdr`, `struct iovec`, control data, then data. */
const errorBlock = new Block(MSGHDR + IOVEC + 256 + ERROR_SIZE);

const ERROR_CONTROL = MSGHDR + IOVEC;

/** Where the data of the last queued error is. */
export const ERROR_DATA: { readonly view: DataView; readonly at: number } = {
  view: errorBlock.view,
  at: ERROR_CONTROL + 256,
};

const queued: QueuedError = {
  errno: 0,
  origin: 0,
  type: 0,
  code: 0,
  info: 0,
  from: { family: 0, w0: 0, w1: 0, w2: 0, w3: 0 },
  length: 0,
};

/**
 * Takes one error from a socket's error queue.
 *
 * @param s The socket, with IP_RECVERR or IPV6_RECVERR.
 * @returns The error, valid until the next call; null if there is none.
 */
export function takeError(s: number): QueuedError | null {
  const { view, at } = errorBlock;
  view.setUint32(MSGHDR_AT.nameLength, 0, true);
  writeIovec(view, MSGHDR, at + ERROR_DATA.at, ERROR_SIZE);
  writePointer(view, MSGHDR_AT.iov, at + MSGHDR);
  view.setUint32(MSGHDR_AT.iovLength, 1, true);
  writePointer(view, MSGHDR_AT.control, at + ERROR_CONTROL);
  view.setUint32(MSGHDR_AT.controlLength, 256, true);
  const n = quick(NR.recvmsg, s, at, MSG.ERRQUEUE | MSG.DONTWAIT, 0, 0, 0);
  if (n < 0) return null;
  queued.length = n;
  queued.errno = 0;
  const end = ERROR_CONTROL + view.getUint32(MSGHDR_AT.controlLength, true);
  for (let c = ERROR_CONTROL; c + 16 <= end;) {
    const size = view.getUint32(c, true);
    if (size < 16) break;
    const level = view.getInt32(c + 8, true);
    const type = view.getInt32(c + 12, true);
    if ((level === IPPROTO.IP && type === IP.RECVERR) || (level === IPPROTO.IPV6 && type === IPV6.RECVERR)) {
      const e = c + 16;
      queued.errno = view.getUint32(e, true);
      queued.origin = view.getUint8(e + 4);
      queued.type = view.getUint8(e + 5);
      queued.code = view.getUint8(e + 6);
      queued.info = view.getUint32(e + 8, true);
      readSockaddr(view, e + 16, queued.from);
    }
    c += size + 7 & ~7;
  }
  return queued;
}
