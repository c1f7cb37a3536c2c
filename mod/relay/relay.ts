// The standard descriptors and the terminal of an exposed command, which must not have those of the caller.
//
// Theory of operation. A process that may trace the command can use all that the command has: push input into its terminal
// (TIOCSTI), read its descriptors, reach its working directory. So the command, and the agents before it, get nothing of
// the caller's. The guard is made the leader of a session of its own, in /, with a session keyring of its own, before any
// other agent exists; all others inherit that. A standard descriptor of the caller's that is a terminal becomes a
// pseudo-terminal of penne's, the controlling one of that session; others become pipes; penne copies the bytes.
//
// Job control works as without the pseudo-terminal, because it has the same foreground as the caller's terminal: the
// command while penne is in the foreground, else the guard. A command in the background that wants to read is stopped by
// the kernel, the agent reports that, and penne stops too. The command is not in an orphaned process group, whose members
// would ignore such stops: its parent, an agent, is in another group of the same session.
//
// In a pipeline or a script, where the terminal belongs to others as much as to penne, the command begins in the
// background, and gets the foreground when it wants to use the terminal. Nothing is read from the terminal before that.
//
// The guard is outside, where only the caller can stop or trace it. So penne never waits for an answer from inside.

import type { Agent } from "../../ffi/agent/agent.ts";
import { IOCTL, O, SIGNAL } from "../../ffi/core/consts.ts";
import { E, errnoText } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { cString } from "../../ffi/core/memory.ts";
import { call, self, type Task } from "../../ffi/core/task.ts";
import { EPOLL } from "../../ffi/sys/epoll.ts";
import { open } from "../../ffi/sys/file.ts";
import { getWindowSize, openPty, type Pty, setWindowSize, signalKeys } from "../../ffi/sys/pty.ts";
import { blockSignal } from "../../ffi/sys/signal.ts";
import { getSettings, setSettings } from "../../ffi/sys/terminal.ts";
import type { Reactor, Registration } from "../reactor/reactor.ts";
import { Copier, type CopyEnd } from "./copier.ts";
import { OuterTerminal } from "./outer_terminal.ts";
import { duplicate, giveBack, isRegular, lookAtStandard, type Standard, streamOf } from "./standard.ts";

/** What the relay takes from the program that loads it, whose classes may be other copies than its own. */
export interface RelayHost {
  /** Makes a call in an agent. */
  readonly call: (task: Task, ...args: Parameters<Task["raw"]>) => number;
  /** Refers to a descriptor of this process, for such a call. */
  readonly borrow: (number: number) => Fd;
}

/** How to relay. */
export interface RelayOptions {
  /** What it takes from the program. */
  readonly host: RelayHost;
  /** The event loop. */
  readonly reactor: Reactor;
  /** Whether the command gets the caller's terminal and session after all. */
  readonly shareTerminal: boolean;
  /** Whether the command leaves the session of the terminal. */
  readonly newSession: boolean;
  /** Whether the command gets the foreground at once if the terminal is its input and output. */
  readonly interactive: boolean;
  /** Descriptors that the command gets in place of the caller's; null where it gets what stands in for the caller's. */
  readonly given?: readonly (Fd | null)[];
  /** Called when what the command has written could not be passed on. */
  readonly onWarning: (message: string) => void;
}

/** Ids of a command's user, which own its descriptors. */
export interface StandardOwner {
  /** User id as penne sees it. */
  readonly outside: number;
  /** User id inside, or null if that is unknown. */
  readonly inside: number | null;
}

/** Bytes that may wait in a pipe or pseudo-terminal, and are still passed on after the end of all that write to it. */
const LEFT_MAX = 2 ** 21;

