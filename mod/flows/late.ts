// Loads the code that tells of flows, when somebody asks for the first time.

/** The code. */
export type Streams = typeof import("./stream.ts");

/**
 * Loads it; again, it is there already. A process that confines itself loads it before that.
 *
 * @returns The code.
 */
export function loadStreams(): Promise<Streams> {
  return import("./stream.ts");
}
