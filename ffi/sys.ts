// Typed syscalls: what the manual page of each says, with an exception in place of errno.

import { Agent } from "./agent.ts";
import { AT_FDCWD, O } from "./consts.ts";
import { check, SysError } from "./errno.ts";
import { Fd } from "./fd.ts";
import { address, cString, text } from "./memory.ts";
import { shim, ShimFunction, waitingSyscall } from "./shim.ts";
import { syscallNumber } from "./syscalls.ts";
import { call, out, pointers, self, type Task } from "./task.ts";

const EINTR = 4;
const SIG_SETMASK = 2;

/**
 * Opens a file, openat(2); in an agent, the file as the agent's namespaces have it.
 *
 * @example
 * ```ts
 * import { open } from "./sys.ts";
 * import { O } from "./consts.ts";
 * import { self } from "./task.ts";
 * import { assert } from "@std/assert";
 *
 * using file = open(self, "/proc/self/status", O.RDONLY);
 * assert(file.number >= 3);
 * ```
 *
 * @param task Who opens it.
 * @param path The path.
 * @param flags O_*; O_CLOEXEC is added.
 * @param mode Permissions of a file that is created.
 * @returns The descriptor, in this process.
 * @throws {SysError} If it cannot be opened.
 */
export function open(task: Task, path: string, flags: number, mode = 0): Fd {
  return task.open("openat", AT_FDCWD, cString(path), flags | O.CLOEXEC, mode);
}

/**
 * Reads from a descriptor, read(2), again after EINTR.
 *
 * @param fd The descriptor.
 * @param buffer Where to.
 * @returns Bytes read, 0 at the end of file.
 * @throws {SysError} If it fails.
 */
export function read(fd: Fd, buffer: Uint8Array): number {
  for (;;) {
    const n = self.raw("read", fd, out(buffer), buffer.length);
    if (n !== -EINTR) return check("read", n);
  }
}

/**
 * Writes all of `data` to a descriptor, write(2), again after EINTR.
 *
 * @param fd The descriptor, or its number.
 * @param data The bytes.
 * @throws {SysError} If it fails.
 */
export function write(fd: Fd | number, data: Uint8Array): void {
  let at = 0;
  do {
    const n = self.raw("write", fd, data.subarray(at), data.length - at);
    if (n === -EINTR) continue;
    at += check("write", n);
  } while (at < data.length);
}

/**
 * The whole content of a file, also of one in /proc whose size is given as 0.
 *
 * @example
 * ```ts
 * import { readBytes } from "./sys.ts";
 * import { self } from "./task.ts";
 * import { assert } from "@std/assert";
 *
 * assert(readBytes(self, "/proc/self/environ").length >= 0);
 * ```
 *
 * @param task Who opens it.
 * @param path The path.
 * @returns The content.
 * @throws {SysError} If it cannot be opened or read.
 */
export function readBytes(task: Task, path: string): Uint8Array {
  using fd = open(task, path, O.RDONLY);
  return readAll(fd);
}

/**
 * What is left to be read of an open file.
 *
 * @param fd The file.
 * @returns Its content, from its offset to its end.
 * @throws {SysError} If it cannot be read.
 */
export function readAll(fd: Fd): Uint8Array {
  let buffer = new Uint8Array(4096);
  let length = 0;
  for (;;) {
    const n = read(fd, buffer.subarray(length));
    if (n === 0) return buffer.subarray(0, length);
    length += n;
    if (length === buffer.length) {
      const larger = new Uint8Array(buffer.length * 4);
      larger.set(buffer);
      buffer = larger;
    }
  }
}

/**
 * The text of a file.
 *
 * @param task Who opens it.
 * @param path The path.
 * @returns The content; what is not UTF-8 becomes U+FFFD.
 * @throws {SysError} If it cannot be opened or read.
 */
export function readText(task: Task, path: string): string {
  return new TextDecoder().decode(readBytes(task, path));
}

/**
 * A pipe whose ends close on exec, pipe2(2).
 *
 * @param flags O_NONBLOCK, or nothing.
 * @returns The end to read from, and the end to write to.
 * @throws {SysError} If it cannot be made.
 */
export function pipe(flags = 0): [Fd, Fd] {
  const ends = new Int32Array(2);
  call(self, "pipe2", out(new Uint8Array(ends.buffer)), flags | O.CLOEXEC);
  return [new Fd(ends[0]!), new Fd(ends[1]!)];
}

/** What to wait for on one descriptor; see {@linkcode poll}. */
export interface PollEntry {
  /** The descriptor. */
  readonly fd: Fd;
  /** POLLIN, POLLOUT. */
  readonly events: number;
}

