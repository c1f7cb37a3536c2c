// Serves the namespace of a process, a name, a path or a descriptor, as pasta(1) does.

import { PR } from "../../../ffi/core/consts.ts";
import { call, self } from "../../../ffi/core/task.ts";
import { setName } from "../../agents/guard.ts";
import { setUpLog } from "../report/log.ts";
import { Reporter } from "../report/reporter.ts";
import type { PastaConfig } from "../../pasta/request.ts";
import { checkAttach } from "../../attach/attach.ts";
import { attachHere } from "../attach.ts";
import { runInBackground } from "../common/background.ts";
import { LINK_OPTION } from "../common/link_option.ts";
import { FAILURE, tell } from "./failure.ts";
import { openLog, StayingPidFile, warn } from "./files.ts";
import { become, identityOf } from "./identity.ts";
import { holdOf, openPastaControl, openPastaPorts } from "./ports.ts";
import { networkOf, reachOf } from "./requests.ts";
import { refuseUnsupported } from "./unsupported.ts";
import { lookAtNamespaces, servedTarget } from "./targets.ts";
import { watching } from "./watching.ts";

/** What is served, and by whom. */
export interface PastaJob {
  /** What the command line asks for. */
  readonly config: PastaConfig;
  /** The command word, or null if the program's name stands for it. */
  readonly word: string | null;
  /** The words after it. */
  readonly args: readonly string[];
  /** Value of the hidden option of the second process; undefined in the first one. */
  readonly link: string | undefined;
  /** First line of a log file. */
  readonly head: string;
}

/**
 * Serves a namespace, in the background unless told otherwise.
 *
 * @param job What is served.
 * @returns The exit code.
 */
export async function serve({ config, word, args, link, head }: PastaJob): Promise<number> {
  setUpLog({ format: "bare" });
  try {
    const target = servedTarget(config)!;
    const watched = await watching(config);
    return await runInBackground({ background: !config.foreground, ...link !== undefined && { [LINK_OPTION]: link } }, {
      command: word,
      args,
      keepFds: target.kind === "fd" ? [target.fd] : [],
      failure: FAILURE,
      writes: false,
      letsGo: true,
      explain: tell,
      prepare: () => {
        // The second process has only the descriptors that it needs.
        if (link === undefined) lookAtNamespaces(config);
        return (starter) => {
          setName(self, "pasta");
          // RootlessKit asks for a signal at the end of a thread, which the kernel forgets when pasta changes its credentials.
          call(self, "prctl", PR.SET_PDEATHSIG, 0, 0, 0, 0);
          const logToFile = openLog(config.log, head);
          warn(config.warnings);
          refuseUnsupported(config);
          const identity = identityOf(config.runas);
          const request = { ...networkOf(config), ...reachOf(config) };
          checkAttach([target.text], request);
          // As pasta, penne holds namespaces whose end tells nothing, too, if ports follow listeners or lead out.
          const endIsKnown = !config.stay && target.kind !== "fd";
          const held = holdOf(config);
          const localOnly = config.splice === "only";
          const needed = held !== "sockets" || config.rules.outbound.length > 0 || localOnly;
          const hold = endIsKnown || needed ? held : null;
          const pidFile = config.pidFile === null ? null : new StayingPidFile(config.pidFile, false);
          return attachHere({
            targets: [target],
            wanted: { ...request, quit: !config.stay, hold, adoptTap: target.kind !== "fd", localOnly },
            confinement: { "no-confine": false }, // pasta(1) has no such option
            openPorts: () => openPastaPorts(config),
            openPesto: () => openPastaControl(config),
            ...watched,
            openReporter: () => new Reporter({ ready: null, status: null, pidFile }),
            starter,
            onReady: () => {
              pidFile?.keep();
              logToFile();
              if (identity) become(identity, true);
            },
          });
        };
      },
    });
  } catch (error) {
    return await tell(error);
  }
}
