// Types of that part of @std/cli/parse-args which penne uses.

/** Options of {@linkcode parseArgs}. */
export interface ParseOptions {
  /** Names of options without a value. */
  readonly boolean?: readonly string[];
  /** Names of options whose value is a string. */
  readonly string?: readonly string[];
  /** Names of options that may be given several times. */
  readonly collect?: readonly string[];
  /** Other names of options. */
  readonly alias?: Readonly<Record<string, string>>;
  /** Whether everything from the first argument that is no option belongs to `_`. */
  readonly stopEarly?: boolean;
}

/** Takes a command line apart. */
export declare function parseArgs(
  args: string[],
  options?: ParseOptions,
): { _: (string | number)[] } & Record<string, unknown>;
