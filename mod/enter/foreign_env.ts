// The environment of a process that is not trusted: what programs load code by is left out; pure.
//
// A command that is a program of the host, or runs as a user of the host, must not load what another process asks for. That
// process chooses every byte of its environment. What the C library itself ignores in programs that gain privileges is left
// out, ld.so(8), and what shells and interpreters load code by. Where commands and start-up files are found is the caller's.
// No list can be complete; what is on this one, root need not think of.

import type { EnvironmentEntry } from "../host/caller.ts";

/** Variables that the C library ignores in secure mode. */
const OF_LIBRARY = [
  "GCONV_PATH",
  "GETCONF_DIR",
  "GLIBC_TUNABLES",
  "HOSTALIASES",
  "LOCALDOMAIN",
  "LOCPATH",
  "NIS_PATH",
  "NLSPATH",
  "RESOLV_HOST_CONF",
  "RES_OPTIONS",
  "TMPDIR",
  "TZDIR",
];

/** Variables by which shells, terminals' libraries and interpreters load files or run code. */
const OF_PROGRAMS = [
  "BASHOPTS",
  "BASH_ENV",
  "CDPATH",
  "CLASSPATH",
  "ENV",
  "FPATH",
  "GLOBIGNORE",
  "IFS",
  "JAVA_TOOL_OPTIONS",
  "JDK_JAVA_OPTIONS",
  "LESSCLOSE",
  "LESSOPEN",
  "PROMPT_COMMAND",
  "PS4",
  "RUBYLIB",
  "RUBYOPT",
  "SHELLOPTS",
  "TERMCAP",
  "TERMINFO",
  "TERMINFO_DIRS",
  "TERMPATH",
  "ZDOTDIR",
  "_JAVA_OPTIONS",
];

/** Beginnings of such names. */
const PREFIXES = [
  "LD_",
  "MALLOC_",
  "MUSL_",
  "BASH_FUNC_",
  "GIT_",
  "LUA_",
  "NODE_",
  "OPENSSL_",
  "PERL",
  "PYTHON",
  "XDG_",
];

const UNSAFE = new Set([...OF_LIBRARY, ...OF_PROGRAMS]);
/** Where commands, start-up files and the login shell are found: these are the caller's. */
const CALLERS = ["HOME", "PATH", "SHELL"];

function isUnsafe(name: string): boolean {
  return UNSAFE.has(name) || PREFIXES.some((prefix) => name.startsWith(prefix));
}

/** An environment without what programs load code by. */
export interface TamedEnvironment {
  /** Its entries. */
  readonly entries: EnvironmentEntry[];
  /** The names of the variables that were left out, or that have another value in it, each once. */
  readonly dropped: readonly string[];
}

/**
 * Leaves out of an environment what programs load code by.
 *
 * @example
 * ```ts
 * import { tame } from "./foreign_env.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const [bytes, text] = [new TextEncoder(), new TextDecoder()];
 * const entries = (...all: string[]) => all.map((entry) => bytes.encode(entry));
 * const tamed = tame(entries("A=1", "LD_PRELOAD=/tmp/x", "PATH=/tmp"), entries("PATH=/bin", "B=2"));
 * assertEquals(tamed.entries.map((entry) => text.decode(entry)), ["PATH=/bin", "A=1"]);
 * assertEquals(tamed.dropped, ["LD_PRELOAD", "PATH"]);
 * ```
 *
 * @param foreign The environment.
 * @param callers The environment of the caller.
 * @returns What is left of it.
 */
export function tame(foreign: readonly EnvironmentEntry[], callers: readonly EnvironmentEntry[]): TamedEnvironment {
  const decoder = new TextDecoder();
  const nameOf = (entry: EnvironmentEntry) => decoder.decode(entry).split("=", 1)[0]!;
  const own = callers.filter((entry) => CALLERS.includes(nameOf(entry)));
  const known = new Set(own.map((entry) => decoder.decode(entry)));
  const dropped = new Set<string>();
  const entries = foreign.filter((entry) => {
    const name = nameOf(entry);
    const replaced = CALLERS.includes(name);
    if (replaced ? !known.has(decoder.decode(entry)) : isUnsafe(name)) dropped.add(name);
    return !replaced && !isUnsafe(name);
  });
  return { entries: [...own, ...entries], dropped: [...dropped] };
}
