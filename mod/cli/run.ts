// `penne run`: from the command line to the exit code.

import type { Fd } from "../../ffi/fd.ts";
import { SignalPipe } from "../../ffi/sys.ts";
import { Agent } from "../../ffi/agent.ts";
import { SIGNAL } from "../../ffi/consts.ts";
import { PenneError } from "../errors.ts";
import { log, logTo } from "../log/log.ts";
import { BackgroundLink, startInBackground } from "../background/background.ts";
import { startChild } from "../run/child.ts";
import { ExecError } from "../run/command.ts";
import { Reactor } from "../reactor/reactor.ts";
import { planRun, type RunOptions } from "../run/plan.ts";
import { openParent } from "../run/parent.ts";
import { rewriteResolvConf } from "../run/resolv.ts";
import { ReactorServer } from "../serve/server.ts";
import { FORWARDED, supervise } from "../run/supervise.ts";
import { Terminal } from "../run/terminal.ts";
import { explainError, runCommand } from "./command.ts";
import { checkReportFds, openReporter } from "./fds.ts";
import { NETWORK_OPTIONS, networkRequest } from "./network_options.ts";
import type { ParsedOptions } from "./options.ts";
import { NAME_OPTIONS, nameRequest, REACH_OPTIONS, reachRequest } from "./reach_options.ts";
import { RUN_SPEC } from "./run_spec.ts";
import { insideRequest, optional } from "./inside_options.ts";
import { fdOptions, parseNamespaces, parseSignal, wordOption } from "./values.ts";

/** Exit code when penne fails before the command has run. */
const FAILURE = 125;

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
  const killSignal = options.get("kill-signal");
  return {
    command: options.rest,
    ...optional("unshare", kinds),
    ...optional("net", net),
    network,
    reach: reachRequest(options),
    ...nameRequest(options),
    ...insideRequest(options),
    init: !options.has("no-init"),
    onWarning: (message) => log().warn(message),
    ...optional("killSignal", killSignal === undefined ? undefined : parseSignal(killSignal)),
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
  const newSession = wanted.newSession ?? false;
  using parent = options.has("die-with-parent") ? openParent() : null;
  using terminal = Terminal.open(newSession);
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
  const report = openReporter(options);
  try {
    using child = startChild(plan, {
      terminal,
      identify: report.wantsStatus,
      beforeExec: (starting) => {
        for (const name of FORWARDED) signals.catch(SIGNAL[name]);
        resolvConf = starting.resolvConf;
        if (starting.link && plan.network) {
          const stop = server.serve(starting.link, plan.network, () => {});
          starting.atEnd(() => {
            server.drain(() => signals.take().some(({ signal }) => ENDING.includes(signal)));
            stop();
          });
        }
        report.ready(() => ({ child: starting.pid, namespaces: starting.namespaces }));
      },
    });
    started?.();
    if (Agent.execRefused) {
      log().warn(
        `executing a memfd is not allowed here (${Agent.execRefused.code}; see vm.memfd_noexec): agents are forked instead`,
      );
    }
    const status = supervise(child, { reactor, signals, terminal, newSession, parent });
    if (status.lost) log().error("the agent that looked after the command was killed, and the command with it");
    const code = status.code ?? 128 + status.signal!;
    report.exit(code, status.signal);
    return code;
  } catch (error) {
    report.exit(error instanceof ExecError ? error.exitCode : FAILURE, null);
    throw error;
  }
}
