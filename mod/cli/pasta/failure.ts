// Errors in pasta's words, and how they are told: on stderr, with exit code 1 whatever has happened.

import type { SysError } from "../../../ffi/core/errno.ts";
import { PenneError } from "../../base/errors.ts";
import { explainError } from "../common/command.ts";
import { log } from "../report/log.ts";

/** Exit code of every error. */
export const FAILURE = 1;

/** An error in pasta's words, which programs and people look for. */
export class PastaError extends PenneError {
  /** The lines to print. */
  readonly lines: readonly string[];

  /**
   * @param lines The lines to print.
   * @param cause The error behind it.
   * @param explain Finds hints.
   */
  constructor(lines: readonly string[], cause?: SysError, explain?: () => Promise<readonly string[]>) {
    super(lines.join("; "), { cause, ...explain && { explain } });
    this.lines = lines;
  }
}

/**
 * Reports an error.
 *
 * @param error The error.
 * @returns The exit code.
 */
export async function tell(error: unknown): Promise<number> {
  if (error instanceof PastaError) {
    const [first = "", ...rest] = error.lines;
    const hints = await error.hints().catch(() => []); // the message matters more
    log().warn(first, ...rest, ...hints.map((hint) => `hint: ${hint}`));
  } else await explainError(error, FAILURE);
  return FAILURE;
}
