// Helpers of all tests: running penne as root or a user, and skips that state their reason.

import { withoutLeaks } from "./leaks.ts";
import { missingNeeds, type Need, provider } from "./needs.ts";
import { fromFileUrl } from "./paths.ts";
import { PATIENCE } from "./patience.ts";
import { asUser } from "./user.ts";

export type { Need } from "./needs.ts";
export { endByAgent, isAgent, killIfAlive, ownAgents, type Process, processes } from "./processes.ts";
export { asUser, TEST_USER } from "./user.ts";

/** The checkout. */
export const ROOT = fromFileUrl(new URL("../..", import.meta.url));
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

/** The option for `penne run` in tests that have nothing to do with a network: --net=none where the device is closed. */
export function netOption({ user = false }: How = {}): string[] {
  return missingNeeds(user ? ["tun", "user"] : ["tun"]).length ? ["--net=none"] : [];
}

/**
 * `penne run` with options, for what has nothing to do with a network, see {@linkcode netOption}.
 *
 * @param options Options; they are left alone if they have --net, or namespaces without a net namespace.
 */
export function penneRun(options: readonly string[] = [], how: How = {}): string[] {
  const own = options.slice(0, [...options, "--"].indexOf("--")).join(" ");
  const usual = !/--net\b/.test(own) && /--unshare[ =]\S*(net|all)|^(?!.*--unshare)/.test(own);
  return [penne(), "run", ...usual ? netOption(how) : [], ...options];
}

/** Runs the compiled binary to its end, see {@linkcode penneRun}. */
export function run(args: string[], how: How = {}): Promise<Result> {
  return sh(penneRun(args, how), how);
}

/** Registers a test that does not run, with the reason in its name, and tells packaging/test.ts. */
function skip(name: string, missing: readonly Need[]): void {
  Deno.test.ignore(`${name} [skipped: needs ${missing.join(", ")}]`, () => {});
  const path = Deno.env.get("PENNE_SKIPPED");
  if (!path) return;
  const skipped: Skipped = { name, needs: missing.map((need) => ({ need, provider: provider(need) })) };
  Deno.writeTextFileSync(path, `${JSON.stringify(skipped)}\n`, { append: true });
}

/** The body of a test. */
export type TestBody = (t: Deno.TestContext) => void | Promise<void>;

/** A test that does not run, as packaging/test.ts reads it. */
export interface Skipped {
  readonly name: string;
  readonly needs: readonly { readonly need: Need; readonly provider: string }[];
}

/** Needs that even CI may lack: an older kernel, a server of others, and what its script could not install. */
const EXCUSED = (Deno.env.get("PENNE_UNAVAILABLE") ?? "").split(",");
const isExcused = (need: Need) => need.startsWith("kernel:") || need === "archive of Debian" || EXCUSED.includes(need);

/**
 * Registers a test. Where a need of it is not met, it is skipped with the need in its name; in CI, which must provide
 * everything, it fails. A test also fails if it leaks something.
 */
export function test(name: string, body: TestBody): void;
export function test(name: string, needs: readonly Need[], body: TestBody): void;
export function test(name: string, first: readonly Need[] | TestBody, second?: TestBody): void {
  const [needs, body]: [readonly Need[], TestBody] = typeof first === "function" ? [[], first] : [first, second!];
  const missing = missingNeeds(needs);
  if (!missing.length) Deno.test(name, (t) => withoutLeaks(() => body(t)));
  else if (!CI || missing.some(isExcused)) skip(name, missing);
  else {
    Deno.test(name, () => {
      throw new Error(`this test needs ${missing.join(", ")}, which CI must provide`);
    });
  }
}

/**
 * A step of a test that may run at the same time as others. What is left open is not looked for at the end of such a step,
 * but of the test.
 */
export function atOnce(t: Deno.TestContext, name: string, fn: () => Promise<void>): Promise<boolean> {
  return t.step({ name, fn, sanitizeOps: false, sanitizeResources: false, sanitizeExit: false });
}

/**
 * Waits until a condition holds; fails after a number of seconds. They only end a test that hangs: on a machine that is
 * loaded, what takes a second may take twenty.
 */
export async function until(what: string, condition: () => boolean, seconds = 120): Promise<void> {
  const end = Date.now() + seconds * 1000 * PATIENCE;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`after ${seconds * PATIENCE} s still not: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
