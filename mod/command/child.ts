// A running command, as Deno.ChildProcess is one, and with what namespaces add to it.

import { EPOLL } from "../../ffi/sys/epoll.ts";
import type { NamespaceId } from "../namespaces/id.ts";
import type { NamespaceType } from "../namespaces/types.ts";
import { PenneError } from "../base/errors.ts";
import type { ServedPorts } from "../datapath/server/served_ports.ts";
import type { RunningCommand } from "../run/process.ts";
import type { ExitStatus } from "../run/reports.ts";
import { signalName, signalNumber } from "./signals.ts";
import { OpenStdio } from "./stdio.ts";
import { inputStream, OutputStream, PipeEnd } from "./streams.ts";

/** How a command ended. */
export interface CommandStatus {
  /** Whether it ended with exit code 0. */
  readonly success: boolean;
  /** Its exit code; 128 and the signal's number if a signal ended it. */
  readonly code: number;
  /** The signal that ended it; null if none did, or a real-time signal, which has no name. */
  readonly signal: Deno.Signal | null;
}

/** How a command ended, and what it has written. */
export interface CommandOutput extends CommandStatus {
  /** What it has written to its standard output. @throws {TypeError} If that was not piped. */
  readonly stdout: Uint8Array<ArrayBuffer>;
  /** What it has written to its standard error. @throws {TypeError} If that was not piped. */
  readonly stderr: Uint8Array<ArrayBuffer>;
}

/** The first real-time signal. */
const REAL_TIME = 32;

/**
 * Turns how a command ended into what Deno says of it.
 *
 * @param status How it ended.
 * @returns What Deno says.
 */
export function commandStatus({ code, signal }: ExitStatus): CommandStatus {
  if (signal === null) return { success: code === 0, code: code ?? 1, signal: null };
  return { success: false, code: 128 + signal, signal: signal < REAL_TIME ? signalName(signal) : null };
}

/**
 * Adds to how a command ended what it has written.
 *
 * @param status How it ended.
 * @param stdout What it has written to its standard output; null if that was not piped.
 * @param stderr The same of its standard error.
 * @returns All of it.
 */
export function commandOutput(
  status: CommandStatus,
  stdout: Uint8Array<ArrayBuffer> | null,
  stderr: Uint8Array<ArrayBuffer> | null,
): CommandOutput {
  const piped = (name: string, bytes: Uint8Array<ArrayBuffer> | null) => bytes ?? notPiped(name);
  return {
    ...status,
    get stdout() {
      return piped("stdout", stdout);
    },
    get stderr() {
      return piped("stderr", stderr);
    },
  };
}

function notPiped(name: string): never {
  throw new TypeError(`Cannot get '${name}': '${name}' is not piped`);
}

/** A command that runs in namespaces; made by {@linkcode Command.spawn}. */
export class ChildProcess implements AsyncDisposable, Disposable {
  /** Its pid as this program sees it. */
  readonly pid: number;
  /** Identity of the namespaces that were made for it, or that it has joined. */
  readonly namespaces: Readonly<Partial<Record<NamespaceType, NamespaceId>>>;
  /**
   * Resolves when it and its namespaces have ended, and its ports of the host are free; as by SIGKILL if an agent was killed.
   * It never rejects.
   */
  readonly status: Promise<CommandStatus>;
  #running: RunningCommand;
  #ends: readonly (PipeEnd | null)[];
  #stdin: WritableStream<Uint8Array> | null;
  #stdout: OutputStream | null;
  #stderr: OutputStream | null;
  #over = false;

