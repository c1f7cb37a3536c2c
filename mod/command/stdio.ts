// The standard streams that a command gets: pipes, /dev/null or this process's own.

import { F, O } from "../../ffi/core/consts.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { call, self } from "../../ffi/core/task.ts";
import { open, pipe } from "../../ffi/sys/file.ts";

/** What a standard stream is: a pipe to this program, this program's own, or /dev/null. */
export type Stdio = "piped" | "inherit" | "null";

/** What the three streams of a command are. */
export interface StdioPlan {
  /** Standard input. */
  readonly stdin: Stdio;
  /** Standard output. */
  readonly stdout: Stdio;
  /** Standard error. */
  readonly stderr: Stdio;
}

/** The standard streams of a command, open. */
export class OpenStdio implements Disposable {
  /** What the command gets as descriptors 0 to 2; null for this process's own. */
  readonly theirs: readonly (Fd | null)[];
  /** The other ends, which do not block; null for what is no pipe. */
  readonly ours: readonly (Fd | null)[];

  /**
   * Opens them.
   *
   * @param plan What they are.
   * @throws {SysError} EMFILE if there are too many descriptors; nothing is open then.
   */
  constructor(plan: StdioPlan) {
    const [theirs, ours]: [(Fd | null)[], (Fd | null)[]] = [[], []];
    this.theirs = theirs;
    this.ours = ours;
    try {
      for (const [number, stdio] of [plan.stdin, plan.stdout, plan.stderr].entries()) {
        if (stdio === "piped") {
          const [reader, writer] = pipe();
          theirs.push(number === 0 ? reader : writer);
          ours.push(number === 0 ? writer : reader);
          call(self, "fcntl", ours[number]!, F.SETFL, O.NONBLOCK);
        } else {
          theirs.push(stdio === "null" ? open(self, "/dev/null", O.RDWR) : null);
          ours.push(null);
        }
      }
    } catch (error) {
      this.closeTheirs();
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** Closes the command's ends; to be called once it has them. */
  closeTheirs(): void {
    for (const fd of this.theirs) fd?.close();
  }

  /** Closes our ends. */
  [Symbol.dispose](): void {
    for (const fd of this.ours) fd?.close();
  }
}
