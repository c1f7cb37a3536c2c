// A pseudo-terminal with a program on it, for tests of what a person at a terminal sees.

import { Agent } from "../../ffi/agent/agent.ts";
import { exec } from "../../ffi/agent/exec.ts";
import { AT_FDCWD, IOCTL, O, POLL, PR, SIGNAL } from "../../ffi/core/consts.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { decodeWaitStatus, sendSignal, waitChild, type WaitStatus } from "../../ffi/sys/process.ts";
import { open, write } from "../../ffi/sys/file.ts";
import { poll } from "../../ffi/sys/poll.ts";
import { call, out, self } from "../../ffi/core/task.ts";
import { resetSignal } from "../../ffi/sys/signal.ts";
import { until } from "./helpers.ts";

const TIOCSPTLCK = 0x40045431;
const TIOCGPTN = 0x80045430;
const TIOCSCTTY = 0x540e;
const TIOCSWINSZ = 0x5414;

/** How a program is started on a terminal. */
export interface PtyOptions {
  readonly env?: Record<string, string>;
  /** Whether the session leader adopts orphans; it does by default. */
  readonly adopt?: boolean;
  /** Whether the program leads the session itself. */
  readonly leads?: boolean;
}

/**
 * A terminal, and a program that is the foreground job on it.
 *
 * The session leader is an agent, which unlike a shell does not change the terminal's settings.
 */
export class Pty implements Disposable {
  #master: Fd;
  #slave: Fd;
  #leader: Agent;
  #child: Agent;
  #status: WaitStatus | null = null;
  /** All output so far. */
  text = "";
  /** The terminal's file. */
  readonly path: string;
  /** The terminal's settings before the program has changed them. */
  readonly initial: string;

  /** Starts a program on a new terminal. */
  constructor(argv: string[], { env = {}, adopt = true, leads = false }: PtyOptions = {}) {
    this.#master = open(self, "/dev/ptmx", O.RDWR | O.NOCTTY);
    const number = new Int32Array(1);
    call(self, "ioctl", this.#master, TIOCSPTLCK, new Uint8Array(4));
    call(self, "ioctl", this.#master, TIOCGPTN, out(new Uint8Array(number.buffer)));
    this.path = `/dev/pts/${number[0]}`;
    this.#slave = open(self, this.path, O.RDWR | O.NOCTTY);
    this.resize(24, 80);
    this.initial = this.settings;
    this.#leader = Agent.spawn();
    call(this.#leader, "setsid");
    for (const fd of [0, 1, 2]) call(this.#leader, "dup3", this.#slave, fd, 0);
    if (!leads) call(this.#leader, "ioctl", 0, TIOCSCTTY, 0);
    this.#child = this.#leader.clone();
    // Processes of a failed test end with the leader.
    if (adopt) call(this.#leader, "prctl", PR.SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    const children = new TextEncoder().encode("/proc/thread-self/children\0");
    this.#leader.reap(this.#child.pid, [call(this.#leader, "openat", AT_FDCWD, children, O.CLOEXEC)]);
    if (leads) {
      call(this.#child, "setsid");
      call(this.#child, "ioctl", 0, TIOCSCTTY, 0);
    } else {
      call(this.#child, "setpgid", 0, 0);
      call(this.#leader, "ioctl", 0, IOCTL.TIOCSPGRP, new Uint8Array(new Int32Array([this.#child.pid]).buffer));
    }
    resetSignal(this.#child, SIGNAL.PIPE);
    const variables = Object.entries({
      PATH: Deno.env.get("PATH")!,
      TERM: "dumb",
      PS1: "READY> ",
      HISTFILE: "",
      ...env,
    });
    const environment = variables.map(([k, v]) => new TextEncoder().encode(`${k}=${v}`));
    const error = exec(this.#child, argv[0]!, argv, environment, { stdio: null });
    if (error) throw error;
  }

  /** The program's PID. */
  get pid(): number {
    return this.#child.pid;
  }

  /** The process group in the foreground. */
  get foreground(): number {
    const group = new Int32Array(1);
    call(self, "ioctl", this.#master, IOCTL.TIOCGPGRP, out(new Uint8Array(group.buffer)));
    return group[0]!;
  }

  /** Waits until a shell, whose process group this is, has given the foreground to a job. */
  async givenAway(group: number): Promise<void> {
    await until("the job is in the foreground", () => this.foreground !== group);
  }

  /** The terminal's settings, as comparable text. */
  get settings(): string {
    const termios = new Uint8Array(36);
    call(self, "ioctl", this.#slave, IOCTL.TCGETS, out(termios));
    return termios.join(" ");
  }

  /** Changes the window's size until a program has printed it; a shell may miss a signal while its trap runs. */
  async resizeUntilSeen(rows: number, columns: number): Promise<void> {
    for (let tries = 0;; tries++) {
      this.resize(rows, columns + tries);
      try {
        await this.expect(new RegExp(`${rows} ${columns + tries}`), 10);
        return;
      } catch (error) {
        if (tries === 10) throw error;
      }
    }
  }

  /** Changes the window's size. */
  resize(rows: number, columns: number): void {
    call(self, "ioctl", this.#master, TIOCSWINSZ, new Uint8Array(new Uint16Array([rows, columns, 0, 0]).buffer));
  }

  /** Types. */
  type(keys: string): void {
    write(this.#master, new TextEncoder().encode(keys));
  }

  /** Reads all pending output. */
  read(timeout = 0): void {
    const buffer = new Uint8Array(4096);
    while (poll([{ fd: this.#master, events: POLL.IN }], timeout)[0]! & POLL.IN) {
      const n = self.raw("read", this.#master, out(buffer), buffer.length);
      if (n <= 0) return;
      this.text += new TextDecoder().decode(buffer.subarray(0, n));
      timeout = 0;
    }
  }

  /** Waits for output after that of the last such call; fails after some seconds. */
  async expect(pattern: RegExp, seconds = 120): Promise<RegExpExecArray> {
    const end = Date.now() + seconds * 1000;
    for (;;) {
      this.read(20);
      const match = pattern.exec(this.text.slice(this.#seen));
      if (match) {
        this.#seen += match.index + match[0].length;
        return match;
      }
      if (Date.now() > end) {
        throw new Error(`not printed: ${pattern}; but: ${JSON.stringify(this.text.slice(this.#seen))}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
  #seen = 0;

  /** Waits for the program's end. */
  async end(seconds = 120): Promise<WaitStatus> {
    const limit = Date.now() + seconds * 1000;
    while (!this.#status) {
      this.read(20);
      if (poll([{ fd: this.#leader.socket, events: POLL.IN }], 0)[0]) {
        const status = decodeWaitStatus(this.#leader.nextEvent()!.status);
        if (status.code !== null || status.signal !== null) this.#status = status;
      } else if (Date.now() > limit) throw new Error(`still running after ${seconds} s: ${JSON.stringify(this.text)}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    this.read();
    return this.#status;
  }

  /** Hangs up, as a closed window does. */
  hangUp(): void {
    this.#master.close();
  }

  /** Ends the program if it is still running, and closes the terminal. */
  [Symbol.dispose](): void {
    if (!this.#status) sendSignal(this.#child.pidfd, SIGNAL.KILL);
    this.#child.close();
    this.#leader.close();
    waitChild(this.#leader.pid);
    this.#slave.close();
    this.#master.close();
  }
}