  /**
   * Looks after a command; called by {@linkcode Command.spawn}.
   *
   * @ignore
   * @param running The command.
   * @param stdio Our ends of its pipes, which close with their streams.
   * @param signal Ends the command by SIGTERM.
   */
  constructor(running: RunningCommand, stdio: OpenStdio, signal: AbortSignal | undefined) {
    if (!(stdio instanceof OpenStdio)) throw new TypeError("Illegal constructor");
    const { ours } = stdio;
    this.#running = running;
    this.pid = running.pid;
    this.namespaces = running.namespaces;
    this.#ends = ours.map((fd, number) => fd && new PipeEnd(fd, number === 0 ? EPOLL.OUT : EPOLL.IN));
    const [stdin, stdout, stderr] = this.#ends;
    this.#stdin = stdin ? inputStream(stdin) : null;
    this.#stdout = stdout ? new OutputStream(stdout) : null;
    this.#stderr = stderr ? new OutputStream(stderr) : null;
    const abort = () => running.kill();
    if (signal?.aborted) abort();
    signal?.addEventListener("abort", abort);
    this.status = running.status.catch((): ExitStatus => ({ code: 1, signal: null })).then((status) => {
      this.#over = true;
      signal?.removeEventListener("abort", abort);
      return commandStatus(status);
    });
  }

  /** Its standard input. @throws {TypeError} If that is not piped. */
  get stdin(): WritableStream<Uint8Array> {
    return this.#stdin ?? notPiped("stdin");
  }

  /** Its standard output. @throws {TypeError} If that is not piped. */
  get stdout(): OutputStream {
    return this.#stdout ?? notPiped("stdout");
  }

  /** Its standard error. @throws {TypeError} If that is not piped. */
  get stderr(): OutputStream {
    return this.#stderr ?? notPiped("stderr");
  }

  /**
   * Waits for its end, and collects what it writes.
   *
   * @returns How it ended, and what it has written.
   * @throws {TypeError} If a stream is already being read.
   */
  async output(): Promise<CommandOutput> {
    for (const [name, stream] of [["stdout", this.#stdout], ["stderr", this.#stderr]] as const) {
      if (stream?.locked) throw new TypeError(`Cannot collect output: '${name}' is locked`);
    }
    const [status, stdout, stderr] = await Promise.all([this.status, this.#stdout?.bytes(), this.#stderr?.bytes()]);
    return commandOutput(status, stdout ?? null, stderr ?? null);
  }

  /**
   * Sends it a signal.
   *
   * @param signo The signal; SIGTERM by default.
   * @throws {TypeError} If there is no such signal, or the command has ended.
   */
  kill(signo?: Deno.Signal | number): void {
    const signal = signalNumber(signo === undefined ? "SIGTERM" : signo);
    if (this.#over) throw new TypeError("Child process has already terminated");
    this.#running.kill(signal);
  }

  /**
   * The ports of its network, which can be changed while it runs. Ports inside can be added if `ports` was given, as `{}` at
   * least.
   *
   * @returns Its ports.
   * @throws {PenneError} If it has no network (`net: "tap"`).
   */
  ports(): ServedPorts {
    if (this.#running.ports) return this.#running.ports();
    throw new PenneError("find the ports of the command: it has no network of its own");
  }

  /** Keeps this program from exiting before the command has ended, which is so by default. */
  ref(): void {
    this.#keep(true);
  }

  /** Lets this program exit before the command has ended; the command ends then. */
  unref(): void {
    this.#keep(false);
  }

  #keep(keeps: boolean): void {
    this.#running.keepProgram(keeps);
    for (const end of this.#ends) end?.keepProgram(keeps);
  }

  /**
   * Ends it with its kill signal, by force if that takes 5 seconds, and then everything in its namespaces. It blocks until
   * that is done, and the ports of the host are free. The kill signal is SIGKILL by default, which no command can ignore.
   *
   * @returns How it ended.
   */
  end(): CommandStatus {
    return commandStatus(this.#running.end());
  }

  /** Ends it and everything in its namespaces by force, as {@linkcode ChildProcess.end} with SIGKILL does. */
  [Symbol.dispose](): void {
    this.#running[Symbol.dispose]();
  }

  /** Sends it SIGTERM, and waits for its end without a limit; a command may ignore that signal, but not `end()`. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#over) {
      try {
        this.#running.kill();
      } catch (error) {
        if (!(error instanceof Error)) throw error; // it may not be permitted; its end is waited for all the same
      }
    }
    await this.status;
  }
}
