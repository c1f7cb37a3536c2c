// Options on which kept set is meant, for every command that deals with them.

import { PenneError } from "../../base/errors.ts";
import { userOf } from "../../host/passwd.ts";
import type { StaleOptions, WhichSet } from "../../kept/open.ts";
import { log } from "../report/log.ts";
import type { OptionSpec, ParsedOptions } from "./table.ts";
import { optional, wordOption } from "./values.ts";

/** Where a set is, and whose. */
export const PLACE_OPTIONS: readonly OptionSpec[] = [
  { name: "user", value: "USER", help: "The set that root keeps for that user, by name or id" },
  {
    name: "layout",
    value: "LAYOUT",
    help: "Whose files: penne (default) or snap, those of snap-confine, which keep a mnt namespace alone",
  },
  {
    name: "dir",
    value: "DIR",
    help:
      "Keep sets below DIR, in penne's own mount namespace (default: /run/penne, for users $XDG_RUNTIME_DIR/penne, in that of PID 1)",
  },
];

/** What makes a set stale. */
export const STALE_OPTIONS: readonly OptionSpec[] = [
  {
    name: "base",
    value: "PATH",
    help: "What it is built on: stale when PATH is on another device than then; another PATH is another set",
  },
  { name: "key", value: "VALUE", help: "A value of your own: another VALUE is another set" },
];

/** A user by name or id. */
function userId(text: string): number {
  if (/^\d{1,10}$/.test(text) && Number(text) < 2 ** 32 - 1) return Number(text);
  const user = userOf(text);
  if (user) return user.uid;
  throw new PenneError(`use --user "${text}": there is no such user`, { usage: true });
}

/**
 * Which set the options mean.
 *
 * @param options The command line.
 * @returns The request, for the functions in `mod/kept`.
 * @throws {PenneError} A usage error.
 */
export function whichSet(options: ParsedOptions): WhichSet & StaleOptions {
  const user = options.get("user");
  return {
    ...optional("user", user === undefined ? undefined : userId(user)),
    ...optional("layout", wordOption(options, "layout", ["penne", "snap"] as const)),
    ...optional("directory", options.get("dir")),
    ...optional("base", options.get("base")),
    ...optional("key", options.get("key")),
    onWarning: (message) => log().warn(message),
  };
}

/**
 * The one NAME of a command line.
 *
 * @param options The command line.
 * @param command The command, for the error.
 * @returns The name.
 * @throws {PenneError} A usage error if there is none, or more than one.
 */
export function oneName(options: ParsedOptions, command: string): string {
  const [name, ...more] = options.rest;
  if (name === undefined) throw new PenneError(`${command}: no NAME was given`, { usage: true });
  if (more.length) {
    throw new PenneError(`${command} more than one NAME at a time: "${more[0]}" is too much`, { usage: true });
  }
  return name;
}
