// Has the host's network followed in what is served, by code that is loaded when nobody waits for it.

import { orNull } from "../../../ffi/core/errno.ts";
import { EPOLL } from "../../../ffi/sys/epoll.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import type { FollowedLink, Following, FollowOptions } from "../../follow/contract.ts";
import { openReports } from "../../follow/reports.ts";
import type { NetworkPlan } from "../../network/plan.ts";
import type { TapLink } from "../../network/tap_link.ts";
import type { Reactor } from "../../reactor/reactor.ts";
import type { ReactorServer } from "./reactor_server.ts";

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
export interface FollowScene extends Pick<FollowOptions, "keeper" | "onChange" | "onInfo" | "onWarning"> {
  /** The loop. */
  readonly reactor: Reactor;
  /** What serves the namespaces. */
  readonly server: ReactorServer;
}

/** Milliseconds after which that code is loaded: who waits for a short command or its first events does not wait for it. */
const FOLLOW_AFTER = 50;

/** Follows the host's network from soon on, in namespaces that want it. */
export class HostFollower implements Disposable {
  readonly #scene: FollowScene;
  /** Those that were added before the code is loaded. */
  #waiting: ServedLink[] = [];
  #timer: { cancel(): void } | null = null;
  /** Reports changes until that code is loaded: a process that confines itself before could not open it any more. */
  #reports: Fd | null = null;
  #following: Following | null = null;
  /** Whether the host cannot be followed. */
  #failed = false;
  #closed = false;

  /** @param scene What it takes. */
  constructor(scene: FollowScene) {
    this.#scene = scene;
  }

  /**
   * Follows the host in one more namespace, as long as its tap is open.
   *
   * @param served The namespace; nothing is done if its request says so.
   */
  add(served: ServedLink): void {
    if (served.plan.request.follow === false || this.#failed) return;
    if (this.#following) return this.#following.add(this.#followed(served));
    this.#waiting.push(served);
    if (this.#timer) return;
    const { reactor } = this.#scene;
    this.#reports = orNull(openReports); // it is tried once more, and said why it fails
    this.#timer = reactor.after(FOLLOW_AFTER, () => reactor.await(this.#load()));
  }

  #followed({ link, plan, target }: ServedLink): FollowedLink {
    const { server } = this.#scene;
    return {
      link: { ...link, tap: link.tap.number },
      plan,
      target,
      renew: (network, now) => server.renew(link, { ...link, ...network }, now),
      isServed: () => !link.tap.closed,
      uses: (address) => server.uses(link, address),
    };
  }

  async #load(): Promise<void> {
    const { reactor, keeper, onChange, onInfo, onWarning } = this.#scene;
    if (this.#closed) return;
    try {
      const { follow } = await import("../../follow/follower.ts");
      if (this.#closed) return;
      // The number of a tap that is closed may be that of something else.
      const links = this.#waiting.splice(0).filter(({ link }) => !link.tap.closed).map((one) => this.#followed(one));
      const loop: FollowOptions["loop"] = {
        watch: (number, handler) => reactor.watch(Fd.borrow(number), EPOLL.IN, handler),
        after: (delay, action) => reactor.after(delay, action),
        soon: (action) => reactor.soon(action),
      };
      const reports = this.#reports?.release() ?? null;
      this.#following = follow({ loop, links, keeper, reports, onChange, onInfo, onWarning });
    } catch (error) {
      const reason = error instanceof Error ? error.message : error;
      onWarning(`changes of the host's network are not followed: ${reason}`);
    }
    if (this.#following) return;
    this.#failed = true;
    this.#waiting = [];
  }

  /** Stops following. */
  [Symbol.dispose](): void {
    this.#closed = true;
    this.#timer?.cancel();
    this.#reports?.close();
    this.#following?.[Symbol.dispose]();
  }
}
