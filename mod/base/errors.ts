// What penne throws: what could not be done, why, and what to do about it.

import { SysError } from "../../ffi/core/errno.ts";

/** How a {@linkcode PenneError} came about. */
export interface PenneErrorOptions {
  /** The error behind it. */
  readonly cause?: unknown;
  /** What the user can do, a sentence each. */
  readonly hints?: readonly string[];
  /** Finds out what the user can do, if that takes code which is better not loaded before something has gone wrong. */
  readonly explain?: () => Promise<readonly string[]>;
  /** Whether the request itself was wrong, so that nothing has been tried. */
  readonly usage?: boolean;
}

/**
 * Something penne could not do.
 *
 * @example
 * ```ts
 * import { PenneError } from "./errors.ts";
 * import { SysError } from "../../ffi/core/errno.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const error = new PenneError("mount /proc", { cause: new SysError("mount", 1) });
 * assertEquals(error.message, "cannot mount /proc: Operation not permitted (EPERM)");
 * ```
 */
export class PenneError extends Error {
  /** Always "PenneError". */
  override readonly name = "PenneError";
  #hints: readonly string[];
  #explain: (() => Promise<readonly string[]>) | undefined;
  /** Whether the request itself was wrong, so that nothing has been tried. */
  readonly usage: boolean;

  /**
   * Says what could not be done.
   *
   * @param what What could not be done, to be read after "cannot"; the reason, if there is no cause, after a colon.
   * @param options The cause, hints, and whether it is the request that is wrong.
   */
  constructor(what: string, options: PenneErrorOptions = {}) {
    const { cause } = options;
    const reason = cause === undefined ? "" : `: ${reasonOf(cause)}`;
    super(`cannot ${what}${reason}`, cause === undefined ? undefined : { cause });
    this.#hints = options.hints ?? [];
    this.#explain = options.explain;
    this.usage = options.usage ?? false;
  }

  /**
   * What the user can do about it.
   *
   * @returns A sentence each.
   */
  async hints(): Promise<readonly string[]> {
    return [...this.#hints, ...await this.#explain?.() ?? []];
  }

  /** Name of the errno behind it, if it was a syscall that failed. */
  get code(): string | undefined {
    return this.cause instanceof SysError ? this.cause.code : undefined;
  }
}

/**
 * Makes the error for a request that is itself wrong.
 *
 * @param what What cannot be done, and after a colon why.
 * @param hints What the user can do, a sentence each.
 * @returns The error, to be thrown.
 */
export function usage(what: string, hints: readonly string[] = []): PenneError {
  return new PenneError(what, { usage: true, hints });
}

function reasonOf(cause: unknown): string {
  if (cause instanceof SysError) return `${cause.reason} (${cause.code})`;
  return cause instanceof Error ? cause.message : String(cause);
}

/** Finds out what the user can do about a failed syscall. */
export type Explain = (error: SysError) => readonly string[] | Promise<readonly string[]>;

/**
 * Does something, and says what it was if a syscall fails.
 *
 * @example
 * ```ts
 * import { attempt, PenneError } from "./errors.ts";
 * import { open } from "../../ffi/sys/file.ts";
 * import { self } from "../../ffi/core/task.ts";
 * import { assertThrows } from "@std/assert";
 *
 * assertThrows(
 *   () => attempt("open the door", () => open(self, "/no/such", 0), () => ["Ring the bell"]),
 *   PenneError,
 *   "cannot open the door: No such file or directory (ENOENT)",
 * );
 * ```
 *
 * @param what What it is, to be read after "cannot".
 * @param body Does it.
 * @param hints Finds out what the user can do; called only when somebody asks.
 * @returns What `body` returns.
 * @throws {PenneError} In place of a SysError.
 */
export function attempt<T>(what: string, body: () => T, hints?: Explain): T {
  try {
    return body();
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    throw new PenneError(what, { cause: error, explain: async () => await hints?.(error) ?? [] });
  }
}
