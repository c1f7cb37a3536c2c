// Runs commands in namespaces that exist already, for any Deno program.

import type { ChildProcess } from "../run/process.ts";
import { RelayDriver } from "../run/relayed.ts";
import { keepUp } from "../views/keep_up.ts";
import { openSet } from "./open_set.ts";
import { type EnterOptions, type KeptLayout, planEnter } from "./plan.ts";
import { startEntered } from "./start.ts";

export type { EnterOptions, KeptLayout };

function noSet(): never {
  throw new RangeError("The target is not a kept set");
}

/**
 * Starts a command in namespaces that exist already.
 *
 * The command ends with the returned object, with this process or with its agents, whichever ends first. It shares this
 * process's stdin, stdout and stderr. Call this on the main thread. This process itself joins nothing.
 *
 * @example
 * ```ts
 * import { enter, spawn } from "../mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * using box = spawn({ command: ["sleep", "100"], hostname: "box" });
 * const command = ["sh", "-c", "test $(hostname) = box && exit 7"];
 * using visitor = await enter({ target: `${box.pid}`, command });
 * assertEquals(await visitor.status, { code: 7, signal: null });
 * ```
 *
 * @param options The namespaces and the command.
 * @returns The command, running; `namespaces` are those that it joined.
 * @throws {PenneError} If it fails; nothing is left then.
 * @throws {ExecError} If the command cannot be executed; nothing is left then.
 */
export async function enter(options: EnterOptions): Promise<ChildProcess> {
  const plan = planEnter(options);
  const { onWarning, onInfo } = options;
  // Loaded only if it is needed.
  const { openKept } = plan.target.kind === "kept" ? await import("../kept/open.ts") : { openKept: noSet };
  using set = openSet(plan, openKept, onWarning);
  const relay = new RelayDriver(onWarning);
  return relay.drive(() =>
    startEntered(plan, set, {
      identify: true,
      onWarning,
      onInfo,
      openRelay: relay.open,
      beforeExec: (_, { files, enclosure }) => {
        if (files) enclosure.afterEnd.defer(keepUp(files, onWarning));
      },
    })
  );
}
