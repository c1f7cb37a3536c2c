// Drives a bootstrap as runc does: makes the pipes, starts the program, sends the message and waits for all three stages.
//
// An agent executes the program, so that it is a child of this process. The stages that it makes its siblings are children
// of this process too, which waits for them.

import { Agent } from "../../ffi/agent/agent.ts";
import { exec } from "../../ffi/agent/exec.ts";
import { F, O, POLL, SIGNAL } from "../../ffi/core/consts.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { AF, MSG, SHUT_WR, SOCK } from "../../ffi/net/constants.ts";
import { waitChild, type WaitStatus } from "../../ffi/sys/process.ts";
import { open, pipe, read } from "../../ffi/sys/file.ts";
import { poll } from "../../ffi/sys/poll.ts";
import { call, out, self } from "../../ffi/core/task.ts";
import { resetSignal } from "../../ffi/sys/signal.ts";
import { type BootstrapPids, decodePids } from "../../mod/nsexec/message.ts";
import { type Process, processes } from "../lib/helpers.ts";
import { PATIENCE } from "../lib/patience.ts";
import { userIds } from "../lib/user.ts";

/** Differs between architectures. */
const O_DIRECT = Deno.build.arch === "aarch64" ? 0o200000 : 0o40000;
const F_SETPIPE_SZ = 1031;

/** Descriptors of the pipes in the program. */
export const INIT_PIPE = 3;
export const LOG_PIPE = 4;

/** How to start the program. */
export interface StartOptions {
  /** The program and its arguments. */
  readonly argv: readonly string[];
  /** Its path, if that is not the first word of `argv`. */
  readonly name?: string;
  /** Additional variables. */
  readonly env?: Readonly<Record<string, string>>;
  /** Whether there is a pipe for the log; without one, stderr counts. */
  readonly log?: boolean;
  /** Whether to run as the test user. */
  readonly user?: boolean;
  /** Whether the program waits after each line of its log until {@linkcode Bootstrap.step} has read the line before. */
  readonly stepwise?: boolean;
  /** Whether to set the variables that the Go part of runc needs, so that its stage 2 then waits for more on the pipe. */
  readonly runc?: boolean;
  /** Additional descriptors for the program: its number and ours. */
  readonly fds?: readonly (readonly [number, Fd])[];
}

/** A line of the log. */
export interface LogLine {
  level: string;
  /** `nsexec`, `nsexec-0`, `nsexec-1` or `nsexec-2`. */
  stage: string;
  pid: number;
  text: string;
}

/** Parses the log without the lines of runc's Go part; a line of another form is a failure. */
export function parseLog(text: string): LogLine[] {
  return text.split("\n").filter((line) => line && !line.includes('","msg":"')).map((line) => {
    const found = /^\{"level":"(\w+)", "msg": "(nsexec(?:-\d)?)\[(\d+)\]: (.*)"\}$/.exec(line);
    if (!found) throw new Error(`no line of the log: ${line}`);
    return { level: found[1]!, stage: found[2]!, pid: Number(found[3]), text: JSON.parse(`"${found[4]}"`) };
  });
}

/** A running bootstrap. */
export class Bootstrap implements Disposable {
  /** Pid of stage 0. */
  readonly pid: number;
  /** Our end of the init pipe. */
  readonly pipe: Fd;
  /** The bytes received on the init pipe. */
  readonly received: number[] = [];
  /** Whether the init pipe is at end of file. */
  ended = false;
  #log: Fd;
  #stderr: Fd;
  #logText = "";
  #errorText = "";
  #statuses = new Map<number, WaitStatus>();
  #stepwise: boolean;

  private constructor(pid: number, pipe: Fd, log: Fd, stderr: Fd, stepwise: boolean) {
    this.#stepwise = stepwise;
    this.pid = pid;
    this.pipe = pipe;
    this.#log = log;
    this.#stderr = stderr;
  }

