// `penne enter` as the program loads it: the code for kept sets is loaded only when the target names one.
//
// Each bundle has its own copies of all classes, so `enter_kept.ts` is given the words of the command line and nothing else.

import { enterCommand } from "./enter.ts";

/** `penne enter`. */
export const start = enterCommand(() => {
  throw new RangeError("The target is not a kept set");
}, async (args) => await (await import("./enter_kept.ts")).start(args));
