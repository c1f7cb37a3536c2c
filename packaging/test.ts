// Runs the tests, then prints what they lacked here: each need, the number of tests skipped for it, and what provides it.
//
//   [ARGUMENT…]   what `deno test` gets instead of all tests: paths, --filter

import type { Skipped } from "../tests/lib/helpers.ts";

const root = new URL("..", import.meta.url).pathname;

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

if (import.meta.main) {
  const list = Deno.makeTempFileSync({ prefix: "penne-skipped-" });
  const what = Deno.args.length ? Deno.args : ["ffi", "mod", "tests"];
  const { code } = await new Deno.Command(Deno.execPath(), {
    args: ["test", "-A", "--no-check", "--doc", ...what],
    cwd: root,
    env: { PENNE_SKIPPED: list, DENO_NO_UPDATE_CHECK: "1" },
  }).spawn().status;
  const skipped = Deno.readTextFileSync(list).split("\n").filter((line) => line).map((line) => JSON.parse(line));
  Deno.removeSync(list);
  for (const line of tableOfNeeds(skipped)) console.log(line);
  Deno.exit(code);
}
