// Codec of the agent's wire format (mirrors `struct request` and `struct answer` in libshim.c); pure.

import { Fd } from "../core/fd.ts";
import { type Arg, Out, Pointers } from "../core/task.ts";

/** What a request asks for (`enum operation`). */
export const Operation = { SYSCALL: 0, CLONE: 1, REAP: 2, TTY: 3, EXEC: 4, HOLD: 5, CONFINE: 6 } as const;

/** Request flag: the result is a descriptor to be sent here. */
export const REPLY_FD = 1;
/** Request flag: the received descriptors stay open in the agent. */
export const KEEP_FDS = 2;

/** Largest payload of a request, bytes. */
export const PAYLOAD_MAX = 65536;
/** Most lists of children that an agent ends. */
export const LISTS_MAX = 3;
/** Most descriptors that go with a request. */
export const FDS_MAX = 8;
/** Size of `struct request`, bytes. */
export const REQUEST_SIZE = 88;
/** Size of `struct answer`, bytes. */
export const ANSWER_SIZE = 16;

/** The arguments of a syscall, laid out for another process. */
export interface Marshalled {
  /** Values; offsets into the payload and indices into `fds` where the masks say so. */
  readonly args: bigint[];
  /** Bit i: argument i is an offset into the payload. */
  readonly pointers: number;
  /** Bit i: argument i is an index into `fds`. */
  readonly fdMask: number;
  /** Descriptors to send along. */
  readonly fds: Fd[];
  /** Everything pointed to; each piece starts at a multiple of 8. */
  readonly payload: Uint8Array;
  /** Offsets in the payload of u64 words that are themselves offsets. */
  readonly relocs: number[];
  /** Start of the part that the kernel writes to. */
  readonly replyAt: number;
  /** Length of that part. */
  readonly replyLength: number;
  /** Where in the payload each written argument lies. */
  readonly outs: { bytes: Uint8Array; at: number }[];
}

const align = (n: number) => (n + 7) & ~7;

/**
 * Lays out the arguments of a syscall for another process.
 *
 * Memory that the kernel writes to comes first: one range of the payload covers it.
 *
 * @example
 * ```ts
 * import { marshal } from "./wire.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const m = marshal([-100, new Uint8Array([47, 0]), 0]);
 * assertEquals(m.args, [-100n, 0n, 0n, 0n, 0n, 0n]);
 * assertEquals(m.pointers, 0b10);
 * assertEquals(m.payload, new Uint8Array([47, 0, 0, 0, 0, 0, 0, 0]));
 * ```
 *
 * @param args Up to six arguments.
 * @returns The layout.
 */
export function marshal(args: readonly Arg[]): Marshalled {
  const pieces: { bytes: Uint8Array; at: number }[] = [];
  let size = 0;
  const place = (bytes: Uint8Array): number => {
    const at = size;
    pieces.push({ bytes, at });
    size += align(bytes.length);
    return at;
  };
  const outs: { bytes: Uint8Array; at: number }[] = [];
  const outAt = new Map<number, number>();
  args.forEach((arg, i) => {
    if (!(arg instanceof Out)) return;
    const at = place(arg.bytes);
    outAt.set(i, at);
    outs.push({ bytes: arg.bytes, at });
  });
  const replyLength = size;
  const values: bigint[] = [];
  const fds: Fd[] = [];
  const relocs: number[] = [];
  let pointerMask = 0;
  let fdMask = 0;
  for (let i = 0; i < 6; i++) {
    const arg = args[i] ?? null;
    if (arg === null) {
      values.push(0n);
    } else if (typeof arg === "number" || typeof arg === "bigint") {
      values.push(BigInt(arg));
    } else if (arg instanceof Fd) {
      fdMask |= 1 << i;
      values.push(BigInt(fds.push(arg) - 1));
    } else {
      pointerMask |= 1 << i;
      if (arg instanceof Out) {
        values.push(BigInt(outAt.get(i)!));
      } else if (arg instanceof Pointers) {
        const { targets, head } = arg;
        const first = head === null ? 0 : 1;
        const words = new BigUint64Array(first + targets.length + 1);
        const at = place(new Uint8Array(words.buffer));
        if (head !== null) words[0] = head;
        targets.forEach((target, k) => words[first + k] = BigInt(place(target)));
        words[first + targets.length] = 0xffff_ffff_ffff_ffffn;
        for (let k = first; k < words.length; k++) relocs.push(at + 8 * k);
        values.push(BigInt(at));
      } else {
        values.push(BigInt(place(arg)));
      }
    }
  }
  const payload = new Uint8Array(size);
  for (const { bytes, at } of pieces) payload.set(bytes, at);
  return { args: values, pointers: pointerMask, fdMask, fds, payload, relocs, replyAt: 0, replyLength, outs };
}

