// Runs a command as a child of this process, for the commands of penne that do: what their options have in common, and
// everything from its start to the exit code.

import { Agent } from "../../ffi/agent/agent.ts";
import { SIGNAL } from "../../ffi/core/consts.ts";
import type { SignalPipe } from "../../ffi/sys/signal.ts";
import { PenneError } from "../base/errors.ts";
import { log } from "./report/log.ts";
import type { Reactor } from "../reactor/reactor.ts";
import type { Child, StartOptions } from "../run/child.ts";
import { ExecError } from "../run/command.ts";
import { openParent } from "../run/parent.ts";
import type { RunOptions } from "../run/plan.ts";
import { FORWARDED, supervise } from "../run/supervise.ts";
import { Terminal } from "../run/terminal.ts";
import { openReporter } from "./options/fds.ts";
import type { ParsedOptions } from "./options/table.ts";
import { fdOptions, numberOption, optional, parseSignal } from "./options/values.ts";

/** Exit code when penne fails before the command has run. */
export const FAILURE = 125;

/** The greatest user or group id. */
export const ID_MAX = 2 ** 32 - 2;

function variables(options: ParsedOptions): Record<string, string> {
  return Object.fromEntries(
    options.all("env").map((value) => {
      const at = value.indexOf("=");
      if (at < 1) throw new PenneError(`use --env "${value}": it is not NAME=VALUE`, { usage: true });
      return [value.slice(0, at), value.slice(at + 1)];
    }),
  );
}

/**
 * What the library is asked for that all commands have in common, from the command line.
 *
 * @param options The command line.
 * @returns The options.
 * @throws {PenneError} A usage error.
 */
export function commandOptions(options: ParsedOptions): RunOptions {
  const killSignal = options.get("kill-signal");
  return {
    command: options.rest,
    ...optional("chdir", options.get("chdir")),
    env: variables(options),
    clearEnv: options.has("clear-env"),
    ...optional("uid", numberOption(options, "uid", 0, ID_MAX)),
    ...optional("gid", numberOption(options, "gid", 0, ID_MAX)),
    newSession: options.has("new-session"),
    keepFds: fdOptions(options, "keep-fd").filter((fd) => fd > 2),
    keepCaps: options.has("keep-caps"),
    noNewPrivs: options.has("no-new-privs"),
    onWarning: (message) => log().warn(message),
    ...optional("killSignal", killSignal === undefined ? undefined : parseSignal(killSignal)),
  };
}

/** A command that is to be run. */
export interface Job {
  /** The loop. */
  readonly reactor: Reactor;
  /** Where signals come in. */
  readonly signals: SignalPipe;
  /** Whether the command has a session of its own. */
  readonly newSession: boolean;
  /** Starts it. */
  readonly begin: (scene: StartOptions) => Child;
  /** Called when it has been started. */
  readonly started: (() => void) | null;
}

/**
 * Runs a command to its end.
 *
 * @param options The command line.
 * @param job The command.
 * @returns The exit code.
 * @throws {PenneError} If it cannot be started.
 */
export function runCommandHere(options: ParsedOptions, job: Job): number {
  const { reactor, signals, newSession, begin, started } = job;
  using parent = options.has("die-with-parent") ? openParent() : null;
  using terminal = Terminal.open(newSession);
  const report = openReporter(options);
  try {
    using child = begin({
      terminal,
      identify: report.wantsStatus,
      beforeExec: (starting) => {
        for (const name of FORWARDED) signals.catch(SIGNAL[name]);
        report.ready(() => ({ child: starting.pid, namespaces: starting.namespaces }));
      },
    });
    started?.();
    if (Agent.execRefused) {
      log().warn(
        `executing a memfd is not allowed here (${Agent.execRefused.code}; see vm.memfd_noexec): agents are forked instead`,
      );
    }
    const status = supervise(child, { reactor, signals, terminal, newSession, parent });
    if (status.lost) log().error("the agent that looked after the command was killed, and the command with it");
    const code = status.code ?? 128 + status.signal!;
    report.exit(code, status.signal);
    return code;
  } catch (error) {
    report.exit(error instanceof ExecError ? error.exitCode : FAILURE, null);
    throw error;
  }
}
