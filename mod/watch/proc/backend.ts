// The back end over the kernel's process connector: forks, execs and exits as they happen, namespaces read from /proc.
//
// Theory of operation. The connector is a netlink multicast group to which the kernel sends messages once a listener has
// asked. Outside the initial user and pid namespaces it ignores the request without an answer, so nothing is believed
// before an answer has come. Messages are numbered per processor: a gap is a loss. unshare(2) and setns(2) send none. So a
// task's namespaces are read with each of its messages, those of a parent before its child's, which puts a change before
// the fork; and those of all tasks from time to time.

import { E, SysError } from "../../../ffi/core/errno.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { Block } from "../../../ffi/core/quick.ts";
import { AF, NETLINK, SO, SOCK, SOL_SOCKET } from "../../../ffi/net/constants.ts";
import { bindNetlink, receiveFromKernel } from "../../../ffi/net/netlink.ts";
import { setOption } from "../../../ffi/net/socket.ts";
import { isReadable } from "../../../ffi/sys/poll.ts";
import { call, self } from "../../../ffi/core/task.ts";
import { attempt, PenneError } from "../../base/errors.ts";
import { failedCall } from "../../base/failed_call.ts";
import { monotonic, suspended } from "../facts/clock.ts";
import {
  CN_IDX_PROC,
  decodeProcEvents,
  encodeRequest,
  Gaps,
  PROC_CN,
  PROC_EVENT,
  type ProcEvent,
} from "./connector.ts";
import { type Backend, capabilitiesOf, type Fact, type Task } from "../facts/contract.ts";
import { type Entry, type ProcOptions, ProcTable } from "./table.ts";

/** Bytes of messages that can be pending: some 40,000 messages. */
const BUFFER = 32 << 20;
/** Milliseconds to wait for the kernel's answer. */
const PATIENCE = 200;
/** Messages received in one reading. */
const BATCH = 2048;
/** Tasks rescanned in one reading. */
const RESCANNED = 500;
/** Default time between two rescans of all tasks, in milliseconds. */
const INTERVAL = 1000;
/** Nanoseconds by which a task's start may differ from its fork message. */
const TOLERANCE = 50_000_000n;

/** Watches by the process connector. */
export class ProcBackend implements Backend {
  readonly name = "proc";
  readonly fd: Fd;
  readonly capabilities = capabilitiesOf({ fork: "exact", exec: "exact", exit: "exact" }, () => "inferred");
  readonly period: number;
  #table: ProcTable;
  #gaps = new Gaps();
  #inbox = new Block(8192);
  #lost = 0;
  /** Losses that were counted before a gap has shown them. */
  #owed = 0;
  /** When the last rescan of all tasks began, in milliseconds of `performance.now()`. */
  #scanned = performance.now();
  /** Tasks that the current rescan has still to read. */
  #rest: Iterator<Entry> | null = null;
  /** Nanoseconds that the machine was suspended. */
  #suspended = suspended();
  #port: number;

