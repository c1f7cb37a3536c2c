// Starts a command in namespaces of its own from any Deno program, and looks after it from the event loop.

import { Fd } from "../../ffi/core/fd.ts";
import { usage } from "../base/errors.ts";
import { portRange } from "../datapath/netif/tcp_ports.ts";
import { servedPorts } from "../datapath/server/served_ports.ts";
import { openRequestedPorts } from "../forward/open.ts";
import { holdFor } from "../forward/ports.ts";
import { checkPorts } from "../forward/request.ts";
import { spawnBeside } from "../network/resident.ts";
import { checkPermissions, WorkerServer } from "../datapath/server/worker_server.ts";
import { keepUp } from "../views/keep_up.ts";
import { makeMounts } from "../views/make_mounts.ts";
import { readFacts } from "./facts.ts";
import type { MadeNamespaces } from "./make_namespaces.ts";
import { planRun, type RunOptions } from "./plan.ts";
import type { RunningCommand } from "./process.ts";
import { RelayDriver } from "./relayed.ts";
import type { ExitStatus } from "./reports.ts";
import { startChild } from "./start.ts";

/**
 * Starts a command in its own namespaces.
 *
 * The command ends with the returned object, with this process or with its agents, whichever ends first.
 *
 * @param options The command and its namespaces.
 * @param stdio What it gets as stdin, stdout and stderr; null for this process's own. If another user may trace the command,
 *   it gets a terminal and pipes in place of those, and this process copies.
 * @returns The command, running.
 * @throws {PenneError} If it fails; nothing is left then.
 * @throws {ExecError} If the command cannot be executed; nothing is left then.
 */
export function startRun(options: RunOptions, stdio: readonly (Fd | null)[] = []): RunningCommand {
  const { ports = {} } = options;
  const requested = checkPorts(ports, options.network?.version, portRange);
  const { localOnly } = requested;
  if (localOnly && options.reach?.allow) throw usage("use reach.allow with ports.localOnly: there is no interface");
  const wanted: RunOptions = localOnly && options.net === "tap" ? { ...options, net: "none" } : options;
  const plan = planRun(wanted, readFacts(wanted));
  const { network } = plan;
  const served = network !== null || localOnly && plan.namespaces.includes("net");
  if (options.ports && !served) throw usage("use ports without a network", ['net: "tap" sets one up']);
  const { onWarning, onInfo } = options;
  const relay = new RelayDriver(onWarning, stdio);
  const start = { identify: true, onWarning, onInfo, openRelay: relay.open, makeMounts, ...given(stdio) };
  const keep = ({ files, enclosure }: MadeNamespaces) => {
    if (files) enclosure.afterEnd.defer(keepUp(files, onWarning));
  };
  if (!served) {
    return relay.drive(() => startChild(plan, { ...start, beforeExec: (_, made) => keep(made) }));
  }
  checkPermissions();
  const hold = holdFor(requested) ?? (options.ports ? "sockets" : null); // ports inside may come later
  const server = new WorkerServer(plan.reach, onWarning, openRequestedPorts(requested));
  try {
    const child = relay.drive(() =>
      startChild(plan, {
        ...start,
        beforeExec: ({ namespaces: { net: netns } }, made) => {
          const held = hold && { agent: spawnBeside(made.enclosure.agent), hold };
          server.serve(made.link, network, () => {}, { netns, held, followed: network });
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

/** The option for the descriptors of a command that is not exposed. */
export function given(stdio: readonly (Fd | null)[]): { stdio?: readonly Fd[] } {
  if (!stdio.some((fd) => fd !== null)) return {};
  return { stdio: [0, 1, 2].map((number) => stdio[number] ?? Fd.borrow(number)) };
}

/** Makes the network end with a command, once the data that the command has sent is delivered. */
function withServer(child: RunningCommand, server: WorkerServer): RunningCommand {
  let status: Promise<ExitStatus> | null = null;
  const { net } = child.namespaces;
  const finish = async () => {
    try {
      const ended = await child.status;
      await server.finish();
      return ended;
    } finally {
      server[Symbol.dispose]();
    }
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
    keepProgram(keeps) {
      child.keepProgram(keeps);
      server.keepProgram(keeps);
    },
    waitSync: null,
    ...net && { ports: () => servedPorts((asked) => server.ask(net, asked)) },
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
