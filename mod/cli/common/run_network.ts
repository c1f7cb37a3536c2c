// The network of a command that penne runs: the data path, and ports of the host that lead inside.

import type { OnConfined } from "../../confine/agents.ts";
import type { Admitting } from "../../datapath/server/admitting.ts";
import { ReactorServer } from "../../datapath/server/reactor_server.ts";
import type { Forwarding, Hold } from "../../forward/ports.ts";
import { spawnBeside } from "../../network/resident.ts";
import { namespaceIds } from "../../namespaces/id.ts";
import { ENDING } from "../../run/supervise.ts";
import type { SignalPipe } from "../../../ffi/sys/signal.ts";
import type { PestoSocket } from "../../pesto/server.ts";
import type { NetworkPlan } from "../../network/plan.ts";
import type { ReachRequest } from "../../network/reach.ts";
import type { Reactor } from "../../reactor/reactor.ts";
import type { Reporter } from "../report/reporter.ts";
import type { ServedLink } from "../../datapath/server/follow_host.ts";
import { followHost } from "./follow.ts";
import type { OpenFrames } from "./frames.ts";
import type { Child } from "../../run/child.ts";
import type { MadeNamespaces } from "../../run/make_namespaces.ts";

/** The network of a command. */
export interface RunNetwork extends Disposable {
  /** Serves the command's namespace, if it has a network, until its processes have ended and what they have sent is delivered. */
  serve(starting: Pick<Child, "namespaces">, made: MadeNamespaces, plan: NetworkPlan | null): void;
  /** Follows the host's network from now on, by code that is loaded when the command has run for a moment. */
  follow(report: Reporter): void;
}

/** Opens the network of a command, before namespaces are made. */
export type OpenRunNetwork = (
  host: {
    readonly reactor: Reactor;
    readonly reach: ReachRequest;
    readonly signals: SignalPipe;
    readonly onWarning: (message: string) => void;
    readonly openFrames?: OpenFrames | undefined;
    readonly admitting: Admitting | null;
    /** Called with the calls that an agent inside may still make; null if it may make any. */
    readonly onConfined: OnConfined | null;
  },
) => RunNetwork;

/**
 * Makes what opens the network of a command.
 *
 * @param needs What ports need to be held in the namespace, or null; and whether that has no interface.
 * @param openPorts Opens the ports of the host that lead inside.
 * @param openPesto Opens the socket by which pesto(1) changes them; none by default.
 * @returns Opens the network, before namespaces are made.
 */
export function runNetwork(
  { hold, localOnly }: { readonly hold: Hold | null; readonly localOnly: boolean },
  openPorts: () => Forwarding,
  openPesto: () => PestoSocket | null = () => null,
): OpenRunNetwork {
  return ({ reactor, reach, signals, onWarning, openFrames, admitting, onConfined }) => {
    const [ports, pesto] = [openPorts(), openPesto()];
    const frames = openFrames?.(reactor) ?? null;
    const server = new ReactorServer(reactor, reach, onWarning, ports, pesto);
    server.frames = frames;
    server.admitting = admitting;
    server.onConfined = onConfined;
    let [served, follower]: [ServedLink | null, Disposable | null] = [null, null];
    return {
      serve({ namespaces }, { enclosure, link }, plan) {
        if (!link && !localOnly) return;
        const { agent, afterEnd } = enclosure;
        const held = hold && { agent: spawnBeside(agent), hold };
        const { net: netns } = namespaces.net ? namespaces : namespaceIds(agent, ["net"]);
        const stop = server.serve(link, plan, () => {}, { netns, held });
        served = link && plan && { link, plan };
        afterEnd.defer(() => {
          follower?.[Symbol.dispose]();
          // Such a signal cuts the delivery short of what the command has sent before its end.
          server.drain(() => signals.take().some(({ signal }) => ENDING.includes(signal)));
          stop();
        });
      },
      follow(report) {
        if (served) follower = followHost([served], { reactor, server, report, keeper: null });
      },
      [Symbol.dispose]() {
        server[Symbol.dispose]();
        frames?.[Symbol.dispose]();
      },
    };
  };
}