  /**
   * @param options How to read /proc.
   * @throws {PenneError} If the connector cannot be used.
   */
  constructor({ interval = INTERVAL, cgroups = false }: ProcOptions) {
    this.period = interval;
    this.#table = new ProcTable(cgroups);
    const what = "watch by the process connector";
    const explain = async (error: SysError) =>
      (await import("../../findings/mod.ts")).connectorHints(failedCall(error));
    this.fd = attempt(
      what,
      () => self.open("socket", AF.NETLINK, SOCK.DGRAM | SOCK.NONBLOCK | SOCK.CLOEXEC, NETLINK.CONNECTOR),
      explain,
    );
    try {
      if (setOption(this.fd.number, SOL_SOCKET, SO.RCVBUFFORCE, BUFFER) < 0) {
        setOption(this.fd.number, SOL_SOCKET, SO.RCVBUF, BUFFER);
      }
      this.#port = attempt(what, () => bindNetlink(this.fd, CN_IDX_PROC), explain);
      const request = encodeRequest(PROC_CN.LISTEN, this.#port);
      attempt(
        what,
        () => call(self, "sendto", this.fd, request, request.length, 0, null, 0),
        explain,
      );
      this.#expectAnswer(what);
    } catch (error) {
      this.fd.close();
      throw error;
    }
  }

  /** Waits for the kernel's answer; earlier messages are dropped, since they precede the watch. */
  #expectAnswer(what: string): void {
    const end = performance.now() + PATIENCE;
    let answered = false;
    for (let left; !answered && (left = end - performance.now()) > 0;) {
      isReadable(this.fd, Math.ceil(left));
      this.#receive((event) => {
        this.#gaps.see(event.cpu, event.seq); // answers are numbered, too, even those to other listeners
        if (event.what === PROC_EVENT.NONE) answered = true;
      });
    }
    this.#lost = 0;
    if (!answered) {
      throw new PenneError(`${what}: the kernel does not answer`, {
        explain: async () => (await import("../../findings/mod.ts")).connectorHints("silence"),
      });
    }
  }

  set onYield(onYield: () => void) {
    this.#table.onYield = onYield;
  }

  /** Receives a batch of messages. */
  #receive(handle: (event: ProcEvent) => void): void {
    for (let i = 0; i < BATCH; i++) {
      const n = receiveFromKernel(this.fd, this.#inbox);
      if (n === -E.EAGAIN) return;
      if (n === -E.EINTR) continue;
      if (n === -E.ENOBUFS) {
        // The numbers will show how many were lost, but perhaps much later.
        this.#lost++;
        this.#owed++;
        continue;
      }
      if (n < 0) throw new SysError("recvfrom", -n);
      if (n > 0) decodeProcEvents(this.#inbox.bytes, n, handle);
    }
  }

  read(emit: (fact: Fact) => void): number {
    this.#table.emitTo(emit);
    this.#receive((event) => {
      const missing = this.#gaps.see(event.cpu, event.seq);
      if (missing > 0) {
        const counted = Math.min(missing, this.#owed);
        this.#owed -= counted;
        this.#lost += missing - counted;
      }
      this.#handle(event);
    });
    this.#rescan();
    const lost = this.#lost;
    this.#lost = 0;
    return lost;
  }

  /** Returns the task that a message is about; null if it ended before it could be read. */
  #entry(pid: number, tid: number): Entry | null {
    const entry = this.#table.tasks.get(tid);
    return entry?.pid === pid ? entry : this.#table.discover(pid, tid);
  }

  #handle(event: ProcEvent): void {
    const table = this.#table;
    const { what, mono, pid, tid } = event;
    switch (what) {
      case PROC_EVENT.FORK: {
        const { childPid, childTid } = event;
        const isThread = childPid !== childTid;
        // The message about a thread names the parent of its process, not the thread's creator.
        const [ppid, ptid] = isThread ? [childPid, childPid] : [pid, tid];
        const parent = table.tasks.get(ptid);
        if (parent) table.rescan(parent, mono);
        else table.discover(ppid, ptid);
        const known = table.tasks.get(childTid);
        // The snapshot may already contain the new task.
        const read = known && known.pid === childPid && this.#isStart(known, mono) ? known : null;
        table.fork({ pid: childPid, tid: childTid, ppid, ptid }, mono, true, read);
        return;
      }
      case PROC_EVENT.EXEC: {
        const entry = this.#entry(pid, tid);
        table.removeThreads(pid);
        if (entry) table.exec(entry, mono, true);
        else table.unknown("exec", pid, tid, mono, null);
        return;
      }
      case PROC_EVENT.UID:
      case PROC_EVENT.COMM: {
        const entry = table.tasks.get(tid);
        if (!entry) return;
        if (what === PROC_EVENT.UID) entry.uid = event.value;
        else entry.comm = event.comm;
        table.rescan(entry, mono);
        return;
      }
      case PROC_EVENT.EXIT: {
        const entry = table.tasks.get(tid);
        if (entry) table.exit(entry, mono, event.value, true);
        else table.unknown("exit", pid, tid, mono, event.value);
        return;
      }
      default:
    }
  }

  #isStart({ start }: Entry, mono: bigint): boolean {
    const difference = start - (mono + this.#suspended);
    return start !== 0n && difference < TOLERANCE && difference > -TOLERANCE;
  }

  /** Reads some tasks again, if the interval is over or a rescan is under way. */
  #rescan(): void {
    const now = performance.now();
    if (!this.#rest) {
      if (now - this.#scanned < this.period) return;
      this.#scanned = now;
      this.#suspended = suspended();
      this.#rest = this.#table.tasks.values();
    }
    const mono = monotonic();
    for (let i = 0; i < RESCANNED; i++) {
      const next = this.#rest.next();
      if (next.done) {
        this.#rest = null;
        return;
      }
      this.#table.rescan(next.value, mono);
    }
  }

  snapshot(): Task[] {
    this.#rest = null;
    this.#scanned = performance.now();
    return this.#table.load(1);
  }

  [Symbol.dispose](): void {
    if (this.fd.closed) return;
    // Older kernels count listeners by their requests only.
    const request = encodeRequest(PROC_CN.IGNORE, this.#port);
    self.raw("sendto", this.fd, request, request.length, 0, null, 0);
    this.fd.close();
  }
}