  /** Starts the program with the pipes. */
  static start({ argv, name, env = {}, log = true, user, stepwise, runc, fds = [] }: StartOptions): Bootstrap {
    const pair = new Int32Array(2);
    call(self, "socketpair", AF.UNIX, SOCK.STREAM | SOCK.CLOEXEC, 0, out(new Uint8Array(pair.buffer)));
    const ours = new Fd(pair[0]!);
    using theirs = new Fd(pair[1]!);
    const [logReader, logWriter] = pipe(stepwise ? O_DIRECT : 0);
    // In packet mode each line takes a page, and the pipe has one.
    if (stepwise) call(self, "fcntl", logWriter, F_SETPIPE_SZ, 4096);
    const [errorReader, errorWriter] = pipe();
    using _logWriter = logWriter;
    using _errorWriter = errorWriter;
    const agent = Agent.spawn();
    const place = (fd: Fd, number: number) => {
      const got = call(agent, "fcntl", fd, F.DUPFD, 64);
      call(agent, "dup3", got, number, 0);
      call(agent, "close", got);
    };
    using nothing = open(self, "/dev/null", O.RDWR);
    place(nothing, 0);
    place(nothing, 1);
    place(errorWriter, 2);
    place(theirs, INIT_PIPE);
    if (log) place(logWriter, LOG_PIPE);
    for (const [number, fd] of fds) place(fd, number);
    if (runc) place(nothing, 6);
    if (user && Deno.uid() === 0) {
      const { uid, gid } = userIds();
      call(agent, "setgroups", 0, null);
      call(agent, "setresgid", gid, gid, gid);
      call(agent, "setresuid", uid, uid, uid);
    }
    resetSignal(agent, SIGNAL.PIPE);
    const variablesOf = {
      PATH: "/usr/sbin:/usr/bin:/sbin:/bin",
      _LIBCONTAINER_INITPIPE: `${INIT_PIPE}`,
      ...log && { _LIBCONTAINER_LOGPIPE: `${LOG_PIPE}` },
      ...runc && {
        _LIBCONTAINER_LOGLEVEL: "5",
        _LIBCONTAINER_INITTYPE: "standard",
        _LIBCONTAINER_FIFOFD: "6",
        _LIBCONTAINER_SYNCPIPE: "6",
      },
      ...env,
    };
    const entries = Object.entries(variablesOf).map(([key, value]) => new TextEncoder().encode(`${key}=${value}`));
    const error = exec(agent, argv[0]!, [name ?? argv[0]!, ...argv.slice(1)], entries, { stdio: null });
    agent.close();
    if (error) throw error;
    return new Bootstrap(agent.pid, ours, logReader, errorReader, stepwise ?? false);
  }

