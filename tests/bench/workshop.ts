// Tools of all groups: helper programs compiled from C, copies that any user can execute, and the timer.

import { V8_FLAGS } from "../../packaging/code_cache.ts";
import { asUser, ROOT, TEST_USER } from "../lib/helpers.ts";

/** The binary to measure. */
export const PENNE_BINARY = `${ROOT}dist/penne`;
/** Message for a missing binary. */
export const PENNE_MISSING = "dist/penne is missing (deno task compile)";

const decoder = new TextDecoder();

const SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** Seconds after which the timer gives up, in case the bench has died. */
const TIMER_LIMIT = 10;

/** Times measured by the timer, in ms from right before the execve. */
export interface Timing {
  /** Until the first instruction, if the command reports it (first.c). */
  readonly first: number | null;
  /** Until the first output arrived at the timer, or null. */
  readonly output: number | null;
  /** Until the end. */
  readonly end: number;
}

/**
 * The last line of a program's output, which in most programs holds the reason.
 *
 * @param said The output.
 * @returns The line, or an empty string.
 */
export function lastLine(said: Uint8Array | string): string {
  const text = typeof said === "string" ? said : decoder.decode(said);
  return text.trim().split("\n").at(-1) ?? "";
}

/**
 * Runs a program to its end.
 *
 * @param argv The program and its arguments.
 * @param options How.
 * @returns Its stdout.
 * @throws {Error} If it is not installed or fails; the message is its stderr.
 */
export async function runTool(argv: readonly string[], options: Deno.CommandOptions = {}): Promise<Uint8Array> {
  const [program, ...args] = argv;
  let output;
  try {
    output = await new Deno.Command(program!, { args, stdin: "null", ...options }).output();
  } catch (error) {
    throw new Error(error instanceof Deno.errors.NotFound ? `${program} is not installed` : String(error));
  }
  if (!output.success) throw new Error(`${program} failed: ${lastLine(output.stderr) || `exit code ${output.code}`}`);
  return output.stdout;
}

/**
 * Sends a process a signal, if it is still running.
 *
 * @param child The process.
 * @param signal The signal.
 */
export function signalChild(child: Deno.ChildProcess, signal: Deno.Signal): void {
  try {
    child.kill(signal);
  } catch {
    // It has already ended.
  }
}

