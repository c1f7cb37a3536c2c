// Batches of datagrams: sendmmsg(2), recvmmsg(2), and UDP_SEGMENT of udp(7).

import type { CallRule } from "../core/call_rule.ts";
import { E } from "../core/errno.ts";
import { Block, quick } from "../core/quick.ts";
import { NR } from "../core/syscalls.ts";
import { IPPROTO, MSG, UDP } from "./constants.ts";
import {
  IOVEC,
  type IpWords,
  isSockaddr,
  MMSGHDR,
  MSGHDR_AT,
  readSockaddr,
  SOCKADDR_MAX,
  sockaddrSize,
  writeIovec,
  writePointer,
  writeSockaddr,
} from "./sockaddr.ts";

const SEND = MSG.DONTWAIT | MSG.NOSIGNAL;

/** What batches of datagrams need. */
export const DATAGRAM_RULES: readonly CallRule[] = [
  { call: "sendmmsg", why: "datagrams: some at once", test: "tests/confine/serve_test.ts" },
  { call: "sendmsg", why: "datagrams: as segments, or a first one", test: "tests/confine/serve_test.ts" },
  { call: "recvmmsg", why: "datagrams: some at once", test: "tests/confine/serve_test.ts" },
  { call: "writev", why: "datagrams: frames of some", test: "tests/confine/serve_test.ts" },
];

/** `struct cmsghdr` {size_t length, int level, int type} with the two bytes of UDP_SEGMENT, padded. */
const CONTROL = 24;
const CONTROL_LENGTH = 18;

/** Datagrams that are sent together on a connected socket, or one by one on an unconnected one. */
export class SendBatch {
  /** A `struct iovec` for each datagram. */
  readonly #parts: Block;
  /** A `struct mmsghdr` for each datagram, and one for all as segments. */
  readonly #messages: Block;
  readonly #segments: number;
  readonly #control = new Block(CONTROL);
  readonly #name = new Block(SOCKADDR_MAX);

