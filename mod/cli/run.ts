// `penne run`: makes namespaces and runs a command in them.
//
// The data path is evaluated only with a network, by run_tap.ts.

import { SignalPipe } from "../../ffi/sys/signal.ts";
import { usage } from "../base/errors.ts";
import { log } from "./report/log.ts";
import type { Reporter } from "./report/reporter.ts";
import { reportConfined } from "./common/confined.ts";
import { loadAdmitting } from "./common/admitting.ts";
import { type OpenFrames, recording } from "./common/frames.ts";
import { runInBackground, type Starter } from "./common/background.ts";
import { readFacts } from "../run/facts.ts";
import { startChild, type StartOptions } from "../run/start.ts";
import { Reactor } from "../reactor/reactor.ts";
import { planRun, type RunOptions, type RunPlan } from "../run/plan.ts";
import { command, type Start } from "./common/command.ts";
import type { OpenRunNetwork } from "./common/run_network.ts";
import { FAILURE, loadRelay, runInForeground } from "./common/foreground.ts";
import {
  COMMAND_OPTIONS,
  CREDENTIAL_OPTIONS,
  FILTER_OPTIONS,
  filterRequest,
  isolationRequest,
  MAP_OPTIONS,
  UNSHARE_OPTIONS,
} from "./options/isolation.ts";
import {
  BACKGROUND_OPTIONS,
  COMMAND_EXIT_CODES,
  CONFINE_OPTIONS,
  END_OPTIONS,
  endRequest,
  REPORT_OPTIONS,
} from "./options/lifecycle.ts";
import { NETWORK_OPTIONS, networkRequest } from "./options/network.ts";
import type { PortRequest } from "../forward/request.ts";
import { PORT_OPTIONS, portRequest } from "./options/ports.ts";
import { NAME_OPTIONS, nameRequest, REACH_OPTIONS, reachRequest } from "./options/reach.ts";
import type { CommandSpec, ParsedOptions } from "./options/table.ts";
import { MOUNT_OPTIONS } from "./options/views.ts";
import { defined, firstGiven, namespacesOption, wordOption } from "./options/values.ts";

/** What `penne run` accepts. */
export const SPEC = {
  name: "run",
  synopsis: "[OPTIONS] [--] [COMMAND [ARGUMENT…]]",
  summary:
    "Make new namespaces and run COMMAND in them (default: your login shell). COMMAND and all processes it starts are killed when penne ends.",
  groups: [
    {
      title: "Namespaces",
      options: [
        {
          name: "net",
          value: "MODE",
          help: "Network: tap (an interface like the host's; default), none (loopback only), host (no net namespace)",
        },
        ...UNSHARE_OPTIONS,
      ],
    },
    { title: "Network (--net=tap)", options: NETWORK_OPTIONS },
    { title: "Reachability (--net=tap)", options: [...NAME_OPTIONS, ...REACH_OPTIONS] },
    { title: "Ports (--net=tap)", options: PORT_OPTIONS },
    { title: "Users and groups", options: [...MAP_OPTIONS, ...CREDENTIAL_OPTIONS, ...FILTER_OPTIONS] },
    {
      title: "Command",
      options: [
        ...COMMAND_OPTIONS,
        ...MOUNT_OPTIONS,
        { name: "no-init", help: "Run COMMAND itself as PID 1, without an init that reaps orphans" },
      ],
    },
    {
      title: "Life and status",
      options: [...BACKGROUND_OPTIONS, ...REPORT_OPTIONS, ...END_OPTIONS, ...CONFINE_OPTIONS],
    },
  ],
  exitCodes: COMMAND_EXIT_CODES,
  examples: [
    ["penne run", "a root shell in namespaces of its own"],
    ["penne run --map auto --net=host -- apt-get download hello", "all your subordinate ids, and the host's network"],
    ["penne run --net=none -- make test", "no network"],
    ["penne run -- curl -O https://example.org/file", "network and name resolution, without privileges"],
    ["penne run --map-host-loopback 10.0.2.2 -- psql -h 10.0.2.2", "access to the host's loopback"],
  ],
} as const satisfies CommandSpec;

type Options = ParsedOptions<typeof SPEC>;

