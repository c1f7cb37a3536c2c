// A socket of rtnetlink(7) or sock_diag(7): makes requests and dumps; its errors include the kernel's extended ACK.

import type { CallRule } from "../../ffi/core/call_rule.ts";
import { check, E, orNull, SysError } from "../../ffi/core/errno.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { Block } from "../../ffi/core/quick.ts";
import { call, self, type Task } from "../../ffi/core/task.ts";
import { AF, NETLINK, NETLINK_OPTION, SOCK, SOL_NETLINK } from "../../ffi/net/constants.ts";
import { bindNetlink, receiveFromKernel } from "../../ffi/net/netlink.ts";
import { setOption } from "../../ffi/net/socket.ts";
import {
  decodeAcknowledgement,
  decodeMessages,
  encodeMessage,
  type NetlinkMessage,
  NLM_F,
  NLMSG,
  viewOf,
} from "./message.ts";

/** Bytes per receive. The kernel makes the messages of a dump as large as our largest receive, up to 32 KiB. */
const BUFFER = 65536;
/** Serves all sockets: received bytes are copied out of it at once. */
const inbox = new Block(BUFFER);
/** How often to repeat a dump that changes while it is read. */
const TRIES = 16;
const NO_ERROR = { errno: 0, text: null };

/** What asking the kernel needs once there is a socket. */
export const NETLINK_RULES: readonly CallRule[] = [
  { call: "sendto", why: "the network of the host: a question", test: "tests/confine/serve_test.ts" },
  {
    call: "recvfrom",
    why: "the network of the host: an answer, or that it has changed",
    test: "tests/confine/serve_test.ts",
  },
  {
    call: "close",
    why: "the network of the host: it is not followed any more",
    test: "tests/confine/serve_test.ts",
  },
];

/** Sockets of this process that stay open, by protocol. */
const kept = new Map<number, Fd>();
/** Number of the last request: answers of a socket that is used again may be to an earlier one. */
let last = 0;

/** Opens a socket whose errors say as much as the kernel can. */
function openSocket(task: Task, protocol: number): Fd {
  const fd = task.open("socket", AF.NETLINK, SOCK.RAW | SOCK.CLOEXEC, protocol);
  // Older kernels lack some of them: then errors say less, or dumps contain more.
  for (const option of Object.values(NETLINK_OPTION)) setOption(fd.number, SOL_NETLINK, option, 1);
  return fd;
}

/**
 * Opens sockets that this process uses whenever it needs one from now on: once it has confined itself, it can open none.
 *
 * @param protocols NETLINK.ROUTE or NETLINK.SOCK_DIAG. One that the kernel lacks is left out.
 */
export function keepNetlinkSockets(...protocols: readonly number[]): void {
  for (const protocol of protocols) {
    const fd = kept.has(protocol) ? null : orNull(() => openSocket(self, protocol));
    if (!fd) continue;
    bindNetlink(fd, 0); // as one that is in use, so that /proc/net/netlink has it
    kept.set(protocol, fd);
  }
}

/** A request to the kernel. */
export interface Request {
  /** Name of the type, for errors. */
  readonly name: string;
  /** RTM_*. */
  readonly type: number;
  /** Fixed part and attributes. */
  readonly payload: Uint8Array;
  /** NLM_F_* beside REQUEST and ACK. */
  readonly flags?: number;
}

/**
 * A socket of rtnetlink(7) or sock_diag(7) in a task's network namespace.
 *
 * The socket belongs to the namespace that it was opened in, whichever task uses it, and keeps that namespace alive.
 *
 * @example
 * ```ts
 * import { NetlinkSocket } from "./socket.ts";
 * import { decodeLink, dumpLinks } from "./link.ts";
 * import { self } from "../../ffi/core/task.ts";
 * import { assert } from "@std/assert";
 *
 * using socket = new NetlinkSocket(self);
 * assert(socket.dump(dumpLinks()).map(decodeLink).some(({ name }) => name === "lo"));
 * ```
 */
