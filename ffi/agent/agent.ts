// The agent: a tiny process in any namespaces that makes syscalls for this process.
//
// Theory of operation. An agent lives exactly as long as a process holds the other end of its socket. Its own end is
// closed here right after the clone, so that its death and this process's are both seen as an end of file. Nothing depends
// on PR_SET_PDEATHSIG, which is bound to a thread and lost when ids change. An agent does nothing unasked: at the end of
// file it ends its children, restores the terminal that it may have been given, and exits.

import { CLONE, MAP, PROT } from "../core/consts.ts";
import { check, type SysError } from "../core/errno.ts";
import { Fd } from "../core/fd.ts";
import { cString } from "../core/memory.ts";
import { shim } from "../core/shim.ts";
import { NR, type SyscallName } from "../core/syscalls.ts";
import { type Arg, call, pointers, retry, self, type Task } from "../core/task.ts";
import { MSG, SO, SOL_SOCKET } from "../net/constants.ts";
import { filledPipe, type Received, receivePacket, sendPacket, socketPair } from "./channel.ts";
import { AgentGoneError, type AgentParts, type GoneReason } from "./gone.ts";
import { execRefused, type SpawnOptions, spawnProcess } from "./spawn.ts";
import {
  type Answer,
  type ChildEvent,
  decodeAnswer,
  encodeRequest,
  KEEP_FDS,
  LISTS_MAX,
  marshal,
  type Marshalled,
  Operation,
  PAYLOAD_MAX,
  REPLY_FD,
  type RequestHead,
} from "./wire.ts";

export { AgentGoneError, type AgentParts, type ChildEvent, type GoneReason, type SpawnOptions };

/** Milliseconds for an answer; a process inside can stop an agent, or have it wait for a file system that hangs. */
const ANSWER_TIMEOUT = 10_000;
/** Most reports that may come while an answer is waited for. */
const EVENTS_MAX = 1000;

/**
 * A process that makes syscalls for this one, in the namespaces it was started in.
 *
 * @example
 * ```ts
 * import { Agent } from "./agent.ts";
 * import { call } from "../core/task.ts";
 * import { assertEquals } from "@std/assert";
 *
 * using agent = Agent.spawn();
 * assertEquals(call(agent, "getpid"), agent.pid);
 * ```
 */
export class Agent implements Task, Disposable {
  /** Its pid as its parent sees it. */
  readonly pid: number;
  /** Refers to it even after its end. */
  readonly pidfd: Fd;
  /** Our end of its socket: readable when there is an event, or when the agent has ended. */
  readonly socket: Fd;
  /** Called before each answer is waited for; it may wait itself, and throw to give the request up. */
  onWait: (() => void) | null = null;
  #events: ChildEvent[] = [];
  #gone: GoneReason | null = null;
  #watched = 0;
  #timeout = 0;

  private constructor(pid: number, pidfd: Fd, socket: Fd, timeout: number) {
    this.pid = pid;
    this.pidfd = pidfd;
    this.socket = socket;
    this.setDeadline(timeout);
  }

  /** Why agents are forked, not executed, once that is known; they share the program's memory image then. */
  static get execRefused(): SysError | undefined {
    return execRefused();
  }

