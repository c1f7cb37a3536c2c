// Going to the background: a second penne that outlives this one.
//
// A Deno process cannot fork: V8 maps its heap MADV_DONTFORK, and when the mappings were made inheritable (MADV_DOFORK)
// the child crashed at its first garbage collection in 6 of 6 tries with the runtime of Deno 2.4.2. So the program is
// executed once more, which costs another start of some 20 ms and works with any number of threads.
//
// The second process inherits two descriptors: a pipe on which it reports that it is ready, or its exit code, and the
// stderr of the first one, to log to until then. Its own stdin, stdout and stderr are /dev/null from the start: Deno keeps
// duplicates of them, and a reader of the caller's pipes would otherwise never see end of file. If stdout is a file and there
// is a command to write to it, that is a third descriptor, which stands in for stdout until the command has started.
//
// Once it is ready it lets go of the caller's directory and of that file, as a daemon does, so that the caller can unmount
// what they are on: only the command keeps them.

import { Agent } from "../../../ffi/agent/agent.ts";
import { exec } from "../../../ffi/agent/exec.ts";
import { F, O, S } from "../../../ffi/core/consts.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { cString } from "../../../ffi/core/memory.ts";
import { isReadable } from "../../../ffi/sys/poll.ts";
import { waitChild } from "../../../ffi/sys/process.ts";
import { open, pipe, read, readBytes, readLink, write } from "../../../ffi/sys/file.ts";
import { stat } from "../../../ffi/sys/stat.ts";
import { call, self, type Task } from "../../../ffi/core/task.ts";
import { attempt, PenneError, usage } from "../../base/errors.ts";
import { caller, environment } from "../../host/caller.ts";
import { END_TIMEOUT, endAgents } from "../../agents/enclosure.ts";
import { placeKeptFds, undoRuntime } from "../../agents/inherit.ts";
import { explainError } from "./command.ts";
import { LINK_OPTION } from "./link_option.ts";
import { type BACKGROUND_OPTIONS, reportFds, type ReportValues } from "../options/lifecycle.ts";
import type { OptionValues } from "../options/table.ts";
import { logTo } from "../report/log.ts";

export { LINK_OPTION };

/** The words of this process's command line that precede `Deno.args`. */
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
 * Starts this program once more, in the background, and waits until it is ready.
 *
 * The second process keeps this one's stderr, and for its command stdout, if they are files or in `keepFds`.
 *
 * @param command The command word, such as `run`; null if the program's name stands for it.
 * @param args The words after it.
 * @param keepFds Inherited descriptors that the second process needs.
 * @param writes Whether it has a command, which may write to stdout.
 * @param letsGo Whether it keeps none of the caller's files, not even to log to.
 * @returns The exit code: 0 if the second process is ready, otherwise its own.
 * @throws {PenneError} If it cannot be started.
 */
export function startInBackground(
  command: string | null,
  args: readonly string[],
  keepFds: readonly number[],
  writes: boolean,
  letsGo: boolean = false,
): number {
  const what = "go to the background";
  const [reader, writer] = attempt(what, () => pipe());
  using result = reader;
  using agent = attempt(what, () => Agent.spawn());
  {
    using said = writer;
    using nothing = open(self, "/dev/null", O.RDWR);
    const standard = [0, 1, 2].map((number) => Fd.borrow(number));
    placeKeptFds(agent, keepFds.filter((fd) => fd > 2));
    const files = standard.map((fd) => !letsGo && (stat(self, fd).mode & S.IFMT) === S.IFREG);
    const output = writes && files[1] && !keepFds.includes(1) ? [standard[1]!] : [];
    const link = [said, standard[2]!, ...output].map((fd) => call(agent, "fcntl", fd, F.DUPFD, 3));
    const stdio = standard.map((fd, i) => (i === 2 && files[2]) || keepFds.includes(i) ? fd : nothing);
    call(agent, "setsid");
    undoRuntime(agent);
    const words = command === null ? [] : [command];
    const argv = [...ownCommand(), ...words, `--${LINK_OPTION}=${link.join(",")}`, ...args];
    const program = readLink(self, "/proc/self/exe");
    const error = exec(agent, program, argv, environment(), { mask: caller().blocked, stdio });
    if (error) {
      endAgents([agent]);
      throw new PenneError(`${what}: start "${program}" again`, { cause: error });
    }
  }
  const answer = new Uint8Array(1);
  if (read(result, answer) === 1) {
    // When the caller hears of a failure, nothing of the second process is to be left, such as an open port.
    if (answer[0] !== 0) isReadable(agent.pidfd, END_TIMEOUT);
    return answer[0]!;
  }
  const status = waitChild(agent.pid);
  const how = status.signal === null ? `exited with ${status.code}` : `was killed by signal ${status.signal}`;
  throw new PenneError(`${what}: the process in the background ${how} before it was ready`);
}

