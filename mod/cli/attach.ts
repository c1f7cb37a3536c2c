// `penne attach`: from the command line to the exit code.

import { SIGNAL } from "../../ffi/core/consts.ts";
import { EPOLL } from "../../ffi/sys/epoll.ts";
import { SignalPipe } from "../../ffi/sys/signal.ts";
import { call, self } from "../../ffi/core/task.ts";
import { type Attached, Attachments, type AttachOptions, checkAttach, type DetachCause } from "../attach/attach.ts";
import { BackgroundLink, startInBackground } from "./background.ts";
import { log, logTo } from "./report/log.ts";
import { Reactor } from "../reactor/reactor.ts";
import { ReactorServer } from "../datapath/server/reactor_server.ts";
import { forgetDescriptors } from "../netns/open.ts";
import type { Target } from "../netns/target.ts";
import { ATTACH_SPEC } from "./attach_spec.ts";
import { explainError, runCommand } from "./command.ts";
import { checkReportFds, openReporter } from "./options/fds.ts";
import { networkRequest } from "./options/network.ts";
import { reachRequest } from "./options/reach.ts";
import type { ParsedOptions } from "./options/table.ts";
import { fdOptions } from "./options/values.ts";

const FAILURE = 1;

/** Signals that end penne as if all was done, and those that it dies of afterwards. */
const END_SIGNALS = ["TERM", "QUIT"] as const;
const FATAL_SIGNALS = ["INT", "HUP"] as const;

/**
 * `penne attach`.
 *
 * @param args What follows the command's name.
 * @returns The exit code.
 */
export function start(args: string[]): Promise<number> {
  return runCommand({ SPEC: ATTACH_SPEC, FAILURE, main }, args);
}

/** Attaches; the result is the exit code. */
function main(options: ParsedOptions, args: readonly string[]): number | Promise<number> {
  const request = { ...networkRequest(options), ...reachRequest(options) };
  const targets = checkAttach(options.rest, request);
  checkReportFds(options);
  const wanted: AttachOptions = { ...request, quit: !options.has("no-quit") };
  const link = options.get("background-link");
  if (link !== undefined) return attachBehind(options, targets, wanted, link);
  if (!options.has("background")) return attachHere(options, targets, wanted, () => {});
  const own = targets.flatMap((target) => target.kind === "fd" ? [target.fd] : []);
  const reports = ["ready-fd", "status-fd"].flatMap((name) => fdOptions(options, name));
  return startInBackground("attach", args, [...new Set([...own, ...reports])]);
}

/** The second process: logs to the first one until all is ready. */
async function attachBehind(
  options: ParsedOptions,
  targets: readonly Target[],
  wanted: AttachOptions,
  value: string,
): Promise<number> {
  const link = new BackgroundLink(value);
  const restoreLog = logTo(link.log);
  try {
    return attachHere(options, targets, wanted, () => {
      restoreLog();
      link.done(0);
    });
  } catch (error) {
    const code = await explainError(error, FAILURE);
    link.done(code);
    return code;
  }
}

function describe({ target, netns, interface: name }: Attached): Record<string, unknown> {
  return { target, namespaces: { net: netns }, interface: name };
}

/** Serves the targets to their end. */
function attachHere(
  options: ParsedOptions,
  targets: readonly Target[],
  wanted: AttachOptions,
  ready: () => void,
): number {
  using reactor = new Reactor();
  using signals = new SignalPipe();
  let [failed, signal] = [false, 0];
  const onDetach = (attached: Attached, cause: DetachCause) => {
    log().info(`"${attached.target}" is left: ${cause}`);
    report.event({ event: "detached", target: attached.target, cause });
    if (cause === "interface removed") {
      failed = true;
      log().error(`cannot serve "${attached.target}" any longer: its interface was removed`);
    }
    if (attachments.served.length === 0 && wanted.quit) reactor.stop();
  };
  const onWarning = (message: string) => log().warn(message);
  using server = new ReactorServer(reactor, wanted, onWarning);
  using attachments = new Attachments(reactor, server, { ...wanted, onDetach, onWarning });
  const report = openReporter(options);
  let exitCode = FAILURE;
  try {
    // Before anything is made: a signal in the middle is dealt with at the end of it.
    for (const name of [...END_SIGNALS, ...FATAL_SIGNALS]) signals.catch(SIGNAL[name]);
    let pending: number | null = null;
    attachments.add(targets, () => (pending ??= signals.take().at(-1)?.signal ?? null) !== null);
    forgetDescriptors(new Set(attachments.served.map(({ netns }) => netns.inum)));
    using _caught = reactor.watch(signals.reader, EPOLL.IN, () => {
      signal = signals.take().at(-1)?.signal ?? 0;
      reactor.stop();
    });
    report.ready(() => ({ targets: attachments.served.map(describe) }));
    ready();
    attachments.keep();
    if (attachments.served.length > 0 || !wanted.quit) reactor.run();
    exitCode = failed ? FAILURE : 0;
  } finally {
    report.exit(exitCode, null);
  }
  const fatal = FATAL_SIGNALS.find((name) => SIGNAL[name] === signal);
  if (!fatal) return exitCode;
  attachments[Symbol.dispose]();
  signals.withDefault(signal, () => call(self, "kill", call(self, "getpid"), signal));
  return 128 + signal; // PID 1 of a pid namespace outlives it
}
