// Runs programs of the host whose answer penne needs, such as newuidmap and getent.

import { Agent } from "../../ffi/agent/agent.ts";
import { exec } from "../../ffi/agent/exec.ts";
import { O, POLL, SIGNAL } from "../../ffi/core/consts.ts";
import type { SysError } from "../../ffi/core/errno.ts";
import { open, pipe, read } from "../../ffi/sys/file.ts";
import { poll } from "../../ffi/sys/poll.ts";
import { sendSignal, waitChild, type WaitStatus } from "../../ffi/sys/process.ts";
import { self } from "../../ffi/core/task.ts";
import { attempt } from "../base/errors.ts";
import { environment, searchPath, variable } from "../host/caller.ts";
import { endAgents, endsWithin } from "./enclosure.ts";
import { undoRuntime } from "./inherit.ts";

/** Bytes of output that are read. */
const OUTPUT_MAX = 65536;

/** How to run a program. */
export interface ToolOptions {
  /** Whether what it writes to stderr is part of its output; dropped otherwise. */
  readonly errors?: boolean;
  /** Milliseconds after which it is killed; no limit by default. */
  readonly timeout?: number;
}

/** How a program ended. */
export interface ToolResult {
  /** The path that was executed. */
  readonly path: string;
  /** How it ended. */
  readonly status: WaitStatus;
  /** Whether it was killed because it took too long. */
  readonly late: boolean;
  /** The beginning of what it wrote. */
  readonly output: string;
}

/**
 * Runs a program to its end, with an empty environment and nothing to read.
 *
 * @example
 * ```ts
 * import { runTool } from "./tool.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const result = runTool("echo", ["it", "works"]);
 * assertEquals("output" in result && result.output, "it works\n");
 * ```
 *
 * @param name Its name, which is searched for in the caller's PATH.
 * @param args Its arguments.
 * @param options How to run it.
 * @returns How it ended, or the error of execve(2).
 * @throws {PenneError} If no process can be made.
 */
export function runTool(
  name: string,
  args: readonly string[],
  { errors = false, timeout = -1 }: ToolOptions = {},
): ToolResult | SysError {
  const what = `run ${name}`;
  const [reader, writer] = attempt(what, () => pipe());
  using output = reader;
  using helper = attempt(what, () => Agent.spawn());
  let error: SysError | null = null;
  let path = name;
  {
    using end = writer;
    using nothing = open(self, "/dev/null", O.RDWR);
    const stdio = [nothing, end, errors ? end : nothing];
    undoRuntime(helper);
    for (path of searchPath(name, variable(environment(), "PATH") || undefined)) {
      error = exec(helper, path, [name, ...args], [], { stdio });
      if (error === null || !["ENOENT", "ENOTDIR", "EACCES"].includes(error.code)) break;
    }
  }
  if (error) {
    endAgents([helper]);
    return error;
  }
  // Wait for the tool, not for end of file: a process that it has started may hold the pipe longer.
  const late = timeout >= 0 && !endsWithin(helper.pidfd, timeout);
  if (late) sendSignal(helper.pidfd, SIGNAL.KILL);
  const status = waitChild(helper.pid);
  const buffer = new Uint8Array(OUTPUT_MAX);
  let length = 0;
  while (length < buffer.length && poll([{ fd: output, events: POLL.IN }], 0)[0]! & POLL.IN) {
    length += read(output, buffer.subarray(length));
  }
  return { path, status, late, output: new TextDecoder().decode(buffer.subarray(0, length)) };
}
