// A command that runs in namespaces: its pid, its end, and how to end it.

import type { Agent } from "../../ffi/agent/agent.ts";
import { POLL, SIGNAL, type SignalName } from "../../ffi/core/consts.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { isReadable, poll } from "../../ffi/sys/poll.ts";
import { pidOf, sendSignal } from "../../ffi/sys/process.ts";
import { type Enclosure, END_TIMEOUT, KILL_TIMEOUT, RESUME_INTERVAL, RESUME_TRIES } from "../agents/enclosure.ts";
import { PenneError } from "../base/errors.ts";
import type { NamespaceId } from "../namespaces/id.ts";
import type { NamespaceType } from "../namespaces/types.ts";
import { EPOLL } from "../../ffi/sys/epoll.ts";
import { type Wait, waitFor } from "../reactor/waiter.ts";
import type { Relay } from "../relay/relay.ts";
import type { RunningCommand, SyncWait } from "./process.ts";
import { type ChildState, type ExitStatus, Reports } from "./reports.ts";

/** The status of a command whose end was not reported. */
const KILLED: ExitStatus = { code: null, signal: SIGNAL.KILL };

/** What a {@linkcode Child} is made of. */
export interface ChildParts {
  /** The namespaces' agents; they end with the child. */
  readonly enclosure: Enclosure;
  /** The agent that is the command's parent. */
  readonly parent: Agent;
  /** The agent that becomes the command. */
  readonly command: Agent;
  /** Identity of the namespaces, if it was asked for. */
  readonly namespaces: Readonly<Partial<Record<NamespaceType, NamespaceId>>>;
  /** The signal that ends the command. */
  readonly killSignal: SignalName;
  /** Called once the command has ended by itself, while its namespaces still exist. */
  readonly onExit: (status: ExitStatus, child: Child) => void;
  /** What stands between the command and the caller's terminal and descriptors; null if it has those. */
  readonly relay: Relay | null;
}

/** A command in namespaces; they end with it. */
export class Child implements RunningCommand {
  /** Refers to the command even after its end; closed with this object. */
  readonly pidfd: Fd;
  /** Identity of the namespaces, if it was asked for. */
  readonly namespaces: ChildParts["namespaces"];
  /** The agents in and around the namespaces. */
  readonly enclosure: Enclosure;
  /** What the agents report; read it or {@linkcode Child.next}, not both. */
  readonly reports: Reports;
  /** What stands between the command and the caller's terminal and descriptors; null if it has those. */
  readonly relay: ChildParts["relay"];
  #killSignal: number;
  #onExit: ChildParts["onExit"] | null;
  #pid = 0;
  #final: ExitStatus | null = null;
  #status: Promise<ExitStatus> | null = null;
  #wait: Wait | null = null;
  #keeps = true;

  /** @param parts What it is made of. */
  constructor({ enclosure, parent, command, namespaces, killSignal, onExit, relay }: ChildParts) {
    this.enclosure = enclosure;
    this.reports = new Reports(parent, enclosure.ancestors.filter((agent) => agent !== parent), command.pidfd);
    this.pidfd = command.pidfd;
    this.namespaces = namespaces;
    this.relay = relay;
    this.#killSignal = SIGNAL[killSignal];
    this.#onExit = onExit;
  }

  /**
   * The command's pid as this process sees it; it stays known after the command's end once it has been read.
   *
   * @throws {PenneError} If it is unknown: the command has ended or is not in our /proc.
   */
  get pid(): number {
    if (this.#pid === 0) {
      const pid = pidOf(this.pidfd);
      if (pid <= 0) throw new PenneError("find the command's pid: it is not in /proc");
      this.#pid = pid;
    }
    return this.#pid;
  }

  /**
   * Takes the next change of state; calls the exit handler when that is the command's end.
   *
   * @returns The change, or null if there is none yet.
   */
  next(): ChildState | null {
    const state = this.reports.next();
    if (state?.kind === "exited") {
      const onExit = this.#onExit;
      this.#onExit = null;
      onExit?.(state.status, this);
    }
    return state;
  }

  /**
   * Resolves when the command has ended, and its namespaces with it.
   *
   * It waits on another thread. Use it or {@linkcode Child.next}, not both.
   *
   * @returns How it ended; as by SIGKILL if an agent was killed.
   */
  get status(): Promise<ExitStatus> {
    this.#status ??= this.#waitForEnd();
    return this.#status;
  }

