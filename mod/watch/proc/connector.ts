// Messages of the process connector, linux/cn_proc.h: a codec without syscalls.

import { NLMSG, NLMSG_HEADER } from "../../netlink/message.ts";

/** Kinds of messages. */
export const PROC_EVENT = {
  NONE: 0,
  FORK: 1,
  EXEC: 2,
  UID: 4,
  COMM: 0x200,
  EXIT: 0x80000000,
} as const;

/** `struct cn_msg`: {u32 idx, u32 val, u32 seq, u32 ack, u16 length, u16 flags}. */
const CN_HEADER = 20;
/** The connector's multicast group. */
export const CN_IDX_PROC = 1;
const CN_VAL_PROC = 1;
/** `struct proc_event`: {u32 what, u32 cpu, u64 time}, then a part that depends on `what`. */
const EVENT_HEADER = 16;

/** Operations of requests: start and stop listening. */
export const PROC_CN = { LISTEN: 1, IGNORE: 2 } as const;

/**
 * Encodes a request.
 *
 * @example
 * ```ts
 * import { encodeRequest, PROC_CN } from "./connector.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(encodeRequest(PROC_CN.LISTEN, 9).length, 40);
 * ```
 *
 * @param operation Of {@linkcode PROC_CN}.
 * @param pid The socket's netlink port.
 * @returns The message.
 */
export function encodeRequest(operation: number, pid: number): Uint8Array {
  const bytes = new Uint8Array(NLMSG_HEADER + CN_HEADER + 4);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, bytes.length, true);
  view.setUint16(4, NLMSG.DONE, true);
  view.setUint32(12, pid, true);
  view.setUint32(NLMSG_HEADER, CN_IDX_PROC, true);
  view.setUint32(NLMSG_HEADER + 4, CN_VAL_PROC, true);
  view.setUint16(NLMSG_HEADER + 16, 4, true);
  view.setUint32(NLMSG_HEADER + CN_HEADER, operation, true);
  return bytes;
}

/** A message; which of the last fields are valid depends on `what`. */
export interface ProcEvent {
  /** Of {@linkcode PROC_EVENT}. */
  what: number;
  /** Processor on which it was sent. */
  cpu: number;
  /** Sequence number, counted per processor. */
  seq: number;
  /** Nanoseconds of CLOCK_MONOTONIC. */
  mono: bigint;
  /** Thread and process; in FORK, of the parent. */
  tid: number;
  pid: number;
  /** FORK: thread and process of the child. */
  childTid: number;
  childPid: number;
  /** UID: real user. EXIT: status as in wait(2). */
  value: number;
  /** COMM: the new name. */
  comm: string;
}

/**
 * Decodes a datagram.
 *
 * @example
 * ```ts
 * import { decodeProcEvents, PROC_EVENT } from "./connector.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const bytes = new Uint8Array(76);
 * const view = new DataView(bytes.buffer);
 * for (const [at, value] of [[0, 76], [16, 1], [20, 1], [24, 7], [36, PROC_EVENT.EXEC], [52, 12], [56, 11]]) {
 *   view.setUint32(at!, value!, true);
 * }
 * const seen: unknown[] = [];
 * decodeProcEvents(bytes, bytes.length, ({ what, seq, pid, tid }) => seen.push([what, seq, pid, tid]));
 * assertEquals(seen, [[PROC_EVENT.EXEC, 7, 11, 12]]);
 * ```
 *
 * @param bytes The datagram.
 * @param length Its length in bytes.
 * @param handle Called with each message; the object is reused for the next one.
 */
export function decodeProcEvents(bytes: Uint8Array, length: number, handle: (event: ProcEvent) => void): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const body = NLMSG_HEADER + CN_HEADER;
  for (let at = 0; at + body + EVENT_HEADER + 16 <= length;) {
    const size = view.getUint32(at, true);
    if (size < body + EVENT_HEADER || at + size > length) return;
    const [message, event] = [at + NLMSG_HEADER, at + body];
    at += size + 3 & ~3;
    if (view.getUint32(message, true) !== CN_IDX_PROC || view.getUint32(message + 4, true) !== CN_VAL_PROC) continue;
    const data = event + EVENT_HEADER;
    const what = view.getUint32(event, true);
    decoded.what = what;
    decoded.cpu = view.getUint32(event + 4, true);
    decoded.seq = view.getUint32(message + 8, true);
    decoded.mono = view.getBigUint64(event + 8, true);
    decoded.tid = view.getInt32(data, true);
    decoded.pid = view.getInt32(data + 4, true);
    if (what === PROC_EVENT.FORK) {
      decoded.childTid = view.getInt32(data + 8, true);
      decoded.childPid = view.getInt32(data + 12, true);
    } else if (what === PROC_EVENT.UID || what === PROC_EVENT.EXIT) decoded.value = view.getUint32(data + 8, true);
    else if (what === PROC_EVENT.COMM) decoded.comm = name(bytes.subarray(data + 8, data + 24));
    handle(decoded);
  }
}

const decoded: ProcEvent = {
  what: 0,
  cpu: 0,
  seq: 0,
  mono: 0n,
  tid: 0,
  pid: 0,
  childTid: 0,
  childPid: 0,
  value: 0,
  comm: "",
};
const decoder = new TextDecoder();

function name(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return decoder.decode(end < 0 ? bytes : bytes.subarray(0, end));
}

/**
 * Finds gaps in messages that are numbered per processor.
 *
 * @example
 * ```ts
 * import { Gaps } from "./connector.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const gaps = new Gaps();
 * assertEquals([gaps.see(0, 7), gaps.see(1, 9), gaps.see(0, 8), gaps.see(0, 11)], [0, 0, 0, 2]);
 * ```
 */
export class Gaps {
  #next = new Map<number, number>();

  /**
   * Takes note of a message.
   *
   * @param cpu Its processor.
   * @param seq Its sequence number.
   * @returns How many messages are missing before it.
   */
  see(cpu: number, seq: number): number {
    const expected = this.#next.get(cpu);
    this.#next.set(cpu, seq + 1 >>> 0);
    return expected === undefined ? 0 : seq - expected >>> 0;
  }
}
