// Going to the background: a second penne that goes on when this one has ended.
//
// A Deno process cannot fork: V8 maps its heap MADV_DONTFORK, and making the mappings inheritable first (MADV_DOFORK) let
// a child crash at its first garbage collection in 6 of 6 tries with the runtime of Deno 2.4.2. So the program is executed
// once more, which costs one more start of some 20 ms and works whatever the number of threads.
//
// The second process is told of two descriptors: one to say "ready" on, or its exit code, and the first one's stderr, to
// log to until then. Its own stdin, stdout and stderr are /dev/null from the start: Deno keeps duplicates of them, and a
// reader of the caller's pipes would otherwise never see their end.

import { Agent } from "../../ffi/agent/agent.ts";
import { exec } from "../../ffi/agent/exec.ts";
import { F, O, S, SIGNAL } from "../../ffi/core/consts.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { waitChild } from "../../ffi/sys/process.ts";
import { open, pipe, read, readBytes, readLink, write } from "../../ffi/sys/file.ts";
import { resetSignal } from "../../ffi/sys/signal.ts";
import { stat } from "../../ffi/sys/stat.ts";
import { call, self } from "../../ffi/core/task.ts";
import { attempt, PenneError } from "../base/errors.ts";
import { caller, environment } from "../host/caller.ts";
import { ignoreChildrenAgain, placeKeptFds } from "../agents/inherit.ts";

/** Hidden option that tells the second process of its descriptors. */
export const LINK_OPTION = "background-link";

/** The words of our own command line, up to Deno's `Deno.args`. */
function ownCommand(): Uint8Array[] {
  const words: Uint8Array[] = [];
  const bytes = readBytes(self, "/proc/self/cmdline");
  for (let at = 0; at < bytes.length;) {
    const end = bytes.indexOf(0, at);
    words.push(bytes.slice(at, end));
    at = end + 1;
  }
  return words.slice(0, words.length - Deno.args.length);
}

/**
 * Starts this program once more, in the background, and waits until that one is ready.
 *
 * What the command prints goes to where our stdout and stderr go if that is a file or among those kept, else nowhere.
 *
 * @param command The command word, such as `run`.
 * @param args What follows it.
 * @param keepFds Inherited descriptors that the second process needs.
 * @returns Our exit code: 0 if it is ready, else its own.
 * @throws {PenneError} If it cannot be started.
 */
export function startInBackground(command: string, args: readonly string[], keepFds: readonly number[]): number {
  const what = "go to the background";
  const [reader, writer] = attempt(what, () => pipe());
  using result = reader;
  using agent = attempt(what, () => Agent.spawn());
  {
    using said = writer;
    using nothing = open(self, "/dev/null", O.RDWR);
    const standard = [0, 1, 2].map((number) => new Fd(number));
    try {
      placeKeptFds(agent, keepFds.filter((fd) => fd > 2));
      const link = [said, standard[2]!].map((fd) => call(agent, "fcntl", fd, F.DUPFD, 3));
      standard.forEach((fd, number) => {
        const file = number > 0 && (stat(self, fd).mode & S.IFMT) === S.IFREG;
        if (!file && !keepFds.includes(number)) call(agent, "dup3", nothing, number, 0);
      });
      call(agent, "setsid");
      resetSignal(agent, SIGNAL.PIPE);
      ignoreChildrenAgain(agent);
      const argv = [...ownCommand(), command, `--${LINK_OPTION}=${link.join(",")}`, ...args];
      const program = readLink(self, "/proc/self/exe");
      const error = exec(agent, program, argv, environment(), { mask: caller().blocked });
      if (error) {
        agent.close();
        waitChild(agent.pid);
        throw new PenneError(`${what}: start "${program}" once more`, { cause: error });
      }
    } finally {
      for (const fd of standard) fd.release();
    }
  }
  const answer = new Uint8Array(1);
  if (read(result, answer) === 1) return answer[0]!;
  const status = waitChild(agent.pid);
  const how = status.signal === null ? `exited with ${status.code}` : `was killed by signal ${status.signal}`;
  throw new PenneError(`${what}: the process there ${how} before it was ready`);
}

/** The way from the second process back to the first one. */
export class BackgroundLink {
  #result: Fd;
  /** The first process's stderr. */
  readonly log: Fd;

  /**
   * @param value Value of the hidden option.
   * @throws {PenneError} If it is not what {@linkcode startInBackground} passes.
   */
  constructor(value: string) {
    const match = /^(\d+),(\d+)$/.exec(value);
    if (!match) throw new PenneError(`use --${LINK_OPTION}: it is internal`, { usage: true });
    [this.#result, this.log] = [new Fd(Number(match[1])), new Fd(Number(match[2]))];
    for (const fd of [this.#result, this.log]) call(self, "fcntl", fd, F.SETFD, F.FD_CLOEXEC);
  }

  /**
   * Tells the first process how it went, which lets it end.
   *
   * @param code Its exit code, 0 for "ready".
   * @throws {PenneError} If it has gone, so that nobody knows of us.
   */
  done(code: number): void {
    if (this.#result.closed) return;
    try {
      attempt("tell the starting process", () => write(this.#result, new Uint8Array([code])));
    } finally {
      this.#result.close();
      this.log.close();
    }
  }
}
