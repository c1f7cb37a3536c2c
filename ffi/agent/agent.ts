// The agent: a tiny process in whatever namespaces we like that makes syscalls for us.
//
// Theory of operation. An agent lives exactly as long as somebody holds the other end of its socket. We close our copy of
// *its* end right after the clone, so that its death and ours are both seen as an end of file; nothing depends on
// PR_SET_PDEATHSIG, which is bound to a thread and lost when ids change. An agent never acts by itself: at the end of file
// it ends its children, restores the terminal if it was given one, and exits.

import { CLONE, MAP, PROT, SIGNAL } from "../core/consts.ts";
import { check, E, SysError } from "../core/errno.ts";
import { Fd } from "../core/fd.ts";
import { address, cString, keepAlive } from "../core/memory.ts";
import { shim, ShimFunction } from "../core/shim.ts";
import { NR, type SyscallName } from "../core/syscalls.ts";
import { type Arg, call, out, pointers, self, type Task } from "../core/task.ts";
import {
  type Answer,
  ANSWER_SIZE,
  decodeAnswer,
  encodeRequest,
  FDS_MAX,
  KEEP_FDS,
  marshal,
  type Marshalled,
  Operation,
  PAYLOAD_MAX,
  REPLY_FD,
  type RequestHead,
} from "./wire.ts";
import { AF, MSG, SCM_RIGHTS, SO, SOCK, SOL_SOCKET } from "../net/constants.ts";
import { isIgnored, resetSignal } from "../sys/signal.ts";

/** The agent at the other end has died. */
export class AgentGoneError extends Error {
  /** Always "AgentGoneError". */
  override readonly name = "AgentGoneError";
  constructor() {
    super("The agent has ended");
  }
}

/** A change of state of the child that an agent was asked to report on. */
export interface ChildEvent {
  /** The child's pid, as the agent sees it. */
  readonly pid: number;
  /** Status as of wait(2). */
  readonly status: number;
}

// One set of buffers serves all agents: each exchange is over before the next begins.
const inbox = new Uint8Array(ANSWER_SIZE + PAYLOAD_MAX);
const control = new Uint8Array(16 + 4 * FDS_MAX);
const iov = new Uint8Array(32);
const message = new Uint8Array(56);

/** Fills `message` (struct msghdr) for one packet and a control buffer of the given length. */
function prepare(packet: Uint8Array, controlLength: number): DataView {
  const parts = new DataView(iov.buffer);
  parts.setBigUint64(0, address(packet), true);
  parts.setBigUint64(8, BigInt(packet.length), true);
  const view = new DataView(message.buffer);
  message.fill(0);
  view.setBigUint64(16, address(iov), true);
  view.setBigUint64(24, 1n, true);
  if (controlLength) {
    view.setBigUint64(32, address(control), true);
    view.setBigUint64(40, BigInt(controlLength), true);
  }
  return view;
}

function retry(name: SyscallName, ...args: Arg[]): number {
  for (;;) {
    const result = self.raw(name, ...args);
    if (result !== -E.EINTR) return result;
  }
}

/** A socketpair whose ends both close on exec. */
function socketPair(): [Fd, Fd] {
  const pair = new Int32Array(2);
  call(self, "socketpair", AF.UNIX, SOCK.SEQPACKET | SOCK.CLOEXEC, 0, out(new Uint8Array(pair.buffer)));
  return [new Fd(pair[0]!), new Fd(pair[1]!)];
}

let childrenIgnored: boolean | undefined;

/**
 * Sees to it that children can be waited for: a caller that ignores SIGCHLD hands that on.
 *
 * @returns Whether SIGCHLD was ignored; it has its default action from now on.
 * @throws {SysError} If that cannot be set.
 */
export function waitForChildren(): boolean {
  if (childrenIgnored === undefined) {
    childrenIgnored = isIgnored(SIGNAL.CHLD);
    if (childrenIgnored) resetSignal(self, SIGNAL.CHLD);
  }
  return childrenIgnored;
}

/** How {@linkcode Agent.spawn} got its process; mirrors `enum spawn_how` in libshim.c. */
const SpawnMethod = { EXEC: 0, FORK: 1, INHERIT: 2 } as const;

/** How to start an agent. */
export interface SpawnOptions {
  /** Whether it gets all descriptors that this program's caller has passed on, under the same numbers. */
  readonly inherit?: boolean;
}

// Once an exec of the memfd was refused it will be refused again.
let execRefused: SysError | undefined;