/** The library's options, from the command line. */
async function runOptions(options: Options): Promise<RunOptions> {
  const ownNet = namespacesOption(options, "unshare")?.includes("net") ?? true;
  const wanted = wordOption(options, "net", ["none", "host", "tap"]) ?? (ownNet ? "tap" : undefined);
  const local = options["splice-only"];
  const alone = local && firstGiven(options, [...NETWORK_OPTIONS, ...REACH_OPTIONS, ...NAME_OPTIONS]);
  if (alone) throw usage(`use --${alone} with --splice-only: there is no interface`);
  const net = local && wanted === "tap" ? "none" : wanted;
  const needless = wanted !== "tap" &&
    firstGiven(options, [...NETWORK_OPTIONS, ...REACH_OPTIONS, ...NAME_OPTIONS, ...PORT_OPTIONS]);
  if (needless) throw usage(`use --${needless} without a network`, ["--net=tap sets one up"]);
  return {
    ...defined({ net, filter: await filterRequest(options) }),
    network: networkRequest(options),
    reach: reachRequest(options),
    ...nameRequest(options),
    ...isolationRequest(options, options.operands),
    ...endRequest(options),
    init: !options["no-init"],
    ...firstGiven(options, MOUNT_OPTIONS) && {
      mounts: (await import("./options/mount_values.ts")).mountRequest(options),
    },
  };
}

/** Makes what opens the network of a command, of the ports that are asked for. */
type MakeRunNetwork = (ports: PortRequest) => OpenRunNetwork;

/** Runs the command, in the background if asked to; returns the exit code. */
async function main(makeNetwork: MakeRunNetwork | null, options: Options, args: readonly string[]): Promise<number> {
  const wanted = await runOptions(options);
  // What the command line looked like has decided what was evaluated, and nothing else.
  if ((wanted.net === "tap" || options["splice-only"]) && !makeNetwork) {
    return (await import("./run_tap.ts")).start([...args]);
  }
  if (options.background && options["die-with-parent"] !== undefined) {
    throw usage("use --background with --die-with-parent: the process in the background has no such parent");
  }
  const frames = await recording(options.pcap);
  return runInBackground(options, {
    command: "run",
    args,
    keepFds: wanted.keepFds ?? [],
    failure: FAILURE,
    writes: true,
    prepare: () => {
      const ports = portRequest(options, wanted.network?.version);
      const plan = planRun(wanted, readFacts(wanted));
      return (starter) => runHere(options, { plan, starter, openNetwork: makeNetwork?.(ports) ?? null, ...frames });
    },
  });
}

/**
 * Makes the program of `penne run`.
 *
 * @param makeNetwork Makes what opens the network of a command; null if its code is not loaded.
 * @returns The program.
 */
export function runCommand(makeNetwork: MakeRunNetwork | null): Start {
  return command(SPEC, (options, args) => main(makeNetwork, options, args), FAILURE);
}

/** `penne run`, which loads the data path if it turns out to be needed. */
export const start: Start = runCommand(null);

/** A command to be run in new namespaces. */
export interface RunJob {
  /** The namespaces and the command. */
  readonly plan: RunPlan;
  /** Whoever waits until it has started. */
  readonly starter: Starter;
  /** Opens its network; null if it has none. */
  readonly openNetwork: OpenRunNetwork | null;
  /** Makes the loop; one that counts nothing by default. */
  readonly makeReactor?: () => Reactor;
  /** Begins to watch the frames; nobody does by default. */
  readonly openFrames?: OpenFrames;
  /** Opens what is reported to; by default what the options name. */
  readonly openReporter?: () => Reporter;
}

/**
 * Runs a command as a child of this process.
 *
 * @param options Options of its life.
 * @param job The command.
 * @returns The exit code.
 * @throws {PenneError} If it cannot be started.
 */
export async function runHere(
  options: Parameters<typeof runInForeground>[0] & { readonly "new-session": boolean },
  { plan, starter, openNetwork, makeReactor, openFrames, openReporter }: RunJob,
): Promise<number> {
  const makeRelay = plan.exposed ? await loadRelay() : null;
  const makeMounts = plan.mounts ? (await import("../views/make_mounts.ts")).makeMounts : undefined;
  const admitting = plan.reach.allow ? await loadAdmitting(plan.reach) : null;
  using reactor = makeReactor?.() ?? new Reactor();
  const signals = new SignalPipe(); // until the process ends: undoing it would only cost time
  const onWarning = (message: string) => log().warn(message);
  const onConfined = openNetwork ? reportConfined(options) : null;
  using network = openNetwork?.({ reactor, reach: plan.reach, signals, onWarning, openFrames, admitting, onConfined });
  const begin = (scene: StartOptions) =>
    startChild(plan, {
      ...scene,
      makeMounts,
      beforeExec: (starting, made) => {
        made.files?.follow(reactor, onWarning);
        network?.serve(starting, made, plan.network);
        const { agent, ancestors } = made.enclosure;
        starter.release(plan.ownInit ? ancestors : [...ancestors, agent]);
        scene.beforeExec?.(starting, made);
      },
    });
  const newSession = options["new-session"];
  const started = (_: unknown, report: Reporter) => {
    starter.ready(report.leaveDirectory(), plan.exposed);
    network?.follow(report);
  };
  return await runInForeground(options, { reactor, signals, newSession, makeRelay, begin, started, openReporter });
}
