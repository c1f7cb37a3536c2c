// The controlling terminal: handing its foreground to the command, and giving it back as it was.
//
// Theory of operation. If penne is a job of its own in a shell, with the terminal as both input and output, it acts as a
// shell does: the command gets a process group, and that group gets the foreground. Ctrl-C and Ctrl-Z then reach the
// command alone, and when it stops penne stops too, so that the shell notices. In a script, penne shares a process group
// with other processes. The command stays in that group, and the terminal's signals reach all of it. In a pipeline the
// terminal belongs to the neighbours as much as to penne, and is left alone.
//
// Penne gives the terminal back only while it *holds* it: from when the command gets the foreground until it loses it. A
// job that runs in the background, or was stopped, has nothing to give back and must not touch the terminal.

import { type Agent, AgentGoneError } from "../../ffi/agent/agent.ts";
import { SIGNAL } from "../../ffi/core/consts.ts";
import { E } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { readText } from "../../ffi/sys/file.ts";
import { call, self } from "../../ffi/core/task.ts";
import { blockSignal } from "../../ffi/sys/signal.ts";
import {
  foregroundGroup,
  getSettings,
  openControllingTerminal,
  setForegroundGroup,
  setSettings,
} from "../../ffi/sys/terminal.ts";

/** A terminal whose foreground the command gets: the caller's own, or one that penne relays. */
export interface JobTerminal {
  /** Penne's own process group. */
  readonly group: number;
  /** Whether the command becomes a foreground job of its own. */
  readonly jobControl: boolean;
  /** The process group in the foreground; 0 if it is in another pid namespace. */
  readonly foreground: number;
  /** Gives the foreground to the command's process group, if it is penne's to give. */
  giveTo(group: number): void;
  /** Takes the foreground back while the command is stopped; `giveTo` restores the command's settings. */
  takeBack(): void;
  /** Makes penne's group the foreground again, if the command holds it; restores the settings too if asked to. */
  restore(settings: boolean): void;
  /** Tells a guard what to do with the terminal if penne is killed. */
  entrustTo(guard: Agent | null): void;
}

/** The controlling terminal of this process. */
export class Terminal implements Disposable, JobTerminal {
  /** The terminal. */
  readonly tty: Fd;
  /** Penne's own process group. */
  readonly group: number;
  /** Process group of penne's parent; 0 if that is in another pid namespace. */
  readonly shell: number;
  /** Whether the command becomes a foreground job of its own. */
  readonly jobControl: boolean;
  /** The settings at the start. */
  readonly settings: Uint8Array;
  #commandSettings: Uint8Array | null = null;
  #held: boolean;
  #given = 0;

  private constructor(tty: Fd, jobControl: boolean) {
    this.tty = tty;
    this.group = call(self, "getpgid", 0);
    this.shell = Math.max(0, self.raw("getpgid", call(self, "getppid")));
    this.jobControl = jobControl;
    this.settings = getSettings(this.tty);
    this.#held = this.foreground === this.group;
    // Taking the foreground from the background must not stop us.
    blockSignal(SIGNAL.TTOU);
  }

  /**
   * Opens the controlling terminal.
   *
   * @param newSession Whether the command gets a session of its own, without this terminal.
   * @returns The terminal, or null if this process has none, or if it is not both stdin and stdout.
   */
  static open(newSession: boolean): Terminal | null {
    if (foregroundGroup(0) < 0 || foregroundGroup(1) < 0) return null;
    const tty = openControllingTerminal();
    if (!tty) return null;
    const leader = call(self, "getpgid", 0) === call(self, "getpid");
    return new Terminal(tty, !newSession && leader);
  }

  /** The settings now. */
  get currentSettings(): Uint8Array {
    return getSettings(this.tty);
  }

  /** The process group in the foreground; 0 if it is in another pid namespace. */
  get foreground(): number {
    return Math.max(0, foregroundGroup(this.tty));
  }

  /**
   * Gives the foreground to the command, if it is penne's to give.
   *
   * @param group The command's process group.
   */
  giveTo(group: number): void {
    const foreground = this.foreground;
    if (foreground === this.shell) this.#held = false;
    if (foreground !== this.group) return;
    if (this.#commandSettings) setSettings(this.tty, this.#commandSettings, true);
    this.#commandSettings = null;
    setForegroundGroup(this.tty, group);
    this.#held = true;
    this.#given = group;
  }

  /** Takes the foreground back while the command is stopped; `giveTo` restores the command's settings. */
  takeBack(): void {
    if (!this.#held || this.foreground === this.shell) return;
    this.#commandSettings = getSettings(this.tty);
    setSettings(this.tty, this.settings, true);
    setForegroundGroup(this.tty, this.group);
    this.#held = false;
  }

  /**
   * Makes penne's group the foreground again, if the command holds it.
   *
   * @param settings Whether to restore the settings too.
   */
  restore(settings: boolean): void {
    if (!this.#held) return;
    // The settings are read before the foreground: if that is still ours afterwards, no shell has changed them. Settings
    // that are right are not written, because a shell might take over in between.
    const now = getSettings(this.tty);
    const group = this.foreground;
    // The command was killed, even if it cannot end yet.
    const isOthers = group > 0 && group !== this.group && group !== this.#given;
    if (isOthers && self.raw("kill", -group, 0) !== -E.ESRCH) return;
    if (settings && now.some((byte, i) => byte !== this.settings[i])) {
      setSettings(this.tty, this.settings);
    }
    if (group !== this.group) setForegroundGroup(this.tty, this.group);
  }

  /**
   * Tells a guard what to do with the terminal if penne is killed: restore it, if the command holds it now.
   *
   * @param guard The guard, if there is one.
   * @param settings The settings to restore.
   */
  entrustTo(guard: Agent | null, settings: Uint8Array = this.settings): void {
    if (!guard || guard.gone) return;
    try {
      if (this.#held) guard.restoreAtEnd(this.tty, this.group, this.shell, settings);
      else guard.leaveTerminal();
    } catch (error) {
      if (!(error instanceof AgentGoneError)) throw error; // it was killed, and the supervisor will notice
    }
  }

  /** Closes the terminal. */
  [Symbol.dispose](): void {
    this.tty.close();
  }
}

/**
 * Whether this process group is orphaned, setpgid(2), so that no shell would ever continue it after a stop.
 *
 * The kernel ignores such stops, but it counts penne's own agents as parents from outside the group.
 *
 * @returns True if it is, or if this process has no controlling terminal and so is no job of a shell.
 */
export function isOrphaned(): boolean {
  const tty = openControllingTerminal();
  if (!tty) return true;
  tty.close();
  const [group, session] = [call(self, "getpgid", 0), call(self, "getsid", 0)];
  let parent = call(self, "getppid");
  while (parent > 1 && self.raw("getsid", parent) === session) {
    if (self.raw("getpgid", parent) !== group) return false;
    parent = Number(/^\d+ \(.*\) \S (\d+)/s.exec(readText(self, `/proc/${parent}/stat`))?.[1] ?? 0);
  }
  return true;
}
