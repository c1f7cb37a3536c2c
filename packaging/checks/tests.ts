// Checks of the tests: each is registered by `test()` of tests/lib/helpers.ts, which says what is missing and looks for leaks.

import { readModules, withoutComments } from "./modules.ts";

/** Where the runner's own function is called: the one place that wraps it. */
const WRAPPER = "tests/lib/helpers.ts";

/** All tests that the leak tracer would not see. */
export function checkTests(root: string): string[] {
  return readModules(root, ["tests"])
    .filter(({ path, text }) => path !== WRAPPER && /\bDeno\.test[.(]/.test(withoutComments(text)))
    .map(({ path }) => `${path} calls Deno.test; test() of ${WRAPPER} looks for leaks`);
}
