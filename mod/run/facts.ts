// Looks up what the plan of a request to run a command depends on.

import { readText } from "../../ffi/sys/file.ts";
import { call, self } from "../../ffi/core/task.ts";
import { attempt } from "../base/errors.ts";
import { caller, environment, variable } from "../host/caller.ts";
import type { MapFacts } from "../idmap/plan.ts";
import { readNetwork } from "../network/host.ts";
import { lookUpUser, userOf } from "../users/lookup.ts";
import { lookUpSubIds } from "../users/subid.ts";
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
  const found = auto ? lookUpUser(who.uid) : null;
  const granted = (kind: "user" | "group") => lookUpSubIds(kind, who.uid, found?.user?.name ?? null);
  const map: MapFacts | null = auto && found ? { user: found, users: granted("user"), groups: granted("group") } : null;
  return {
    caller: who,
    uid: call(self, "geteuid"),
    lookUp: userOf,
    environment: inherited,
    user: found ? found.user : shell ? null : userOf(who.uid),
    map,
    network: options.net === "tap"
      ? attempt("look at the host's network", () => readNetwork(options.network))
      : { links: [], ipv4: null, ipv6: null },
    hostname: options.net === "tap" && options.hostname !== undefined
      ? attempt("read the host's name", () => readText(self, "/proc/sys/kernel/hostname").trim())
      : "",
    mountinfo: options.keepViews ? "" : attempt("look at the mounts", () => readText(self, "/proc/self/mountinfo")),
  };
}
