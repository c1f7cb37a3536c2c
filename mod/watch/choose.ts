// Opens the best back end there is, by trying, and tells why better ones are not used.

import { SysError } from "../../ffi/core/errno.ts";
import { PenneError } from "../base/errors.ts";
import { openEbpf } from "./ebpf/backend.ts";
import type { Backend, BackendName, Filter } from "./facts/contract.ts";
import { PollBackend } from "./proc/poll.ts";
import { ProcBackend } from "./proc/backend.ts";
import type { Refusal } from "./facts/watch_event.ts";

/** All back ends, the best one first. */
export const BACKENDS: readonly BackendName[] = ["ebpf", "proc", "poll"];

/** Which back end, and how it looks. */
export interface BackendChoice {
  /** One of them and no other, or the best one there is (default). */
  readonly backend?: BackendName | "auto";
  /** Milliseconds between two looks of those that look. */
  readonly interval?: number | undefined;
}

/** A back end that could be opened. */
export interface Chosen {
  readonly backend: Backend;
  /** Better ones. */
  readonly refused: readonly Refusal[];
  /** Why they were. */
  readonly errors: readonly unknown[];
}

function openOne(name: BackendName, filter: Filter, interval: number | undefined): Backend {
  switch (name) {
    case "ebpf":
      return openEbpf(filter);
    case "proc":
      return new ProcBackend(filter, interval);
    case "poll":
      return new PollBackend(filter, interval);
  }
}

/** Whatever stands in the way of one back end leaves the next ones to be tried; a mistake of our own does not. */
function isRefusal(error: unknown): error is SysError | PenneError {
  return error instanceof SysError || error instanceof PenneError;
}

/**
 * Opens a back end.
 *
 * @param filter What is wanted.
 * @param choice Which one.
 * @returns It, and why better ones are not used.
 * @throws {PenneError} If the one that was asked for cannot be opened.
 */
export function openBackend(filter: Filter, { backend = "auto", interval }: BackendChoice = {}): Chosen {
  if (backend !== "auto") {
    try {
      return { backend: openOne(backend, filter, interval), refused: [], errors: [] };
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      throw new PenneError(`watch with the back end ${backend}`, { cause: error });
    }
  }
  const errors: (SysError | PenneError)[] = [];
  for (const name of BACKENDS) {
    try {
      const opened = openOne(name, filter, interval);
      const refused = errors.map((error, i) => ({
        backend: BACKENDS[i]!,
        reason: error.message,
        errno: error.code ?? null,
        hints: [],
      }));
      return { backend: opened, refused, errors };
    } catch (error) {
      if (!isRefusal(error)) throw error;
      errors.push(error);
    }
  }
  throw errors.at(-1);
}

/**
 * Adds to refusals what the user can do about each.
 *
 * @param chosen The back end, and why others are not used.
 * @returns The refusals with their hints.
 */
export async function explainRefusals({ refused, errors }: Chosen): Promise<readonly Refusal[]> {
  return await Promise.all(refused.map(async (refusal, i) => {
    const error = errors[i];
    return { ...refusal, hints: error instanceof PenneError ? await error.hints() : [] };
  }));
}