/**
 * Waits for descriptors, ppoll(2).
 *
 * @example
 * ```ts
 * import { pipe, poll, write } from "./sys.ts";
 * import { POLL } from "./consts.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const [reader, writer] = pipe();
 * using _r = reader;
 * using _w = writer;
 * assertEquals(poll([{ fd: reader, events: POLL.IN }], 0), [0]);
 * write(writer, new Uint8Array(1));
 * assertEquals(poll([{ fd: reader, events: POLL.IN }], 0), [POLL.IN]);
 * ```
 *
 * @param entries What to wait for.
 * @param timeout Milliseconds; negative: for ever.
 * @returns The events of each entry; all 0 after a time-out, or when a signal came.
 * @throws {SysError} If it fails.
 */
export function poll(entries: readonly PollEntry[], timeout = -1): number[] {
  const { bytes, view } = pollSet(entries);
  const n = self.raw("ppoll", out(bytes), entries.length, pollTimeout(timeout), null, 0);
  if (n !== -EINTR) check("ppoll", n);
  return entries.map((_, i) => n > 0 ? view.getInt16(8 * i + 6, true) : 0);
}

/**
 * Waits for descriptors without blocking the event loop, poll(2).
 *
 * Starts threads: not for a program that relies on having one.
 *
 * @param entries What to wait for.
 * @returns The events of each entry.
 * @throws {SysError} If it fails.
 */
export async function pollAsync(entries: readonly PollEntry[]): Promise<number[]> {
  const { bytes, view } = pollSet(entries);
  const nr = BigInt(syscallNumber("ppoll"));
  for (;;) {
    const n = Number(await waitingSyscall(nr, address(bytes), BigInt(entries.length), 0n, 0n, 0n, 0n));
    if (n === -EINTR) continue;
    check("ppoll", n);
    return entries.map((_, i) => view.getInt16(8 * i + 6, true));
  }
}

/** `struct pollfd[]` for the entries, with a view to read the answer. */
function pollSet(entries: readonly PollEntry[]): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(8 * entries.length);
  const view = new DataView(bytes.buffer);
  entries.forEach(({ fd, events }, i) => {
    view.setInt32(8 * i, fd.number, true);
    view.setInt16(8 * i + 4, events, true);
  });
  return { bytes, view };
}

/** `struct timespec` for milliseconds; null for "for ever". */
function pollTimeout(milliseconds: number): Uint8Array | null {
  if (milliseconds < 0) return null;
  const seconds = Math.floor(milliseconds / 1000);
  const words = new BigInt64Array([BigInt(seconds), BigInt(Math.round((milliseconds - seconds * 1000) * 1e6))]);
  return new Uint8Array(words.buffer);
}

/**
 * A descriptor that refers to a process, pidfd_open(2); readable once it has ended.
 *
 * @param pid The process.
 * @returns The pidfd.
 * @throws {SysError} ESRCH if there is none.
 */
export function openPid(pid: number): Fd {
  return self.open("pidfd_open", pid, 0);
}

/**
 * Sends a signal to the process behind a pidfd, pidfd_send_signal(2); to one that has ended, nothing.
 *
 * @param pidfd The process.
 * @param signal The signal's number; 0 only asks.
 * @returns Whether the process was there.
 * @throws {SysError} If it is there, and may not be sent the signal.
 */
export function sendSignal(pidfd: Fd, signal: number): boolean {
  const result = self.raw("pidfd_send_signal", pidfd, signal, null, 0);
  if (result === -3) return false; // ESRCH
  check("pidfd_send_signal", result);
  return true;
}

/**
 * The pid behind a pidfd, as this process's /proc has it.
 *
 * @param pidfd The process.
 * @returns The pid; -1 if it has ended and been waited for, 0 if it is in another pid namespace that is not below ours.
 * @throws {SysError} If /proc cannot be read.
 */
export function pidOf(pidfd: Fd): number {
  const found = /^Pid:\s*(-?\d+)/m.exec(readText(self, `/proc/self/fdinfo/${pidfd.number}`));
  return found ? Number(found[1]) : -1;
}

/** How a child ended. */
export interface WaitStatus {
  /** What it gave to exit(2), if it did. */
  readonly code: number | null;
  /** The signal that killed it, if one did. */
  readonly signal: number | null;
  /** The signal that stopped it, if one did. */
  readonly stopped: number | null;
  /** Whether it goes on after a stop. */
  readonly continued: boolean;
}

/**
 * Takes a wait status apart, wait(2).
 *
 * @example
 * ```ts
 * import { decodeWaitStatus } from "./sys.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(decodeWaitStatus(0x700).code, 7);
 * assertEquals(decodeWaitStatus(9).signal, 9);
 * assertEquals(decodeWaitStatus(0x147f).stopped, 20);
 * ```
 *
 * @param status The status.
 * @returns What it means.
 */
