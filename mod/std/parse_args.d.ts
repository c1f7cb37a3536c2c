// Types for the part of @std/cli/parse-args that penne uses.

/** Options of {@linkcode parseArgs}. */
export interface ParseOptions {
  /** Names of switches. */
  readonly boolean?: readonly string[];
  /** Names of options with a string value. */
  readonly string?: readonly string[];
  /** Names of options whose values are all collected. */
  readonly collect?: readonly string[];
}

/** Parses a command line. */
export declare function parseArgs(
  args: string[],
  options?: ParseOptions,
): { _: (string | number)[] } & Record<string, unknown>;