  /** Sends bytes; ignores that the pipe has no reader. */
  send(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      const n = self.raw("sendto", this.pipe, bytes.subarray(at), bytes.length - at, MSG.NOSIGNAL, null, 0);
      if (n <= 0) return;
      at += n;
    }
  }

  /** Closes the sending side. */
  endInput(): void {
    self.raw("shutdown", this.pipe, SHUT_WR);
  }

  /** Reads what has arrived, and waits some milliseconds for it; returns whether anything was read. */
  pump(milliseconds: number): boolean {
    const sources = [this.pipe, this.#stderr, ...this.#stepwise ? [] : [this.#log]];
    const open = sources.filter((fd) => !fd.closed && !(fd === this.pipe && this.ended));
    if (open.length === 0) return false;
    const events = poll(open.map((fd) => ({ fd, events: POLL.IN })), milliseconds);
    const buffer = new Uint8Array(65536);
    let any = false;
    open.forEach((fd, i) => {
      if (!events[i]) return;
      any = true;
      let n = 0;
      try {
        n = read(fd, buffer);
      } catch {
        n = 0; // ECONNRESET: it has left something unread
      }
      if (fd === this.pipe) {
        if (n === 0) this.ended = true;
        for (const byte of buffer.subarray(0, n)) this.received.push(byte);
      } else {
        const text = new TextDecoder().decode(buffer.subarray(0, n));
        if (fd === this.#log) this.#logText += text;
        else this.#errorText += text;
        if (n === 0) fd.close();
      }
    });
    return any;
  }

  /** Waits until the log has a line, or has ended. The end of a child, which is a signal, is no reason to stop waiting. */
  #hasLine(): boolean {
    const end = Date.now() + 60_000 * PATIENCE;
    while (Date.now() < end) if (poll([{ fd: this.#log, events: POLL.IN }], 1000)[0]) return true;
    return false;
  }

  /** Reads a line of the log, or null at its end; see {@linkcode Bootstrap.go}. */
  step(): LogLine | null {
    const buffer = new Uint8Array(4096);
    if (!this.#hasLine()) throw new Error("the log has no line");
    const n = read(this.#log, buffer);
    const line = new TextDecoder().decode(buffer.subarray(0, n));
    this.#logText += line;
    return parseLog(line)[0] ?? null;
  }

  /** Waits until the program waits for the next line to be read. */
  settle(): void {
    this.#hasLine();
    const waits = () => Deno.readTextFileSync(`/proc/${this.pid}/wchan`).includes("pipe_write");
    if (!this.until(waits)) throw new Error(`the program does not wait: ${JSON.stringify(this.log.at(-1))}`);
  }

  /** Lets the program continue without a stop at each line. */
  go(): void {
    this.#stepwise = false;
  }

  /** Waits for a condition on the received data; returns whether it holds in time. */
  until(condition: () => unknown, milliseconds = 60_000): boolean {
    const end = Date.now() + milliseconds * PATIENCE;
    while (!condition()) {
      const left = end - Date.now();
      if (left <= 0) return false;
      if (!this.pump(Math.min(left, 20)) && this.ended) poll([], 5);
    }
    return true;
  }

  /** The text received on the init pipe. */
  get text(): string {
    return new TextDecoder().decode(new Uint8Array(this.received));
  }

  /** The line with the pids, once it has arrived. */
  get pids(): BootstrapPids | null {
    const [line] = /\{.*\n/.exec(this.text) ?? [];
    return line === undefined ? null : decodePids(line);
  }

  /** Pid of a stage in this pid namespace, from the data received so far. */
  stagePid(stage: number): number | null {
    if (stage === 0) return this.pid;
    const { pids } = this;
    if (pids) return stage === 1 ? pids.stage1 : pids.stage2;
    if (stage === 1) return this.log.find((line) => line.stage === "nsexec-1")?.pid ?? null;
    for (const { text } of this.log) {
      const found = /^request stage-0 to forward stage-2 pid \((\d+)\)$/.exec(text);
      if (found) return Number(found[1]);
    }
    return null;
  }

  /** The log so far. */
  get log(): LogLine[] {
    return parseLog(this.#logText);
  }

  /** The text on stderr so far. */
  get stderr(): string {
    return this.#errorText;
  }

  /** Returns how a child ended; waits some milliseconds for it, then kills it and fails. */
  wait(pid: number, milliseconds = 60_000): WaitStatus {
    const known = this.#statuses.get(pid);
    if (known) return known;
    const status = new Int32Array(1);
    const end = Date.now() + milliseconds * PATIENCE;
    for (;;) {
      const n = self.raw("wait4", pid, out(new Uint8Array(status.buffer)), 1, null);
      if (n < 0) throw new Error(`process ${pid} is not a child of this process`);
      if (n === pid) break;
      if (Date.now() > end) {
        self.raw("kill", pid, SIGNAL.KILL);
        waitChild(pid);
        throw new Error(`process ${pid} has not ended within ${milliseconds * PATIENCE} ms`);
      }
      if (!this.pump(5)) poll([], 2);
    }
    const low = status[0]! & 0x7f;
    const result = { code: low ? null : status[0]! >> 8 & 0xff, signal: low || null, stopped: null, continued: false };
    this.#statuses.set(pid, result);
    while (this.pump(0)) continue; // what it has said last
    return result;
  }

  /** Ends all processes that are left. */
  [Symbol.dispose](): void {
    this.go();
    if (!this.#statuses.has(this.pid)) self.raw("kill", this.pid, SIGNAL.KILL);
    while (this.pump(20)) continue;
    for (const pid of [0, 1, 2].map((stage) => this.stagePid(stage))) {
      if (pid === null || this.#statuses.has(pid)) continue;
      self.raw("kill", pid, SIGNAL.KILL);
      try {
        this.wait(pid);
      } catch {
        // It was waited for, or is not a child of this process.
      }
    }
    this.pipe.close();
    this.#log.close();
    this.#stderr.close();
  }
}

/** The text of a link, or the error. */
export function link(path: string): string {
  try {
    return Deno.readLinkSync(path);
  } catch (error) {
    return (error as Error).name;
  }
}

/** Seconds for a stage to end: one that was killed, and that nobody waits for, may still be seen without its memory. */
const ENDING = 5;

/** Stages that are left: children of this process, or orphans, by the name that a stage takes. */
export function leftovers(): Process[] {
  const own = (process: Process) => {
    if (![1, Deno.pid].includes(process.ppid)) return false;
    try {
      return Deno.readTextFileSync(`/proc/${process.pid}/comm`).startsWith("runc:[");
    } catch {
      return false;
    }
  };
  const end = Date.now() + ENDING * 1000;
  for (;;) {
    const left = processes().filter(own);
    if (!left.length || Date.now() > end) return left;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
  }
}
