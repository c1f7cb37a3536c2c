// Runs the tests, then prints what they lacked here: each need, the number of tests skipped for it, and what provides it.
//
//   [ARGUMENT…]   what `deno test` gets instead of all tests: paths, --filter
//
// Without arguments, tests that mostly wait run first, side by side (LANES), and all others after them, one at a time.

import type { Skipped } from "../tests/lib/helpers.ts";

const root = new URL("..", import.meta.url).pathname;

/** Tests that run beside other ones. */
export interface Lane {
  readonly name: string;
  readonly paths: readonly string[];
  /** How far it steps back for the others, see nice(1). */
  readonly nice: number;
}

/**
 * What runs side by side: tests that wait for guests, for the time-outs of flows, for deadlines, and for clients of DHCP or
 * answers that do not come. A test may be here if its limits on time leave room for a machine that is busy, if it looks
 * only at processes, namespaces and files that it has made itself, and if it changes nothing that others see.
 */
export const LANES: readonly Lane[] = [
  { name: "guests", paths: ["tests/hosts", "tests/kernels", "tests/refusals"], nice: 19 },
  { name: "flows and examples", paths: ["tests/datapath/waiting/many_test.ts", "ffi", "mod"], nice: 0 },
  { name: "deadlines", paths: ["tests/datapath/waiting/abandoned_test.ts", "tests/attack/hang"], nice: 0 },
  {
    name: "clients",
    paths: [
      ...["tests/advice", "tests/datapath/allow", "tests/attack/own_addresses_test.ts"],
      ...["tests/reactor/garbage_test.ts"],
    ],
    nice: 0,
  },
];
/** Seconds after which a lane hangs: where guests are downloaded, one takes several minutes. */
const LIMIT = 1200;

/** What a run of tests said at its end. */
export interface Summary {
  readonly passed: number;
  readonly failed: number;
  readonly ignored: number;
  /** Title and place of each test that failed. */
  readonly failures: readonly string[];
}

/**
 * Reads the end of what `deno test` has printed.
 *
 * @param name What the run is called.
 * @param success Whether the runner ended with 0. A run that has failed without a failed test counts as one.
 */