  async #waitForEnd(): Promise<ExitStatus> {
    let [ended, tries] = [false, 0];
    try {
      while (!this.#final) {
        const state = this.next();
        if (state?.kind === "exited") this.#final = state.status;
        else if (state?.kind === "lost" || tries > RESUME_TRIES) this.#final = KILLED;
        // A process inside that makes up reports must not keep the program busy.
        else if (state) await new Promise((resolve) => setTimeout(resolve));
        else {
          const fds = this.reports.sockets;
          const wait = this.#wait = waitFor(ended ? fds : [...fds, this.pidfd], EPOLL.IN, this.#keeps);
          const timer = ended ? setTimeout(wait.cancel, RESUME_INTERVAL) : undefined;
          await wait.ready;
          clearTimeout(timer);
          this.#wait = null;
          ended ||= !this.pidfd.closed && isReadable(this.pidfd);
          if (!ended) continue;
          tries++;
          this.enclosure.resumeAgents();
        }
      }
      return this.#final;
    } finally {
      this.close();
    }
  }

  /**
   * Waits for the command's end without the event loop, and ends its namespaces.
   *
   * @param also What is done meanwhile.
   * @returns How it ended.
   */
  readonly waitSync = ({ fds, look }: SyncWait): ExitStatus => {
    // Time counts, not tries: what is left inside may write, which ends each wait at once.
    let [ended, end] = [false, Infinity];
    try {
      while (!this.#final) {
        const state = this.next();
        if (state?.kind === "exited") this.#final = state.status;
        else if (state?.kind === "lost" || performance.now() > end) this.#final = KILLED;
        if (this.#final || state) continue;
        const waited = [...this.reports.sockets, ...ended ? [] : [this.pidfd], ...fds()];
        poll(waited.map((fd) => ({ fd, events: POLL.IN })), ended ? RESUME_INTERVAL : -1);
        look();
        if (!ended && isReadable(this.pidfd)) [ended, end] = [true, performance.now() + END_TIMEOUT];
        if (ended) this.enclosure.resumeAgents();
      }
      return this.#final;
    } finally {
      this.close();
    }
  };

  /**
   * Says whether the program is not to exit before `status` has resolved.
   *
   * @param keeps Whether it is kept; it is by default.
   */
  keepProgram(keeps: boolean): void {
    this.#keeps = keeps;
    this.#wait?.keep(keeps);
  }

  /**
   * Sends the command a signal; does nothing once it has ended.
   *
   * @param signal Its name or number.
   * @throws {SysError} If it may not be sent.
   */
  kill(signal: SignalName | number = "TERM"): void {
    if (!this.pidfd.closed) sendSignal(this.pidfd, typeof signal === "number" ? signal : SIGNAL[signal]);
  }

  /**
   * Ends the command with its kill signal, by force if it takes too long, and then everything in its namespaces.
   *
   * @returns How the command ended.
   */
  end(): ExitStatus {
    if (!this.pidfd.closed) {
      this.kill(this.#killSignal);
      if (!isReadable(this.pidfd, END_TIMEOUT)) this.kill(SIGNAL.KILL);
      this.enclosure.resumeAgents();
      // The pidfd shows the end before the agent has reported it.
      const deadline = Date.now() + (isReadable(this.pidfd, KILL_TIMEOUT) ? END_TIMEOUT : 0);
      while (!this.#final && Date.now() < deadline) {
        const state = this.reports.next();
        if (state?.kind === "exited") this.#final = state.status;
        else if (state?.kind === "lost") break;
        else if (!state) poll(this.reports.sockets.map((fd) => ({ fd, events: POLL.IN })), END_TIMEOUT);
      }
      this.relay?.flush();
      this.close();
    }
    return this.#final ?? KILLED;
  }

  /** Ends everything in the namespaces by force, and waits for it; the guard stays until the child is closed. */
  endInside(): void {
    if (this.pidfd.closed) return;
    // An agent that was killed does not end the command.
    sendSignal(this.pidfd, SIGNAL.KILL);
    isReadable(this.pidfd, KILL_TIMEOUT);
    this.enclosure.endInside();
  }

  /** Ends everything in the namespaces by force, and waits for it. */
  close(): void {
    if (this.pidfd.closed) return;
    this.#final ??= KILLED;
    this.#wait?.cancel();
    sendSignal(this.pidfd, SIGNAL.KILL);
    isReadable(this.pidfd, KILL_TIMEOUT);
    this.pidfd.close();
    this.enclosure.close();
  }

  /** Ends everything in the namespaces by force. */
  [Symbol.dispose](): void {
    this.close();
  }
}
