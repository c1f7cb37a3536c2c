// A command that runs in its own namespaces: starting it, telling what becomes of it, and ending it.

import { type Agent, AgentGoneError } from "../../ffi/agent/agent.ts";
import { AT_FDCWD, O, POLL, SIGNAL, type SignalName } from "../../ffi/core/consts.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { cString } from "../../ffi/core/memory.ts";
import { decodeWaitStatus, pidOf, sendSignal, setAffinity, stayOnProcessor } from "../../ffi/sys/process.ts";
import { poll, type PollEntry } from "../../ffi/sys/poll.ts";
import { call, self } from "../../ffi/core/task.ts";
import { type NamespaceId, namespaceIds } from "../namespaces/id.ts";
import type { NamespaceType } from "../namespaces/types.ts";
import { PenneError } from "../base/errors.ts";
import { changeDirectory, type CommandPlan, execCommand, prepareCommand, takeIds } from "./command.ts";
import { type Enclosure, type EnclosureOptions, END_TIMEOUT, makeEnclosure } from "./enclosure.ts";
import type { RunPlan } from "./plan.ts";
import type { TapLink } from "../network/tap_link.ts";
import type { Terminal } from "./terminal.ts";
import { waitReadable } from "../reactor/waiter.ts";

/** How a command ended. */
export interface ExitStatus {
  /** Its exit code, or null if a signal killed it. */
  readonly code: number | null;
  /** The signal that killed it, or null. */
  readonly signal: number | null;
}

/** What has become of a command. */
export type ChildState =
  | { readonly kind: "exited"; readonly status: ExitStatus }
  | { readonly kind: "stopped"; readonly signal: number }
  | { readonly kind: "continued" }
  /** An agent was killed, and the command with it. */
  | { readonly kind: "lost" };

/** The end of a command that was not told of. */
const KILLED: ExitStatus = { code: null, signal: SIGNAL.KILL };

/** A command in its own namespaces; see {@linkcode startChild}. */
export class Child implements Disposable {
  /** Refers to the command even after its end. */
  readonly pidfd: Fd;
  /** Identity of the namespaces made, if it was asked for. */
  readonly namespaces: Readonly<Partial<Record<NamespaceType, NamespaceId>>>;
  #pid = 0;
  #final: ExitStatus | null = null;
  #cancel: (() => void) | null = null;
  #deferred: ChildState[] = [];
  #enclosure: Enclosure;
  #reporter: Agent;
  #killSignal: number;
  #status: Promise<ExitStatus> | null = null;
  #settle: ((status: ExitStatus) => void) | null = null;

  /**
   * @param enclosure The namespaces; they end with this object.
   * @param reporter The agent that waits for the command.
   * @param command What has become the command.
   * @param details What else is known.
   */
  constructor(
    enclosure: Enclosure,
    reporter: Agent,
    command: Agent,
    details: { namespaces: Child["namespaces"]; killSignal: SignalName },
  ) {
    this.#enclosure = enclosure;
    this.#reporter = reporter;
    this.pidfd = command.pidfd;
    this.namespaces = details.namespaces;
    this.#killSignal = SIGNAL[details.killSignal];
  }

  /**
   * The command's pid as this process sees it; the same also after its end, if it was asked for before.
   *
   * @throws {PenneError} If it cannot be known, since the command has ended or is not in our /proc.
   */
  get pid(): number {
    if (this.#pid === 0) {
      const pid = pidOf(this.pidfd);
      if (pid <= 0) throw new PenneError("tell the command's pid: it is not in /proc");
      this.#pid = pid;
    }
    return this.#pid;
  }

  /**
   * Waits until what is about to be the command has answered or become it; if it is stopped before that, lets it go on.
   *
   * @param command What is about to be the command.
   * @param stops Gets the signals that have stopped it.
   */
  waitForAnswer(command: Agent, stops: number[]): void {
    const entries = [{ fd: command.socket, events: POLL.IN }, ...this.pollEntries];
    while (!poll(entries)[0]) {
      const state = this.next();
      if (state?.kind === "stopped") {
        stops.push(state.signal);
        this.kill(SIGNAL.CONT);
      } else if (state && state.kind !== "continued") {
        this.#deferred.push(state);
        return; // it has ended, and its socket with it
      }
    }
  }

