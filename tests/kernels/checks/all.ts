// The table of checks.

import type { Check } from "../check.ts";
import { JOIN } from "./join.ts";
import { KEPT } from "./kept.ts";
import { LIST } from "./list.ts";
import { OTHER } from "./other.ts";
import { RUN } from "./run.ts";
import { WATCH } from "./watch.ts";

/** All checks. */
export const CHECKS: readonly Check[] = [...RUN, ...JOIN, ...KEPT, ...WATCH, ...OTHER, ...LIST];
