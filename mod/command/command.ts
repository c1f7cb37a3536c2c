// Command: Deno.Command, for commands in namespaces.

import { attempt, usage } from "../base/errors.ts";
import { startEnter } from "../enter/mod.ts";
import { startRun } from "../run/mod.ts";
import type { RunningCommand } from "../run/process.ts";
import { ChildProcess, type CommandOutput, commandOutput, commandStatus } from "./child.ts";
import { denoError } from "./errors.ts";
import { type CommandOptions, pathOf, type Request, requestOf } from "./options.ts";
import { OpenStdio, type StdioPlan } from "./stdio.ts";
import { joined, readAll } from "./streams.ts";

/**
 * A command in namespaces, with the members and manners of `Deno.Command`.
 *
 * Without `enter`, it gets namespaces of its own: user, mnt, pid, ipc, uts and net by default, so no network. With it, it
 * runs in namespaces that exist. It ends with this program.
 *
 * What it has started in the background ends with it, also in namespaces that it has joined: nobody else would end that.
 * So `output()` does not wait for such a process to close its output, as that of `Deno.Command` does. What is to stay is a
 * command of its own.
 *
 * @example
 * ```ts
 * import { Command } from "../mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const { success, stdout } = await new Command("hostname", { hostname: "box" }).output();
 * assertEquals([success, new TextDecoder().decode(stdout)], [true, "box\n"]);
 * ```
 */
export class Command {
  readonly #command: string | URL | null;
  readonly #options: CommandOptions;

  /**
   * Says what to run, and where. Nothing is started or looked at yet.
   *
   * @param command The program: a name to look up in PATH, a path, or a file URL.
   * @param options What it takes.
   */
  constructor(command: string | URL, options?: CommandOptions) {
    this.#command = command;
    this.#options = options === undefined ? {} : options; // null is refused later, as other wrong values are
  }

  /**
   * Starts it. Call this on the main thread, or in a Worker that stays.
   *
   * @returns The command, running.
   * @throws {Deno.errors.NotFound} If there is no such program or working directory.
   * @throws {Deno.errors.PermissionDenied} If it may not be executed.
   * @throws {TypeError} If an option has the wrong type, or there is no such option.
   * @throws {PenneError} If the namespaces cannot be made or joined. Nothing is left then.
   */
  spawn(): ChildProcess {
    return spawnRequest(this.#command, this.#options, "inherit");
  }

  /**
   * Runs it to its end, and collects what it writes until then.
   *
   * @returns How it ended, and what it has written.
   * @throws {TypeError} If `stdin` is "piped".
   * @throws As {@linkcode Command.spawn}.
   */
  async output(): Promise<CommandOutput> {
    refuseInput(this.#options);
    return await spawnRequest(this.#command, this.#options, "piped").output();
  }

  /**
   * Runs it to its end without the event loop, and collects what it writes.
   *
   * @returns How it ended, and what it has written.
   * @throws {TypeError} If `stdin` is "piped".
   * @throws {PenneError} A usage error with `net: "tap"`, or if another user may trace the command: both take the event loop.
   * @throws As {@linkcode Command.spawn}.
   */
  outputSync(): CommandOutput {
    refuseInput(this.#options);
    if (this.#options?.net === "tap" || this.#options?.ports) throw needsLoop("its network");
    return startRequest(this.#command, this.#options, "piped", (running, stdio) => {
      using _stdio = stdio;
      if (!running.waitSync) {
        running[Symbol.dispose]();
        throw needsLoop("a command that another user may trace");
      }
      const outputs = stdio.ours.slice(1).map((fd) => fd && { fd, chunks: [] as Uint8Array[] });
      const open = () => outputs.flatMap((output) => output && !output.fd.closed ? [output] : []);
      const look = (limit?: number) => open().forEach(({ fd, chunks }) => readAll(fd, chunks, limit));
      const status = running.waitSync({ fds: () => open().map(({ fd }) => fd), look: () => look(16) });
      look();
      const [stdout, stderr] = outputs.map((output) => output && joined(output.chunks));
      return commandOutput(commandStatus(status), stdout ?? null, stderr ?? null);
    });
  }
}

function needsLoop(what: string) {
  return usage(`wait for the command without the event loop: ${what} needs it`, ["output() waits with it"]);
}

function refuseInput({ stdin }: CommandOptions = {}): void {
  if (stdin !== "piped") return;
  throw new TypeError("Piped stdin is not supported for this function, use 'Deno.Command.spawn()' instead");
}

function start(request: Request, stdio: OpenStdio): RunningCommand {
  return request.kind === "run" ? startRun(request.options, stdio.theirs) : startEnter(request.options, stdio.theirs);
}

/** Starts a command, and does something with it; its streams are closed if that fails. */
function startRequest<T>(
  command: string | URL | null,
  options: CommandOptions,
  output: "inherit" | "piped",
  use: (running: RunningCommand, stdio: OpenStdio) => T,
): T {
  const request = requestOf(command, options);
  const name = command === null ? "" : pathOf(command);
  if (command !== null && (name === "" || name.includes("\0"))) {
    throw new Deno.errors.NotFound(`Failed to spawn '${name}': entity not found`);
  }
  if ([...options.args ?? [], ...Object.values(options.env ?? {})].some((word) => `${word}`.includes("\0"))) {
    throw new TypeError(`Failed to spawn '${name}': nul byte found in provided data`);
  }
  const { stdin = "inherit", stdout = output, stderr = output } = options;
  const plan: StdioPlan = { stdin, stdout, stderr };
  const stdio = attempt("open pipes for the command", () => new OpenStdio(plan));
  let running: RunningCommand | null = null;
  try {
    running = start(request, stdio);
    stdio.closeTheirs();
    return use(running, stdio);
  } catch (error) {
    running?.[Symbol.dispose]();
    stdio.closeTheirs();
    stdio[Symbol.dispose]();
    throw denoError(error, name, request.options.cwd);
  }
}

/**
 * Starts a command.
 *
 * @param command The program; null for the login shell.
 * @param options What it takes.
 * @param output What its standard output and error are by default.
 * @returns The command, running.
 */
export function spawnRequest(
  command: string | URL | null,
  options: CommandOptions,
  output: "inherit" | "piped",
): ChildProcess {
  return startRequest(command, options, output, (running, stdio) => new ChildProcess(running, stdio, options.signal));
}