export class NetlinkSocket implements Disposable {
  #fd: Fd;
  #sender: Task;
  #received: NetlinkMessage[] = [];

  /**
   * @param task The task that opens it, in its network namespace.
   * @param protocol NETLINK.ROUTE or NETLINK.SOCK_DIAG.
   * @param sender The task that sends the requests; its privileges count, too.
   * @throws {SysError} If it cannot be opened.
   */
  constructor(task: Task, readonly protocol: number = NETLINK.ROUTE, sender: Task = self) {
    this.#sender = sender;
    const known = task === self ? kept.get(protocol) : undefined;
    this.#fd = known ? Fd.borrow(known.number) : openSocket(task, protocol);
  }

  #send({ type, payload }: Request, flags: number): number {
    const seq = last = last + 1 >>> 0;
    const bytes = encodeMessage({ type, flags: flags | NLM_F.REQUEST, seq, payload });
    call(this.#sender, "sendto", this.#fd, bytes, bytes.length, 0, null, 0);
    return seq;
  }

  /** Waits for the next answer to a request; throws if that is an error. */
  #answer({ name }: Request, seq: number): NetlinkMessage {
    for (;;) {
      const message = this.#received.shift();
      if (!message) {
        const n = receiveFromKernel(this.#fd, inbox);
        if (n !== -E.EINTR) check("recvfrom", n);
        if (n > 0) this.#received = decodeMessages(inbox.bytes.slice(0, n));
      } else if (message.seq === seq) {
        const { errno, text } = message.type === NLMSG.ERROR ? decodeAcknowledgement(message) : NO_ERROR;
        if (errno) throw new SysError(name, errno, text ?? undefined);
        return message;
      }
    }
  }

  /**
   * Makes a change, and waits until it is made.
   *
   * @param request The request.
   * @throws {SysError} If it is refused; its reason includes the kernel's explanation.
   */
  request(request: Request): void {
    const seq = this.#send(request, NLM_F.ACK | (request.flags ?? 0));
    while (this.#answer(request, seq).type !== NLMSG.ERROR);
  }

  /**
   * Gets one object.
   *
   * @param request The request.
   * @returns Payload of the answer.
   * @throws {SysError} If it is refused, or the object does not exist.
   */
  get(request: Request): Uint8Array {
    return this.#answer(request, this.#send(request, 0)).payload;
  }

  /**
   * Gets a list.
   *
   * @param request The request.
   * @returns Payloads of the answers.
   * @throws {SysError} If it is refused, or if it keeps changing while it is read (EAGAIN).
   */
  dump(request: Request): Uint8Array[] {
    for (let i = 0; i < TRIES; i++) {
      const payloads = this.#dumpOnce(request);
      if (payloads) return payloads;
    }
    throw new SysError(request.name, E.EAGAIN, "it keeps changing");
  }

  /** Gets a list once; null if it changed meanwhile. */
  #dumpOnce(request: Request): Uint8Array[] | null {
    const seq = this.#send(request, NLM_F.DUMP);
    const payloads: Uint8Array[] = [];
    let interrupted = false;
    for (;;) {
      const { type, flags, payload } = this.#answer(request, seq);
      if (flags & NLM_F.DUMP_INTR) interrupted = true;
      if (type !== NLMSG.DONE) {
        payloads.push(payload);
        continue;
      }
      const errno = payload.length >= 4 ? -viewOf(payload).getInt32(0, true) : 0;
      // A family that never had a route has no table.
      const empty = errno === E.ENOENT && this.protocol === NETLINK.ROUTE;
      if (errno > 0 && !empty) throw new SysError(request.name, errno);
      return interrupted ? null : payloads;
    }
  }

  /** Closes it. */
  [Symbol.dispose](): void {
    this.#fd.close();
  }
}