export function decodeWaitStatus(status: number): WaitStatus {
  const low = status & 0x7f;
  return {
    code: low === 0 ? status >> 8 & 0xff : null,
    signal: low !== 0 && low !== 0x7f ? low : null,
    stopped: (status & 0xff) === 0x7f ? status >> 8 & 0xff : null,
    continued: status === 0xffff,
  };
}

/**
 * Waits for a child's end and takes its status, wait4(2).
 *
 * @param pid The child.
 * @returns How it ended.
 * @throws {SysError} ECHILD if it is not a child of this process.
 */
export function waitChild(pid: number): WaitStatus {
  const status = new Int32Array(1);
  for (;;) {
    const n = self.raw("wait4", pid, out(new Uint8Array(status.buffer)), 0, null);
    if (n === -EINTR) continue;
    check("wait4", n);
    return decodeWaitStatus(status[0]!);
  }
}

/**
 * Mounts, mount(2).
 *
 * @param task Who mounts, in its mount namespace.
 * @param source What, or null.
 * @param target Where.
 * @param type Kind of file system, or null.
 * @param flags MS_*.
 * @throws {SysError} If it fails.
 */
export function mount(task: Task, source: string | null, target: string, type: string | null, flags: number): void {
  call(
    task,
    "mount",
    source === null ? null : cString(source),
    cString(target),
    type === null ? null : cString(type),
    flags,
    null,
  );
}

/** A signal that came; see {@linkcode SignalPipe}. */
export interface SignalRecord {
  /** Its number. */
  readonly signal: number;
  /** Where it came from: `si_code` of sigaction(2), positive if from the kernel (such as a terminal's Ctrl-C). */
  readonly code: number;
  /** The sender, if it was a process. */
  readonly pid: number;
}

/** Has a signal written to a pipe, or (-1) its default action; answers 1 if it was left ignored. */
function setSignal(signal: number, pipe: number, unlessIgnored: boolean): number {
  const ignored = unlessIgnored ? 1n : 0n;
  const result = shim().call(ShimFunction.SIGNAL, BigInt(signal), BigInt(pipe), ignored, 0n, 0n, 0n);
  return check("rt_sigaction", Number(result));
}

/**
 * Signals as something to poll: a handler that does nothing but write to a pipe.
 *
 * Works whatever the number of threads, and starts none (as Deno's own listeners do). One of them a process.
 */
export class SignalPipe implements Disposable {
  /** Readable when a signal has come. */
  readonly reader: Fd;
  #writer: Fd;
  #caught = new Set<number>();

