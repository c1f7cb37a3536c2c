// Helpers of all tests: running penne as root or a user, and skips that state their reason.

import { withoutLeaks } from "./leaks.ts";
import { fromFileUrl } from "./paths.ts";

/** The checkout. */
export const ROOT = fromFileUrl(new URL("../..", import.meta.url));
/** An unprivileged user with subordinate ids, made by .ci/run. */
export const TEST_USER = "penne-test";

const CI = Deno.env.get("CI") === "true";

/** How a process ended, and its output. */
export interface Result {
  code: number;
  signal: Deno.Signal | null;
  stdout: string;
  stderr: string;
}

/** How to run a program. */
export interface How {
  /** The whole environment; the caller's by default. */
  env?: Record<string, string>;
  cwd?: string;
  /** Whether the test user runs it. */
  user?: boolean;
}

let binary: string | undefined;

/** A copy of dist/penne that every user can execute. */
export function penne(): string {
  if (!binary) {
    const directory = Deno.makeTempDirSync({ prefix: "penne-test-" });
    Deno.chmodSync(directory, 0o755);
    binary = `${directory}/penne`;
    Deno.copyFileSync(`${ROOT}dist/penne`, binary);
    Deno.chmodSync(binary, 0o755);
    globalThis.addEventListener("unload", () => Deno.removeSync(directory, { recursive: true }));
  }
  return binary;
}

/** Prefixes a command line so that the test user runs it. */
export function asUser(argv: string[]): string[] {
  if (Deno.uid() !== 0) return argv;
  return ["setpriv", "--reuid", TEST_USER, "--regid", TEST_USER, "--init-groups", "--inh-caps=-all", "--", ...argv];
}

/** A Deno.Command for a command line. */
export function command(argv: string[], how: How = {}, options: Deno.CommandOptions = {}): Deno.Command {
  const variables = Object.entries(how.env ?? {}).map(([name, value]) => `${name}=${value}`);
  const cleared = how.env ? ["/usr/bin/env", "-i", ...variables, ...argv] : argv;
  const [program, ...args] = how.user ? asUser(cleared) : cleared;
  const cwd = how.cwd ?? (how.user ? "/" : ROOT);
  return new Deno.Command(program!, { args, cwd, ...options });
}

/** Runs a command line to its end. */
export async function sh(argv: string[], how: How = {}): Promise<Result> {
  const { code, signal, stdout, stderr } = await command(argv, how, { stdin: "null" }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, signal, stdout: text(stdout), stderr: text(stderr) };
}

/** Runs the compiled binary to its end. */
export function run(args: string[], how: How = {}): Promise<Result> {
  return sh([penne(), "run", ...args], how);
}

/** What a test needs. */
export interface Needs {
  /** To be root. */
  root?: boolean;
  /** The test user, or not to be root. */
  user?: boolean;
  /** Programs in PATH. */
  programs?: string[];
  /** Least version of the kernel, for what an older one does not have; below it a test is skipped, in CI too. */
  kernel?: `${number}.${number}`;
}

/** Whether the kernel is older than a version. */
function isOlder(version: string): boolean {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const [own = 0, ownMinor = 0] = Deno.osRelease().split(".").map(Number);
  return own < major || own === major && ownMinor < minor;
}

function hasProgram(name: string): boolean {
  return (Deno.env.get("PATH") ?? "").split(":").some((directory) => {
    try {
      return Deno.statSync(`${directory}/${name}`).isFile;
    } catch {
      return false;
    }
  });
}

function hasUser(): boolean {
  return Deno.uid() !== 0 || Deno.readTextFileSync("/etc/passwd").includes(`\n${TEST_USER}:`);
}

/** Why a test cannot run here, or null. */
function missing({ root, user, programs = [] }: Needs): string | null {
  if (root && Deno.uid() !== 0) return "needs root";
  if (user && !hasUser()) return `needs the user ${TEST_USER} (see .ci/run)`;
  const absent = programs.filter((name) => !hasProgram(name));
  return absent.length ? `needs ${absent.join(", ")}` : null;
}

/** Registers a test that does not run, with the reason in its name. */
export function skipped(name: string, reason: string): void {
  Deno.test.ignore(`${name} [skipped: ${reason}]`, () => {});
}

/** The body of a test. */
export type TestBody = (t: Deno.TestContext) => void | Promise<void>;

/**
 * Registers a test. Where it cannot run, it is skipped with the reason in its name; in CI, which must provide everything,
 * it fails. A test also fails if it leaks something.
 */
export function test(name: string, body: TestBody): void;
export function test(name: string, needs: Needs, body: TestBody): void;
export function test(name: string, first: Needs | TestBody, second?: TestBody): void {
  const [needs, body] = typeof first === "function" ? [{}, first] : [first, second!];
  if (needs.kernel && isOlder(needs.kernel)) {
    skipped(name, `needs Linux ${needs.kernel}`);
    return;
  }
  const reason = missing(needs);
  if (reason && !CI) skipped(name, reason);
  else if (reason) {
    Deno.test(name, () => {
      throw new Error(`this test ${reason}, which CI must provide`);
    });
  } else Deno.test(name, (t) => withoutLeaks(() => body(t)));
}

/** Waits until a condition holds; fails after a number of seconds. */
export async function until(what: string, condition: () => boolean, seconds = 30): Promise<void> {
  const end = Date.now() + seconds * 1000;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`after ${seconds} s still not: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** A process as /proc shows it. */
export interface Process {
  pid: number;
  ppid: number;
  exe: string;
  cmdline: string[];
}

/** All processes except zombies. */
export function processes(): Process[] {
  const found: Process[] = [];
  for (const { name } of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = Deno.readTextFileSync(`/proc/${name}/stat`);
      const [state, ppid] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      if (state === "Z" || state === "X") continue;
      let exe = "";
      try {
        exe = Deno.readLinkSync(`/proc/${name}/exe`);
      } catch {
        // A kernel thread, or a process that we may not inspect.
      }
      const cmdline = Deno.readTextFileSync(`/proc/${name}/cmdline`).split("\0").slice(0, -1);
      found.push({ pid: Number(name), ppid: Number(ppid), exe, cmdline });
    } catch {
      // It has just ended.
    }
  }
  return found;
}

/** Whether a process is one of penne's agents. */
export function isAgent({ exe }: Process): boolean {
  return exe.startsWith("/memfd:penne-agent");
}