/**
 * A process that makes syscalls for us, in the namespaces it was started in.
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
  /** Our end of its socket: readable when there is an event, or when it has gone. */
  readonly socket: Fd;
  #events: ChildEvent[] = [];
  #gone = false;

  private constructor(pid: number, pidfd: Fd, socket: Fd) {
    this.pid = pid;
    this.pidfd = pidfd;
    this.socket = socket;
  }

  /** Why agents are forked rather than executed, once that was found out; then they share the program's own memory image. */
  static get execRefused(): SysError | undefined {
    return execRefused;
  }

  /**
   * Starts an agent as a child of this process.
   *
   * It has stdin, stdout and stderr, all signals blocked, an empty environment, and nothing else of ours. Call it on the
   * main thread only.
   *
   * @param flags CLONE_NEW* and CLONE_PARENT, see clone(2).
   * @param options What else it gets.
   * @returns The agent.
   * @throws {SysError} If the clone fails; with CLONE_PARENT or `inherit` also if agents cannot be executed here, since a
   * fork is no substitute then.
   */
  static spawn(flags = 0, { inherit = false }: SpawnOptions = {}): Agent {
    waitForChildren();
    const [ours, theirs] = socketPair();
    using _theirs = theirs;
    try {
      const spawn = new Uint8Array(64);
      const view = new DataView(spawn.buffer);
      const stack = new Uint8Array(16384);
      const argv = new BigUint64Array(3);
      const name = cString("penne-agent");
      const number = cString(`${theirs.number}`);
      argv[0] = address(name);
      argv[1] = address(number);
      view.setBigUint64(0, BigInt(flags), true);
      view.setBigUint64(8, address(stack), true);
      view.setBigUint64(16, BigInt(stack.length), true);
      view.setBigUint64(24, address(new Uint8Array(argv.buffer)), true);
      view.setInt32(32, theirs.number, true);
      view.setInt32(36, shim().image, true);
      const attempt = (method: number): number => {
        view.setInt32(40, method, true);
        const pid = shim().call(ShimFunction.SPAWN, address(spawn), 0n, 0n, 0n, 0n, 0n);
        keepAlive([spawn, stack, argv, name, number]);
        return check("clone", Number(pid));
      };
      if (!shim().executable) execRefused ??= new SysError("execveat", E.EACCES);
      const onlyExec = inherit || (flags & CLONE.PARENT) !== 0;
      if (execRefused && onlyExec) throw execRefused;
      let pid = attempt(execRefused ? SpawnMethod.FORK : inherit ? SpawnMethod.INHERIT : SpawnMethod.EXEC);
      const error = Number(view.getBigInt64(48, true));
      if (!execRefused && error < 0) {
        execRefused = new SysError("execveat", -error);
        new Fd(view.getInt32(44, true)).close();
        retry("wait4", pid, null, 0, null);
        if (onlyExec) throw execRefused;
        pid = attempt(SpawnMethod.FORK);
      }
      return new Agent(pid, new Fd(view.getInt32(44, true)), ours);
    } catch (error) {
      ours.close();
      throw error;
    }
  }

  /**
   * Makes this agent clone itself; the clone is its child and a new agent, with the same descriptors but for its socket.
   *
   * @param flags CLONE_NEW* and CLONE_PARENT, see clone(2).
   * @returns The clone; its `pid` is as *this* agent sees it.
   * @throws {SysError} If the clone fails.
   * @throws {AgentGoneError} If this agent has gone.
   */
  clone(flags = 0): Agent {
    const [ours, theirs] = socketPair();
    using _theirs = theirs;
    try {
      const m = { ...marshal([flags | CLONE.PIDFD]), fds: [theirs] };
      const { result, fd } = this.#exchange({ operation: Operation.CLONE }, m);
      check("clone", result);
      return new Agent(result, fd!, ours);
    } catch (error) {
      ours.close();
      throw error;
    }
  }

  raw(name: SyscallName, ...args: Arg[]): number {
    return this.#syscall(0, name, args).result;
  }

  open(name: SyscallName, ...args: Arg[]): Fd {
    const { result, fd } = this.#syscall(REPLY_FD, name, args);
    check(name, result);
    return fd!;
  }

  /**
   * Executes a program in place of the agent, execve(2).
   *
   * The signal mask is set in the same step: a signal that has been pending then acts on what is about to be the program,
   * not on an agent that still owes answers. It may even end it before the execve, which is told of as that program's end.
   *
   * @param args Path, arguments and environment, as of execve(2).
   * @param mask Blocked signals of the program, bit n-1 for signal n.
   * @param waiting Called before waiting for the answer, which a signal that stops the agent could delay for ever.
   * @returns Null if the program has taken the agent's place, else a negative error number; all signals are blocked then.
   */
  execute(args: readonly [Arg, Arg, Arg], mask: bigint, waiting: () => void = () => {}): number | null {
    let m = marshal([...args, mask]);
    if (m.payload.length + 4 * m.relocs.length > PAYLOAD_MAX) m = this.#upload(m);
    try {
      return this.#exchange({ operation: Operation.EXEC }, m, waiting).result;
    } catch (error) {
      if (error instanceof AgentGoneError) return null; // its socket closes on exec
      throw error;
    }
  }

  /**
   * Makes the agent wait for its children (and whatever is re-parented to it) and report on one of them.
   *
   * @param pid The child to report on, as the agent sees it; 0 for none.
   * @param children The agent's descriptor of `/proc/thread-self/children`, so that it can end its descendants at the end
   * of file; -1 if it need not, being PID 1 of a pid namespace; -2 if its child ends by itself then, with all others, and
   * is to be waited for.
   * @throws {SysError} If it cannot.
   * @throws {AgentGoneError} If the agent has gone.
   */
  reap(pid: number, children: number): void {
    check("signalfd4", this.#exchange({ operation: Operation.REAP }, marshal([pid, children])).result);
  }

  /**
   * Makes the agent a holder: a process that keeps the namespaces it is in, and depends on nobody any more.
   *
   * It is executed anew, so that its memory belongs to the user namespace it is in: whoever owns that may then open its
   * /proc files, and nobody else. It has no descriptors and blocks all signals. TERM ends it, and USR1 does as soon as no
   * other process is left in its pid namespace; if it is PID 1 there, only from outside. Where agents cannot be executed
   * it goes on as it is, and is dumpable. Its socket is closed; its end is told by its pidfd.
   *
   * @param label What `ps` shows behind its name.
   * @throws {SysError} If it cannot be executed; it is an agent still.
   */
  hold(label: string): void {
    const image = execRefused ? [] : [Fd.borrow(shim().image)];
    const m = marshal([pointers([cString("penne-holder"), cString("hold"), cString(label)])]);
    try {
      check("execveat", this.#exchange({ operation: Operation.HOLD }, { ...m, fds: image }).result);
    } catch (error) {
      if (!(error instanceof AgentGoneError)) throw error; // its socket has closed
    }
  }

  /**
   * Makes the agent restore a terminal when it comes to its end.
   *
   * @param tty The terminal.
   * @param group The process group to put in the foreground again.
   * @param shell The process group of whoever has started us; once it is in the foreground, nothing is restored.
   * @param termios Its settings by now: `struct termios` of the kernel, 36 bytes.
   * @throws {SysError} If it cannot.
   * @throws {AgentGoneError} If the agent has gone.
   */
  restoreAtEnd(tty: Fd, group: number, shell: number, termios: Uint8Array): void {
    const m = { ...marshal([group, shell]), fds: [tty], payload: termios };
    check("ioctl", this.#exchange({ operation: Operation.TTY, flags: KEEP_FDS }, m).result);
  }

  /**
   * Makes the agent leave the terminal alone when it comes to its end.
   *
   * @throws {AgentGoneError} If the agent has gone.
   */
  leaveTerminal(): void {
    check("ioctl", this.#exchange({ operation: Operation.TTY }, marshal([])).result);
  }

  /**
   * The next change of the child that was asked for in {@linkcode Agent.reap}; waits for it.
   *
   * @returns The event, or null once the agent has gone.
   */
  nextEvent(): ChildEvent | null {
    const queued = this.#events.shift();
    if (queued) return queued;
    try {
      const { answer } = this.#receive();
      if (answer.kind !== "child") throw new RangeError("Agent has answered without having been asked");
      return answer;
    } catch (error) {
      if (error instanceof AgentGoneError) return null;
      throw error;
    }
  }

  /** Whether an event has already been received; the socket then need not be readable. */
  get hasEvent(): boolean {
    return this.#events.length > 0;
  }

  /** Whether the agent is known to have gone. */
  get gone(): boolean {
    return this.#gone;
  }

  /**
   * Limits the time for each answer; an agent that does not answer in time is taken for gone.
   *
   * @param milliseconds The limit.
   * @throws {SysError} If it cannot be set.
   */
  setDeadline(milliseconds: number): void {
    const time = new BigInt64Array([BigInt(Math.trunc(milliseconds / 1000)), BigInt(milliseconds % 1000 * 1000)]);
    call(self, "setsockopt", this.socket, SOL_SOCKET, SO.RCVTIMEO, new Uint8Array(time.buffer), 16);
  }

  /** Lets go of the agent, which is its end. */
  close(): void {
    this.socket.close();
    this.pidfd.close();
  }

  /** Lets go of the agent, which is its end. */
  [Symbol.dispose](): void {
    this.close();
  }

  #syscall(flags: number, name: SyscallName, args: Arg[]): { result: number; fd: Fd | null } {
    const nr = NR[name];
    let m = marshal(args);
    if (m.payload.length + 4 * m.relocs.length > PAYLOAD_MAX) m = this.#upload(m);
    return this.#exchange({ operation: Operation.SYSCALL, nr, flags }, m);
  }

  /** Puts a payload that is too large for a request into memory mapped for it in the agent, where it stays. */
  #upload(m: Marshalled): Marshalled {
    if (m.replyLength) throw new RangeError("Cannot have more than 64 KiB written by a call in an agent");
    const size = m.payload.length;
    const base = call(this, "mmap", 0, size, PROT.READ | PROT.WRITE, MAP.PRIVATE | MAP.ANONYMOUS, -1, 0);
    const view = new DataView(m.payload.buffer);
    for (const at of m.relocs) {
      const target = view.getBigUint64(at, true);
      view.setBigUint64(at, target === 0xffff_ffff_ffff_ffffn ? 0n : BigInt(base) + target, true);
    }
    // The agent reads each piece from its own socket, whose number it alone knows: it gets a duplicate of our end of a
    // second pair.
    const [ours, theirs] = socketPair();
    using _ours = ours;
    using _theirs = theirs;
    for (let at = 0; at < size; at += 32768) {
      const piece = m.payload.subarray(at, Math.min(size, at + 32768));
      check("sendto", retry("sendto", ours, piece, piece.length, MSG.NOSIGNAL, null, 0));
      call(this, "recvfrom", theirs, base + at, piece.length, 0, 0, 0);
    }
    const args = m.args.map((arg, i) => (m.pointers >> i & 1) ? arg + BigInt(base) : arg);
    return { ...m, args, pointers: 0, payload: new Uint8Array(0), relocs: [] };
  }

  #exchange(head: RequestHead, m: Marshalled, waiting?: () => void): { result: number; fd: Fd | null } {
    this.#send(encodeRequest(head, m), m.fds);
    waiting?.();
    for (;;) {
      const { answer, fd } = this.#receive();
      if (answer.kind === "child") {
        this.#events.push(answer);
        continue;
      }
      for (const { bytes, at } of m.outs) {
        if (answer.payload.length >= at + bytes.length) bytes.set(answer.payload.subarray(at, at + bytes.length));
      }
      return { result: answer.result, fd };
    }
  }

  #send(packet: Uint8Array, fds: readonly Fd[]): void {
    const length = fds.length ? 16 + 4 * fds.length : 0;
    if (fds.length) {
      const view = new DataView(control.buffer);
      view.setBigUint64(0, BigInt(length), true);
      view.setInt32(8, SOL_SOCKET, true);
      view.setInt32(12, SCM_RIGHTS, true);
      fds.forEach((fd, i) => view.setInt32(16 + 4 * i, fd.number, true));
    }
    prepare(packet, length);
    const result = retry("sendmsg", this.socket, message, MSG.NOSIGNAL);
    keepAlive(packet);
    if (result === -E.EPIPE || result === -E.ECONNRESET) this.#goneNow();
    check("sendmsg", result);
  }

  #receive(): { answer: Answer; fd: Fd | null } {
    const header = prepare(inbox, control.length);
    const result = retry("recvmsg", this.socket, message, MSG.CMSG_CLOEXEC);
    if (result === 0 || result === -E.ECONNRESET || result === -E.EAGAIN) this.#goneNow();
    check("recvmsg", result);
    if (header.getUint32(48, true) & MSG.CTRUNC) throw new SysError("recvmsg", E.EMFILE);
    const answer = decodeAnswer(inbox.slice(0, result));
    const fd = header.getBigUint64(40, true) >= 20n ? new Fd(new DataView(control.buffer).getInt32(16, true)) : null;
    return { answer, fd };
  }

  #goneNow(): never {
    this.#gone = true;
    throw new AgentGoneError();
  }
}
