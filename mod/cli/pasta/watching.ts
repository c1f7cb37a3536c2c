// What watches frames and counts events for pasta(1): a capture, a line of the log for each frame, and statistics.

import { SysError } from "../../../ffi/core/errno.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { PenneError } from "../../base/errors.ts";
import type { PastaConfig } from "../../pasta/request.ts";
import type { AttachJob } from "../attach.ts";
import { type OpenFrames, recordingIn } from "../common/frames.ts";
import { log } from "../report/log.ts";
import { sendLine } from "../report/send.ts";

/** Opens a capture; a file that cannot be opened is worth a warning. */
function attemptCapture(
  path: string,
  open: OpenFrames,
  ...args: Parameters<OpenFrames>
): ReturnType<OpenFrames> | null {
  try {
    const capture = open(...args);
    log().info(`Saving packet capture to ${path}`);
    return capture;
  } catch (error) {
    if (error instanceof SysError) log().warn(`Couldn't open pcap file ${path}: ${error.reason}`);
    else if (error instanceof PenneError) log().warn(error.message);
    else throw error;
    return null;
  }
}

/** Whoever watches frames; null if nobody does. */
async function frameWatch({ pcap, log: { level } }: PastaConfig): Promise<OpenFrames | null> {
  const record = pcap === null ? null : await recordingIn(pcap);
  const tracing = level === "trace" ? await import("../../datapath/capture/trace.ts") : null;
  if (!record && !tracing) return null;
  return (reactor) => {
    const capture = record && attemptCapture(pcap!, record, reactor);
    const trace = tracing && new tracing.Trace((line) => log().debug(line));
    return {
      frame(bytes, at, length, inward) {
        capture?.frame(bytes, at, length, inward);
        trace?.frame(bytes, at, length, inward);
      },
      [Symbol.dispose]: () => capture?.[Symbol.dispose](),
    };
  };
}

/** Prints lines on stderr, if somebody reads them. */
function print(text: string): void {
  try {
    sendLine(Fd.borrow(2), new TextEncoder().encode(text), 0);
  } catch {
    // Nobody does.
  }
}

/**
 * Loads what a command line asks for.
 *
 * @param config What it asks for.
 * @returns Part of a job; empty if it asks for nothing of this.
 */
export async function watching(config: PastaConfig): Promise<Pick<AttachJob, "makeReactor" | "openFrames">> {
  const { stats } = config;
  const openFrames = await frameWatch(config);
  const counting = stats > 0 ? await import("../../reactor/counting.ts") : null;
  return {
    ...counting && { makeReactor: () => new counting.CountingReactor(stats * 1000, print) },
    ...openFrames && { openFrames },
  };
}
