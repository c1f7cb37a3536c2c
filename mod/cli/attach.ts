// `penne attach`: gives existing network namespaces their network.

import { AgentGoneError } from "../../ffi/agent/gone.ts";
import type { CallRule } from "../../ffi/core/call_rule.ts";
import { CAP, SIGNAL } from "../../ffi/core/consts.ts";
import { orNull, SysError } from "../../ffi/core/errno.ts";
import { AF, IPPROTO, SOCK } from "../../ffi/net/constants.ts";
import { EPOLL } from "../../ffi/sys/epoll.ts";
import { HANDLE_RULES } from "../../ffi/sys/namespace.ts";
import { SignalPipe } from "../../ffi/sys/signal.ts";
import { call, self } from "../../ffi/core/task.ts";
import { giveUpCapabilities } from "../agents/credentials.ts";
import type { OnConfined } from "../confine/agents.ts";
import { type Attached, Attachments, checkAttach, type DetachCause, type ServeOptions } from "../attach/attach.ts";
import { usage } from "../base/errors.ts";
import { openRequestedPorts } from "../forward/open.ts";
import { loadAdmitting } from "./common/admitting.ts";
import { type OpenFrames, recording } from "./common/frames.ts";
import { runInBackground, type Starter } from "./common/background.ts";
import { log } from "./report/log.ts";
import type { Reporter } from "./report/reporter.ts";
import { Reactor } from "../reactor/reactor.ts";
import type { PestoSocket } from "../pesto/server.ts";
import { prepareServing, servingRules } from "../datapath/server/call_rules.ts";
import { ReactorServer } from "../datapath/server/reactor_server.ts";
import { type Keeper, keepRights } from "../follow/keeper.ts";
import { forgetDescriptors } from "../netns/open.ts";
import { NETNS_DIRECTORY, type Target } from "../netns/target.ts";
import { PROCESS_RULES, WATCHER_RULES } from "../netns/watcher.ts";
import { planHold } from "../attach/ports.ts";
import type { Forwarding } from "../forward/ports.ts";
import { command } from "./common/command.ts";
import { confineRole } from "./common/confine.ts";
import { reportConfined } from "./common/confined.ts";
import { followHost } from "./common/follow.ts";
import { BACKGROUND_OPTIONS, CONFINE_OPTIONS, openReporter, REPORT_OPTIONS } from "./options/lifecycle.ts";
import { NETWORK_OPTIONS, networkRequest } from "./options/network.ts";
import { PORT_OPTIONS, portRequest } from "./options/ports.ts";
import { REACH_OPTIONS, reachRequest } from "./options/reach.ts";
import type { CommandSpec, ParsedOptions } from "./options/table.ts";
import { firstGiven } from "./options/values.ts";

/** What `penne attach` accepts. */
export const SPEC = {
  name: "attach",
  synopsis: "[OPTIONS] TARGET…",
  mixed: true,
  summary:
    "Give existing network namespaces a network, all from one process, and leave each one when its name or process goes, or when it ends. TARGET is a PID, a name of ip netns, a path, or fd:N.",
  groups: [
    { title: "Network", options: NETWORK_OPTIONS },
    { title: "Reachability", options: REACH_OPTIONS },
    { title: "Ports", options: PORT_OPTIONS },
    {
      title: "Life and status",
      options: [
        { name: "no-quit", help: "Keep serving when the name or process goes, and keep running when a namespace ends" },
        ...BACKGROUND_OPTIONS,
        ...REPORT_OPTIONS,
        ...CONFINE_OPTIONS,
      ],
    },
  ],
  exitCodes: [
    ["0", "all namespaces are gone, or penne was ended by TERM or QUIT; with --background: it is ready"],
    ["1", "failure; nothing was changed"],
    ["2", "usage error; nothing was done"],
    ["159", "penne was about to make a system call that it has forbidden itself"],
  ],
  examples: [
    ["penne attach 4711", "serve the network namespace of process 4711 until it ends"],
    ["penne attach --background --pid-file net.pid blue green", "serve two names of ip netns"],
    ["penne attach -a 10.0.2.100/24 -g 10.0.2.2 -I eth0 fd:3 3</proc/4711/ns/net", "choose the addresses"],
  ],
} as const satisfies CommandSpec;

type Options = ParsedOptions<typeof SPEC>;

const FAILURE = 1;

/** Signals that end penne with success, and those that it dies of after it has cleaned up. */
const END_SIGNALS = ["TERM", "QUIT"] as const;
const FATAL_SIGNALS = ["INT", "HUP"] as const;

