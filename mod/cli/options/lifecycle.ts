// Options for the life of a command: background, reports to the caller, and its end.

import { F, type SignalName } from "../../../ffi/core/consts.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { self } from "../../../ffi/core/task.ts";
import { usage } from "../../base/errors.ts";
import { PidFile } from "../report/pid_file.ts";
import { Reporter } from "../report/reporter.ts";
import { openParent } from "../../run/parent.ts";
import type { CommandSpec, OptionSpec, OptionValues } from "./table.ts";
import { parseFd, parseNumber, parseSignal } from "./values.ts";

/** The largest PID that a kernel gives, proc_sys_kernel(5). */
const PID_MAX = 2 ** 22;

/** Going to the background. */
export const BACKGROUND_OPTIONS = [
  {
    name: "background",
    help: "Go to the background when ready; stdin becomes /dev/null, stdout and stderr too unless they are files",
  },
  { name: "background-link", value: "FDS", help: null },
] as const satisfies readonly OptionSpec[];

/** Reports to the caller. */
export const REPORT_OPTIONS = [
  { name: "pid-file", value: "FILE", help: "Write the pid of penne to FILE when ready, and remove FILE at the end" },
  { name: "ready-fd", value: "N", help: "Write a line to descriptor N when ready, and close it" },
  { name: "status-fd", value: "N", help: "Write status events to descriptor N as JSON lines" },
] as const satisfies readonly OptionSpec[];

/** Giving up rights. */
export const CONFINE_OPTIONS = [
  {
    name: "no-confine",
    help: "Keep all rights and system calls while waiting; for debugging penne",
  },
] as const satisfies readonly OptionSpec[];

/** The end. */
export const END_OPTIONS = [
  {
    name: "die-with-parent",
    value: "PID",
    optional: true,
    help: "End when the process that started penne ends; PID, such as $$, says which one that is",
  },
  { name: "kill-signal", value: "SIGNAL", help: "Signal that ends COMMAND when penne has to end it (default: KILL)" },
] as const satisfies readonly OptionSpec[];

/** Exit codes of the commands of penne that run a command. */
export const COMMAND_EXIT_CODES = [
  ["0-255", "exit code of COMMAND"],
  ["128+N", "COMMAND was killed by signal N"],
  ["127", "COMMAND was not found"],
  ["126", "COMMAND was found but could not be executed"],
  ["125", "penne failed before COMMAND ran"],
  ["2", "usage error; nothing was done"],
] as const satisfies CommandSpec["exitCodes"];

/** Options of {@linkcode REPORT_OPTIONS}; not every command has all of them. */
export type ReportValues = Partial<OptionValues<typeof REPORT_OPTIONS>>;

/**
 * The descriptors that reports go to.
 *
 * @param options The parsed options.
 * @returns Their numbers.
 * @throws {PenneError} A usage error.
 */
export function reportFds(options: ReportValues): { ready: number | undefined; status: number | undefined } {
  const [ready, status] = (["ready-fd", "status-fd"] as const).map((name) => {
    const value = options[name];
    return value === undefined ? undefined : parseFd(name, value);
  });
  if (ready !== undefined && ready === status) throw usage("use one descriptor for both --ready-fd and --status-fd");
  return { ready, status };
}

/** Takes a descriptor over from the caller, so that no command inherits it. */
function takeOver(number: number | undefined): Fd | null {
  if (number === undefined) return null;
  if (number <= 2) return Fd.borrow(number);
  self.raw("fcntl", number, F.SETFD, F.FD_CLOEXEC);
  return new Fd(number);
}

/**
 * Opens what a command line asks to be reported to.
 *
 * @param options The parsed options.
 * @returns The reporter.
 * @throws {PenneError} If the pid file could not be written.
 */
export function openReporter(options: ReportValues): Reporter {
  const { ready, status } = reportFds(options);
  const file = options["pid-file"];
  const pidFile = file === undefined ? null : new PidFile(file);
  return new Reporter({ ready: takeOver(ready), status: takeOver(status), pidFile });
}

/**
 * Opens the process with whose end penne ends.
 *
 * @param options The parsed options.
 * @returns A pidfd; null if the kernel sends SIGTERM instead, or if there is no such process.
 * @throws {PenneError} If that process is not the parent.
 */
export function parentOf(options: Partial<OptionValues<typeof END_OPTIONS>>): Fd | null {
  const value = options["die-with-parent"];
  if (value === undefined) return null;
  return openParent(value === "" ? undefined : parseNumber("die-with-parent", value, 1, PID_MAX));
}

/**
 * The signal that ends the command.
 *
 * @param options The parsed options.
 * @returns A property for the library, or none.
 * @throws {PenneError} A usage error.
 */
export function endRequest(options: OptionValues<typeof END_OPTIONS>): { killSignal?: SignalName } {
  const value = options["kill-signal"];
  return value === undefined ? {} : { killSignal: parseSignal("kill-signal", value) };
}