/** The second process's connection to the first one. */
export class BackgroundLink {
  #result: Fd;
  #hasOutput = false;
  /** The stderr of the first process. */
  readonly log: Fd;

  /**
   * @param value Value of the hidden option.
   * @throws {PenneError} If {@linkcode startInBackground} did not make it.
   */
  constructor(value: string) {
    const match = /^(\d+),(\d+)(?:,(\d+))?$/.exec(value);
    if (!match) throw usage(`use --${LINK_OPTION}: it is internal`);
    [this.#result, this.log] = [new Fd(Number(match[1])), new Fd(Number(match[2]))];
    for (const fd of [this.#result, this.log]) call(self, "fcntl", fd, F.SETFD, F.FD_CLOEXEC);
    if (match[3] === undefined) return;
    using output = new Fd(Number(match[3]));
    call(self, "dup3", output, 1, 0); // Deno has no duplicate of this one
    this.#hasOutput = true;
  }

  /**
   * Lets go of the caller's directory and of its stdout, if that stood in for a file.
   *
   * @param task This process, or an agent that has inherited them.
   * @param moves Whether nothing is looked for from that directory on.
   * @param quiet Whether nothing more is written to stdout.
   */
  letGo(task: Task, moves: boolean, quiet: boolean): void {
    if (moves) task.raw("chdir", cString("/"));
    if (quiet && this.#hasOutput) task.raw("dup3", 0, 1, 0); // stdin is /dev/null
  }

  /**
   * Gives the first process its exit code, with which it ends.
   *
   * @param code The exit code; 0 for "ready".
   * @throws {PenneError} If the first process has ended already.
   */
  done(code: number): void {
    if (this.#result.closed) return;
    // The first process ends on the answer, and its caller may read its stderr up to the end of file.
    this.log.close();
    try {
      attempt("report to the starting process", () => write(this.#result, new Uint8Array([code])));
    } finally {
      this.#result.close();
    }
  }
}

/** Whoever waits for work in the background; work in the foreground tells nobody. */
export interface Starter {
  /** Has agents let go of the directory and stdout of the caller. Call it before a command can stop them. */
  release(agents: readonly Agent[]): void;
  /**
   * Tells that the work is ready.
   *
   * @param moves Whether nothing is looked for from the caller's directory on.
   * @param relays Whether what the command writes goes through this process.
   */
  ready(moves: boolean, relays?: boolean): void;
}

const NOBODY: Starter = { release() {}, ready() {} };

/** Work that may have to be done in the background. */
export interface BackgroundJob {
  /** The command word, such as `run`; null if the program's name stands for it. */
  readonly command: string | null;
  /** The words after it. */
  readonly args: readonly string[];
  /** Inherited descriptors that it needs, besides those for reports. */
  readonly keepFds: readonly number[];
  /** Exit code for an error that has none of its own. */
  readonly failure: number;
  /** Refuses what cannot work; the result does the work here, tells the starter, and returns the exit code. */
  readonly prepare: () => (starter: Starter) => number | Promise<number>;
  /** Whether there is a command, which may write to stdout. */
  readonly writes: boolean;
  /** Whether the second process keeps none of the caller's files, not even to log to. */
  readonly letsGo?: boolean;
  /** Reports an error and returns the exit code; by default as every command does. */
  readonly explain?: (error: unknown) => Promise<number>;
}

/**
 * Does work here or, with `--background`, in a second process.
 *
 * @param options The parsed options.
 * @param job The work.
 * @returns The exit code.
 * @throws {PenneError} If it fails in this process, or the second process cannot be started.
 */
export function runInBackground(
  options: ReportValues & Partial<OptionValues<typeof BACKGROUND_OPTIONS>>,
  job: BackgroundJob,
): number | Promise<number> {
  const value = options[LINK_OPTION];
  if (value !== undefined) return runBehind(value, job);
  const { ready, status } = reportFds(options);
  const work = job.prepare();
  if (!options.background) return work(NOBODY);
  const reports = [ready, status].filter((fd) => fd !== undefined);
  if (reports.some((fd) => fd <= 2)) {
    throw usage("use --ready-fd or --status-fd with 0, 1 or 2 in the background: those are /dev/null there");
  }
  const keepFds = [...new Set([...job.keepFds, ...reports])];
  return startInBackground(job.command, job.args, keepFds, job.writes, job.letsGo);
}

/** Does the work in the second process, which logs to the first one until it is ready. */
async function runBehind(value: string, { prepare, failure, explain }: BackgroundJob): Promise<number> {
  const link = new BackgroundLink(value);
  const restoreLog = logTo(link.log);
  try {
    return await prepare()({
      release(agents) {
        for (const agent of agents) link.letGo(agent, true, true);
      },
      ready(moves, relays = false) {
        link.letGo(self, moves, !relays);
        restoreLog();
        link.done(0);
      },
    });
  } catch (error) {
    const code = await (explain ? explain(error) : explainError(error, failure));
    link.done(code);
    return code;
  }
}
