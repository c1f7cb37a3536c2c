// Keeps namespaces under a name, for any Deno program.

import type { ExitStatus } from "../run/reports.ts";
import { RelayDriver } from "../run/relayed.ts";
import { startChild } from "../run/start.ts";
import type { RunOptions } from "../run/plan.ts";
import { keepProcess, prepareSetUp } from "./preserve.ts";
import type { KeepOptions } from "./reservation.ts";

export { drop, dropAll, type DropOptions, type Dropped } from "./discard.ts";
export type { WhichSet } from "./find.ts";
export { inspect, inspectAll, type InspectedNamespace, type Inspection } from "./inspection.ts";
export type { Occupant } from "./occupied.ts";
export { type OpenKept, openKept } from "./open.ts";
export type { ProcessIdentity } from "./record/identity.ts";
export type { Base, KeptBy, KeptInfo, KeptNamespace, SparseInfo } from "./record/info.ts";
export type { LayoutName } from "./record/layout.ts";
export type { Verdict, Vote } from "./record/stale.ts";
export type { StaleOptions } from "./staleness.ts";
export type { KeepOptions };

/** The namespaces to keep: those of a process, or new ones. */
export type KeepRequest =
  & KeepOptions
  & ({
    /** The process. */
    readonly pid: number;
  } | {
    /** The set-up command and its namespaces; `net` is "none" or "host". */
    readonly setUp: RunOptions;
    /** Milliseconds after which the command is killed; never by default, or after 5 minutes if another user controls it. */
    readonly timeout?: number;
  });

/** The result of {@linkcode keep}. */
export interface KeepResult {
  /** Whether a set has the name now. */
  readonly kept: boolean;
  /** How the set-up command ended; null if none ran. */
  readonly status: ExitStatus | null;
}

/**
 * Keeps namespaces under a name: those of a process, or new ones if a set-up command succeeds in them.
 *
 * They outlive this program. As root they are mounted in /run/penne/ns; without privilege a process of 20 kB stays in them.
 *
 * @example
 * ```ts
 * import { drop, inspect, keep } from "./mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const directory = Deno.makeTempDirSync({ dir: Deno.uid() === 0 ? "/run" : undefined });
 * Deno.chmodSync(directory, 0o700);
 * const { kept } = await keep("example", { directory, setUp: { command: ["true"], unshare: ["user", "uts"] } });
 * assertEquals(kept, true);
 * assertEquals(Object.keys(inspect("example", { directory }).namespaces), ["user", "uts"]);
 * assertEquals(drop("example", { directory }), true);
 * new Deno.Command("umount", { args: [`${directory}/ns`], stderr: "null" }).outputSync();
 * Deno.removeSync(directory, { recursive: true });
 * ```
 *
 * @param name The name: a letter or `_`, then at most 63 letters, digits, `_` and `-`.
 * @param request The namespaces, and where to keep them.
 * @returns Whether they are kept, and how the set-up command ended.
 * @throws {PenneError} If it fails; nothing is left then.
 * @throws {ExecError} If the set-up command cannot be executed; nothing is left then.
 */
export async function keep(name: string, request: KeepRequest): Promise<KeepResult> {
  if ("pid" in request) {
    keepProcess(name, request.pid, request);
    return { kept: true, status: null };
  }
  using setUp = prepareSetUp(name, request.setUp, request);
  if (!setUp) return { kept: true, status: null };
  let [late, kept] = [false, false];
  const relay = new RelayDriver(request.setUp.onWarning);
  using child = relay.drive(() =>
    startChild(setUp.plan, {
      ...setUp.start,
      openRelay: relay.open,
      onExit: ({ code }, ended) => {
        if (code !== 0 || late) return;
        setUp.keep(ended);
        kept = true;
      },
    })
  );
  const timeout = request.timeout ?? setUp.timeLimit;
  const timer = timeout === null ? undefined : setTimeout(() => {
    late = true;
    child.kill("KILL");
  }, timeout);
  try {
    const status = await child.status;
    return { kept, status };
  } finally {
    clearTimeout(timer);
  }
}
