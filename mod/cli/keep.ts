// `penne keep`: from the command line to the exit code.

import { SIGNAL } from "../../ffi/core/consts.ts";
import { SignalPipe } from "../../ffi/sys/signal.ts";
import { PenneError } from "../base/errors.ts";
import { type KeepOptions, keepProcess, prepareSetUp } from "../kept/preserve.ts";
import { log } from "./report/log.ts";
import { Reactor } from "../reactor/reactor.ts";
import { startChild } from "../run/child.ts";
import type { RunOptions } from "../run/plan.ts";
import { FORWARDED, supervise } from "../run/supervise.ts";
import { Terminal } from "../run/terminal.ts";
import { runCommand } from "./command.ts";
import { insideRequest } from "./options/isolation.ts";
import { KEEP_SPEC } from "./keep_spec.ts";
import { oneName, whichSet } from "./options/kept.ts";
import { allOptions, type ParsedOptions } from "./options/table.ts";
import { optionsFirst } from "./options/order.ts";
import { numberOption, optional, parseNamespaces, secondsOption, wordOption } from "./options/values.ts";

/** Exit code when penne itself fails: of a process's namespaces, or with a set-up command. */
const FAILURE = { process: 1, command: 125 } as const;
const TIMED_OUT = 124;
const PID_MAX = 2 ** 22;

/** Options that go with either form. */
const COMMON = new Set(["base", "key", "user", "layout", "dir", "log-level", "log-format", "log-file", "log-size"]);

/**
 * `penne keep`.
 *
 * @param args What follows the command's name.
 * @returns The exit code.
 */
export function start(args: string[]): Promise<number> {
  const at = args.indexOf("--");
  const words = optionsFirst(KEEP_SPEC, at < 0 ? args : args.slice(0, at));
  const command = at < 0 ? null : args.slice(at + 1);
  const failure = command ? FAILURE.command : FAILURE.process;
  return runCommand({ SPEC: KEEP_SPEC, FAILURE: failure, main: (options) => main(options, command) }, words);
}

/** Refuses options of the other form. */
function checkForm(options: ParsedOptions, form: "--pid" | "-- SETUP", allowed: readonly string[]): void {
  for (const { name } of allOptions(KEEP_SPEC)) {
    if (COMMON.has(name) || allowed.includes(name)) continue;
    if (options.has(name) || options.all(name).length) {
      throw new PenneError(`use --${name} with ${form}`, { usage: true });
    }
  }
}

/** Keeps namespaces; the result is the exit code. */
function main(options: ParsedOptions, command: readonly string[] | null): number {
  const name = oneName(options, "keep");
  const which = whichSet(options);
  const pid = numberOption(options, "pid", 1, PID_MAX);
  if (pid === undefined && !command) {
    throw new PenneError(`keep "${name}": say what`, {
      usage: true,
      hints: ["--pid PID keeps a process's namespaces", "-- SETUP … makes new ones"],
    });
  }
  if (pid === undefined) return keepNew(options, name, which, command!);
  if (command) throw new PenneError("use --pid with a set-up command: choose one", { usage: true });
  checkForm(options, "--pid", ["pid", "type"]);
  const type = options.get("type");
  const { made } = keepProcess(name, pid, {
    ...which,
    ...optional("types", type === undefined ? undefined : parseNamespaces(type, "type")),
  });
  if (!made) log().info(`"${name}" is kept already, and stays`);
  return 0;
}

/** Makes namespaces, and keeps them if the set-up command succeeds. */
function keepNew(options: ParsedOptions, name: string, which: KeepOptions, command: readonly string[]): number {
  const unshare = options.get("unshare");
  const timeout = secondsOption(options, "timeout");
  checkForm(
    options,
    "-- SETUP",
    allOptions(KEEP_SPEC).map((one) => one.name).filter((n) => n !== "pid" && n !== "type"),
  );
  const request: RunOptions = {
    ...insideRequest(options),
    command,
    ...optional("unshare", unshare === undefined ? undefined : parseNamespaces(unshare)),
    ...optional("net", wordOption(options, "net", ["none", "host", "tap"] as const)),
  };
  using setUp = prepareSetUp(name, request, which);
  if (!setUp) {
    log().info(`"${name}" is kept already, and stays`);
    return 0;
  }
  const newSession = request.newSession ?? false;
  using terminal = Terminal.open(newSession);
  using reactor = new Reactor();
  const signals = new SignalPipe(); // to the end of the process: undoing it would only cost time
  using child = startChild(setUp.plan, {
    ...setUp.start,
    terminal,
    beforeExec: (starting) => {
      for (const forwarded of FORWARDED) signals.catch(SIGNAL[forwarded]);
      setUp.start.beforeExec?.(starting);
    },
  });
  let late = false;
  if (timeout !== null) {
    reactor.after(timeout, () => {
      late = true;
      child.kill("KILL");
    });
  }
  child.atExit(({ code }) => {
    if (code === 0 && !late) setUp.keep(child);
  });
  const status = supervise(child, { reactor, signals, terminal, newSession, parent: null });
  if (status.lost) log().error("the agent that looked after the set-up command was killed, and the command with it");
  if (late) {
    log().error(`cannot keep "${name}": the set-up command did not end within ${timeout! / 1000} s`);
    return TIMED_OUT;
  }
  return status.code ?? 128 + status.signal!;
}
