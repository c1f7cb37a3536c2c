// Socket addresses and message headers as the kernel lays them out; pure.

import { AF } from "./constants.ts";

/** An IP address as four 32-bit words in network order; an IPv4 address is stored as an IPv4-mapped IPv6 address. */
export interface IpWords {
  /** 4 or 6; 0 if there is no address. */
  family: number;
  /** Bytes 0 to 3. */
  w0: number;
  /** Bytes 4 to 7. */
  w1: number;
  /** Bytes 8 to 11; 0xffff for IPv4. */
  w2: number;
  /** Bytes 12 to 15; the whole of an IPv4 address. */
  w3: number;
}

/** Reads an IPv4 address. */
export function readIp4(view: DataView, at: number, to: IpWords): void {
  to.family = 4;
  to.w0 = to.w1 = 0;
  to.w2 = 0xffff;
  to.w3 = view.getInt32(at);
}

/** Reads an IPv6 address. */
export function readIp6(view: DataView, at: number, to: IpWords): void {
  to.family = 6;
  to.w0 = view.getInt32(at);
  to.w1 = view.getInt32(at + 4);
  to.w2 = view.getInt32(at + 8);
  to.w3 = view.getInt32(at + 12);
}

/** Writes an IPv6 address. */
export function writeIp6(view: DataView, at: number, { w0, w1, w2, w3 }: IpWords): void {
  view.setInt32(at, w0);
  view.setInt32(at + 4, w1);
  view.setInt32(at + 8, w2);
  view.setInt32(at + 12, w3);
}

/** Bytes of `struct sockaddr_in6`, the longest of both. */
export const SOCKADDR_MAX = 28;

/** Bytes of `struct sockaddr_in` or `struct sockaddr_in6`. */
export function sockaddrSize(family: number): number {
  return family === 4 ? 16 : SOCKADDR_MAX;
}

/**
 * Writes a socket address.
 *
 * @param view Where to.
 * @param at Offset in it.
 * @param address The address.
 * @param port Port, or 0.
 * @param scope Index of the interface for a link-local IPv6 address, or 0.
 */
export function writeSockaddr(view: DataView, at: number, address: IpWords, port: number, scope = 0): void {
  if (address.family === 4) {
    view.setUint16(at, AF.INET, true);
    view.setUint16(at + 2, port);
    view.setInt32(at + 4, address.w3);
    view.setInt32(at + 8, 0);
    view.setInt32(at + 12, 0);
    return;
  }
  view.setUint16(at, AF.INET6, true);
  view.setUint16(at + 2, port);
  view.setInt32(at + 4, 0);
  writeIp6(view, at + 8, address);
  view.setUint32(at + 24, scope, true);
}

/**
 * Whether a socket address equals an address and a port.
 *
 * @param view Memory that holds the socket address.
 * @param at Offset in it.
 * @param address The address.
 * @param port The port, or 0 for any.
 */
export function isSockaddr(view: DataView, at: number, address: IpWords, port: number): boolean {
  if (port !== 0 && view.getUint16(at + 2) !== port) return false;
  if (address.family === 4) return view.getInt32(at + 4) === address.w3;
  return view.getInt32(at + 20) === address.w3 && view.getInt32(at + 16) === address.w2 &&
    view.getInt32(at + 12) === address.w1 && view.getInt32(at + 8) === address.w0;
}

/** Bytes of `struct iovec`: {void *base, size_t length}. */
export const IOVEC = 16;

/** Bytes of `struct msghdr`. */
export const MSGHDR = 56;

/** Bytes of `struct mmsghdr`, a `struct msghdr` and the number of bytes received. */
export const MMSGHDR = 64;

/** Offsets in `struct msghdr`. */
export const MSGHDR_AT = {
  name: 0,
  nameLength: 8,
  iov: 16,
  iovLength: 24,
  control: 32,
  controlLength: 40,
  flags: 48,
  /** In `struct mmsghdr`. */
  received: 56,
} as const;

/** Writes a pointer. */
export function writePointer(view: DataView, at: number, address: number): void {
  view.setUint32(at, address % 0x1_0000_0000, true);
  view.setUint32(at + 4, Math.floor(address / 0x1_0000_0000), true);
}

/** Writes a `struct iovec`. */
export function writeIovec(view: DataView, at: number, base: number, length: number): void {
  writePointer(view, at, base);
  view.setUint32(at + 8, length, true);
  view.setUint32(at + 12, 0, true);
}

/**
 * Reads a socket address.
 *
 * @param view Memory that holds it.
 * @param at Offset in it.
 * @param address Receives the address; its family is 0 if the socket address is of another family.
 * @returns The port.
 */
export function readSockaddr(view: DataView, at: number, address: IpWords): number {
  const family = view.getUint16(at, true);
  if (family === AF.INET) readIp4(view, at + 4, address);
  else if (family === AF.INET6) readIp6(view, at + 8, address);
  else address.family = 0;
  return view.getUint16(at + 2);
}
