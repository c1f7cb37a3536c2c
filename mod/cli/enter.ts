// `penne enter`: runs a command in namespaces that exist already.

import { SignalPipe } from "../../ffi/sys/signal.ts";
import { usage } from "../base/errors.ts";
import { type KeptOpener, openSet } from "../enter/open_set.ts";
import { log } from "./report/log.ts";
import { planEnter } from "../enter/plan.ts";
import { startEntered } from "../enter/start.ts";
import { Reactor } from "../reactor/reactor.ts";
import { ExposedError } from "../run/exposed.ts";
import { command, type Start } from "./common/command.ts";
import { FAILURE, type Job, loadRelay, runInForeground } from "./common/foreground.ts";
import { COMMAND_OPTIONS, commandRequest, CREDENTIAL_OPTIONS } from "./options/isolation.ts";
import { PLACE_OPTIONS, STALE_OPTIONS, whichSet } from "./options/kept.ts";
import {
  COMMAND_EXIT_CODES,
  CONFINE_OPTIONS,
  END_OPTIONS,
  endRequest,
  REPORT_OPTIONS,
  reportFds,
} from "./options/lifecycle.ts";
import type { CommandSpec } from "./options/table.ts";
import { defined, namespacesOption } from "./options/values.ts";

/** What `penne enter` accepts. */
export const SPEC = {
  name: "enter",
  synopsis: "[OPTIONS] TARGET [OPTIONS] [--] [COMMAND [ARGUMENT…]]",
  mixed: 1,
  summary:
    "Join the namespaces of TARGET and run COMMAND in them (default: your login shell). TARGET is a PID, the NAME of a kept set, fd:N (a namespace or a pidfd), netns:NAME (of ip netns), or comma-separated PATHs of namespaces. COMMAND and all processes it starts are killed when penne ends.",
  groups: [
    {
      title: "Namespaces",
      options: [
        {
          name: "type",
          value: "LIST",
          help:
            "Namespaces to join: user, mnt, pid, ipc, uts, net, cgroup, time, or all (default: all that differ from your own)",
        },
        {
          name: "for-children",
          help: "Join the pid and time namespaces in which children of TARGET's process are born",
        },
        { name: "root", help: "Use the root directory of TARGET's process, which may be in a chroot" },
        { name: "cgroup", help: "Put COMMAND into the cgroups of TARGET's process" },
      ],
    },
    { title: "Kept set", options: [...STALE_OPTIONS, ...PLACE_OPTIONS] },
    {
      title: "Users and groups",
      options: [
        {
          name: "preserve-credentials",
          help: "Keep your ids and groups in a joined user namespace (default: become 0, or the first mapped id)",
        },
        ...CREDENTIAL_OPTIONS,
      ],
    },
    {
      title: "Command",
      options: [
        ...COMMAND_OPTIONS,
        {
          name: "target-env",
          help:
            "Start with the environment of TARGET's process; what programs load code by is left out unless its mnt and user namespaces are joined",
        },
      ],
    },
    { title: "Life and status", options: [...REPORT_OPTIONS, ...END_OPTIONS, ...CONFINE_OPTIONS] },
  ],
  exitCodes: COMMAND_EXIT_CODES,
  examples: [
    ["penne enter 4711", "a shell in all namespaces of process 4711"],
    ["penne enter --type net 4711 -- ss -tlnp", "its network, your files"],
    ["penne enter --cgroup --target-env --root 4711 -- env", "its cgroups, environment and root directory too"],
    ["penne enter box -- make test", "the namespaces kept as box"],
    ["penne enter --base /srv/base app -- ./app", "refuse if they are stale"],
    ["penne enter fd:3 -- ip addr 3</run/netns/blue", "an open descriptor"],
  ],
} as const satisfies CommandSpec;

/**
 * Makes the program of `penne enter`.
 *
 * @param openKept Opens a kept set.
 * @param startKept Carries out command lines that name a kept set, instead of this program.
 * @returns The program.
 */
export function enterCommand(openKept: KeptOpener, startKept?: Start): Start {
  return command(SPEC, async (options, args) => {
    const [target, ...words] = options.operands;
    if (target === undefined) throw usage("enter: TARGET is missing", ["penne enter --help lists what it can be"]);
    const plan = planEnter({
      ...commandRequest(options, words[0] === "--" ? words.slice(1) : words),
      ...endRequest(options),
      ...whichSet(options),
      target,
      forChildren: options["for-children"],
      root: options.root,
      cgroup: options.cgroup,
      targetEnv: options["target-env"],
      preserveCredentials: options["preserve-credentials"],
      // All is the default too, and leaves out what is our own.
      ...defined({ types: options.type === "all" ? undefined : namespacesOption(options, "type") }),
    });
    reportFds(options);
    if (plan.target.kind === "kept" && startKept) return startKept([...args]);
    const said = new Set<string>(); // an exposed command takes a second attempt
    const onWarning = (message: string) => {
      if (!said.has(message)) log().warn(message);
      said.add(message);
    };
    using set = openSet(plan, openKept, onWarning);
    using reactor = new Reactor();
    const job: Job = {
      reactor,
      signals: new SignalPipe(), // until the process ends: undoing it would only cost time
      newSession: options["new-session"],
      makeRelay: null,
      begin: (scene) =>
        startEntered(plan, set, {
          ...scene,
          onWarning,
          beforeExec: (starting, made) => {
            made.files?.follow(reactor, onWarning);
            scene.beforeExec?.(starting, made);
          },
        }),
    };
    try {
      return await runInForeground(options, job);
    } catch (error) {
      if (!(error instanceof ExposedError)) throw error;
      return await runInForeground(options, { ...job, makeRelay: await loadRelay() });
    }
  }, FAILURE);
}
