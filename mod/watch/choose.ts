// Opens the best back end that works, and reports why better ones do not.

import { SysError } from "../../ffi/core/errno.ts";
import { PenneError } from "../base/errors.ts";
import { openEbpf } from "./ebpf/backend.ts";
import type { Backend, BackendName, Filter } from "./facts/contract.ts";
import type { Refusal } from "./facts/watch_event.ts";
import { ProcBackend } from "./proc/backend.ts";
import { PollBackend } from "./proc/poll.ts";
import type { ProcOptions } from "./proc/table.ts";

/** Opens each back end, the best one first. */
const OPEN: Readonly<Record<BackendName, (filter: Filter, options: ProcOptions) => Backend>> = {
  ebpf: (filter) => openEbpf(filter),
  proc: (_, options) => new ProcBackend(options),
  poll: (_, options) => new PollBackend(options),
};

/** All back ends, the best one first. */
export const BACKENDS = Object.keys(OPEN) as BackendName[];

/** Which back end to open, and options of those that read /proc. */
export interface BackendChoice extends ProcOptions {
  /** A back end, or `auto` for the best one that works (default). */
  readonly backend?: BackendName | "auto" | undefined;
}

/** An open back end. */
export interface Chosen {
  readonly backend: Backend;
  /** Better back ends that could not be opened. */
  readonly refused: readonly Refusal[];
  /** The errors of those. */
  readonly errors: readonly unknown[];
}

/**
 * Opens a back end.
 *
 * @param filter Which facts are wanted.
 * @param choice Which back end.
 * @returns The back end, and why better ones are not used.
 * @throws {PenneError} If the back end that was asked for cannot be opened.
 */
export function openBackend(filter: Filter, choice: BackendChoice = {}): Chosen {
  const { backend = "auto" } = choice;
  if (backend !== "auto") {
    try {
      return { backend: OPEN[backend](filter, choice), refused: [], errors: [] };
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      throw new PenneError(`watch with the back end ${backend}`, { cause: error });
    }
  }
  const errors: (SysError | PenneError)[] = [];
  const refused: Refusal[] = [];
  for (const name of BACKENDS) {
    try {
      return { backend: OPEN[name](filter, choice), refused, errors };
    } catch (error) {
      if (!(error instanceof SysError || error instanceof PenneError)) throw error; // a bug
      errors.push(error);
      refused.push({ backend: name, reason: error.message, errno: error.code ?? null, hints: [] });
    }
  }
  throw errors.at(-1);
}

/**
 * Adds hints to refusals.
 *
 * @param chosen The open back end.
 * @returns The refusals, each with what the user can do about it.
 */
export async function explainRefusals({ refused, errors }: Chosen): Promise<readonly Refusal[]> {
  return await Promise.all(refused.map(async (refusal, i) => {
    const error = errors[i];
    return { ...refusal, hints: error instanceof PenneError ? await error.hints() : [] };
  }));
}