  /** The tap of its net namespace, if it has one. */
  get link(): TapLink | null {
    return this.#enclosure.link;
  }

  /**
   * Has something done at the very end, when all processes have ended and the network is still there.
   *
   * @param drain What to do.
   */
  atEnd(drain: () => void): void {
    this.#enclosure.drain = drain;
  }

  /** The agent in its namespaces, which {@linkcode Child.leave} makes a holder. */
  get agent(): Agent {
    return this.#enclosure.agent;
  }

  /**
   * Has something done once the command has ended by itself, when its namespaces are still there.
   *
   * @param settle What to do; it may call {@linkcode Child.leave}.
   */
  atExit(settle: (status: ExitStatus) => void): void {
    this.#settle = settle;
  }

  /**
   * Does what was asked for in {@linkcode Child.atExit}, the first time it is called.
   *
   * @param status How the command has ended.
   */
  settle(status: ExitStatus): void {
    const settle = this.#settle;
    this.#settle = null;
    settle?.(status);
  }

  /**
   * Leaves the namespaces, with all that runs there, to the agent in them, which becomes a holder.
   *
   * @param label What `ps` shows of it.
   * @throws {SysError} If it cannot become one.
   */
  leave(label: string): void {
    this.#enclosure.leave(label);
  }

  /** Its own /etc/resolv.conf, if it has one. */
  get resolvConf(): Fd | null {
    return this.#enclosure.resolvConf;
  }

  /** What to poll for a change of state. */
  get pollEntries(): PollEntry[] {
    return [this.#reporter, ...this.#others].map(({ socket }) => ({ fd: socket, events: POLL.IN }));
  }

  /** The agents that look after other agents only. */
  get #others(): Agent[] {
    return this.#enclosure.outer.filter((agent) => agent !== this.#reporter);
  }

  /**
   * The next change of state, if there is one by now.
   *
   * @returns It, or null.
   */
  next(): ChildState | null {
    const deferred = this.#deferred.shift();
    if (deferred) return deferred;
    const readable = (agent: Agent) => agent.hasEvent || poll([{ fd: agent.socket, events: POLL.IN }], 0)[0] !== 0;
    while (readable(this.#reporter)) {
      const event = this.#reporter.nextEvent();
      if (!event) return { kind: "lost" };
      const { code, signal, stopped, continued } = decodeWaitStatus(event.status);
      if (stopped !== null) return { kind: "stopped", signal: stopped };
      if (continued) return { kind: "continued" };
      return { kind: "exited", status: { code, signal } };
    }
    for (const agent of this.#others) {
      while (readable(agent)) {
        const event = agent.nextEvent();
        const status = event && decodeWaitStatus(event.status);
        if (!status || status.code !== null || status.signal !== null) return { kind: "lost" };
      }
    }
    return null;
  }

  /**
   * Resolves when the command has ended; the namespaces have then ended too.
   *
   * Waits on another thread. Use it, or {@linkcode Child.next}, not both.
   *
   * @returns How it ended; as by SIGKILL if an agent was killed.
   */
  get status(): Promise<ExitStatus> {
    this.#status ??= this.#wait();
    return this.#status;
  }

  async #wait(): Promise<ExitStatus> {
    let urged = false;
    while (!this.#final) {
      const state = this.next();
      if (state?.kind === "exited") {
        this.#final = state.status;
        try {
          this.settle(state.status);
        } catch (error) {
          this.close();
          throw error;
        }
      } else if (state?.kind === "lost") this.#final = KILLED;
      else if (!state) {
        const fds = this.pollEntries.map(({ fd }) => fd);
        const { readable, cancel } = waitReadable(urged ? fds : [...fds, this.pidfd]);
        this.#cancel = cancel;
        await readable;
        this.#cancel = null;
        if (urged || this.pidfd.closed || !poll([{ fd: this.pidfd, events: POLL.IN }], 0)[0]) continue;
        this.urge();
        urged = true;
      }
    }
    this.close();
    return this.#final;
  }

