// Runs of tests side by side: what each one says at its end becomes one summary, and a run that fails or hangs is a failure.

import { assertEquals, assertStringIncludes } from "@std/assert";
import { closingLines, LANES, runTests, summaryOf } from "../../packaging/test.ts";
import { ROOT, test } from "../lib/helpers.ts";

const FAILURES =
  "\n ERRORS \n\na => ./a_test.ts:1:2\nerror\n\n FAILURES \n\na => ./a_test.ts:1:2\nb ... c => ./a_test.ts:3:4\n\n";

test("the last line of a run is its summary, and a failed run has a failure", () => {
  assertEquals(
    summaryOf(
      "x",
      "a ... ok (1ms)\n\n\x1b[0m\x1b[32mok\x1b[0m | 12 passed (3 steps) | 0 failed | 2 ignored (1s)\n\n",
      true,
    ),
    { passed: 12, failed: 0, ignored: 2, failures: [] },
  );
  assertEquals(summaryOf("x", `${FAILURES}FAILED | 5 passed | 2 failed (1 step) (1m2s)\n`, false), {
    ...{ passed: 5, failed: 2, ignored: 0 },
    failures: ["a => ./a_test.ts:1:2", "b ... c => ./a_test.ts:3:4"],
  });
  assertEquals(summaryOf("x", "a ... ok (1ms)\nb ...", false), {
    ...{ passed: 0, failed: 1, ignored: 0 },
    failures: ["x: this run has not come to its end"],
  });
  assertEquals(summaryOf("x", "ok | 5 passed | 0 failed (1s)\n", false).failures, ["x: this run ended with an error"]);
});

test("several runs end as one does", () => {
  const [good, bad] = [
    { passed: 5, failed: 0, ignored: 1, failures: [] },
    { passed: 6, failed: 2, ignored: 0, failures: ["a => ./a_test.ts:1:2", "b => ./a_test.ts:3:4"] },
  ];
  assertEquals(closingLines([good, good], 61.5).at(-2), "ok | 10 passed | 0 failed | 2 ignored (1m1s)");
  const lines = closingLines([good, bad], 5).join("\n");
  assertEquals(summaryOf("x", lines, false), { ...bad, passed: 11, ignored: 1 });
});

test("a run of tests that fails, hangs or cannot start is a failure, and is shown", ["package:coreutils"], async () => {
  const directory = Deno.makeTempDirSync({ prefix: "penne-runs-" });
  const helpers = JSON.stringify(new URL("../lib/helpers.ts", import.meta.url));
  const files: Record<string, string> = {
    good: `test("a", () => {}); test("b", ["kernel:99.0"], () => {});`,
    bad: `test("a", () => {}); test("b", () => { throw new Error("wrong"); });`,
    hangs: `test("a", () => {}); test("b", () => new Promise((end) => setTimeout(end, 600_000)));`,
    broken: "this is no program",
  };
  try {
    for (const [name, text] of Object.entries(files)) {
      Deno.writeTextFileSync(`${directory}/${name}_test.ts`, `import { test } from ${helpers}; ${text}`);
    }
    const ends: Record<string, unknown> = {};
    let shown = "";
    const decoder = new TextDecoder();
    for (const name of Object.keys(files)) {
      const { passed, failed, ignored, failures } = await runTests(name, [`${directory}/${name}_test.ts`], {
        before: name === "hangs" ? ["timeout", "5"] : [],
        env: { PENNE_SKIPPED: "", DENO_NO_UPDATE_CHECK: "1", NO_COLOR: "1" },
        stdin: "null",
        show: (bytes) => shown += decoder.decode(bytes),
      });
      ends[name] = [passed, failed, ignored, failures.map((one) => one.replace(/ => .*/, ""))];
    }
    assertEquals(ends, {
      good: [1, 0, 1, []],
      bad: [1, 1, 0, ["b"]],
      hangs: [0, 1, 0, ["hangs: this run has not come to its end"]],
      broken: [0, 1, 0, ["broken: this run has not come to its end"]],
    });
    assertStringIncludes(shown, "error: Error: wrong");
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

test("what runs side by side is there", () => {
  for (const path of LANES.flatMap(({ paths }) => paths)) Deno.statSync(`${ROOT}${path}`);
});