/** What is asked for, in messages. */
const WORDS = {
  auto: "auto ports",
  outward: "--tcp-ns or --udp-ns",
  loopback: "--host-lo-to-ns-lo",
  localOnly: "--splice-only",
  stay: "--no-quit",
} as const;

/** Attaches, in the background if asked to; returns the exit code. */
async function main(options: Options, args: readonly string[]): Promise<number> {
  const request = { ...networkRequest(options), ...reachRequest(options) };
  const targets = checkAttach([...options.operands, ...options.tail ?? []], request);
  const ports = portRequest(options, request.version);
  const needless = ports.localOnly && firstGiven(options, [...NETWORK_OPTIONS, ...REACH_OPTIONS]);
  if (needless) throw usage(`use --${needless} with --splice-only: there is no interface`);
  const hold = planHold(ports, targets, !options["no-quit"], WORDS);
  const wanted: ServeOptions = {
    ...request,
    announce: true,
    quit: !options["no-quit"],
    hold,
    localOnly: ports.localOnly,
  };
  const frames = await recording(options.pcap);
  return runInBackground(options, {
    command: "attach",
    args,
    keepFds: targets.flatMap((target) => target.kind === "fd" ? [target.fd] : []),
    failure: FAILURE,
    writes: false,
    prepare: () => (starter) =>
      attachHere({
        targets,
        wanted,
        starter,
        confinement: options,
        ...frames,
        openPorts: () => openRequestedPorts(ports),
        openReporter: () => openReporter(options),
      }),
  });
}

/** `penne attach`. */
export const start = command(SPEC, main, FAILURE);

function describe({ target, netns, interface: name }: Attached): Record<string, unknown> {
  return { target, namespaces: { net: netns }, interface: name };
}

/** Whether the host lets this process have ping sockets, so that raw ones are not needed. */
function mayPing(): boolean {
  using socket = orNull(() => self.open("socket", AF.INET, SOCK.DGRAM | SOCK.CLOEXEC, IPPROTO.ICMP));
  return socket !== null;
}

/** Keeps the rights that following the host takes; null, with a warning, if that fails and nothing can be followed. */
function keepFollowing(onWarning: (message: string) => void, onConfined: OnConfined | null): Keeper | null {
  try {
    return keepRights(onConfined);
  } catch (error) {
    if (!(error instanceof SysError || error instanceof AgentGoneError)) throw error;
    onWarning(`changes of the host's network are not followed: ${error.message}`);
    return null;
  }
}

/**
 * What serving targets needs beside the data path: how each one ends, and penne itself.
 *
 * @param targets The targets.
 * @param quit Whether their names and processes are followed.
 * @param pid The pid of this process.
 * @returns The rules.
 */
export function endRules(targets: readonly Target[], quit: boolean, pid: number): CallRule[] {
  const test = "tests/confine/serve_test.ts";
  const follows = (kind: Target["kind"]) => quit && targets.some((target) => target.kind === kind);
  return [
    ...follows("path") || follows("pid") ? WATCHER_RULES : [],
    ...follows("path") || follows("pid") ? PROCESS_RULES : [],
    ...HANDLE_RULES,
    {
      call: "kill",
      when: [{ argument: 0, values: [pid] }],
      why: "the end by INT or HUP, of which penne dies",
      test,
    },
  ];
}

/** Gives up what neither serving, nor following names and cleaning up can need once all is set up. */
async function giveUp(job: AttachJob, attachments: Attachments, report: Reporter, ports: boolean): Promise<void> {
  const { wanted, targets, confinement } = job;
  // Every user may look into the directory of ip-netns(8), but not into any.
  const follows = wanted.quit !== false &&
    targets.some((target) => target.kind === "path" && !target.path.startsWith(`${NETNS_DIRECTORY}/`));
  const raw = !mayPing();
  const needed = [
    ...follows ? [CAP.DAC_READ_SEARCH] : [],
    ...report.changesOthers ? [CAP.DAC_OVERRIDE] : [],
    ...attachments.needsAdmin ? [CAP.SYS_ADMIN] : [],
    ...raw ? [CAP.NET_RAW] : [],
    // Who asks for ports may add some at any time; without any, root's rights to them are not kept.
    ...ports ? [CAP.NET_BIND_SERVICE] : [],
  ];
  const keep = needed.reduce((set, capability) => set | 1n << BigInt(capability), 0n);
  if (confinement["no-confine"]) giveUpCapabilities(self, keep);
  else await prepareServing();
  const ends = endRules(targets, wanted.quit !== false, call(self, "getpid"));
  const rules = [...servingRules({ raw }), ...ends, ...report.rules];
  confineRole(confinement, { name: "attach", keep, rules });
  attachments.capabilitiesChanged();
}