  /** @param count Datagrams at most. */
  constructor(count: number) {
    const parts = this.#parts = new Block(IOVEC * count);
    const { view } = this.#messages = new Block(MMSGHDR * (count + 1));
    for (let i = 0; i < count; i++) {
      writePointer(view, MMSGHDR * i + MSGHDR_AT.iov, parts.at + IOVEC * i);
      view.setUint32(MMSGHDR * i + MSGHDR_AT.iovLength, 1, true);
    }
    const segments = this.#segments = MMSGHDR * count;
    writePointer(view, segments + MSGHDR_AT.iov, parts.at);
    writePointer(view, segments + MSGHDR_AT.control, this.#control.at);
    view.setUint32(segments + MSGHDR_AT.controlLength, CONTROL, true);
    const control = this.#control.view;
    control.setUint32(0, CONTROL_LENGTH, true);
    control.setInt32(8, IPPROTO.UDP, true);
    control.setInt32(12, UDP.SEGMENT, true);
  }

  /** Sets the payload of a datagram: an address and a length. */
  set(index: number, at: number, length: number): void {
    writeIovec(this.#parts.view, IOVEC * index, at, length);
  }

  /** Address of the payload of a datagram, and its length. */
  payload(index: number): { readonly at: number; readonly length: number } {
    const { view } = this.#parts;
    const part = IOVEC * index;
    const at = view.getUint32(part, true) + view.getUint32(part + 4, true) * 0x1_0000_0000;
    return { at, length: view.getUint32(part + 8, true) };
  }

  /**
   * sendmmsg(2).
   *
   * @param s The socket.
   * @param first Index of the first datagram.
   * @param count Number of datagrams.
   * @returns Number of datagrams sent, or a negative error number.
   */
  send(s: number, first: number, count: number): number {
    return quick(NR.sendmmsg, s, this.#messages.at + MMSGHDR * first, count, SEND, 0, 0);
  }

  /**
   * sendmsg(2) of one datagram on an unconnected socket.
   *
   * @param s The socket.
   * @param index Index of the datagram.
   * @param to Where it goes.
   * @param port Port there.
   * @param scope Index of the interface for a link-local IPv6 address, or 0.
   * @returns Number of bytes sent, or a negative error number.
   */
  sendTo(s: number, index: number, to: IpWords, port: number, scope: number): number {
    const { view, at } = this.#messages;
    const header = MMSGHDR * index;
    writeSockaddr(this.#name.view, 0, to, port, scope);
    writePointer(view, header + MSGHDR_AT.name, this.#name.at);
    view.setUint32(header + MSGHDR_AT.nameLength, sockaddrSize(to.family), true);
    const n = quick(NR.sendmsg, s, at + header, SEND, 0, 0, 0);
    view.setUint32(header + MSGHDR_AT.nameLength, 0, true);
    return n;
  }

  /**
   * sendmsg(2) of the first datagrams as one, which the kernel segments.
   *
   * @param s The socket.
   * @param count Number of datagrams.
   * @param size Bytes of each datagram but the last.
   * @returns Bytes sent, or a negative error number.
   */
  sendSegments(s: number, count: number, size: number): number {
    const at = this.#messages.at + this.#segments;
    this.#messages.view.setUint32(this.#segments + MSGHDR_AT.iovLength, count, true);
    this.#control.view.setUint16(16, size, true);
    const n = quick(NR.sendmsg, s, at, SEND, 0, 0, 0);
    // A pending error of an earlier datagram is reported instead of sending.
    return n === -E.ECONNREFUSED || n === -E.EHOSTUNREACH ? quick(NR.sendmsg, s, at, SEND, 0, 0, 0) : n;
  }
}

/** Datagrams that were received together. */
export class ReceiveBatch {
  /** All slots: headroom, then the datagram. */
  readonly slots: Block;
  /** `struct mmsghdr`s, `struct iovec`s and addresses of senders. */
  readonly #headers: Block;
  readonly #names: number;
  /** `struct iovec`s for {@linkcode ReceiveBatch.write}. */
  readonly #parts: Block;

  /**
   * @param count Datagrams at most.
   * @param slot Bytes of a slot.
   * @param headroom Bytes of a slot before the datagram.
   */
  constructor(readonly count: number, readonly slot: number, readonly headroom: number) {
    this.slots = new Block(slot * count);
    this.#names = (MMSGHDR + IOVEC) * count;
    this.#parts = new Block(IOVEC * (count + 1));
    const { view, at } = this.#headers = new Block(this.#names + SOCKADDR_MAX * count);
    for (let i = 0; i < count; i++) {
      const part = MMSGHDR * count + IOVEC * i;
      writeIovec(view, part, this.slots.at + this.offset(i), slot - headroom);
      writePointer(view, MMSGHDR * i + MSGHDR_AT.name, at + this.#names + SOCKADDR_MAX * i);
      view.setUint32(MMSGHDR * i + MSGHDR_AT.nameLength, SOCKADDR_MAX, true);
      writePointer(view, MMSGHDR * i + MSGHDR_AT.iov, at + part);
      view.setUint32(MMSGHDR * i + MSGHDR_AT.iovLength, 1, true);
    }
  }

  /** Offset of a datagram in {@linkcode ReceiveBatch.slots}. */
  offset(index: number): number {
    return this.slot * index + this.headroom;
  }

  /** Bytes of a datagram; -1 if it is from another sender. */
  length(index: number): number {
    return this.#headers.view.getInt32(MMSGHDR * index + MSGHDR_AT.received, true);
  }

  /**
   * recvmmsg(2).
   *
   * @param s The socket.
   * @param from Address of the sender that counts.
   * @param port Its port.
   * @returns Number of datagrams, or a negative error number.
   */
  receive(s: number, from: IpWords, port: number): number {
    const { view } = this.#headers;
    const n = this.receiveAny(s);
    for (let i = 0; i < n; i++) {
      const header = MMSGHDR * i;
      if (!isSockaddr(view, this.#names + SOCKADDR_MAX * i, from, port)) {
        view.setInt32(header + MSGHDR_AT.received, -1, true);
      }
    }
    return n;
  }

  /**
   * recvmmsg(2), whoever the senders are.
   *
   * @param s The socket.
   * @returns Number of datagrams, or a negative error number.
   */
  receiveAny(s: number): number {
    const { view, at } = this.#headers;
    const n = quick(NR.recvmmsg, s, at, this.count, MSG.DONTWAIT, 0, 0);
    // The kernel has set the lengths to those of the senders.
    for (let i = 0; i < n; i++) view.setUint32(MMSGHDR * i + MSGHDR_AT.nameLength, SOCKADDR_MAX, true);
    return n;
  }

  /** Reads the address of a datagram's sender; returns its port. */
  sender(index: number, address: IpWords): number {
    return readSockaddr(this.#headers.view, this.#names + SOCKADDR_MAX * index, address);
  }

  /** Index of the interface by which a datagram from a link-local IPv6 address has come. */
  scope(index: number): number {
    return this.#headers.view.getUint32(this.#names + SOCKADDR_MAX * index + 24, true);
  }

  /**
   * writev(2) of headers and of datagrams that follow each other.
   *
   * @param fd Where to.
   * @param at Address of the headers.
   * @param length Bytes of the headers.
   * @param first Index of the first datagram.
   * @param count Number of datagrams.
   * @returns Bytes written, or a negative error number.
   */
  write(fd: number, at: number, length: number, first: number, count: number): number {
    const { view } = this.#parts;
    writeIovec(view, 0, at, length);
    for (let i = 1; i <= count; i++) {
      const index = first + i - 1;
      writeIovec(view, IOVEC * i, this.slots.at + this.offset(index), this.length(index));
    }
    return quick(NR.writev, fd, this.#parts.at, count + 1, 0, 0, 0);
  }
}