/** A directory of programs that any user can execute; removed at the end, or when the bench is interrupted. */
export class Workshop implements Disposable {
  /** The directory. */
  readonly directory: string;
  #deferred: (() => void)[] = [];
  #remove = () => {
    globalThis.removeEventListener("unload", this.#remove);
    for (const cleanup of this.#deferred.splice(0).reverse()) cleanup();
    Deno.removeSync(this.directory, { recursive: true });
  };

  /** Makes the directory. */
  constructor() {
    this.directory = Deno.makeTempDirSync({ prefix: "penne-bench-" });
    Deno.chmodSync(this.directory, 0o755);
    globalThis.addEventListener("unload", this.#remove);
  }

  /**
   * Calls a function before the directory is removed, even when the bench is interrupted.
   *
   * @param cleanup The function.
   */
  defer(cleanup: () => void): void {
    this.#deferred.push(cleanup);
  }

  /**
   * Compiles one of the C programs beside this file.
   *
   * @param name Its name without `.c`.
   * @param flags Flags for the compiler.
   * @returns Path of the program.
   * @throws {Error} If no compiler is installed or it fails.
   */
  async compile(name: string, flags: readonly string[] = []): Promise<string> {
    const path = `${this.directory}/${name}`;
    const source = `${ROOT}tests/bench/programs/${name}.c`;
    await runTool([Deno.env.get("CC") ?? "cc", "-O2", "-Wall", "-Wextra", ...flags, "-o", path, source]);
    Deno.chmodSync(path, 0o755);
    return path;
  }

  /**
   * Copies a program here.
   *
   * All compared programs are copied this way, so that they have the same layout in the page cache and no page waits for
   * being written: such a page would count as dirty memory of the process that executes it.
   *
   * @param source The program.
   * @param name Its name here.
   * @returns Path of the copy.
   */
  install(source: string, name: string): string {
    const path = `${this.directory}/${name}`;
    Deno.copyFileSync(source, path);
    Deno.chmodSync(path, 0o755);
    using file = Deno.openSync(path);
    file.syncSync();
    return path;
  }

  /**
   * Compiles a script as dist/penne was compiled: with the same runtime and the same flags.
   *
   * @param name Its name here.
   * @param script The script.
   * @param like The program whose runtime to use.
   * @returns Path of the program.
   * @throws {Error} If it cannot be compiled.
   */
  async compileScript(name: string, script: string, like: string): Promise<string> {
    const source = `${this.directory}/${name}.ts`;
    const built = `${this.directory}/${name}.built`;
    await Deno.writeTextFile(source, script);
    const flags = ["--quiet", "--no-config", "--no-check", "--no-code-cache", "--allow-ffi", `--v8-flags=${V8_FLAGS}`];
    const args = ["compile", ...flags, "--output", built, source];
    const fallback = await fallbackRuntime(like);
    if (!fallback) await runTool([Deno.execPath(), ...args]);
    else {
      const { version, path } = fallback;
      const deno = Deno.version.deno === version
        ? [Deno.execPath()]
        : ["npx", "-y", "--prefer-offline", `deno@${version}`];
      await runTool([...deno, ...args], { env: { DENORT_BIN: path, DENO_TLS_CA_STORE: "system" } });
    }
    const path = this.install(built, name);
    await Deno.remove(built);
    return path;
  }

  /** Removes the directory. */
  [Symbol.dispose](): void {
    this.#remove();
  }
}

/** The cached runtime of packaging/compile.ts that a program begins with, if it was compiled with the fallback. */
async function fallbackRuntime(program: string): Promise<{ version: string; path: string } | null> {
  const begin = async (path: string) => {
    using file = await Deno.open(path);
    const bytes = new Uint8Array(1 << 16); // with the ELF headers, so different in any two builds
    await file.read(bytes);
    return bytes;
  };
  const directory = `${Deno.env.get("XDG_CACHE_HOME") || `${Deno.env.get("HOME")}/.cache`}/penne`;
  const expected = await begin(program);
  try {
    for await (const { name } of Deno.readDir(directory)) {
      const [, version] = /^denort-([\d.]+)-/.exec(name) ?? [];
      if (!version) continue;
      const found = await begin(`${directory}/${name}`);
      if (found.every((byte, i) => byte === expected[i])) return { version, path: `${directory}/${name}` };
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return null;
}

/** The user that runs unprivileged programs, and how to become that user. */
export interface Identity {
  /** The user, for the heading. */
  readonly name: string;
  /** Makes that user run a command line. */
  readonly as: (argv: string[]) => string[];
  /** Where that user finds programs. */
  readonly path: string;
}

/**
 * The test user if it exists and can be assumed, otherwise the current user.
 *
 * @returns The user.
 */
export async function anybody(): Promise<Identity> {
  const path = Deno.env.get("PATH") || SYSTEM_PATH;
  if (Deno.uid() !== 0) return { name: `user ${Deno.uid()}`, as: (argv) => argv, path };
  try {
    await runTool(asUser(["true"]));
    // The caller's PATH may name directories that other users cannot search.
    return { name: `user ${TEST_USER}`, as: asUser, path: SYSTEM_PATH };
  } catch {
    return { name: `root, because the user ${TEST_USER} does not exist`, as: (argv) => argv, path };
  }
}

/**
 * The environment of measured programs: the same few variables for all, whoever starts the bench, and a home that does
 * not exist.
 *
 * @param identity The user.
 * @returns The whole environment.
 */
export function plainEnvironment(identity: Identity): Record<string, string> {
  return { PATH: identity.path, HOME: "/nonexistent", LANG: "C" };
}

/**
 * Starts a program under the timer and waits for its end.
 *
 * @param timer The compiled timer.c.
 * @param argv The program and its arguments.
 * @param identity The user.
 * @param signal When aborted, the program and everything it started is killed.
 * @param how With `untilOutput`, the first output of a program that would stay makes the timer end it.
 * @returns The measurements.
 * @throws {Error} If the program cannot be executed, fails, or is killed.
 */
export async function time(
  timer: string,
  argv: readonly string[],
  identity: Identity,
  signal: AbortSignal,
  { untilOutput = false } = {},
): Promise<Timing> {
  const [program, ...args] = identity.as([timer, ...(untilOutput ? ["-o"] : []), `${TIMER_LIMIT}`, ...argv]);
  const child = new Deno.Command(program!, {
    args,
    cwd: "/",
    env: plainEnvironment(identity),
    clearEnv: true,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  // On SIGTERM the timer first kills the program's process group and all descendants.
  const stop = () => signalChild(child, "SIGTERM");
  signal.addEventListener("abort", stop, { once: true });
  let output;
  try {
    output = await child.output();
  } finally {
    signal.removeEventListener("abort", stop);
  }
  const { success, stdout, stderr } = output;
  if (!success) {
    const reason = lastLine(stderr).replace(/^timer: /, "");
    throw new Error(reason.replace(/: No such file or directory$/, " is not installed"));
  }
  const [first, arrival, end, status] = decoder.decode(stdout).trim().split(" ").map(Number);
  if (status !== 0) throw new Error(lastLine(stderr) || `exit code ${status}`);
  const milliseconds = (nanoseconds: number) => nanoseconds < 0 ? null : nanoseconds / 1e6;
  return { first: milliseconds(first!), output: milliseconds(arrival!), end: end! / 1e6 };
}
