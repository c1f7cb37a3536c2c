// Runs commands in namespaces of their own, for any Deno program.

import { ExecError } from "../agents/exec.ts";
import { readFacts } from "./facts.ts";
import { WorkerServer } from "../datapath/server/worker_server.ts";
import { type CommandOptions, type NetMode, planRun, type RunOptions } from "./plan.ts";
import type { HostEntry } from "../views/hosts.ts";
import { keepUp } from "../views/keep_up.ts";
import type { MadeNamespaces } from "./make_namespaces.ts";
import type { ChildProcess } from "./process.ts";
import { RelayDriver } from "./relayed.ts";
import type { ExitStatus } from "./reports.ts";
import { startChild } from "./start.ts";

export {
  type ChildProcess,
  type CommandOptions,
  ExecError,
  type ExitStatus,
  type HostEntry,
  type NetMode,
  type RunOptions,
};

/**
 * Starts a command in its own namespaces.
 *
 * The command ends with the returned object, with this process or with its agents, whichever ends first. It shares this
 * process's stdin, stdout and stderr; if another user may trace it, it gets a terminal and pipes of its own, and this process
 * copies. Call this on the main thread.
 *
 * @example
 * ```ts
 * import { spawn } from "./mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * using child = spawn({ command: ["sh", "-c", "exit $$"], hostname: "box" });
 * assertEquals(await child.status, { code: 2, signal: null }); // PID 1 is the agent
 * ```
 *
 * @param options The command and its namespaces.
 * @returns The command, running.
 * @throws {PenneError} If it fails; nothing is left then.
 * @throws {ExecError} If the command cannot be executed; nothing is left then.
 */
export function spawn(options: RunOptions): ChildProcess {
  const plan = planRun(options, readFacts(options));
  const { network } = plan;
  const { onWarning, onInfo } = options;
  const relay = new RelayDriver(onWarning);
  const start = { identify: true, onWarning, onInfo, openRelay: relay.open };
  const keep = ({ files, enclosure }: MadeNamespaces) => {
    if (files) enclosure.afterEnd.defer(keepUp(files, onWarning));
  };
  if (!network) return relay.drive(() => startChild(plan, { ...start, beforeExec: (_, made) => keep(made) }));
  const server = new WorkerServer(plan.reach, onWarning);
  try {
    const child = relay.drive(() =>
      startChild(plan, {
        ...start,
        beforeExec: (_, made) => {
          if (made.link) server.serve(made.link, network, () => {});
          keep(made);
        },
      })
    );
    return withServer(child, server);
  } catch (error) {
    server[Symbol.dispose]();
    throw error;
  }
}

/** Makes the network end with a command, once the data that the command has sent is delivered. */
function withServer(child: ChildProcess, server: WorkerServer): ChildProcess {
  let status: Promise<ExitStatus> | null = null;
  const finish = async () => {
    const ended = await child.status;
    await server.drain();
    server[Symbol.dispose]();
    return ended;
  };
  return {
    get pid() {
      return child.pid;
    },
    namespaces: child.namespaces,
    get status() {
      return status ??= finish();
    },
    kill: (signal) => child.kill(signal),
    end() {
      const ended = child.end();
      server[Symbol.dispose]();
      return ended;
    },
    [Symbol.dispose]() {
      child[Symbol.dispose]();
      server[Symbol.dispose]();
    },
  };
}

/**
 * Runs a command in its own namespaces to its end.
 *
 * @example
 * ```ts
 * import { run } from "./mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(await run({ command: ["sh", "-c", "exit 7"] }), { code: 7, signal: null });
 * ```
 *
 * @param options The command and its namespaces.
 * @returns How it ended.
 * @throws {PenneError} If it fails; nothing is left then.
 * @throws {ExecError} If the command cannot be executed; nothing is left then.
 */
export async function run(options: RunOptions): Promise<ExitStatus> {
  using child = spawn(options);
  return await child.status;
}
