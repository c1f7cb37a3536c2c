// Starts a command in namespaces that exist already, from any Deno program, and looks after it from the event loop.

import type { Fd } from "../../ffi/core/fd.ts";
import { openKept } from "../kept/open.ts";
import { given } from "../run/mod.ts";
import type { RunningCommand } from "../run/process.ts";
import { RelayDriver } from "../run/relayed.ts";
import { keepUp } from "../views/keep_up.ts";
import { openSet } from "./open_set.ts";
import { type EnterOptions, planEnter } from "./plan.ts";
import { startEntered } from "./start.ts";

/**
 * Starts a command in namespaces that exist already.
 *
 * The command ends with the returned object, with this process or with its agents, whichever ends first. This process itself
 * joins nothing.
 *
 * @param options The namespaces and the command.
 * @param stdio What it gets as stdin, stdout and stderr; null for this process's own. If another user may trace the command,
 *   it gets a terminal and pipes in place of those, and this process copies.
 * @returns The command, running; `namespaces` are those that it joined.
 * @throws {PenneError} If it fails; nothing is left then.
 * @throws {ExecError} If the command cannot be executed; nothing is left then.
 */
export function startEnter(options: EnterOptions, stdio: readonly (Fd | null)[] = []): RunningCommand {
  const plan = planEnter(options);
  const { onWarning, onInfo } = options;
  using set = openSet(plan, openKept, onWarning);
  const relay = new RelayDriver(onWarning, stdio);
  return relay.drive(() =>
    startEntered(plan, set, {
      identify: true,
      onWarning,
      onInfo,
      openRelay: relay.open,
      ...given(stdio),
      beforeExec: (_, { files, enclosure }) => {
        if (files) enclosure.afterEnd.defer(keepUp(files, onWarning));
      },
    })
  );
}
