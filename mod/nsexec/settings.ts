// The variables that the caller of a bootstrap puts into the environment.

import { F } from "../../ffi/core/consts.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { self } from "../../ffi/core/task.ts";
import { type EnvironmentEntry, variable } from "../host/caller.ts";
import type { Dialect } from "./message.ts";
import { byteString } from "./log.ts";

/** A variable with a malformed value. */
export class SettingError extends Error {
  /** Always "SettingError". */
  override readonly name = "SettingError";
}

/** Returns a variable's value byte by byte, see {@linkcode byteString}; undefined if it is empty. */
function value(environment: readonly EnvironmentEntry[], name: string): string | undefined {
  const bytes = environment.map(byteString).find((entry) => entry.startsWith(`${name}=`));
  return bytes?.slice(name.length + 1) || undefined;
}

/** Returns a variable's value as a number, as strtol(3) reads it; null if it is not set or empty. */
function number(environment: readonly EnvironmentEntry[], name: string, dialect: Dialect): number | null {
  const text = value(environment, name);
  if (text === undefined) return null;
  if (!/^[ \t\n\v\f\r]*[+-]?\d{1,18}$/.test(text)) {
    const shown = dialect !== "seed" ? `=${text}` : name === LOG_PIPE ? `, value: ${text}` : "";
    throw new SettingError(`unable to parse ${name}${shown}`);
  }
  const parsed = Number(text);
  if (parsed < 0 || parsed > 2 ** 31 - 1) throw new SettingError(`bad value for ${name}=${text} (${parsed})`);
  return parsed;
}

const INIT_PIPE = "_LIBCONTAINER_INITPIPE";
const LOG_PIPE = "_LIBCONTAINER_LOGPIPE";
const LOG_LEVEL = "_LIBCONTAINER_LOGLEVEL";
const MOUNT_FDS = "_LIBCONTAINER_MOUNT_FDS";

/**
 * Takes a descriptor that the caller has passed on.
 *
 * A descriptor that closes on exec belongs to Deno's runtime, whatever its number, and must not be touched.
 *
 * @param number Its number.
 * @returns The descriptor, or null if the caller has not passed it on.
 */
function inherited(number: number): Fd | null {
  const flags = self.raw("fcntl", number, F.GETFD);
  return flags < 0 || (flags & F.FD_CLOEXEC && number > 2) ? null : new Fd(number);
}

/**
 * Tests whether the environment asks for a bootstrap.
 *
 * @example
 * ```ts
 * import { isBootstrap } from "./settings.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(isBootstrap([new TextEncoder().encode("_LIBCONTAINER_INITPIPE=3")]), true);
 * assertEquals(isBootstrap([new TextEncoder().encode("_LIBCONTAINER_INITPIPE=")]), false);
 * ```
 *
 * @param environment The environment.
 * @returns True if it does.
 */
export function isBootstrap(environment: readonly EnvironmentEntry[]): boolean {
  return value(environment, INIT_PIPE) !== undefined;
}

/**
 * Returns the dialect that the environment asks for.
 *
 * @param environment The environment.
 * @returns PENNE_NSEXEC_DIALECT, or undefined if it is not set.
 */
export function dialectVariable(environment: readonly EnvironmentEntry[]): string | undefined {
  return variable(environment, "PENNE_NSEXEC_DIALECT") || undefined;
}

/**
 * Returns the pipe and the level of the log.
 *
 * @param environment The environment.
 * @param dialect The dialect of the protocol.
 * @returns The pipe, or null without one; the greatest number of logrus to log, or undefined for all.
 * @throws {SettingError} If a variable is not a number.
 */
export function logSettings(
  environment: readonly EnvironmentEntry[],
  dialect: Dialect,
): { pipe: Fd | null; level: number | undefined } {
  const pipe = number(environment, LOG_PIPE, dialect);
  if (pipe === null) return { pipe: null, level: undefined };
  const level = dialect === "seed" ? null : number(environment, LOG_LEVEL, dialect);
  return { pipe: inherited(pipe), level: level ?? undefined };
}

/**
 * Returns the pipe on which the message arrives.
 *
 * @param environment The environment.
 * @param dialect The dialect of the protocol.
 * @returns The pipe.
 * @throws {SettingError} If the variable is not a number, or the caller has not passed on that descriptor.
 */
export function initPipe(environment: readonly EnvironmentEntry[], dialect: Dialect): Fd {
  const fd = number(environment, INIT_PIPE, dialect)!;
  const pipe = inherited(fd);
  if (pipe === null) throw new SettingError(`bad value for ${INIT_PIPE}=${fd} (not an open descriptor)`);
  return pipe;
}

/**
 * Returns the numbers under which stage 2 expects mount sources, one for each (dialect 1.1).
 *
 * @param environment The environment.
 * @returns The numbers; -1 where no source is expected.
 * @throws {SettingError} If the variable is not a list of numbers in brackets.
 */
export function mountFds(environment: readonly EnvironmentEntry[]): readonly number[] {
  const text = value(environment, MOUNT_FDS) ?? "";
  const bad = (reason: string) => new SettingError(`malformed ${MOUNT_FDS} env var: ${reason}`);
  if (!text.startsWith("[")) throw bad("missing '['");
  const end = text.indexOf("]");
  if (end < 0) throw bad("missing ]");
  const list = text.slice(1, end);
  return list === "" ? [] : list.split(",").map((word) => {
    if (!/^\s*[+-]?\d+$/.test(word)) throw bad("not a number");
    const fd = Number(word);
    if (fd < -1 || fd > 2 ** 31 - 1) throw bad("fds out of range");
    return fd;
  });
}
