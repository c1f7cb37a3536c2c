// Opens the file in which the frames of an interface are recorded.
//
// The code that records them is loaded only if that is asked for. It is a bundle of its own, which knows neither this log nor
// these errors.

import { O, S } from "../../../ffi/core/consts.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { call, self } from "../../../ffi/core/task.ts";
import { stat } from "../../../ffi/sys/stat.ts";
import { attempt, PenneError } from "../../base/errors.ts";
import type { FrameWatch } from "../../datapath/netif/frame_watch.ts";
import type { Reactor } from "../../reactor/reactor.ts";
import { log } from "../report/log.ts";
import { openSafely } from "../report/safe_open.ts";

/** Begins to watch frames. */
export type OpenFrames = (reactor: Reactor) => FrameWatch & Disposable;

/** Opens the file, and empties it. */
function open(path: string): { fd: Fd; isFile: boolean } {
  const fd = openSafely(path, O.WRONLY | O.CREAT | O.NONBLOCK, 0o600);
  try {
    const { mode, links } = stat(self, fd);
    const isFile = (mode & S.IFMT) === S.IFREG; // or a pipe, or a device
    if (isFile && links > 1) throw new PenneError(`use the capture "${path}": it has a second name (a hard link)`);
    if (isFile) call(self, "ftruncate", fd, 0);
    return { fd, isFile };
  } catch (error) {
    fd.close();
    throw error;
  }
}

/**
 * Has frames recorded.
 *
 * @param path The file; created with mode 600 if it does not exist.
 * @returns Opens the file and begins. It throws a SysError if the file cannot be opened, ENXIO if it is a FIFO that nobody
 * reads, and a PenneError if a symbolic link of another user leads to it, or it has a second name.
 */
export async function recordingIn(path: string): Promise<OpenFrames> {
  const { Capture } = await import("../../datapath/capture/capture.ts");
  return (reactor) => new Capture(reactor, { ...open(path), path }, (warning) => log().warn(warning));
}

/**
 * What `--pcap` asks for.
 *
 * @param path Its value.
 * @returns Part of a job; empty without a value. What it has throws a PenneError if the file cannot be opened.
 */
export async function recording(path: string | undefined): Promise<{ readonly openFrames?: OpenFrames }> {
  if (path === undefined) return {};
  const begin = await recordingIn(path);
  return {
    openFrames: (reactor) =>
      attempt(
        `open the capture "${path}"`,
        () => begin(reactor),
        ({ code }) => code === "ENXIO" ? ["it is a FIFO that nobody reads, or a socket"] : [],
      ),
  };
}
