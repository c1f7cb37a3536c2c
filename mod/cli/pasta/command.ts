// Runs a command in namespaces of its own, as pasta(1) does.

import { CAP } from "../../../ffi/core/consts.ts";
import { E, errnoText, orNull } from "../../../ffi/core/errno.ts";
import { self } from "../../../ffi/core/task.ts";
import { readText } from "../../../ffi/sys/file.ts";
import { effectiveCapabilities, hasCapability } from "../../host/caller.ts";
import type { NamespaceType } from "../../namespaces/types.ts";
import type { PastaConfig } from "../../pasta/request.ts";
import { readFacts } from "../../run/facts.ts";
import { planRun, type RunOptions } from "../../run/plan.ts";
import type { Starter } from "../common/background.ts";
import { runNetwork } from "../common/run_network.ts";
import { setUpLog } from "../report/log.ts";
import { Reporter } from "../report/reporter.ts";
import { runHere } from "../run.ts";
import { PastaError, tell } from "./failure.ts";
import { openLog, StayingPidFile, warn } from "./files.ts";
import { become, identityOf } from "./identity.ts";
import { holdOf, openPastaControl, openPastaPorts } from "./ports.ts";
import { networkOf, reachOf } from "./requests.ts";
import type { PastaJob } from "./serve.ts";
import { refuseUnsupported } from "./unsupported.ts";
import { lookAtNamespaces } from "./targets.ts";
import { watching } from "./watching.ts";

const HOSTNAME_MAX = 64;

/** The name of the host inside: one that shows where it is from. */
function hostname({ dhcp }: PastaConfig): string {
  if (dhcp.hostname !== null) return dhcp.hostname;
  const name = orNull(() => readText(self, "/proc/sys/kernel/hostname").trim()) ?? "";
  return `pasta-${name}`.slice(0, HOSTNAME_MAX);
}

/** The command and its namespaces. */
function runOptions(config: PastaConfig): RunOptions {
  const { netnsOnly, pidns, target } = config;
  const unshare: NamespaceType[] = [
    ...netnsOnly ? [] : ["user"] as const,
    ...["mnt", "ipc", "uts", "net"] as const,
    ...pidns ? ["pid"] as const : [],
  ];
  return {
    command: target.kind === "command" ? target.command : [],
    unshare,
    ...config.splice === "only"
      ? { net: "none" as const }
      : { net: "tap" as const, network: networkOf(config), reach: reachOf(config) },
    hostname: hostname(config),
    // resolv.conf is left alone.
    dns: "none",
  };
}

/** Refuses to make namespaces without one of users where that takes a capability, in pasta's words. */
function checkNamespaces({ netnsOnly }: PastaConfig): void {
  if (!netnsOnly || hasCapability(effectiveCapabilities(), CAP.SYS_ADMIN)) return;
  throw new PastaError([`Failed to clone process with detached namespaces: ${errnoText(E.EPERM)}`]);
}

/**
 * Runs a command.
 *
 * @param job What is run.
 * @returns The exit code: that of the command.
 */
export async function run({ config, head }: PastaJob): Promise<number> {
  setUpLog({ format: "bare" });
  try {
    const logToFile = openLog(config.log, head);
    warn(config.warnings);
    lookAtNamespaces(config);
    refuseUnsupported(config);
    const identity = identityOf(config.runas);
    const pidFile = config.pidFile === null ? null : new StayingPidFile(config.pidFile, identity !== null);
    if (identity) become(identity, false);
    checkNamespaces(config);
    const options = runOptions(config);
    const starter: Starter = {
      release() {},
      ready() {
        pidFile?.keep();
        logToFile();
      },
    };
    return await runHere({ "new-session": false, quiet: true }, {
      plan: planRun(options, readFacts(options)),
      starter,
      openNetwork: runNetwork(
        { hold: holdOf(config), localOnly: config.splice === "only" },
        () => openPastaPorts(config),
        () => openPastaControl(config),
      ),
      ...await watching(config),
      openReporter: () => new Reporter({ ready: null, status: null, pidFile }),
    });
  } catch (error) {
    return await tell(error);
  }
}
