// `penne run`: from the command line to the exit code.

import type { Fd } from "../../ffi/core/fd.ts";
import { SignalPipe } from "../../ffi/sys/signal.ts";
import { SIGNAL } from "../../ffi/core/consts.ts";
import { PenneError } from "../base/errors.ts";
import { log, logTo } from "./report/log.ts";
import { BackgroundLink, startInBackground } from "./background.ts";
import { startChild, type StartOptions } from "../run/child.ts";
import { Reactor } from "../reactor/reactor.ts";
import { planRun, type RunOptions } from "../run/plan.ts";
import { rewriteResolvConf } from "../run/resolv.ts";
import { ReactorServer } from "../datapath/server/reactor_server.ts";
import { explainError, runCommand } from "./command.ts";
import { checkReportFds } from "./options/fds.ts";
import { NETWORK_OPTIONS, networkRequest } from "./options/network.ts";
import type { ParsedOptions } from "./options/table.ts";
import { FAILURE, runCommandHere } from "./foreground.ts";
import { NAME_OPTIONS, nameRequest, REACH_OPTIONS, reachRequest } from "./options/reach.ts";
import { RUN_SPEC } from "./run_spec.ts";
import { insideRequest } from "./options/isolation.ts";
import { fdOptions, optional, parseNamespaces, wordOption } from "./options/values.ts";

/** Signals on which nothing that is still on its way is waited for. */
const ENDING: readonly number[] = [SIGNAL.HUP, SIGNAL.INT, SIGNAL.QUIT, SIGNAL.TERM];

/** What the library is asked for, from the command line. */
function runOptions(options: ParsedOptions): RunOptions {
  const unshare = options.get("unshare");
  const kinds = unshare === undefined ? undefined : parseNamespaces(unshare);
  const ownNet = kinds?.includes("net") ?? true;
  const net = wordOption(options, "net", ["none", "host", "tap"]) ?? (ownNet ? "tap" : undefined);
  const network = networkRequest(options);
  const needless = net === "tap"
    ? null
    : [...NETWORK_OPTIONS, ...REACH_OPTIONS, ...NAME_OPTIONS].find(({ name }) =>
      options.has(name) || options.get(name)
    );
  if (needless) {
    throw new PenneError(`use --${needless.name} without a network`, {
      usage: true,
      hints: ["--net=tap gives one"],
    });
  }
  return {
    ...optional("unshare", kinds),
    ...optional("net", net),
    network,
    reach: reachRequest(options),
    ...nameRequest(options),
    ...insideRequest(options),
    init: !options.has("no-init"),
  };
}

/**
 * `penne run`.
 *
 * @param args What follows the command's name.
 * @returns The exit code.
 */
export function start(args: string[]): Promise<number> {
  return runCommand({ SPEC: RUN_SPEC, FAILURE, main }, args);
}

/** Runs the command; the result is the exit code. */
function main(options: ParsedOptions, args: readonly string[]): number | Promise<number> {
  const wanted = runOptions(options);
  checkReportFds(options);
  const link = options.get("background-link");
  if (link !== undefined) return runBehind(options, wanted, link);
  if (!options.has("background")) return runHere(options, wanted, null);
  if (options.has("die-with-parent")) {
    throw new PenneError("use --background with --die-with-parent: the process in the background has no such parent", {
      usage: true,
    });
  }
  planRun(wanted); // to refuse here what can be refused
  const keepFds = ["keep-fd", "ready-fd", "status-fd"].flatMap((name) => fdOptions(options, name)).filter((fd) =>
    fd > 2
  );
  return startInBackground("run", args, keepFds);
}

/** The second process: logs to the first one until the command runs. */
async function runBehind(options: ParsedOptions, wanted: RunOptions, value: string): Promise<number> {
  const link = new BackgroundLink(value);
  const restoreLog = logTo(link.log);
  try {
    return runHere(options, wanted, () => {
      restoreLog();
      link.done(0);
    });
  } catch (error) {
    const code = await explainError(error, FAILURE);
    link.done(code);
    return code;
  }
}

/** Runs the command as a child of this process. */
function runHere(options: ParsedOptions, wanted: RunOptions, started: (() => void) | null): number {
  const plan = planRun(wanted);
  using reactor = new Reactor();
  const signals = new SignalPipe(); // to the end of the process: undoing it would only cost time
  const onWarning = (message: string) => log().warn(message);
  let resolvConf: Fd | null = null;
  using server = new ReactorServer(reactor, plan.reach, onWarning, (conf) => {
    if (!resolvConf || !plan.resolvConf) return;
    try {
      rewriteResolvConf(resolvConf, plan.resolvConf(conf));
    } catch (error) {
      log().warn(`the command's resolv.conf is as before: ${error}`);
    }
  });
  const begin = (scene: StartOptions) =>
    startChild(plan, {
      ...scene,
      beforeExec: (starting) => {
        resolvConf = starting.resolvConf;
        if (starting.link && plan.network) {
          const stop = server.serve(starting.link, plan.network, () => {});
          starting.atEnd(() => {
            server.drain(() => signals.take().some(({ signal }) => ENDING.includes(signal)));
            stop();
          });
        }
        scene.beforeExec?.(starting);
      },
    });
  return runCommandHere(options, { reactor, signals, newSession: wanted.newSession ?? false, begin, started });
}
