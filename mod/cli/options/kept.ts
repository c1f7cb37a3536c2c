// Options for which kept set is meant, and when it is stale.

import type { WhichSet } from "../../kept/find.ts";
import type { StaleOptions } from "../../kept/staleness.ts";
import { log } from "../report/log.ts";
import type { OptionSpec, OptionValues } from "./table.ts";
import { defined, parseUser, wordOption } from "./values.ts";

/** Where a set is kept, and for which user. */
export const PLACE_OPTIONS = [
  { name: "user", value: "USER", help: "The set that root keeps for this user, by name or id" },
  {
    name: "layout",
    value: "LAYOUT",
    help: "File layout: penne (default), or snap, that of snap-confine, which keeps only a mnt namespace",
  },
  {
    name: "dir",
    value: "DIR",
    help:
      "Keep sets below DIR, in the mount namespace of penne (default: /run/penne or $XDG_RUNTIME_DIR/penne, in that of PID 1)",
  },
] as const satisfies readonly OptionSpec[];

/** What makes a set stale. */
export const STALE_OPTIONS = [
  {
    name: "base",
    value: "PATH",
    help: "Path that the set is built on: the set is stale if PATH differs, or is now on another device",
  },
  { name: "key", value: "VALUE", help: "Any value: the set is stale if VALUE differs" },
] as const satisfies readonly OptionSpec[];

/**
 * The set that a command line means.
 *
 * @param options The parsed options.
 * @returns The request, for the functions in `mod/kept`.
 * @throws {PenneError} A usage error.
 */
export function whichSet(
  options: OptionValues<typeof PLACE_OPTIONS> & OptionValues<typeof STALE_OPTIONS>,
): WhichSet & StaleOptions {
  const { user } = options;
  return {
    ...defined({
      user: user === undefined ? undefined : parseUser("user", user),
      layout: wordOption(options, "layout", ["penne", "snap"]),
      directory: options.dir,
      base: options.base,
      key: options.key,
    }),
    onWarning: (message) => log().warn(message),
  };
}
