// Whether a call that waits on a pool thread, or a Worker, keeps the program from exiting.
//
// Deno lets its own resources go by unref(), but has no such method for calls through FFI and for web Workers. What its own
// unref() uses can be reached, though nobody promises it. Where it cannot, the call or Worker keeps the program.

/** The part of Deno's runtime that this uses. */
interface Runtime {
  readonly refOpPromise?: (promise: Promise<unknown>) => void;
  readonly unrefOpPromise?: (promise: Promise<unknown>) => void;
}

function runtime(): Runtime {
  const { internal } = Deno as unknown as { internal?: symbol };
  if (internal === undefined) return {};
  return (Deno as unknown as Record<symbol, { core?: Runtime } | undefined>)[internal]?.core ?? {};
}

/**
 * Says whether a pending call keeps the program from exiting; it does by default.
 *
 * @param promise What the call has returned.
 * @param keeps Whether it keeps the program.
 */
export function keepProgram(promise: Promise<unknown>, keeps: boolean): void {
  const { refOpPromise, unrefOpPromise } = runtime();
  (keeps ? refOpPromise : unrefOpPromise)?.(promise);
}

/**
 * Says whether a Worker keeps the program from exiting; it does by default.
 *
 * @param worker The Worker.
 * @param keeps Whether it keeps the program.
 */
export function keepProgramForWorker(worker: Worker, keeps: boolean): void {
  // The method behind ref() and unref() of node:worker_threads is named by a symbol without a description.
  const name = Object.getOwnPropertySymbols(Worker.prototype).find(({ description }) => description === undefined);
  const method = name && (worker as unknown as Record<symbol, unknown>)[name];
  if (typeof method === "function") method.call(worker, keeps);
}
