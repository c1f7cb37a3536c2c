// `penne enter` with the code for kept sets.

import { openKept } from "../kept/open.ts";
import { enterCommand } from "./enter.ts";

/** `penne enter` of a kept set. */
export const start = enterCommand(openKept);
