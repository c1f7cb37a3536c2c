// The error that penne throws: what could not be done, why, and what the user can do about it.

import { isConfined } from "../../ffi/core/confined.ts";
import { SysError } from "../../ffi/core/errno.ts";
import { concernsHost, type Context, type FailedCall, failedCall } from "./failed_call.ts";
import { visible } from "./visible.ts";

/** All that a confined process can say of a reason. */
const CONFINED = "penne has confined itself, and cannot look for the reason: --no-confine lets it";

/** Details of a {@linkcode PenneError}. */
export interface PenneErrorOptions {
  /** The error behind it. */
  readonly cause?: unknown;
  /** What the user can do, one sentence for each hint. */
  readonly hints?: readonly string[];
  /** Finds more hints; for code that is loaded only after a failure. */
  readonly explain?: () => Promise<readonly string[]>;
  /**
   * What a failed system call was a part of: whether it was made with penne's own rights; whether a tap comes next; whether
   * options of `penne run` may be named.
   */
  readonly context?: { readonly ownRights?: boolean; readonly tap?: boolean; readonly alternatives?: boolean };
  /** Whether the request itself is wrong, so that nothing was tried. */
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
  #context: Context;
  /** Whether the request itself is wrong, so that nothing was tried. */
  readonly usage: boolean;

  /**
   * Describes what could not be done.
   *
   * @param what The action, to be read after "cannot"; without a cause, followed by a colon and the reason.
   * @param options Details.
   */
  constructor(what: string, options?: PenneErrorOptions) {
    const { cause, hints = [], explain, context = {}, usage = false } = options ?? {};
    const reason = cause === undefined ? "" : `: ${reasonOf(cause)}`;
    // A runtime prints an uncaught error as it is.
    super(visible(`cannot ${what}${reason}`), cause === undefined ? undefined : { cause });
    this.#hints = hints;
    this.#explain = explain;
    this.#context = context;
    this.usage = usage;
  }

  /**
   * Finds out what the user can do about it: what this host shows of the cause or, where it shows nothing, what is known
   * about the request.
   *
   * @returns One sentence for each hint.
   */
  async hints(): Promise<readonly string[]> {
    if (isConfined()) return [...this.#hints, ...this.cause || this.#explain ? [CONFINED] : []].map(visible);
    const failed = callBehind(this.cause);
    const found = failed ? (await import("../findings/mod.ts")).hints(failed, this.#context) : [];
    const hints = found.length ? found : [...this.#hints, ...await this.#explain?.() ?? []];
    return hints.map(visible);
  }

  /** Name of the errno, if a system call failed. */
  get code(): string | undefined {
    return this.cause instanceof SysError ? this.cause.code : undefined;
  }
}

/**
 * Makes the error for a request that is itself wrong.
 *
 * @param what The action, to be read after "cannot", a colon and the reason.
 * @param hints What the user can do, one sentence for each hint.
 * @returns The error, to be thrown.
 */
export function usage(what: string, hints: readonly string[] = []): PenneError {
  return new PenneError(what, { usage: true, hints });
}

function reasonOf(cause: unknown): string {
  if (cause instanceof SysError) return `${cause.reason} (${cause.code})`;
  return cause instanceof Error ? cause.message : String(cause);
}

/** The system call behind an error, if one failed and the host may be the reason. */
function callBehind(cause: unknown): FailedCall | null {
  if (cause instanceof PenneError) return callBehind(cause.cause);
  if (!(cause instanceof SysError)) return null;
  const call = failedCall(cause);
  return concernsHost(call) ? call : null;
}

/** Finds out what the user can do about a failed system call. */
export type Explain = (error: SysError) => readonly string[] | Promise<readonly string[]>;

/**
 * Calls a function, and says what it was doing if a system call fails.
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
 * @param what The action, to be read after "cannot".
 * @param body The function.
 * @param hints Finds out what the user can do; called only if hints are read, and the host shows no reason.
 * @param context What the call is a part of.
 * @returns What `body` returns.
 * @throws {PenneError} In place of a SysError.
 */
export function attempt<T>(what: string, body: () => T, hints?: Explain, context: Context = {}): T {
  try {
    return body();
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    throw new PenneError(what, { cause: error, context, explain: async () => await hints?.(error) ?? [] });
  }
}