/** What stands between an exposed command and the caller's terminal and standard descriptors. */
export class Relay implements Disposable {
  /** Whether the command has a session of its own. */
  readonly apart: boolean;
  /** Penne's own process group. */
  readonly group: number = call(self, "getpgid", 0);
  /** Whether no other program, such as a neighbour in a pipeline or the shell of a script, shares the terminal with it. */
  readonly alone: boolean;
  #options: RelayOptions;
  #standard: readonly Standard[];
  #owned = new DisposableStack();
  #pty: Pty | null = null;
  #outer: OuterTerminal | null = null;
  /** What the command gets as descriptors 0 to 2; null for a terminal that is shared. */
  #given: (Fd | null)[] = [];
  #outputs: Copier[] = [];
  #stdin: Copier | null = null;
  /** The end that the command reads from, if the rest can be given back. */
  #unread: Fd | null = null;
  #keys: Copier | null = null;
  #guard: Agent | null = null;
  /** Process group of the command, once it is known. */
  #command = 0;
  /** Whether the command may have the foreground. */
  #wanted: boolean;
  #started = false;
  /** The foreground of the pseudo-terminal. */
  #inner = 0;
  #return: Registration | null = null;
  #drained: (() => void) | null = null;
  #stopExpected = false;

  /**
   * Looks at the standard descriptors, and opens what stands in for them.
   *
   * @param options How to relay.
   * @throws {SysError} If a pseudo-terminal or a pipe cannot be opened.
   */
  constructor(options: RelayOptions) {
    this.#options = options;
    this.apart = !options.shareTerminal;
    this.#standard = lookAtStandard(options.given);
    const [stdin, stdout] = this.#standard;
    const whole = stdin!.kind === "terminal" && stdout!.kind === "terminal" && stdin!.device === stdout!.device;
    this.alone = whole && this.group === call(self, "getpid");
    // In another session the kernel does not stop a command that wants to read.
    this.#wanted = options.newSession || options.interactive && whole;
    using owned = new DisposableStack();
    const terminal = [1, 2, 0].find((number) => this.#standard[number]!.kind === "terminal");
    if (terminal !== undefined && this.apart) this.#openPty(owned, terminal, whole);
    this.#openStreams(owned);
    this.#owned = owned.move();
  }

  #openPty(owned: DisposableStack, number: number, whole: boolean): void {
    const outer = owned.use(new OuterTerminal(number, whole));
    const pty = openPty();
    owned.use(pty.master);
    owned.use(pty.slave);
    setSettings(pty.slave, outer.settings);
    setWindowSize(pty.slave, getWindowSize(outer.output));
    blockSignal(SIGNAL.TTOU); // a restored setting must not stop us
    const { reactor, ...options } = this.#options;
    const plain = { blocks: false, owned: false };
    const keyboard = { fd: outer.input, blocks: outer.blocks, owned: false };
    const screen = { fd: outer.output, blocks: outer.blocks, owned: false };
    const input = owned.use(duplicate(pty.master));
    this.#keys = owned.use(
      new Copier(reactor, keyboard, { fd: input, ...plain }, {
        mayRead: () => this.#mayRead(),
        ...this.alone && !options.newSession ? {} : { inspect: (keys) => this.#sendSignals(keys) },
      }),
    );
    // What cannot be shown is dropped, as on any terminal that has been hung up.
    const ended = ({ kind }: CopyEnd) => {
      if (kind !== "refused" || pty.master.closed || this.#drained) return this.#look();
      const drop = this.#owned.use(new Copier(reactor, { fd: pty.master, ...plain }, null));
      this.#outputs.push(drop);
      drop.start();
    };
    this.#outputs.push(owned.use(new Copier(reactor, { fd: pty.master, ...plain }, screen, { ended })));
    this.#outer = outer;
    this.#pty = pty;
  }

  #openStreams(owned: DisposableStack): void {
    const { reactor, onWarning, given } = this.#options;
    for (const { kind, number, sameAs } of this.#standard) {
      if (kind === "given") this.#given.push(owned.use(duplicate(given![number]!)));
      else if (kind === "terminal") this.#given.push(this.#pty?.slave ?? null);
      else if (kind === "null") this.#given.push(owned.use(open(self, "/dev/null", O.RDWR)));
      else if (sameAs !== null) this.#given.push(this.#given[sameAs]!);
      else {
        const { theirs, ours, caller } = streamOf(number);
        this.#given.push(owned.use(theirs));
        if (number === 0) {
          this.#unread = isRegular(0) ? owned.use(duplicate(theirs)) : null;
          this.#stdin = owned.use(new Copier(reactor, caller, ours));
        } else {
          const ended = (how: CopyEnd) => {
            this.#look();
            if (how.kind === "end" || how.error === E.EPIPE) return;
            onWarning(`cannot write to ${["", "stdout", "stderr"][number]}: ${errnoText(how.error)}`);
          };
          this.#outputs.push(owned.use(new Copier(reactor, ours, caller, { ended })));
        }
      }
    }
  }

