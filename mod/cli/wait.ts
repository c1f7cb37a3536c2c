// `penne wait`: waits until namespaces or processes exist or are gone.

import { CAP } from "../../ffi/core/consts.ts";
import { self } from "../../ffi/core/task.ts";
import { EPOLL_RULES } from "../../ffi/sys/epoll.ts";
import { execCommand } from "../agents/exec.ts";
import { undoRuntime } from "../agents/inherit.ts";
import { usage } from "../base/errors.ts";
import { caller, environment } from "../host/caller.ts";
import { Reactor } from "../reactor/reactor.ts";
import { forgetTargets } from "../netns/open.ts";
import { NETNS_DIRECTORY, parseTarget, type Target } from "../netns/target.ts";
import { TargetWait, waitRules } from "../netns/wait.ts";
import { command } from "./common/command.ts";
import { confineRole } from "./common/confine.ts";
import { CONFINE_OPTIONS, openReporter } from "./options/lifecycle.ts";
import type { CommandSpec, ParsedOptions } from "./options/table.ts";
import { secondsOption, wordOption } from "./options/values.ts";

/** What `penne wait` accepts. */
export const SPEC = {
  name: "wait",
  synopsis: "--for present|gone [OPTIONS] TARGET… [-- HOOK [ARGUMENT…]]",
  summary:
    "Wait until every TARGET is present or gone, then exit, or execute HOOK. TARGET is a PID, a name of ip netns, a path, or fd:N. A name is present when a namespace is mounted on it.",
  mixed: true,
  groups: [
    {
      title: "Waiting",
      options: [
        { name: "for", value: "STATE", help: "State to wait for: present or gone" },
        {
          name: "timeout",
          value: "SECONDS",
          help: "Give up after this time, and exit with 124 (decimals are allowed)",
        },
        {
          name: "ready-fd",
          value: "N",
          help: "Write a line to descriptor N when no later change can be missed, and close it",
        },
        ...CONFINE_OPTIONS,
      ],
    },
  ],
  exitCodes: [
    ["0", "all targets are in that state; with HOOK: exit code of HOOK"],
    ["1", "failure"],
    ["2", "usage error; nothing was done"],
    ["124", "timed out"],
    ["159", "penne was about to make a system call that it has forbidden itself"],
    ["126, 127", "HOOK could not be executed, or was not found"],
  ],
  examples: [
    ["penne wait blue --for present --timeout 10", "wait for ip netns add blue"],
    ["penne wait 4711 --for gone -- rm -r /run/job", "clean up after a process"],
  ],
} as const satisfies CommandSpec;

const FAILURE = 1;
const TIMED_OUT = 124;

/** `penne wait`. */
export const start = command(SPEC, main, FAILURE);

/** The capabilities that looking for targets takes. */
function needed(targets: readonly Target[]): bigint {
  // Every user may look into the directory of ip-netns(8), but not into any, nor through /proc/PID/root.
  const search = targets.some((target) => target.kind === "path" && !target.path.startsWith(`${NETNS_DIRECTORY}/`));
  const handle = targets.some(({ kind }) => kind === "fd");
  const kept = [...search ? [CAP.DAC_READ_SEARCH, CAP.SYS_PTRACE] : [], ...handle ? [CAP.SYS_ADMIN] : []];
  return kept.reduce((set, capability) => set | 1n << BigInt(capability), 0n);
}

/** Waits; returns the exit code. */
function main(options: ParsedOptions<typeof SPEC>): number {
  const { operands, tail: hook } = options;
  const state = wordOption(options, "for", ["present", "gone"]);
  if (!state) throw usage("wait without --for", ["--for present, or --for gone"]);
  if (operands.length === 0) {
    throw usage("wait: TARGET is missing", ["a TARGET is a PID, a name of ip netns, a path or fd:N"]);
  }
  if (hook?.length === 0) throw usage("wait: HOOK is missing after --");
  const targets = operands.map(parseTarget);
  const timeout = secondsOption(options, "timeout");
  const report = openReporter(options);
  using reactor = new Reactor();
  {
    using waiting = new TargetWait(reactor, targets, state, () => reactor.stop());
    forgetTargets(targets); // penne's own descriptors would keep them alive
    report.ready(() => ({}));
    if (timeout !== undefined) reactor.after(timeout, () => reactor.stop());
    // HOOK would inherit what penne gives up.
    if (!waiting.done && !hook) {
      confineRole(options, { name: "wait", keep: needed(targets), rules: [...EPOLL_RULES, ...waitRules(targets)] });
    }
    if (!waiting.done) reactor.run();
    if (!waiting.done) return TIMED_OUT;
  }
  if (!hook) return 0;
  // HOOK replaces penne, so that signals and the exit code are its own.
  undoRuntime(self);
  const [file] = hook;
  execCommand(self, { program: { file: file!, argv: hook }, environment: environment(), blocked: caller().blocked });
  return FAILURE; // not reached
}
