// What a trial of the survey throws when it knows itself why something is refused.

import type { Finding } from "../finding.ts";

/** Something is refused, and why is known. */
export class Refusal extends Error {
  /**
   * @param errno Name of the error; null without one.
   * @param findings Why, most important first.
   */
  constructor(readonly errno: string | null, readonly findings: readonly Finding[]) {
    super("Refused");
  }
}
