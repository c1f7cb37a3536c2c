// Runs a command of the user as a child of this process, from its start to the exit code.

import { Agent, type GoneReason } from "../../../ffi/agent/agent.ts";
import { SIGNAL } from "../../../ffi/core/consts.ts";
import { SysError } from "../../../ffi/core/errno.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { call } from "../../../ffi/core/task.ts";
import type { SignalPipe } from "../../../ffi/sys/signal.ts";
import { log } from "../report/log.ts";
import type { Reporter } from "../report/reporter.ts";
import { PenneError } from "../../base/errors.ts";
import type { Reactor } from "../../reactor/reactor.ts";
import type { Child } from "../../run/child.ts";
import type { StartOptions } from "../../run/start.ts";
import type { Relay, RelayOptions } from "../../relay/relay.ts";
import { ExposedError } from "../../run/exposed.ts";
import { FORWARDED, supervise } from "../../run/supervise.ts";
import { Terminal } from "../../run/terminal.ts";
import { confineAgents, type ConfineValues } from "./confined.ts";
import { type END_OPTIONS, openReporter, parentOf, type ReportValues } from "../options/lifecycle.ts";
import type { OptionValues } from "../options/table.ts";

/** Exit code when penne fails before the command has run. */
export const FAILURE = 125;

/** Makes what stands between an exposed command and the caller's terminal. */
export type MakeRelay = (options: Omit<RelayOptions, "host">) => Relay;

const LOST = {
  ended: "the agent that supervised the command was killed, and the command with it",
  late: "the agent that supervised the command does not report its end: a process inside may have stopped it",
  malformed: "a process inside has taken the place of the agent that supervised the command, which was killed",
} as const satisfies Record<GoneReason, string>;

/** A command to be run. */
export interface Job {
  /** The loop. */
  readonly reactor: Reactor;
  /** Where signals arrive. */
  readonly signals: SignalPipe;
  /** Whether the command gets a session of its own. */
  readonly newSession: boolean;
  /** Makes what stands between an exposed command and the caller's terminal; null if the code is not loaded. */
  readonly makeRelay: MakeRelay | null;
  /** Starts the command. */
  readonly begin: (scene: StartOptions) => Child;
  /** Milliseconds that a command which another user controls has to end after a signal that ends programs. */
  readonly patience?: number;
  /** Opens what is reported to; by default what the options name. */
  readonly openReporter?: (() => Reporter) | undefined;
  /** Called once the command has started. */
  readonly started?: (child: Child, report: Reporter) => void;
}

/**
 * Loads the code that an exposed command takes.
 *
 * @returns Makes what stands between such a command and the caller's terminal.
 */
export async function loadRelay(): Promise<MakeRelay> {
  const { openRelay } = await import("../../relay/open.ts");
  return (options) => {
    const opened = openRelay({ ...options, host: { call, borrow: (number) => Fd.borrow(number) } });
    if (!("what" in opened)) return opened;
    const { what, errno, hints } = opened;
    throw new PenneError(what, { cause: new SysError("openat", errno), hints });
  };
}

/**
 * Runs a command to its end.
 *
 * @param options The parsed options.
 * @param job The command.
 * @returns The exit code.
 * @throws {PenneError} If the command cannot be started.
 */
export async function runInForeground(
  options: ReportValues & ConfineValues & Partial<OptionValues<typeof END_OPTIONS>>,
  job: Job,
): Promise<number> {
  const { reactor, signals, newSession, makeRelay, patience = null, begin, started } = job;
  using parent = parentOf(options);
  using terminal = Terminal.open(newSession);
  const report = job.openReporter?.() ?? openReporter(options);
  try {
    const onWarning = (message: string) => log().warn(message);
    using child = begin({
      terminal,
      signals,
      identify: report.wantsStatus,
      onWarning,
      onInfo: (message) => log().info(message),
      ...confineAgents(options),
      ...makeRelay && { openRelay: (settings) => makeRelay({ ...settings, reactor, interactive: true, onWarning }) },
      beforeExec: (starting) => {
        for (const name of FORWARDED) signals.catch(SIGNAL[name]);
        report.ready(() => ({ child: starting.pid, namespaces: starting.namespaces }));
      },
    });
    started?.(child, report);
    if (Agent.execRefused) {
      log().warn(
        `executing a memfd is not allowed here (${Agent.execRefused.code}): agents are forked instead`,
      );
    }
    const status = await supervise(child, { reactor, signals, terminal, newSession, parent, patience });
    if (status.lost) log().error(LOST[status.lost]);
    const code = status.lost === "malformed" ? FAILURE : status.code ?? 128 + status.signal!;
    report.exit(code, status.signal);
    return code;
  } catch (error) {
    if (error instanceof ExposedError) {
      report.leave();
      throw error;
    }
    const { exitCode = FAILURE, signal = null } = error as { exitCode?: number; signal?: number | null };
    report.exit(exitCode, signal);
    throw error;
  }
}
