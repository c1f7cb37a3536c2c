// Descriptors of the caller's that penne itself uses.

import { F } from "../../../ffi/core/consts.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { self } from "../../../ffi/core/task.ts";
import { PenneError } from "../../base/errors.ts";
import { Reporter } from "../report/reporter.ts";
import type { ParsedOptions } from "./table.ts";
import { fdOptions } from "./values.ts";

/** A descriptor for penne itself, which no command gets. */
function ownFd(options: ParsedOptions, name: string): Fd | null {
  const [number] = fdOptions(options, name);
  if (number === undefined) return null;
  if (number > 2) self.raw("fcntl", number, F.SETFD, F.FD_CLOEXEC);
  return new Fd(number);
}

/**
 * Refuses descriptors for reports that cannot work.
 *
 * @param options The command line.
 * @throws {PenneError} A usage error.
 */
export function checkReportFds(options: ParsedOptions): void {
  const [ready, status] = ["ready-fd", "status-fd"].map((name) => fdOptions(options, name)[0]);
  if (ready !== undefined && ready === status) {
    throw new PenneError("use one descriptor for both --ready-fd and --status-fd", { usage: true });
  }
  if (
    options.has("background") && options.get("background-link") === undefined &&
    ((ready ?? 3) <= 2 || (status ?? 3) <= 2)
  ) {
    throw new PenneError("use --ready-fd or --status-fd with 0, 1 or 2 in the background: those are /dev/null there", {
      usage: true,
    });
  }
}

/**
 * Whom a command line wants to be told.
 *
 * @param options The command line.
 * @returns The reporter.
 * @throws {PenneError} A usage error.
 */
export function openReporter(options: ParsedOptions): Reporter {
  return new Reporter({
    ready: ownFd(options, "ready-fd"),
    status: ownFd(options, "status-fd"),
    pidFile: options.get("pid-file") ?? null,
  });
}
