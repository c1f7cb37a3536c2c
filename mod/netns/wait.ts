// Waits until targets are there, or have gone.

import { SysError } from "../../ffi/core/errno.ts";
import { isAlive, namespaceHandle } from "../../ffi/sys/namespace.ts";
import { openPid } from "../../ffi/sys/process.ts";
import { attempt, PenneError } from "../base/errors.ts";
import type { Reactor } from "../reactor/reactor.ts";
import { namespaceTypeOf, openNamespace } from "./open.ts";
import type { Target } from "./target.ts";
import { findName, TargetWatcher, type Watch } from "./watcher.ts";

/** What to wait for: a mounted namespace or a process that is there, or has gone. */
export type WaitFor = "present" | "gone";

/** Milliseconds between two looks for what tells nobody of itself: a process to come, and a namespace without a name. */
const INTERVAL = 20;

/** What is still to happen. */
interface Pending {
  readonly target: Target;
  watch: Watch | null;
}

/**
 * Targets being waited for.
 *
 * What has been seen stays seen: a name that has gone, or come, since the waiting began counts, whatever it did afterwards.
 */
export class Waiting implements Disposable {
  #reactor: Reactor;
  #watcher: TargetWatcher;
  #pending = new Set<Pending>();
  #onDone: () => void;

  /**
   * @param reactor The loop.
   * @param targets What to wait for.
   * @param state For what state of it.
   * @param onDone Called when it has happened to all of them, if it had not when the waiting began.
   * @throws {PenneError} If one cannot be waited for.
   */
  constructor(reactor: Reactor, targets: readonly Target[], state: WaitFor, onDone: () => void) {
    this.#reactor = reactor;
    this.#onDone = onDone;
    this.#watcher = new TargetWatcher(reactor);
    try {
      for (const target of targets) {
        const pending: Pending = { target, watch: null };
        this.#pending.add(pending);
        const seen = () => this.#seen(pending);
        const watch = attempt(
          `wait for "${target.text}"`,
          () => state === "gone" ? this.#untilGone(target, seen) : this.#untilPresent(target, seen),
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

  /** Whether it has happened to all of them. */
  get done(): boolean {
    return this.#pending.size === 0;
  }

  #seen(pending: Pending): void {
    if (!this.#pending.delete(pending)) return;
    pending.watch?.cancel();
    if (this.done) this.#onDone();
  }

  #untilGone(target: Target, seen: () => void): Watch | null {
    switch (target.kind) {
      case "pid":
        return unlessMissing(() => {
          using pidfd = openPid(target.pid);
          return this.#watcher.watchProcess(pidfd, seen);
        }, seen);
      case "path": {
        const found = findName(target.path);
        if (found) return this.#watcher.watchName(found, seen);
        seen();
        return null;
      }
      case "fd": {
        const { text } = target;
        using netns = openNamespace(target, null);
        namespaceTypeOf(`"${text}"`, netns);
        const handle = attempt(`watch "${text}"`, () => namespaceHandle(netns), () => [
          "a namespace without a name can be waited for since Linux 6.18",
        ]);
        if (!isAlive(handle)) {
          throw new PenneError(`watch "${text}": you may not look at it without holding it`, {
            hints: ["run penne as root"],
          });
        }
        return this.#every(() => !isAlive(handle), seen);
      }
    }
  }

  #untilPresent(target: Target, seen: () => void): Watch | null {
    switch (target.kind) {
      case "pid":
        return this.#every(() => unlessMissing(() => openPid(target.pid).close(), () => {}) !== null, seen);
      case "path": {
        const look = () => {
          if (findName(target.path)) seen();
        };
        const watch = this.#watcher.watchPath(target.path, look);
        look();
        return watch;
      }
      case "fd": {
        using fd = openNamespace(target, null);
        namespaceTypeOf(`"${target.text}"`, fd);
        seen();
        return null;
      }
    }
  }

  /** Looks now and again, up to the first time it holds. */
  #every(condition: () => boolean, seen: () => void): Watch | null {
    if (condition()) {
      seen();
      return null;
    }
    let cancelled = false;
    const look = () => {
      if (cancelled) return;
      if (condition()) seen();
      else timer = this.#reactor.after(INTERVAL, look);
    };
    let timer = this.#reactor.after(INTERVAL, look);
    return {
      cancel: () => {
        cancelled = true;
        timer.cancel();
      },
    };
  }

  /** Waits no longer. */
  [Symbol.dispose](): void {
    for (const { watch } of this.#pending) watch?.cancel();
    this.#pending.clear();
    this.#watcher[Symbol.dispose]();
  }
}

/** Does something with a process; if there is none, something else. */
function unlessMissing<T>(body: () => T, missing: () => void): T | null {
  try {
    return body();
  } catch (error) {
    if (!(error instanceof SysError) || error.code !== "ESRCH") throw error;
    missing();
    return null;
  }
}