  /** Whether the command is a job of its own, with a foreground. */
  get jobControl(): boolean {
    return this.apart;
  }

  /** The process group in the foreground of the caller's terminal. */
  get foreground(): number {
    return this.#outer?.foreground ?? this.group;
  }

  /**
   * Takes everything of the caller's from the guard, before other agents inherit it.
   *
   * @param guard The guard.
   * @throws {SysError} If the kernel refuses.
   */
  isolate(guard: Agent): void {
    const { call, borrow } = this.#options.host;
    this.#guard = guard;
    call(guard, "chdir", cString("/"));
    if (this.apart) call(guard, "setsid");
    using nothing = open(self, "/dev/null", O.RDWR);
    for (const [number, fd] of this.#given.entries()) {
      if (fd) call(guard, "dup3", borrow(nothing.number), number, 0);
    }
    if (!this.#pty) return;
    call(guard, "dup3", borrow(this.#pty.slave.number), 0, 0);
    call(guard, "ioctl", 0, IOCTL.TIOCSCTTY, 0);
    this.#inner = guard.pid;
  }

  /**
   * Gives the command its standard descriptors.
   *
   * @param command The agent that becomes the command, with the privileges of its user namespace.
   * @param owner Who may open them once more, as programs do that open /dev/stderr.
   * @throws {SysError} If the kernel refuses.
   */
  connect(command: Task, { outside, inside }: StandardOwner): void {
    const { call, borrow } = this.#options.host;
    for (const [number, fd] of this.#given.entries()) {
      call(command, "dup3", borrow(fd?.number ?? number), number, 0);
      if (!fd) continue;
      // A pipe for stdin stays the caller's: who opens it in /proc would take away what the command has not read.
      if (this.#standard[number]!.kind === "null" || fd !== this.#pty?.slave && number === 0) continue;
      if (self.raw("fchown", fd, outside, -1) < 0 && inside !== null) command.raw("fchown", number, inside, -1);
    }
    for (const fd of this.#given) fd?.close();
  }

  /** Starts to relay. */
  start(): void {
    this.#started = true;
    this.#stdin?.start();
    for (const copier of this.#outputs) copier.start();
    if (this.#command) this.giveTo(this.#command);
  }

  /** Lets the command have the foreground whenever penne has it. */
  want(): void {
    this.#wanted = true;
  }

  /**
   * Gives the foreground to the command, if penne has it and the command wants it.
   *
   * @param group The command's process group.
   */
  giveTo(group: number): void {
    this.#command = group;
    const outer = this.#outer;
    if (!outer || !this.#wanted) return;
    if (!outer.isOurs) return this.#leave();
    this.#setInner(group);
    if (!this.#started) return;
    this.#return?.remove();
    this.#return = null;
    this.#tryGuard((guard) => guard.restoreAtEnd(outer.output, outer.group, 0, outer.settings));
    outer.makeRaw();
    this.resize();
    this.#keys?.start();
  }

  /** Takes the foreground back while the command is stopped. */
  takeBack(): void {
    this.flush();
    this.#outer?.restore();
    this.#leave();
  }

  /** Passes on what the command has written and can be passed on at once. */
  flush(): void {
    for (const copier of this.#outputs) copier.flush();
  }

  /** Does nothing: the guard is told whenever the terminal changes hands. */
  entrustTo(): void {}

  /** Takes the foreground back at the end, and restores the settings. */
  restore(): void {
    this.#wanted = false;
    this.#outer?.restore();
    this.#leave();
    this.#return?.remove();
    this.#return = null;
  }

  /** Passes the size of the caller's window on. */
  resize(): void {
    if (this.#outer && this.#pty) setWindowSize(this.#pty.master, getWindowSize(this.#outer.output));
  }

  /**
   * Passes on what the command has left in its pipes and its terminal; for when everything inside has ended.
   *
   * @param done Called once that is done, which may be at once.
   */
  drain(done: () => void): void {
    this.#drained = done;
    for (const copier of this.#outputs) copier.finish(LEFT_MAX);
    this.#look();
  }

  /** To be called when the command is about to be stopped as penne was. */
  expectStop(): void {
    this.#stopExpected = true;
  }

  /**
   * Whether penne is to stop as the command has. Without a terminal nobody would see that another user has stopped it.
   *
   * @returns True if the command has a terminal, or the stop was expected.
   */
  followsStops(): boolean {
    const expected = this.#stopExpected;
    this.#stopExpected = false;
    return this.hasTerminal || expected;
  }

  /** Whether the caller's terminal is relayed. */
  get hasTerminal(): boolean {
    return this.#outer !== null;
  }

  #look(): void {
    if (!this.#outputs.every(({ over }) => over)) return;
    this.#drained?.();
    this.#drained = null;
  }

  /** Gives back what was read of the caller's input, and not by the command. */
  giveBackInput(): void {
    if (this.#stdin && this.#unread && !this.#unread.closed) giveBack(this.#stdin.held, this.#unread);
  }

  #mayRead(): boolean {
    if (this.#outer!.isOurs) return true;
    this.#leave();
    return false;
  }

  /** Leaves the caller's terminal to another process group, until penne is in the foreground again. */
  #leave(): void {
    const outer = this.#outer;
    if (!outer || !this.#guard) return;
    this.#keys?.pause();
    this.#setInner(this.#guard.pid);
    this.#tryGuard((guard) => guard.leaveTerminal());
    if (!this.#wanted || this.#return || !this.#started) return;
    // A shell that brings a running job to the foreground sends it no signal. A key that is typed then tells.
    this.#return = this.#options.reactor.watch(outer.input, EPOLL.IN | EPOLL.ET, () => {
      if (outer.isOurs) this.giveTo(this.#command);
    });
  }

  #setInner(group: number): void {
    if (group === this.#inner || this.#options.newSession) return;
    this.#inner = group;
    this.#tryGuard((guard) => guard.raw("ioctl", 0, IOCTL.TIOCSPGRP, new Uint8Array(new Int32Array([group]).buffer)));
  }

  #tryGuard(body: (guard: Agent) => void): void {
    if (!this.#guard || this.#guard.gone || this.#guard.socket.closed) return;
    try {
      body(this.#guard);
    } catch (error) {
      // It was killed, and the supervisor will notice.
      if (!(error instanceof Error && error.name === "AgentGoneError")) throw error;
    }
  }

  /** Sends the signals of keys to those who are not in the session of the pseudo-terminal, as the kernel would. */
  #sendSignals(keys: Uint8Array): void {
    const meaning = signalKeys(getSettings(this.#pty!.master));
    if (!meaning) return;
    const { newSession } = this.#options;
    const { interrupt, quit, suspend } = meaning;
    for (const [key, signal] of [[interrupt, SIGNAL.INT], [quit, SIGNAL.QUIT], [suspend, SIGNAL.STOP]] as const) {
      if (key === 0 || !keys.includes(key)) continue;
      if (newSession) self.raw("kill", -this.#command, signal);
      // Of a stop the agent informs us, and the supervisor informs them.
      if (!this.alone && key !== suspend) self.raw("kill", 0, signal);
    }
  }

  /** Restores the terminal and closes everything. */
  [Symbol.dispose](): void {
    this.restore();
    this.#owned.dispose();
  }
}