  /** Makes an agent of a process that gets the other end of a new socket. */
  static #start(make: (theirs: Fd) => { pid: number; pidfd: Fd }, timeout = ANSWER_TIMEOUT): Agent {
    const [ours, theirs] = socketPair();
    using _theirs = theirs;
    try {
      const { pid, pidfd } = make(theirs);
      return new Agent(pid, pidfd, ours, timeout);
    } catch (error) {
      ours.close();
      throw error;
    }
  }

  /**
   * Starts an agent as a child of this process.
   *
   * It has all signals blocked, an empty environment, and nothing of this process: its stdin, stdout and stderr are only
   * placeholders. What /proc says of its name, credentials and security label is true once it has answered. To be called
   * on the main thread only.
   *
   * @param flags CLONE_NEW* and CLONE_PARENT, see clone(2).
   * @param options What else it gets.
   * @returns The agent.
   * @throws {SysError} If the clone fails; with CLONE_PARENT or `inherit` also if agents cannot be executed here, since a
   * fork would not do.
   */
  static spawn(flags = 0, { inherit = false }: SpawnOptions = {}): Agent {
    return Agent.#start((theirs) => spawnProcess(theirs, flags, inherit));
  }

  /**
   * Takes over an agent that another thread of this process has given away.
   *
   * @example
   * ```ts
   * import { Agent } from "./agent.ts";
   * import { call } from "../core/task.ts";
   * import { assertEquals } from "@std/assert";
   *
   * using agent = Agent.adopt(Agent.spawn().release());
   * assertEquals(call(agent, "getpid"), agent.pid);
   * ```
   *
   * @param parts The agent.
   * @returns It, with the usual time for each answer.
   */
  static adopt({ pid, pidfd, socket }: AgentParts): Agent {
    return new Agent(pid, new Fd(pidfd), new Fd(socket), ANSWER_TIMEOUT);
  }

  /**
   * Gives the agent away, to a thread of this process. It must not be used here any longer.
   *
   * @returns What {@linkcode Agent.adopt} takes.
   */
  release(): AgentParts {
    return { pid: this.pid, pidfd: this.pidfd.release(), socket: this.socket.release() };
  }

  /**
   * Makes this agent clone itself; the clone is its child and a new agent, with the same descriptors but for its socket,
   * and the same deadline.
   *
   * @param flags CLONE_NEW* and CLONE_PARENT, see clone(2).
   * @returns The clone; its `pid` is as *this* agent sees it.
   * @throws {SysError} If the clone fails.
   * @throws {AgentGoneError} If this agent has ended.
   */
  clone(flags = 0): Agent {
    return Agent.#start((theirs) => {
      const m = { ...marshal([flags | CLONE.PIDFD]), fds: [theirs] };
      const { result, fd } = this.#exchange({ operation: Operation.CLONE }, m, "clone", [flags]);
      return { pid: result, pidfd: fd };
    }, this.#timeout);
  }

  raw(name: SyscallName, ...args: Arg[]): number {
    return this.#exchange({ operation: Operation.SYSCALL, nr: NR[name] }, this.#marshal(args)).result;
  }

  open(name: SyscallName, ...args: Arg[]): Fd {
    const head = { operation: Operation.SYSCALL, nr: NR[name], flags: REPLY_FD };
    return this.#exchange(head, this.#marshal(args), name, args).fd;
  }

  /**
   * Makes a syscall whose result is a descriptor several times, without waiting for one answer before the next request.
   *
   * @param count How often; at least once.
   * @param name The kernel's name of the call.
   * @param args Up to six arguments, small enough for one request.
   * @returns The descriptors, owned by the caller; at least one, and fewer than wanted if some calls have failed.
   * @throws {SysError} If all calls fail, or no descriptor can be taken over.
   */
  openMany(count: number, name: SyscallName, ...args: Arg[]): Fd[] {
    const m = marshal(args);
    const packet = encodeRequest({ operation: Operation.SYSCALL, nr: NR[name], flags: REPLY_FD }, m);
    const opened: Fd[] = [];
    let failure: unknown;
    try {
      for (let i = 0; i < count; i++) this.#request(packet, m);
      for (let i = 0; i < count; i++) {
        try {
          const { answer, fd } = this.#answer(true);
          check(name, answer.result, args);
          opened.push(fd!);
        } catch (error) {
          if (error instanceof AgentGoneError) throw error;
          failure ??= error; // the other answers come all the same
        }
      }
    } catch (error) {
      for (const fd of opened) fd.close();
      throw error;
    }
    if (opened.length === 0) throw failure;
    return opened;
  }

  /**
   * Executes a program in place of the agent, execve(2).
   *
   * The signal mask is set in the same step: a pending signal then acts on what is about to be the program, not on an
   * agent that still owes answers. It may even end it before the execve, which is reported as the end of the program.
   *
   * @param args Path, arguments and environment, as of execve(2).
   * @param mask Signals that the program blocks, bit n-1 for signal n.
   * @param stdio What it gets as stdin, stdout and stderr; none to keep those of the agent.
   * @returns Null if the program has taken the agent's place; else a negative error number, and all signals are blocked.
   * @throws {AgentGoneError} If the agent does not answer in time.
   */
  execute(args: readonly [Arg, Arg, Arg], mask: bigint, stdio: readonly Fd[]): number | null {
    try {
      return this.#exchange({ operation: Operation.EXEC }, { ...this.#marshal([...args, mask]), fds: [...stdio] })
        .result;
    } catch (error) {
      if (error instanceof AgentGoneError && error.reason === "ended") return null; // its socket closes on exec
      throw error;
    }
  }

  /**
   * Makes the agent wait for its children, and for orphans that are re-parented to it, and report on one of them.
   *
   * At the end of file the agent kills everything that is in lists of children, as `/proc/thread-self/children` is one: in
   * the first list until that is empty, then in the next. Orphans must come into a list as others in it end, so its owner is
   * a subreaper.
   *
   * @param pid The child to report on, as the agent sees it; 0 for none.
   * @param lists The agent's descriptors of the lists, at most `LISTS_MAX`; none if the kernel ends its children, because it
   * is PID 1 of a pid namespace.
   * @throws {SysError} EMFILE if it has too many descriptors.
   * @throws {AgentGoneError} If the agent has ended.
   */
  reap(pid: number, lists: readonly number[] = []): void {
    this.#watched = pid;
    const all = Array.from({ length: LISTS_MAX }, (_, i) => lists[i] ?? -1);
    this.#exchange({ operation: Operation.REAP }, marshal([pid, ...all]), "signalfd4");
  }

  /**
   * Makes the agent a holder: a process that keeps the namespaces it is in alive, independent of this process.
   *
   * It is executed again, so that its memory belongs to the user namespace it is in: only the owner of that namespace may
   * open its /proc files. It has no descriptors and blocks all signals. TERM ends it, and USR1 does as soon as no other
   * process is left in its pid namespace; if it is PID 1 there, both only from outside. Where agents cannot be executed it
   * stays as it is, and is dumpable. Its socket is closed; its pidfd shows its end.
   *
   * @param label What `ps` shows after its name.
   * @param filter The filter of its system calls, with which it gives up its capabilities too, unless it is dumpable; null
   * for none. Where the kernel refuses that, it is a holder all the same.
   * @throws {SysError} If it cannot be executed; it is still an agent then.
   */
  hold(label: string, filter: Uint8Array | null = null): void {
    const stays = execRefused() !== undefined;
    const m = marshal([pointers([cString("penne-holder"), cString("hold"), cString(label)]), stays ? 1 : 0]);
    // Without a filter, too, something must be read at once: the stdin of the agent may be a terminal.
    using source = filledPipe(filter ?? new Uint8Array());
    const fds = [...stays ? [] : [Fd.borrow(shim().image)], source];
    try {
      this.#exchange({ operation: Operation.HOLD }, { ...m, fds }, "execveat");
    } catch (error) {
      if (error instanceof AgentGoneError && error.reason === "ended") return; // its socket has closed
      throw error;
    }
  }

  /**
   * Takes from the agent what it needs no more: it still waits for its children, reports on them and ends them.
   *
   * @param keep The capabilities that it keeps.
   * @param filter The filter of its system calls, an array of `struct sock_filter`.
   * @throws {SysError} If the kernel refuses; capabilities may be gone then.
   * @throws {AgentGoneError} If the agent has ended.
   */
  confine(keep: bigint, filter: Uint8Array): void {
    this.#exchange({ operation: Operation.CONFINE }, { ...marshal([keep]), payload: filter }, "seccomp");
  }

  /**
   * Makes the agent restore a terminal when it ends.
   *
   * @param tty The terminal.
   * @param group The process group to put in the foreground again.
   * @param shell The process group of the shell that has started us; once it is in the foreground, nothing is restored.
   * @param termios The settings to restore, the kernel's `struct termios`.
   * @throws {SysError} EINVAL if the settings have another size.
   * @throws {AgentGoneError} If the agent has ended.
   */
  restoreAtEnd(tty: Fd, group: number, shell: number, termios: Uint8Array): void {
    const m = { ...marshal([group, shell]), fds: [tty], payload: termios };
    this.#exchange({ operation: Operation.TTY, flags: KEEP_FDS }, m, "ioctl");
  }

  /**
   * Makes the agent leave the terminal alone when it ends.
   *
   * @throws {AgentGoneError} If the agent has ended.
   */
  leaveTerminal(): void {
    this.#exchange({ operation: Operation.TTY }, marshal([]), "ioctl");
  }

  /**
   * Waits for the next change of the child that {@linkcode Agent.reap} has named.
   *
   * @returns The event; null once the agent can no longer be used, see {@linkcode Agent.gone}.
   */
  nextEvent(): ChildEvent | null {
    const queued = this.#events.shift();
    if (queued) return queued;
    try {
      for (;;) {
        const received = receivePacket(this.socket, false);
        if (received === "late") continue;
        const { answer } = this.#accept(received);
        if (answer.kind === "child") return answer;
        this.#lose("malformed"); // an answer without a request
      }
    } catch (error) {
      if (error instanceof AgentGoneError) return null;
      throw error;
    }
  }

  /** Whether an event has been received already; the socket need not be readable then. */
  get hasEvent(): boolean {
    return this.#events.length > 0;
  }

  /** Why the agent can no longer be used; null as long as it can. */
  get gone(): GoneReason | null {
    return this.#gone;
  }

  /**
   * Limits the time for each answer, which is 10 seconds at first; an agent that does not answer in time counts as gone.
   *
   * @param milliseconds The limit.
   */
  setDeadline(milliseconds: number): void {
    this.#timeout = milliseconds;
    const time = new BigInt64Array([BigInt(Math.trunc(milliseconds / 1000)), BigInt(milliseconds % 1000 * 1000)]);
    call(self, "setsockopt", this.socket, SOL_SOCKET, SO.RCVTIMEO, new Uint8Array(time.buffer), 16);
  }

  /** Closes the socket, which ends the agent. */
  close(): void {
    this.socket.close();
    this.pidfd.close();
  }

  /** Closes the socket, which ends the agent. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Lays out arguments; those that are too large for a request are copied to the agent before. */
  #marshal(args: readonly Arg[]): Marshalled {
    const m = marshal(args);
    return m.payload.length + 4 * m.relocs.length > PAYLOAD_MAX ? this.#upload(m) : m;
  }

  /** Copies a payload that is too large for a request to memory that is mapped for it in the agent, and stays mapped. */
  #upload(m: Marshalled): Marshalled {
    if (m.replyLength) throw new RangeError("A call in an agent cannot write more than 64 KiB");
    const size = m.payload.length;
    const base = call(this, "mmap", 0, size, PROT.READ | PROT.WRITE, MAP.PRIVATE | MAP.ANONYMOUS, -1, 0);
    const view = new DataView(m.payload.buffer);
    for (const at of m.relocs) {
      const target = view.getBigUint64(at, true);
      view.setBigUint64(at, target === 0xffff_ffff_ffff_ffffn ? 0n : BigInt(base) + target, true);
    }
    // Only the agent knows the number of its own socket, so it reads each piece from a second one, of which it gets a
    // duplicate for each call.
    const [ours, theirs] = socketPair();
    using _ours = ours;
    using _theirs = theirs;
    for (let at = 0; at < size; at += 32768) {
      const piece = m.payload.subarray(at, Math.min(size, at + 32768));
      check("sendto", retry(self, "sendto", ours, piece, piece.length, MSG.NOSIGNAL, null, 0));
      call(this, "recvfrom", theirs, base + at, piece.length, 0, 0, 0);
    }
    const args = m.args.map((arg, i) => (m.pointers >> i & 1) ? arg + BigInt(base) : arg);
    return { ...m, args, pointers: 0, payload: new Uint8Array(0), relocs: [] };
  }

  #exchange(head: RequestHead, m: Marshalled): { result: number; fd: Fd | null };
  #exchange(head: RequestHead, m: Marshalled, name: SyscallName, args?: readonly Arg[]): { result: number; fd: Fd };
  /** Makes a request. With the name of a call its failure is thrown; a descriptor comes with success only, if one was asked for. */
  #exchange(
    head: RequestHead,
    m: Marshalled,
    name?: SyscallName,
    args?: readonly Arg[],
  ): { result: number; fd: Fd | null } {
    const wantsFd = head.operation === Operation.CLONE || ((head.flags ?? 0) & REPLY_FD) !== 0;
    this.#request(encodeRequest(head, m), m);
    const { answer, fd } = this.#answer(wantsFd);
    for (const { bytes, at } of m.outs) {
      if (answer.payload.length >= at + bytes.length) bytes.set(answer.payload.subarray(at, at + bytes.length));
    }
    if (name) check(name, answer.result, args);
    return { result: answer.result, fd };
  }

  #request(packet: Uint8Array, { fds }: Marshalled): void {
    if (this.#gone) this.#lose(this.#gone); // what it may still send is no answer to this request
    if (!sendPacket(this.socket, packet, fds)) this.#lose("ended");
  }

  /** Waits for the answer to a request; a descriptor comes with success only. */
  #answer(wantsFd: boolean): { answer: Extract<Answer, { kind: "answer" }>; fd: Fd | null } {
    for (;;) {
      this.#wait();
      const { answer, fd } = this.#accept(receivePacket(this.socket, wantsFd, this.#timeout));
      if (answer.kind === "child" && !fd && this.#events.length < EVENTS_MAX) {
        this.#events.push(answer);
        continue;
      }
      if (answer.kind === "child" || (fd !== null) !== (wantsFd && answer.result >= 0)) {
        fd?.close();
        this.#lose("malformed");
      }
      return { answer, fd };
    }
  }

  #wait(): void {
    try {
      this.onWait?.();
    } catch (error) {
      this.#gone = "late"; // its answer would be taken for that to another request
      throw error;
    }
  }

  /** Checks what was received: it is data, and may be from a process inside that has taken the agent's place. */
  #accept(received: Received): { answer: Answer; fd: Fd | null } {
    if (typeof received === "string") this.#lose(received);
    const answer = decodeAnswer(received.packet);
    if (answer && (answer.kind !== "child" || answer.pid === this.#watched)) return { answer, fd: received.fd };
    received.fd?.close();
    this.#lose("malformed");
  }

  #lose(reason: GoneReason): never {
    this.#gone = reason;
    throw new AgentGoneError(reason);
  }
}
