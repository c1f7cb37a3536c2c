// Has the host's network followed for a command that serves namespaces.

import { HostFollower, type ServedLink } from "../../datapath/server/follow_host.ts";
import type { ReactorServer } from "../../datapath/server/reactor_server.ts";
import type { Keeper } from "../../follow/keeper.ts";
import type { Reactor } from "../../reactor/reactor.ts";
import { log } from "../report/log.ts";
import type { Reporter } from "../report/reporter.ts";

/** What following takes. */
export interface FollowScene {
  /** The loop. */
  readonly reactor: Reactor;
  /** What serves the namespaces. */
  readonly server: ReactorServer;
  /** Where changes are reported to. */
  readonly report: Reporter;
  /** What has penne's former rights; null if penne has its rights. */
  readonly keeper: Keeper | null;
}

/**
 * Follows the host's network from soon on.
 *
 * @param served The namespaces.
 * @param scene What it takes.
 * @returns What follows, to be disposed of.
 */
export function followHost(
  served: readonly ServedLink[],
  { reactor, server, report, keeper }: FollowScene,
): Disposable {
  const follower = new HostFollower({
    reactor,
    server,
    keeper: keeper?.agent ?? null,
    onChange: (sentence, event) => {
      log().info(sentence);
      report.event(event);
    },
    onInfo: (message) => log().info(message),
    onWarning: (message) => log().warn(message),
  });
  for (const one of served) follower.add(one);
  return follower;
}