export function summaryOf(name: string, output: string, success: boolean): Summary {
  // deno-lint-ignore no-control-regex -- colours
  const lines = output.replaceAll(/\x1b\[[0-9;]*m/g, "").split("\n");
  const last = lines.findLast((line) => /^(ok|FAILED) \| \d+ passed/.test(line));
  const count = (word: string) => Number(new RegExp(`(\\d+) ${word}`).exec(last ?? "")?.[1] ?? 0);
  const at = lines.lastIndexOf(" FAILURES ");
  const failures = at < 0 ? [] : lines.slice(at + 2, Math.max(at + 2, lines.indexOf("", at + 2)));
  const [passed, failed, ignored] = [count("passed"), count("failed"), count("ignored")];
  if (last && (success || failed)) return { passed, failed, ignored, failures };
  const words = last ? "ended with an error" : "has not come to its end";
  return { passed, failed: failed + 1, ignored, failures: [...failures, `${name}: this run ${words}`] };
}

/** The closing lines of several runs, as of one. */
export function closingLines(summaries: readonly Summary[], seconds: number): string[] {
  const sum = (key: "passed" | "failed" | "ignored") => summaries.reduce((total, one) => total + one[key], 0);
  const failures = summaries.flatMap((one) => one.failures);
  const time = `${Math.floor(seconds / 60)}m${Math.floor(seconds % 60)}s`;
  return [
    ...failures.length ? ["", " FAILURES ", "", ...failures] : [],
    "",
    `${sum("failed") ? "FAILED" : "ok"} | ${sum("passed")} passed | ${sum("failed")} failed | ${
      sum("ignored")
    } ignored (${time})`,
    "",
  ];
}

/** The table of what was missing; empty lines are none. */
export function tableOfNeeds(skipped: readonly Skipped[]): string[] {
  const needs = new Map<string, { tests: Set<string>; provider: string }>();
  for (const test of skipped) {
    for (const { need, provider } of test.needs) {
      if (!needs.has(need)) needs.set(need, { tests: new Set(), provider });
      needs.get(need)!.tests.add(test.name);
    }
  }
  if (!needs.size) return [];
  const rows = [...needs].sort(([, a], [, b]) => b.tests.size - a.tests.size)
    .map(([need, { tests, provider }]) => [need, `${tests.size}`, provider] as const);
  const width = Math.max(...rows.map(([need]) => need.length));
  const format = (need: string, tests: string, provider: string) =>
    `  ${need.padEnd(width)}  ${tests.padStart(5)}  ${provider}`;
  const all = new Set(skipped.map(({ name }) => name)).size;
  return [
    `${all} ${all === 1 ? "test was" : "tests were"} skipped, as this machine lacks:`,
    format("need", "tests", "what provides it"),
    ...rows.map((row) => format(...row)),
    "packaging/prepare, as root, prepares a Debian machine for all of them.",
  ];
}

/** Runs that have not ended. */
const running = new Set<Deno.ChildProcess>();

/** Runs tests to their end, and shows what they print. */
export async function runTests(
  name: string,
  paths: readonly string[],
  { before = [], env, stdin, show }: {
    /** Words of a command line that the runner's words follow. */
    readonly before?: readonly string[];
    readonly env: Record<string, string>;
    readonly stdin: "inherit" | "null";
    readonly show: (bytes: Uint8Array) => void;
  },
): Promise<Summary> {
  const runner = [...before, Deno.execPath(), "test", "-A", "--no-check", "--doc", ...paths];
  const child = new Deno.Command("sh", {
    args: ["-c", 'exec "$@" 2>&1', "sh", ...runner],
    cwd: root,
    env: { ...env, ...Deno.stdout.isTerminal() && !Deno.noColor ? { FORCE_COLOR: "1" } : {} },
    stdin,
    stdout: "piped",
  }).spawn();
  running.add(child);
  const decoder = new TextDecoder();
  let output = "";
  const reader = child.stdout.getReader();
  const reading = (async () => {
    for (let piece; !(piece = await reader.read()).done;) {
      show(piece.value);
      output += decoder.decode(piece.value, { stream: true });
    }
  })();
  const { success } = await child.status;
  running.delete(child);
  // What a test has left running may hold the pipe.
  await Promise.race([reading, new Promise((resolve) => setTimeout(resolve, 5000))]);
  await reader.cancel();
  return summaryOf(name, output, success);
}

/** Runs a lane, and shows what it printed when it has ended. */
async function runLane({ name, paths, nice }: Lane, env: Record<string, string>): Promise<Summary> {
  const begin = performance.now();
  const pieces: Uint8Array[] = [];
  const summary = await runTests(name, paths, {
    before: ["timeout", "--kill-after=10", `${LIMIT}`, "nice", "-n", `${nice}`],
    env,
    stdin: "null",
    show: (bytes) => pieces.push(bytes),
  });
  console.log(`\n----- ${name}, beside others, ${Math.round((performance.now() - begin) / 1000)} s -----`);
  for (const bytes of pieces) writeAll(bytes);
  return summary;
}

function writeAll(bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
}

/** Runs all lanes, and looks for what they have left on the machine. */
async function runLanes(env: Record<string, string>): Promise<Summary[]> {
  const { ALL, difference, markOfPart, snapshot } = await import("../tests/lib/leaks.ts");
  const before = snapshot();
  const summaries = await Promise.all(
    LANES.map((lane) => runLane(lane, { ...env, ...markOfPart(lane.name), PENNE_LEAKS: "own" })),
  );
  // Descriptors of this process are no test's.
  const left = () => {
    const now = [...snapshot()].filter(([key]) => !key.startsWith("descriptor "));
    return difference(before, new Map(now));
  };
  for (const end = Date.now() + 60_000; ALL && left().length && Date.now() < end;) {
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  const failures = ALL && left().length ? [`tests beside others leave behind: ${left().join(", ")}`] : [];
  return [...summaries, { passed: 0, failed: failures.length, ignored: 0, failures }];
}

/** Runs tests, all by default; whether all of them passed. */
async function runAll(args: readonly string[], env: Record<string, string>): Promise<boolean> {
  if (args.length) {
    const command = new Deno.Command(Deno.execPath(), {
      args: ["test", "-A", "--no-check", "--doc", ...args],
      cwd: root,
      env,
    });
    return (await command.spawn().status).success;
  }
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    Deno.addSignalListener(signal, () => {
      for (const child of running) child.kill("SIGTERM");
      Deno.exit(signal === "SIGINT" ? 130 : 143);
    });
  }
  const begin = performance.now();
  const summaries = await runLanes(env);
  const others = [`--ignore=${LANES.flatMap(({ paths }) => paths).join(",")}`, "tests"];
  summaries.push(await runTests("all others", others, { env, stdin: "inherit", show: writeAll }));
  for (const line of closingLines(summaries, (performance.now() - begin) / 1000)) console.log(line);
  return summaries.every(({ failed }) => failed === 0);
}

if (import.meta.main) {
  const list = Deno.makeTempFileSync({ prefix: "penne-skipped-" });
  const success = await runAll(Deno.args, { PENNE_SKIPPED: list, DENO_NO_UPDATE_CHECK: "1" });
  const skipped = Deno.readTextFileSync(list).split("\n").filter((line) => line).map((line) => JSON.parse(line));
  Deno.removeSync(list);
  for (const line of tableOfNeeds(skipped)) console.log(line);
  Deno.exit(success ? 0 : 1);
}
