// Looks up what the plan of a request to run a command depends on.

import { attempt } from "../base/errors.ts";
import { caller, environment, variable } from "../host/caller.ts";
import { userOf } from "../host/passwd.ts";
import { subIds } from "../idmap/subid.ts";
import { readNetwork } from "../network/host.ts";
import type { RunFacts, RunOptions } from "./plan.ts";

/**
 * Looks up the facts that a request needs; others are empty.
 *
 * @param options The request.
 * @param who The process that is to own the namespaces; this process by default.
 * @returns The facts, for `planRun`.
 * @throws {PenneError} If a look-up fails.
 */
export function readFacts(options: RunOptions, who: RunFacts["caller"] = caller()): RunFacts {
  const inherited = options.clearEnv ? [] : environment();
  const auto = options.map?.mode === "auto";
  const shell = options.command?.length || (options.env?.["SHELL"] ?? variable(inherited, "SHELL"));
  const user = auto || !shell ? userOf(who.uid) : null;
  const granted = (kind: "user" | "group") => auto ? subIds(kind, who.uid, user?.name ?? null) : [];
  return {
    caller: who,
    environment: inherited,
    user,
    subIds: { users: granted("user"), groups: granted("group") },
    network: options.net === "tap"
      ? attempt("look at the host's network", () => readNetwork())
      : { links: [], ipv4: null, ipv6: null },
  };
}
