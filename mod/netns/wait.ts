// Waits until targets exist, or have disappeared.

import type { CallRule } from "../../ffi/core/call_rule.ts";
import { orNull } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { openPid, PID_RULES } from "../../ffi/sys/process.ts";
import { attempt, PenneError } from "../base/errors.ts";
import type { Reactor } from "../reactor/reactor.ts";
import { findName } from "./name.ts";
import { namespaceTypeOf, openDescriptor } from "./open.ts";
import { type Presence, PRESENCE_RULES, presenceOf } from "./presence.ts";
import type { Target } from "./target.ts";
import { TargetWatcher, type Watch, WATCHER_RULES } from "./watcher.ts";

/** The state to wait for: a mounted namespace or a process exists, or has disappeared. */
export type WaitFor = "present" | "gone";

/** Milliseconds between two checks of what has no event: the start of a process, the end of a namespace without a name. */
const INTERVAL = 20;

/**
 * What waiting needs once a {@linkcode TargetWait} is there.
 *
 * @param targets The targets.
 * @returns The rules.
 */
export function waitRules(targets: readonly Target[]): CallRule[] {
  const has = (kind: Target["kind"]) => targets.some((target) => target.kind === kind);
  return [...WATCHER_RULES, ...has("pid") ? PID_RULES : [], ...has("fd") ? PRESENCE_RULES : []];
}

/** A target that is still waited for. */
interface Pending {
  readonly target: Target;
  watch: Watch | null;
}

/** Opens the namespace of a descriptor that a target names; `type` is its CLONE_NEW*. */
function openTargetFd({ text, fd }: Extract<Target, { kind: "fd" }>): { netns: Fd; type: number } {
  const netns = openDescriptor(`"${text}"`, fd);
  try {
    return { netns, type: namespaceTypeOf(`"${text}"`, netns) };
  } catch (error) {
    netns.close();
    throw error;
  }
}

/**
 * Waits for targets.
 *
 * Events count from the beginning on: a name that disappears, or appears, for a moment has done so for good.
 */
export class TargetWait implements Disposable {
  #reactor: Reactor;
  #watcher: TargetWatcher;
  #pending = new Set<Pending>();
  #onDone: () => void;

  /**
   * @param reactor The loop.
   * @param targets The targets.
   * @param state The state to wait for.
   * @param onDone Called when all of them have had it, unless they had at the beginning.
   * @throws {PenneError} If one of them cannot be waited for.
   */
  constructor(reactor: Reactor, targets: readonly Target[], state: WaitFor, onDone: () => void) {
    this.#reactor = reactor;
    this.#onDone = onDone;
    this.#watcher = new TargetWatcher(reactor);
    try {
      for (const target of targets) {
        const pending: Pending = { target, watch: null };
        this.#pending.add(pending);
        const reached = () => this.#reached(pending);
        const watch = attempt(
          `wait for "${target.text}"`,
          () => state === "gone" ? this.#untilGone(target, reached) : this.#untilPresent(target, reached),
        );
        if (this.#pending.has(pending)) pending.watch = watch;
        else watch?.cancel();
      }
      this.#watcher.check();
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** Whether all targets have had the state. */
  get done(): boolean {
    return this.#pending.size === 0;
  }

  #reached(pending: Pending): void {
    if (!this.#pending.delete(pending)) return;
    pending.watch?.cancel();
    if (this.done) this.#onDone();
  }

  /** Watches a target until it disappears; returns null if it already has. */
  #untilGone(target: Target, reached: () => void): Watch | null {
    switch (target.kind) {
      case "pid": {
        using pidfd = orNull(() => openPid(target.pid), "ESRCH");
        if (pidfd) return this.#watcher.watchProcess(pidfd, reached);
        break;
      }
      case "path": {
        const found = findName(target.path);
        if (found) return this.#watcher.watchName(found, reached);
        break;
      }
      case "fd": {
        const { netns, type } = openTargetFd(target);
        using _netns = netns;
        const what = `watch "${target.text}"`;
        const presence = attempt(what, () => presenceOf(netns, type));
        if (presence) return this.#untilNotThere(presence, reached);
        throw new PenneError(`${what}: its end can be seen since Linux 6.18, and only by root`, {
          hints: ["any kernel and user can wait for the end of a network namespace"],
        });
      }
    }
    reached();
    return null;
  }

  /** Watches a target until it appears; returns null if it already has. */
  #untilPresent(target: Target, reached: () => void): Watch | null {
    switch (target.kind) {
      case "pid":
        return this.#every(() => {
          using pidfd = orNull(() => openPid(target.pid), "ESRCH");
          return pidfd !== null;
        }, reached);
      case "path": {
        const look = () => {
          if (findName(target.path)) reached();
        };
        const watch = this.#watcher.watchPath(target.path, look);
        look();
        return watch;
      }
      case "fd":
        openTargetFd(target).netns.close();
        reached();
        return null;
    }
  }

  /** Checks now and then whether a namespace is still there. */
  #untilNotThere(presence: Presence, reached: () => void): Watch | null {
    const watch = this.#every(() => !presence.isThere(), reached);
    if (!watch) presence[Symbol.dispose]();
    return watch && {
      cancel: () => {
        watch.cancel();
        presence[Symbol.dispose]();
      },
    };
  }

  /** Checks a condition now and then until it is true. */
  #every(condition: () => boolean, reached: () => void): Watch | null {
    if (condition()) {
      reached();
      return null;
    }
    const next = () =>
      this.#reactor.after(INTERVAL, () => {
        if (condition()) reached();
        else timer = next();
      });
    let timer = next();
    return { cancel: () => timer.cancel() };
  }

  /** Stops waiting. */
  [Symbol.dispose](): void {
    for (const { watch } of this.#pending) watch?.cancel();
    this.#pending.clear();
    this.#watcher[Symbol.dispose]();
  }
}
