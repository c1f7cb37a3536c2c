// The checks of the gate that read the sources: imports, sizes, documents, spelling and the format of C.
//
// A program that is missing is one line and a skip; with CI=true it is a failure.

import { checkDocuments } from "./checks/documents.ts";
import { checkImports } from "./checks/imports.ts";
import { checkSizes } from "./checks/sizes.ts";
import { checkTests } from "./checks/tests.ts";
import { checkFormatOfC, checkManualPages, checkSpelling, type ToolResult } from "./checks/tools.ts";
import { LAYERS } from "./layers.ts";

const root = new URL("..", import.meta.url).pathname.replace(/\/$/, "");
const CHECKS: [string, () => string[] | ToolResult][] = [
  ["imports", () => checkImports(root, LAYERS)],
  ["sizes of files and folders", () => checkSizes(root)],
  ["tests", () => checkTests(root)],
  ["paths in documents", () => checkDocuments(root)],
  ["manual pages", () => checkManualPages(root)],
  ["spelling", () => checkSpelling(root)],
  ["format of C", () => checkFormatOfC(root)],
];

let failed = 0;
for (const [name, check] of CHECKS) {
  const result = check();
  if ("missing" in result) {
    const word = Deno.env.get("CI") === "true" ? "failed" : "skipped";
    console.error(`check: ${name}: ${word}: ${result.missing} is not installed`);
    if (word === "failed") failed++;
    continue;
  }
  const problems = Array.isArray(result) ? result : result.problems;
  for (const problem of problems) console.error(`check: ${name}: ${problem}`);
  if (problems.length) failed++;
}
console.error(failed ? `check: ${failed} of ${CHECKS.length} checks failed` : `check: ${CHECKS.length} checks passed`);
Deno.exit(failed ? 1 : 0);
