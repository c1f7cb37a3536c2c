// `penne keep`: keeps namespaces under a name.

import { SignalPipe } from "../../ffi/sys/signal.ts";
import { END_TIMEOUT } from "../agents/enclosure.ts";
import { usage } from "../base/errors.ts";
import { keepProcess, prepareSetUp } from "../kept/preserve.ts";
import type { KeepRequest } from "../kept/reservation.ts";
import { log } from "./report/log.ts";
import { Reactor } from "../reactor/reactor.ts";
import type { RunOptions } from "../run/plan.ts";
import { startChild } from "../run/start.ts";
import { command } from "./common/command.ts";
import { confineAgents } from "./common/confined.ts";
import { FAILURE, loadRelay, runInForeground } from "./common/foreground.ts";
import {
  COMMAND_OPTIONS,
  CREDENTIAL_OPTIONS,
  isolationRequest,
  MAP_OPTIONS,
  UNSHARE_OPTIONS,
} from "./options/isolation.ts";
import { PLACE_OPTIONS, STALE_OPTIONS, whichSet } from "./options/kept.ts";
import { CONFINE_OPTIONS } from "./options/lifecycle.ts";
import type { CommandSpec, OptionSpec, ParsedOptions } from "./options/table.ts";
import { defined, firstGiven, namespacesOption, numberOption, secondsOption, wordOption } from "./options/values.ts";

/** Options for the namespaces of a process. */
const PROCESS_OPTIONS = [
  { name: "pid", value: "PID", help: "Keep the namespaces of this process" },
  {
    name: "type",
    value: "LIST",
    help:
      "Namespaces to keep: user, mnt, pid, ipc, uts, net, cgroup, time, or all (default: all that differ from penne's)",
  },
] as const satisfies readonly OptionSpec[];

/** Options for new namespaces. */
const NEW_OPTIONS = [
  {
    name: "net",
    value: "MODE",
    help: "Network: none (loopback only; default) or host (no net namespace); penne attach can add one later",
  },
  ...UNSHARE_OPTIONS,
  {
    name: "timeout",
    value: "SECONDS",
    help:
      "Kill SETUP after this time, and exit with 124 (default: never; with --user 300, since that user can stop SETUP)",
  },
] as const satisfies readonly OptionSpec[];

/** What `penne keep` accepts. */
export const SPEC = {
  name: "keep",
  synopsis: "NAME [OPTIONS] (--pid PID | -- SETUP [ARGUMENT…])",
  summary:
    "Keep namespaces under a name: those of a process, or new ones in which SETUP runs first, and which are kept only if it exits with 0. penne enter joins them, penne drop removes them.",
  mixed: true,
  groups: [
    { title: "Namespaces of a process", options: PROCESS_OPTIONS },
    { title: "New namespaces", options: NEW_OPTIONS },
    { title: "Kept set", options: [...STALE_OPTIONS, ...PLACE_OPTIONS, ...CONFINE_OPTIONS] },
    { title: "Users and groups", options: [...MAP_OPTIONS, ...CREDENTIAL_OPTIONS] },
    { title: "SETUP (the COMMAND of these options)", options: COMMAND_OPTIONS },
  ],
  exitCodes: [
    ["0", "kept; or already kept and, by --base or --key, not stale (SETUP does not run then)"],
    ["1", "the namespaces of the process could not be kept"],
    ["1-255", "exit code of SETUP; 128+N if signal N killed it; nothing is kept"],
    ["127", "SETUP was not found"],
    ["126", "SETUP was found but could not be executed"],
    ["125", "penne failed, before SETUP or after it; nothing is kept"],
    ["124", "SETUP did not end in time; nothing is kept"],
    ["2", "usage error; nothing was done"],
  ],
  examples: [
    ["penne keep build -- mount -t tmpfs none /mnt", "namespaces with a tmpfs on /mnt"],
    ["penne keep web --pid 4711", "the namespaces of a running process"],
    ["penne keep app --base /srv/base -- ./set-up", "set up again only if /srv/base is now on another device"],
    ["penne keep job --user alice -- true", "as root, for alice to enter"],
  ],
} as const satisfies CommandSpec;

type Options = ParsedOptions<typeof SPEC>;

const TIMED_OUT = 124;
const PID_MAX = 2 ** 22;

/** `penne keep`. */
export const start = command(SPEC, main, (args) => args.includes("--") ? FAILURE : 1);

/** Keeps namespaces; returns the exit code. */
function main(options: Options): number | Promise<number> {
  const { operands: [name, ...more], tail } = options;
  if (name === undefined) throw usage("keep: NAME is missing");
  if (more.length) throw usage(`keep more than one NAME at a time: "${more[0]}" is one too many`);
  const which = { ...whichSet(options), ...confineAgents(options) };
  const pid = numberOption(options, "pid", 1, PID_MAX);
  if (tail) {
    if (pid !== undefined) throw usage("use --pid with a set-up command: choose one");
    if (options.type !== undefined) throw usage("use --type with -- SETUP");
    return keepNew(options, name, which, tail);
  }
  if (pid === undefined) {
    throw usage(`keep "${name}": nothing to keep was given`, [
      "--pid PID keeps the namespaces of a process",
      "-- SETUP … makes new ones",
    ]);
  }
  const needless = firstGiven(options, [...NEW_OPTIONS, ...MAP_OPTIONS, ...CREDENTIAL_OPTIONS, ...COMMAND_OPTIONS]);
  if (needless) throw usage(`use --${needless} with --pid`);
  const made = keepProcess(name, pid, { ...which, ...defined({ types: namespacesOption(options, "type") }) });
  if (!made) log().info(`"${name}" is kept already`);
  return 0;
}

/** Makes namespaces, and keeps them if the set-up command succeeds. */
async function keepNew(
  options: Options,
  name: string,
  which: KeepRequest,
  setUpCommand: readonly string[],
): Promise<number> {
  const limit = secondsOption(options, "timeout");
  const request: RunOptions = {
    ...isolationRequest(options, setUpCommand),
    ...defined({ net: wordOption(options, "net", ["none", "host", "tap"]) }),
  };
  using setUp = prepareSetUp(name, request, which);
  if (!setUp) {
    log().info(`"${name}" is kept already`);
    return 0;
  }
  const makeRelay = setUp.plan.exposed ? await loadRelay() : null;
  const timeout = limit ?? setUp.timeLimit ?? undefined;
  using reactor = new Reactor();
  let late = false;
  const code = await runInForeground({ "no-confine": options["no-confine"] }, {
    reactor,
    signals: new SignalPipe(), // until the process ends: undoing it would only cost time
    newSession: options["new-session"],
    makeRelay,
    ...setUp.timeLimit !== null && { patience: END_TIMEOUT },
    begin: (scene) =>
      startChild(setUp.plan, {
        ...setUp.start,
        ...scene,
        onExit: ({ code }, ended) => {
          if (code === 0 && !late) setUp.keep(ended);
        },
        beforeExec: (starting, made) => {
          scene.beforeExec?.(starting, made);
          setUp.start.beforeExec?.(starting, made);
        },
      }),
    started: (child) => {
      if (timeout === undefined) return;
      reactor.after(timeout, () => {
        late = true;
        child.kill("KILL");
      });
    },
  });
  if (!late) return code;
  log().error(`cannot keep "${name}": the set-up command did not end within ${timeout! / 1000} s`);
  return TIMED_OUT;
}
