// Whether a call that waits on a pool thread keeps the program from exiting.
//
// Deno lets its own resources go by unref(), but has no such method for calls through FFI. What its own unref() uses can be
// reached, though nobody promises it. Where it cannot, the call keeps the program, as every call through FFI does.

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
