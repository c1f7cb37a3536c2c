// Has the host's network followed for a command that serves namespaces, by code that is loaded when nobody waits for penne.

import { EPOLL } from "../../../ffi/sys/epoll.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import type { ReactorServer } from "../../datapath/server/reactor_server.ts";
import type { FollowedLink, Following, FollowOptions } from "../../follow/contract.ts";
import type { Keeper } from "../../follow/keeper.ts";
import type { NetworkPlan } from "../../network/plan.ts";
import type { TapLink } from "../../network/tap_link.ts";
import type { Reactor } from "../../reactor/reactor.ts";
import { log } from "../report/log.ts";
import type { Reporter } from "../report/reporter.ts";

/** A namespace that is served. */
export interface ServedLink {
  /** Its tap. */
  readonly link: TapLink;
  /** What it was given. */
  readonly plan: NetworkPlan;
  /** The target as the user wrote it; missing if there is only one. */
  readonly target?: string;
}

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

/** Milliseconds after which that code is loaded: who waits for a short command or its first events does not wait for it. */
const FOLLOW_AFTER = 50;

/**
 * Follows the host's network from soon on.
 *
 * @param served The namespaces.
 * @param scene What it takes.
 * @returns What follows, to be disposed of.
 */
export function followHost(served: readonly ServedLink[], scene: FollowScene): Disposable {
  let [follower, ended]: [Following | null, boolean] = [null, false];
  const load = async () => {
    if (ended) return;
    const following = await follow(served, scene);
    if (ended) following?.[Symbol.dispose]();
    else follower = following;
  };
  const timer = scene.reactor.after(FOLLOW_AFTER, () => scene.reactor.await(load()));
  return {
    [Symbol.dispose]() {
      ended = true;
      timer.cancel();
      follower?.[Symbol.dispose]();
    },
  };
}

/** Loads the code, and follows; null if that is impossible, of which there was a warning. */
async function follow(
  served: readonly ServedLink[],
  { reactor, server, report, keeper }: FollowScene,
): Promise<Following | null> {
  // The number of a tap that is closed may be that of something else.
  const links = served.filter(({ link }) => !link.tap.closed).map(({ link, plan, target }): FollowedLink => ({
    link: { ...link, tap: link.tap.number },
    plan,
    target,
    renew: (network, now) => server.renew(link, { ...link, ...network }, now),
    isServed: () => !link.tap.closed,
    uses: (address) => server.uses(link, address),
  }));
  const options: FollowOptions = {
    loop: {
      watch: (number, handler) => reactor.watch(Fd.borrow(number), EPOLL.IN, handler),
      after: (delay, action) => reactor.after(delay, action),
      soon: (action) => reactor.soon(action),
    },
    links,
    keeper: keeper?.agent ?? null,
    onChange: (sentence, event) => {
      log().info(sentence);
      report.event(event);
    },
    onWarning: (message) => log().warn(message),
  };
  try {
    return (await import("../../follow/follower.ts")).follow(options);
  } catch (error) {
    options.onWarning(`changes of the host's network are not followed: ${error}`);
    return null;
  }
}
