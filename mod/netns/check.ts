// Checks targets that come from JavaScript; pure.

import { type Check, either, list, text, whole } from "../base/check.ts";

/** Targets: strings, or PIDs. */
export const checkTargets: Check = list(either("a string, or a PID", text, whole));