  /** @throws {SysError} If the pipe cannot be made. */
  constructor() {
    [this.reader, this.#writer] = pipe(O.NONBLOCK);
  }

  /**
   * From now on a signal comes here; one that is ignored stays ignored.
   *
   * @param signal Its number.
   * @throws {SysError} If it cannot be caught.
   */
  catch(signal: number): void {
    const result = setSignal(signal, this.#writer.number, true);
    if (result === 0) this.#caught.add(signal);
  }

  /**
   * Gives a signal its default action back for the time of a call.
   *
   * @param signal Its number.
   * @param body What to do meanwhile.
   */
  withDefault(signal: number, body: () => void): void {
    const caught = this.#caught.has(signal);
    if (caught) setSignal(signal, -1, false);
    try {
      body();
    } finally {
      if (caught) setSignal(signal, this.#writer.number, false);
    }
  }

  /**
   * Takes what has come, without waiting.
   *
   * @returns The signals in the order of their arrival.
   */
  take(): SignalRecord[] {
    const buffer = new Uint8Array(12 * 64);
    const n = self.raw("read", this.reader, out(buffer), buffer.length);
    const view = new DataView(buffer.buffer);
    const records: SignalRecord[] = [];
    for (let at = 0; at + 12 <= n; at += 12) {
      records.push({
        signal: view.getInt32(at, true),
        code: view.getInt32(at + 4, true),
        pid: view.getInt32(at + 8, true),
      });
    }
    return records;
  }

  /** Gives every signal its default action back. */
  [Symbol.dispose](): void {
    for (const signal of this.#caught) setSignal(signal, -1, false);
    this.#caught.clear();
    this.#writer.close();
    this.reader.close();
  }
}

/** Which processors a thread may run on, sched_setaffinity(2). */
export type Affinity = Uint8Array;

/**
 * Keeps the calling thread, and what it clones, on the processor it runs on.
 *
 * A request to an agent and its answer are two hand-overs; on one processor they cost some microseconds, on two, where the
 * other one has to be woken up, ten times that.
 *
 * @returns What was allowed before, for {@linkcode setAffinity}; null if nothing was changed.
 */
export function stayOnProcessor(): Affinity | null {
  const before = new Uint8Array(1024);
  const size = self.raw("sched_getaffinity", 0, before.length, out(before));
  if (size <= 0) return null;
  const cpu = new Uint32Array(1);
  if (self.raw("getcpu", out(new Uint8Array(cpu.buffer)), null, null) < 0) return null;
  const only = new Uint8Array(size);
  only[cpu[0]! >> 3] = 1 << (cpu[0]! & 7);
  return self.raw("sched_setaffinity", 0, size, only) < 0 ? null : before.subarray(0, size);
}

/**
 * Sets which processors a task may run on; failing to is of no consequence.
 *
 * @param task The task.
 * @param affinity The processors.
 */
export function setAffinity(task: Task, affinity: Affinity): void {
  task.raw("sched_setaffinity", 0, affinity.length, affinity);
}

/**
 * The target of a symbolic link, readlinkat(2).
 *
 * @param task Who reads it.
 * @param path The link.
 * @returns Its target.
 * @throws {SysError} If it cannot be read.
 */
export function readLink(task: Task, path: string): string {
  const buffer = new Uint8Array(4096);
  const n = call(task, "readlinkat", AT_FDCWD, cString(path), out(buffer), buffer.length);
  return text(buffer.subarray(0, n));
}

/** Part of what statx(2) tells. */
export interface Stat {
  /** Kind and permissions, `S_IF*` and mode bits. */
  readonly mode: number;
  /** Owner. */
  readonly uid: number;
  /** Number of hard links. */
  readonly links: number;
  /** Device of its file system, as in `8:1`. */
  readonly device: string;
  /** Whether it is the root of a mount; Linux 5.8. */
  readonly mountRoot: boolean;
  /** Inode number; for a namespace its `inum`. */
  readonly ino: bigint;
}

/**
 * Tells about a file, statx(2).
 *
 * @example
 * ```ts
 * import { stat } from "./sys.ts";
 * import { self } from "./task.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(stat(self, "/proc").mode >> 12, 0o4); // a directory
 * ```
 *
 * @param task Who asks.
 * @param file A path (symbolic links are followed), or an open file.
 * @returns What it is.
 * @throws {SysError} If it cannot be told.
 */
export function stat(task: Task, file: string | Fd): Stat {
  const AT_EMPTY_PATH = 0x1000;
  const STATX_BASIC_STATS = 0x7ff;
  const buffer = new Uint8Array(256);
  const [at, path, flags] = typeof file === "string" ? [AT_FDCWD, file, 0] : [file, "", AT_EMPTY_PATH];
  call(task, "statx", at, cString(path), flags, STATX_BASIC_STATS, out(buffer));
  const view = new DataView(buffer.buffer);
  const STATX_ATTR_MOUNT_ROOT = 0x2000n;
  return {
    mode: view.getUint16(28, true),
    uid: view.getUint32(20, true),
    links: view.getUint32(16, true),
    device: `${view.getUint32(136, true)}:${view.getUint32(140, true)}`,
    mountRoot: (view.getBigUint64(8, true) & STATX_ATTR_MOUNT_ROOT) !== 0n,
    ino: view.getBigUint64(32, true),
  };
}

/** Of statfs(2): the file system of namespaces. */
const NSFS_MAGIC = 0x6e736673n;

/**
 * Whether an open file is a namespace, by the file system it is in, fstatfs(2).
 *
 * @param fd The file, which may be open with O_PATH.
 * @returns Whether it is.
 */
export function isNamespaceFile(fd: Fd): boolean {
  const words = new BigUint64Array(15); // struct statfs
  return self.raw("fstatfs", fd, out(new Uint8Array(words.buffer))) === 0 && words[0] === NSFS_MAGIC;
}

/** How to execute a program. */
export interface ExecOptions {
  /** Blocked signals of the program, bit n-1 for signal n; none by default. */
  readonly mask?: bigint;
  /** Called before waiting for the answer. */
  readonly waiting?: () => void;
}

/**
 * Executes a program in place of an agent, or of this process, execve(2).
 *
 * @param task The agent; it has gone afterwards, unless there was an error.
 * @param path The program.
 * @param argv Its arguments, the first being its name.
 * @param environment Its environment, `NAME=value`.
 * @param options Signal mask, and what to do while waiting.
 * @returns Null if the program runs (or was ended by a signal right away), else the error.
 */
export function exec(
  task: Task,
  path: string | Uint8Array,
  argv: readonly (string | Uint8Array)[],
  environment: readonly Uint8Array[],
  { mask = 0n, waiting }: ExecOptions = {},
): SysError | null {
  const args = [cString(path), pointers(argv.map(cString)), pointers(environment.map(cString))] as const;
  if (task instanceof Agent) {
    const result = task.execute(args, mask, waiting);
    return result === null ? null : new SysError("execve", -result);
  }
  call(task, "rt_sigprocmask", SIG_SETMASK, new Uint8Array(new BigUint64Array([mask]).buffer), null, 8);
  return new SysError("execve", -task.raw("execve", ...args));
}
