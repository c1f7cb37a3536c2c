// A routing netlink socket: requests with the kernel's extended ACK in their errors, and dumps.

import { check, E, SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { Block } from "../../ffi/core/quick.ts";
import { call, self, type Task } from "../../ffi/core/task.ts";
import { AF, NETLINK, NETLINK_OPTION, SOCK, SOL_NETLINK } from "../../ffi/net/constants.ts";
import { receiveFromKernel } from "../../ffi/net/netlink.ts";
import { decodeAcknowledgement, decodeMessages, encodeMessage, NLM_F, NLMSG } from "./message.ts";

/** The kernel fills dumps up to what it has seen us receive, at most 32 KiB. */
const BUFFER = 65536;
/** What arrives is copied from here at once, so that one is enough for all sockets. */
const inbox = new Block(BUFFER);
/** Times a dump is begun anew because what it tells of has changed meanwhile. */
const TRIES = 16;

/** A request: what to do, and its payload. */
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
 * A socket of rtnetlink(7) in a task's network namespace.
 *
 * The namespace is that of the opening, whoever uses the socket then; and as long as the socket is open, it lives.
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
  #seq = 0;

  /**
   * @param task Who opens it, in its network namespace.
   * @throws {SysError} If it cannot be opened.
   */
  constructor(task: Task) {
    this.#fd = task.open("socket", AF.NETLINK, SOCK.RAW | SOCK.CLOEXEC, NETLINK.ROUTE);
    const one = new Uint8Array(new Uint32Array([1]).buffer);
    // Older kernels lack some: then there is less to read in errors, or more to filter in dumps.
    for (const option of Object.values(NETLINK_OPTION)) {
      self.raw("setsockopt", this.#fd, SOL_NETLINK, option, one, one.length);
    }
  }

  #send({ type, payload }: Request, flags: number): number {
    const seq = ++this.#seq;
    const bytes = encodeMessage({ type, flags: flags | NLM_F.REQUEST, seq, payload });
    call(self, "sendto", this.#fd, bytes, bytes.length, 0, null, 0);
    return seq;
  }

  #receive(): ReturnType<typeof decodeMessages> {
    for (;;) {
      const n = receiveFromKernel(this.#fd, inbox);
      if (n === -E.EINTR) continue;
      check("recvfrom", n);
      if (n > 0) return decodeMessages(inbox.bytes.slice(0, n));
    }
  }

  /**
   * Has something done, and waits until it is.
   *
   * @param request What.
   * @throws {SysError} If it is refused; its reason has the kernel's explanation.
   */
  request(request: Request): void {
    const seq = this.#send(request, NLM_F.ACK | (request.flags ?? 0));
    for (;;) {
      for (const message of this.#receive()) {
        if (message.seq !== seq || message.type !== NLMSG.ERROR) continue;
        const { errno, text } = decodeAcknowledgement(message);
        if (errno) throw new SysError(request.name, errno, text ?? undefined);
        return;
      }
    }
  }

  /**
   * Asks for one thing.
   *
   * @param request Which.
   * @returns Payload of the answer.
   * @throws {SysError} If it is refused, or if there is no such thing.
   */
  get(request: Request): Uint8Array {
    const seq = this.#send(request, 0);
    for (;;) {
      for (const message of this.#receive()) {
        if (message.seq !== seq) continue;
        if (message.type !== NLMSG.ERROR) return message.payload;
        const { errno, text } = decodeAcknowledgement(message);
        throw new SysError(request.name, errno, text ?? undefined);
      }
    }
  }

  /**
   * Asks for a list.
   *
   * @param request What of.
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

  #dumpOnce(request: Request): Uint8Array[] | null {
    const seq = this.#send(request, NLM_F.DUMP);
    const payloads: Uint8Array[] = [];
    let interrupted = false;
    for (;;) {
      for (const message of this.#receive()) {
        if (message.seq !== seq) continue;
        if (message.flags & NLM_F.DUMP_INTR) interrupted = true;
        if (message.type === NLMSG.ERROR) {
          const { errno, text } = decodeAcknowledgement(message);
          throw new SysError(request.name, errno, text ?? undefined);
        }
        if (message.type === NLMSG.DONE) {
          const failed = message.payload.length >= 4
            ? -new DataView(message.payload.slice().buffer).getInt32(0, true)
            : 0;
          // Where there has never been a route there is no table either.
          if (failed > 0 && failed !== E.ENOENT) throw new SysError(request.name, failed);
          return interrupted ? null : payloads;
        }
        payloads.push(message.payload);
      }
    }
  }

  /** Closes it. */
  [Symbol.dispose](): void {
    this.#fd.close();
  }
}
