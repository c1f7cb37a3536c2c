// Short forms of outcomes.

import type { Outcome } from "../check.ts";

/** Works everywhere, and prints these. */
export function works(...sees: (string | RegExp)[]): Outcome[] {
  return [{ sees }];
}

/** Ends everywhere with a code, and prints these. */
export function fails(code: number, ...sees: (string | RegExp)[]): Outcome[] {
  return [{ code, sees }];
}
