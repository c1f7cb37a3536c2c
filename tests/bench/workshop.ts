// What the groups measure with: helper programs compiled from C, copies that any user can execute, and the timer.

import { asUser, ROOT, TEST_USER } from "../lib/helpers.ts";

/** What is measured. */
export const PENNE_BINARY = `${ROOT}dist/penne`;
/** Said when it is not there. */
export const PENNE_MISSING = "dist/penne is missing (deno task compile)";

const decoder = new TextDecoder();

const SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** Seconds after which the timer gives up by itself, should the bench be gone by then. */
const TIMER_LIMIT = 10;

/** What the timer has measured, in milliseconds from right before the execve. */
export interface Timing {
  /** Until the first instruction, if the command told of it (first.c). */
  readonly first: number | null;
  /** Until the first output arrived at the timer, if there was any. */
  readonly output: number | null;
  /** Until the end. */
  readonly end: number;
}

/**
 * The last line of what a program has said: with most programs the one with the reason.
 *
 * @param said What it has said.
 * @returns The line, or nothing if it has said nothing.
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
 * @returns What it has said on stdout.
 * @throws {Error} If it is not installed or fails; what it says on stderr is the message.
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
 * Sends a process a signal, if it is still there.
 *
 * @param child The process.
 * @param signal The signal.
 */
export function signalChild(child: Deno.ChildProcess, signal: Deno.Signal): void {
  try {
    child.kill(signal);
  } catch {
    // It has ended by itself.
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
   * Does something before the directory is removed, also when the bench is interrupted.
   *
   * @param cleanup What.
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
   * @throws {Error} If there is no compiler, or it fails.
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
   * Everything that is compared goes this way, for the same layout in the page cache, where no page waits to be written:
   * such a page counts as dirty memory of whoever executes it.
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
    const flags = ["--quiet", "--no-config", "--no-check", "--no-code-cache", "--v8-flags=--single-threaded"];
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

/** The runtime in packaging/compile.ts's cache that a program begins with, if it was compiled the fallback way. */
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

/** As whom to measure programs that are meant for anybody, and how to become that user. */
export interface Identity {
  /** The user, for the heading. */
  readonly name: string;
  /** Makes that user run a command line. */
  readonly as: (argv: string[]) => string[];
  /** Where that user finds programs. */
  readonly path: string;
}

/**
 * The test user, if there is one and we can become it; else ourselves.
 *
 * @returns As whom to measure.
 */
export async function anybody(): Promise<Identity> {
  const path = Deno.env.get("PATH") || SYSTEM_PATH;
  if (Deno.uid() !== 0) return { name: `user ${Deno.uid()}`, as: (argv) => argv, path };
  try {
    await runTool(asUser(["true"]));
    // Ours may have directories that are not for others to search.
    return { name: `user ${TEST_USER}`, as: asUser, path: SYSTEM_PATH };
  } catch {
    return { name: `root, as there is no user ${TEST_USER}`, as: (argv) => argv, path };
  }
}

/**
 * The environment of what is measured: the same few variables for all, and whoever starts the bench; a home that is not
 * there to be written to.
 *
 * @param identity As whom it is measured.
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
 * @param identity As whom.
 * @param signal When aborted, the program is killed, with all that it has started.
 * @param how With `untilOutput` a program that would stay is asked to end by its first output.
 * @returns What was measured.
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
  // Asked to end, the timer first kills the program's process group and whatever else comes from it.
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
