// What the caller of a bootstrap has put into the environment.

import { F } from "../../ffi/core/consts.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { self } from "../../ffi/core/task.ts";
import { type EnvironmentEntry, variable } from "../host/caller.ts";
import type { Dialect } from "./message.ts";
import { byteString } from "./log.ts";

/** A variable that cannot be what it is. */
export class SettingError extends Error {
  /** Always "SettingError". */
  override readonly name = "SettingError";
}

/** A variable's value byte by byte, see {@linkcode byteString}; undefined if it is empty. */
function value(environment: readonly EnvironmentEntry[], name: string): string | undefined {
  const bytes = environment.map(byteString).find((entry) => entry.startsWith(`${name}=`));
  return bytes?.slice(name.length + 1) || undefined;
}

/** A variable that is a number, as strtol(3) reads it; null if it is not set or empty. */
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
 * A descriptor that the caller has passed on.
 *
 * One that closes on exec is the runtime's own, whatever its number, and must not be touched.
 *
 * @param number Its number.
 * @returns The descriptor; null if the caller has passed on none of that number.
 */
function inherited(number: number): Fd | null {
  const flags = self.raw("fcntl", number, F.GETFD);
  return flags < 0 || (flags & F.FD_CLOEXEC && number > 2) ? null : new Fd(number);
}

/**
 * Whether a bootstrap is asked for.
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
 * @returns Whether it is.
 */
export function isBootstrap(environment: readonly EnvironmentEntry[]): boolean {
  return value(environment, INIT_PIPE) !== undefined;
}

/**
 * The dialect that the environment asks for.
 *
 * @param environment The environment.
 * @returns PENNE_NSEXEC_DIALECT, or undefined if it is not set.
 */
export function dialectVariable(environment: readonly EnvironmentEntry[]): string | undefined {
  return variable(environment, "PENNE_NSEXEC_DIALECT") || undefined;
}

/**
 * The pipe of the log, and how much of it is wanted.
 *
 * @param environment The environment.
 * @param dialect How the protocol is spoken.
 * @returns The pipe, or null if there is none; the greatest of logrus's numbers to log, if it is limited.
 * @throws {SettingError} If a variable is no number.
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
 * The pipe that the message comes through.
 *
 * @param environment The environment.
 * @param dialect How the protocol is spoken.
 * @returns The pipe.
 * @throws {SettingError} If the variable is no number, or the caller has passed on no descriptor of that number.
 */
export function initPipe(environment: readonly EnvironmentEntry[], dialect: Dialect): Fd {
  const fd = number(environment, INIT_PIPE, dialect)!;
  const pipe = inherited(fd);
  if (pipe === null) throw new SettingError(`bad value for ${INIT_PIPE}=${fd} (not an open descriptor)`);
  return pipe;
}

/**
 * The numbers under which stage 2 expects mount sources, one for each (dialect 1.1).
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