/** Namespaces to be served. */
export interface AttachJob {
  /** The namespaces. */
  readonly targets: readonly Target[];
  /** What they get. */
  readonly wanted: ServeOptions;
  /** Whoever waits until it is ready. */
  readonly starter: Starter;
  /** Whether all rights and system calls are kept, for debugging. */
  readonly confinement: { readonly "no-confine": boolean };
  /** Opens the ports of the host that lead inside. */
  readonly openPorts: () => Forwarding;
  /** Opens the socket by which pesto(1) changes them; none by default. */
  readonly openPesto?: () => PestoSocket | null;
  /** Makes the loop; one that counts nothing by default. */
  readonly makeReactor?: () => Reactor;
  /** Begins to watch the frames; nobody does by default. */
  readonly openFrames?: OpenFrames;
  /** Opens what is reported to. */
  readonly openReporter: () => Reporter;
  /** Called when all is set up, before privileges are given up. */
  readonly onReady?: () => void;
}

/**
 * Serves namespaces until they end.
 *
 * @param job The namespaces.
 * @returns The exit code.
 * @throws {PenneError} If one cannot be served; nothing is changed then.
 */
export async function attachHere(job: AttachJob): Promise<number> {
  const { targets, wanted, starter } = job;
  const admitting = await loadAdmitting(wanted);
  using reactor = job.makeReactor?.() ?? new Reactor();
  using signals = new SignalPipe();
  let [failed, signal] = [false, 0];
  const onDetach = (attached: Attached, cause: DetachCause) => {
    log().info(`left "${attached.target}": ${cause}`);
    report.event({ event: "detached", target: attached.target, cause });
    if (cause === "interface removed") {
      failed = true;
      log().error(`cannot serve "${attached.target}" any longer: its interface was removed`);
    }
    if (attachments.served.length === 0 && wanted.quit !== false) reactor.stop();
  };
  const onWarning = (message: string) => log().warn(message);
  const forwarding = job.openPorts();
  const pesto = job.openPesto?.();
  const ports = !!pesto || forwarding.open.length > 0 || forwarding.followed.length > 0;
  using frames = job.openFrames?.(reactor) ?? null;
  using server = new ReactorServer(reactor, wanted, onWarning, forwarding, pesto);
  server.frames = frames;
  server.onConfined = reportConfined(job.confinement);
  server.admitting = admitting;
  using attachments = new Attachments(reactor, server, {
    ...{ ...wanted, onDetach, onWarning },
    onInfo: (message) => log().info(message),
  });
  const report = job.openReporter();
  let exitCode = FAILURE;
  try {
    // Caught before anything is made, so that a signal during set-up is handled after it.
    for (const name of [...END_SIGNALS, ...FATAL_SIGNALS]) signals.catch(SIGNAL[name]);
    let pending: number | null = null;
    attachments.add(targets, () => (pending ??= signals.take().at(-1)?.signal ?? null) !== null);
    forgetDescriptors(new Set(attachments.served.map(({ netns }) => netns.inum)));
    using _caught = reactor.watch(signals.reader, EPOLL.IN, () => {
      signal = signals.take().at(-1)?.signal ?? 0;
      reactor.stop();
    });
    report.ready(() => ({ targets: attachments.served.map(describe) }));
    const relative = ({ kind, text }: Target) => kind === "path" && text.includes("/") && !text.startsWith("/");
    starter.ready(!targets.some(relative) && report.leaveDirectory());
    attachments.keep();
    const enters = wanted.follow !== false || !wanted.off?.includes("multicast");
    using keeper = enters && attachments.links.length > 0 ? keepFollowing(onWarning, server.onConfined) : null;
    server.keeper = keeper?.agent ?? "none";
    using _follower = keeper && followHost(attachments.links, { reactor, server, report, keeper });
    job.onReady?.();
    await giveUp(job, attachments, report, ports);
    if (attachments.served.length > 0 || wanted.quit === false) await reactor.live();
    exitCode = failed ? FAILURE : 0;
  } finally {
    report.exit(exitCode, null);
  }
  const fatal = FATAL_SIGNALS.find((name) => SIGNAL[name] === signal);
  if (!fatal) return exitCode;
  attachments[Symbol.dispose]();
  signals.withDefault(signal, () => call(self, "kill", call(self, "getpid"), signal));
  return 128 + signal; // PID 1 of a pid namespace survives the signal
}