  /** Lets the agents go on that somebody inside has stopped, which could not tell of the command's end. */
  urge(): void {
    this.#enclosure.urge();
  }

  /**
   * Sends the command a signal; once it has ended, nothing.
   *
   * @param signal Its name or number.
   * @throws {SysError} If it may not be sent.
   */
  kill(signal: SignalName | number = "TERM"): void {
    if (!this.pidfd.closed) sendSignal(this.pidfd, typeof signal === "number" ? signal : SIGNAL[signal]);
  }

  /**
   * Ends the command with its kill signal, in time or by force, and then everything in its namespaces.
   *
   * @returns How the command ended.
   */
  end(): ExitStatus {
    if (!this.pidfd.closed) {
      this.kill(this.#killSignal);
      if (!poll([{ fd: this.pidfd, events: POLL.IN }], END_TIMEOUT)[0]) this.kill(SIGNAL.KILL);
      this.urge();
      // Its end is seen on the pidfd before the agent has told of it.
      const deadline = Date.now() + END_TIMEOUT;
      while (!this.#final && Date.now() < deadline) {
        const state = this.next();
        if (state?.kind === "exited") this.#final = state.status;
        else if (state?.kind === "lost") break;
        else if (!state) poll(this.pollEntries, END_TIMEOUT);
      }
      this.close();
    }
    return this.#final ?? KILLED;
  }

  /**
   * Tells the guard what to do with the terminal if we are killed: restore it, if the command holds it now.
   *
   * @param terminal The terminal.
   * @param settings The settings to restore.
   */
  guardTerminal(terminal: Terminal, settings: Uint8Array = terminal.settings): void {
    const { guard } = this.#enclosure;
    if (!guard || guard.gone) return;
    try {
      if (terminal.held) guard.restoreAtEnd(terminal.tty, terminal.group, terminal.shell, settings);
      else guard.leaveTerminal();
    } catch (error) {
      if (!(error instanceof AgentGoneError)) throw error; // killed; `next` will tell
    }
  }

  /** Ends everything in the namespaces by force, and waits for it. */
  close(): void {
    if (this.pidfd.closed) return;
    this.#final ??= KILLED;
    this.#cancel?.();
    // Without an agent to do it (it may have been killed) this is what ends the command.
    sendSignal(this.pidfd, SIGNAL.KILL);
    poll([{ fd: this.pidfd, events: POLL.IN }], END_TIMEOUT);
    this.pidfd.close();
    this.#enclosure.close();
  }

  /** Ends everything in the namespaces by force. */
  [Symbol.dispose](): void {
    this.close();
  }
}

/** What {@linkcode startChild} can be asked for beside the plan. */
export interface StartOptions {
  /** The terminal to be restored, and to be handed over if there is job control. */
  readonly terminal?: Terminal | null;
  /** Whether to identify the namespaces. */
  readonly identify?: boolean;
  /** How the namespaces are made. */
  readonly enclosure?: EnclosureOptions;
  /** Called when all is set up, right before the command is executed. */
  readonly beforeExec?: (child: Child) => void;
}

/** A command to be started in an enclosure. */
export interface ChildPlan extends CommandPlan {
  /** Whether the agent itself becomes the command. */
  readonly ownInit: boolean;
  /** An agent's descriptor of the file that lists its children, as {@linkcode Agent.reap} takes it. */
  readonly childrenOf: (agent: Agent, inner: boolean) => number;
  /** Identifies the namespaces. */
  readonly identify: (agent: Agent) => Child["namespaces"];
  /** Puts what is about to be the command where it belongs beside the namespaces. */
  readonly place?: (command: Agent) => void;
}

/**
 * Opens the file that lists an agent's children, as /proc has it where the agent is.
 *
 * @param agent The agent.
 * @returns Its own descriptor.
 * @throws {SysError} If there is none.
 */
export function openChildren(agent: Agent): number {
  return call(agent, "openat", AT_FDCWD, cString("/proc/thread-self/children"), O.RDONLY | O.CLOEXEC);
}

function childPlan(plan: RunPlan): ChildPlan {
  const { options, namespaces, program, environment, caller } = plan;
  const { uid = null, gid = null, keepCaps = false, chdir } = options;
  const isolated = namespaces.includes("pid");
  return {
    options,
    program,
    environment,
    caller,
    ownInit: options.init === false && isolated,
    // PID 1 need not look for them: they end with it.
    childrenOf: (agent, inner) => isolated && inner ? -1 : openChildren(agent),
    identify: (agent) => namespaceIds(agent, namespaces),
    takeIds: (task) => takeIds(task, { uid, gid, keepCaps, groups: plan.maps?.denySetgroups ? "keep" : "drop" }),
    changeDirectory: (task) => {
      if (chdir !== undefined) changeDirectory(task, chdir);
    },
  };
}

/**
 * Makes the namespaces of a plan and starts its command in them.
 *
 * @param plan What to make and run.
 * @param options What else to do.
 * @returns The command, running.
 * @throws {PenneError} If it fails; nothing is left then.
 * @throws {ExecError} If the command cannot be executed; nothing is left then.
 */
export function startChild(plan: RunPlan, options: StartOptions = {}): Child {
  const affinity = stayOnProcessor();
  try {
    const terminal = options.terminal ?? null;
    const enclosure = makeEnclosure(plan, terminal, options.enclosure);
    try {
      return startIn(enclosure, childPlan(plan), options, affinity);
    } catch (error) {
      enclosure.close();
      throw error;
    }
  } finally {
    if (affinity) setAffinity(self, affinity);
  }
}

/**
 * Starts a command in an enclosure.
 *
 * @param enclosure The enclosure; it is the command's from then on, unless this fails.
 * @param plan The command.
 * @param options What else to do.
 * @param affinity The processors that the command may run on; null if the agent's own are right.
 * @returns The command, running.
 * @throws {PenneError} If it fails.
 * @throws {ExecError} If the command cannot be executed.
 */
export function startIn(
  enclosure: Enclosure,
  plan: ChildPlan,
  { terminal = null, identify, beforeExec }: StartOptions,
  affinity: Uint8Array | null,
): Child {
  const { agent, outer } = enclosure;
  const namespaces = identify ? plan.identify(agent) : {};
  const { ownInit } = plan;
  const command = ownInit ? agent : agent.clone();
  try {
    const chain = [...outer, agent, ...ownInit ? [] : [command]];
    const parents = chain.slice(0, -1);
    for (const [i, parent] of [...parents.entries()].reverse()) {
      parent.reap(chain[i + 1]!.pid, plan.childrenOf(parent, parent === agent));
      for (const number of plan.options.keepFds ?? []) call(parent, "close", number);
    }
    const details = { namespaces, killSignal: plan.options.killSignal ?? "KILL" } as const;
    const child = new Child(enclosure, parents.at(-1)!, command, details);
    if (terminal) child.guardTerminal(terminal);
    if (identify) child.pid; // while it is sure to be there
    if (terminal?.jobControl) {
      call(command, "setpgid", 0, 0);
      terminal.giveTo(child.pid);
    }
    plan.place?.(command);
    prepareCommand(command, plan, affinity);
    if (affinity) { for (const parent of parents) setAffinity(parent, affinity); }
    beforeExec?.(child);
    const stops: number[] = [];
    execCommand(command, plan, () => child.waitForAnswer(command, stops));
    command.socket.close();
    // A stop that came too early is done over, for somebody to follow it.
    for (const signal of stops) child.kill(signal);
    return child;
  } catch (error) {
    terminal?.restore(true);
    command.close();
    throw error;
  }
}