/** Head of a request; the arguments follow. */
export interface RequestHead {
  /** One of {@linkcode Operation}. */
  readonly operation: number;
  /** Syscall number, for `SYSCALL`. */
  readonly nr?: number;
  /** {@linkcode REPLY_FD} and {@linkcode KEEP_FDS}. */
  readonly flags?: number;
}

/**
 * Encodes a request; the relocation list follows the payload.
 *
 * @example
 * ```ts
 * import { encodeRequest, marshal, Operation, REQUEST_SIZE } from "./wire.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const packet = encodeRequest({ operation: Operation.SYSCALL, nr: 39 }, marshal([]));
 * assertEquals(packet.length, REQUEST_SIZE);
 * assertEquals(new DataView(packet.buffer).getUint32(4, true), 39);
 * ```
 *
 * @param head The head.
 * @param m The arguments.
 * @returns The packet.
 */
export function encodeRequest(head: RequestHead, m: Marshalled): Uint8Array<ArrayBuffer> {
  const packet = new Uint8Array(REQUEST_SIZE + m.payload.length + 4 * m.relocs.length);
  const view = new DataView(packet.buffer);
  view.setUint32(0, head.operation, true);
  view.setUint32(4, head.nr ?? 0, true);
  m.args.forEach((arg, i) => view.setBigInt64(8 + 8 * i, arg, true));
  view.setUint32(56, m.pointers, true);
  view.setUint32(60, m.fdMask, true);
  view.setUint32(64, head.flags ?? 0, true);
  view.setUint32(68, m.payload.length, true);
  view.setUint32(72, m.relocs.length, true);
  view.setUint32(76, m.replyAt, true);
  view.setUint32(80, m.replyLength, true);
  packet.set(m.payload, REQUEST_SIZE);
  m.relocs.forEach((at, i) => view.setUint32(REQUEST_SIZE + m.payload.length + 4 * i, at, true));
  return packet;
}

/** A change of state of the child that an agent was asked to report on. */
export interface ChildEvent {
  /** The child's pid, as the agent sees it. */
  readonly pid: number;
  /** Wait status, as of wait(2). */
  readonly status: number;
}

/** The answer to a request, or an event that the agent reports unasked. */
export type Answer =
  | { readonly kind: "answer"; readonly result: number; readonly payload: Uint8Array }
  | { readonly kind: "child" } & ChildEvent;

/**
 * Decodes a packet from an agent.
 *
 * @example
 * ```ts
 * import { decodeAnswer } from "./wire.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const packet = new Uint8Array(16);
 * packet[8] = 7;
 * assertEquals(decodeAnswer(packet), { kind: "answer", result: 7, payload: new Uint8Array(0) });
 * ```
 *
 * @param packet The packet.
 * @returns Its content; the payload is a view of the packet. Null if it is too short, or of an unknown kind.
 */
export function decodeAnswer(packet: Uint8Array): Answer | null {
  if (packet.length < ANSWER_SIZE) return null;
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
  const kind = view.getUint32(0, true);
  const value = Number(view.getBigInt64(8, true));
  if (kind === 0) return { kind: "answer", result: value, payload: packet.subarray(ANSWER_SIZE) };
  if (kind === 1) return { kind: "child", pid: value, status: view.getUint32(4, true) };
  return null;
}
