// Finds out when namespaces have ended, holding none of them.
//
// Theory of operation. A handle of a namespace opens as long as the namespace lives (Linux 6.18). Who may not open it is
// told the same as if it had ended, so the answer counts only where all namespaces may be opened, which is with
// CAP_SYS_ADMIN in the initial user namespace, or where that very one could be opened before. Where there is no such
// answer, a namespace has ended when nothing is known to hold it and no process has a descriptor of it: a conclusion.
//
// Only those are looked at closely that have just lost the last of what was known to hold them, at growing intervals; then
// twice a second; all others in a slow round, a few at a time, against mistakes in the books.

import { CAP } from "../../../ffi/core/consts.ts";
import { cString } from "../../../ffi/core/memory.ts";
import { Handles } from "../../../ffi/sys/namespace.ts";
import { effectiveCapabilities, hasCapability } from "../../host/caller.ts";
import { namespaceFlag } from "../../namespaces/types.ts";
import { ProcReader } from "../proc/reader.ts";
import { isOrphan, type KnownNamespace } from "./tracker.ts";

/** Milliseconds from one look to the next, for one that nothing known holds; the last one again and again. */
const DELAYS = [2, 10, 40, 150, 200, 250] as const;
/**
 * Milliseconds from the release to the kernel's really letting go: later than that it is held by something unseen. Mounts
 * are taken apart by whoever has called umount(2), after a while; and network namespaces, which hold their owner, by
 * a thread of the kernel.
 */
const GRACE = { exit: 200, left: 200, unknown: 200, unmounted: 600, child: 600 } as const;
/** Looked at in one turn, at least; of more that wait so large a part that in a storm they do not become ever more. */
const BATCH = 512;
const PART = 1 / 4;
/** Milliseconds after which a look is broken off: others want their turn. */
const LOOK_MAX = 50;
/** Milliseconds between two parts of the slow round, and how many are looked at in one: all of some thousands in a second. */
const SWEEP_INTERVAL = 250;
const SWEEP_BATCH = 1024;
/** Inode number of the initial user namespace, the same on all kernels. */
const INIT_USER = 0xeffffffd;

/** Whether a namespace lives. */
export type Life = "alive" | "ended" | "unknown";

interface Waiting {
  readonly namespace: KnownNamespace;
  /** Milliseconds of `performance.now()` of its release, and of the next look. */
  since: number;
  due: number;
  stage: number;
}

/** Told of a namespace's end, and whether that is certain. */
export type OnEnd = (namespace: KnownNamespace, exact: boolean) => void;

/** Looks after namespaces. */
export class Liveness {
  #handles = new Handles();
  /** Whether "cannot be opened" means "has ended" for every namespace. */
  readonly trusted: boolean;
  /** By stage; in each the dues are in order. */
  #waiting: Waiting[][] = DELAYS.map(() => []);
  #known = new Map<KnownNamespace, Waiting>();
  /** Those that could be opened once. */
  #seen = new WeakSet<KnownNamespace>();
  /** Those that have ended by themselves, as it seems: known holders of theirs are still there. */
  #doubted = new WeakSet<KnownNamespace>();
  #onEnd: OnEnd;
  #beforeEnds: () => void;
  #ended: [KnownNamespace, exact: boolean][] = [];
  #all: () => Iterable<KnownNamespace>;
  #round: Iterator<KnownNamespace> | null = null;
  #sweepAt = 0;
  #searched = -Infinity;
  #reader: ProcReader | null = null;

  /**
   * @param all All that are known, for the slow round.
   * @param beforeEnds Called before ends are told, so that what has led to them can be.
   * @param onEnd Told of each end.
   */
  constructor(all: () => Iterable<KnownNamespace>, beforeEnds: () => void, onEnd: OnEnd) {
    this.#beforeEnds = beforeEnds;
    this.#all = all;
    this.#onEnd = onEnd;
    const own = this.#handles.read(cString("/proc/self/ns/user"));
    this.trusted = typeof own === "object" && own.inum === INIT_USER &&
      hasCapability(effectiveCapabilities(), CAP.SYS_ADMIN) &&
      this.#handles.isAlive(own.id, own.flag, own.inum);
  }

  /** Whether ends can be told for certain, for some namespaces at least. */
  get possible(): boolean {
    return this.#handles.calibrated;
  }

  /** Whether a namespace lives. */
  ask(namespace: KnownNamespace): Life {
    const { id, type, inum } = namespace;
    if (id === null || !this.#handles.calibrated) return "unknown";
    if (this.#handles.isAlive(BigInt(id), namespaceFlag(type), inum)) {
      if (!this.trusted) this.#seen.add(namespace);
      return "alive";
    }
    return this.trusted || this.#seen.has(namespace) ? "ended" : "unknown";
  }

  /**
   * A namespace has lost the last of what was known to hold it.
   *
   * @param namespace The namespace.
   * @param now Milliseconds of `performance.now()`.
   */
  orphaned(namespace: KnownNamespace, now: number): void {
    const before = this.#known.get(namespace);
    if (before) before.stage = -1; // it is passed over where it stands
    this.#put({ namespace, since: now, due: 0, stage: 0 }, now);
  }

  #put(waiting: Waiting, now: number): void {
    waiting.due = now + DELAYS[waiting.stage]!;
    this.#waiting[waiting.stage]!.push(waiting);
    this.#known.set(waiting.namespace, waiting);
  }

  /** Sees to it that one that may not always be opened can be asked for later. */
  meet(namespace: KnownNamespace): void {
    if (!this.trusted) this.ask(namespace);
  }

  /** Milliseconds of `performance.now()` at which to look next. */
  get next(): number {
    let next = this.#sweepAt;
    for (const queue of this.#waiting) if (queue.length > 0 && queue[0]!.due < next) next = queue[0]!.due;
    return next;
  }

  /**
   * Looks at those that are due.
   *
   * @param now Milliseconds of `performance.now()`.
   */
  look(now: number): void {
    let left = Math.max(BATCH, Math.ceil(this.#known.size * PART));
    const began = performance.now();
    const unknown: KnownNamespace[] = [];
    for (let stage = 0; stage < DELAYS.length; stage++) {
      const queue = this.#waiting[stage]!;
      let taken = 0;
      // What is put back meanwhile stands behind, and is not due.
      while (taken < queue.length && left > 0 && queue[taken]!.due <= now) {
        const waiting = queue[taken++]!;
        if (waiting.stage !== stage) continue;
        const { namespace } = waiting;
        if (this.#known.get(namespace) !== waiting) continue;
        if (namespace.ended || !isOrphan(namespace)) {
          this.#known.delete(namespace);
          continue;
        }
        left--;
        if (left % 64 === 0 && performance.now() - began > LOOK_MAX) left = 0;
        const life = this.ask(namespace);
        if (life === "ended") {
          this.#known.delete(namespace);
          this.#ended.push([namespace, true]);
          continue;
        }
        // A user namespace goes with credentials, which the kernel lets go of only when no processor can be reading them.
        const grace = namespace.type === "user" ? GRACE.child : GRACE[namespace.released];
        if (life === "alive" && now - waiting.since > grace) {
          if (this.#isHeldByZombie(namespace)) waiting.since = now;
          else namespace.heldUnseen = true;
        }
        if (life === "unknown" && now - waiting.since > GRACE[namespace.released]) unknown.push(namespace);
        waiting.stage = Math.min(stage + 1, DELAYS.length - 1);
        this.#put(waiting, now);
      }
      if (taken > 0) queue.splice(0, taken);
    }
    if (unknown.length > 0) this.#search(unknown, now);
    if (now >= this.#sweepAt) this.#sweep(now);
    if (this.#ended.length === 0) return;
    let ended = this.#ended;
    this.#ended = [];
    this.#beforeEnds();
    // What has belonged to one that has ended has ended before it, though it may be due a moment later.
    if (ended.some(([{ children }]) => children > 0)) ended.push(...this.#takeEnded());
    // Those that belonged to others first: their end is the others' cause.
    while (ended.length > 0) {
      const [now, later] = [
        ended.filter(([{ children }]) => children <= 0),
        ended.filter(([{ children }]) => children > 0),
      ];
      for (const [namespace, exact] of now.length > 0 ? now : later) this.#onEnd(namespace, exact);
      ended = now.length > 0 ? later : [];
    }
  }

  /** Asks all that wait, due or not. */
  #takeEnded(): [KnownNamespace, exact: boolean][] {
    const ended: [KnownNamespace, exact: boolean][] = [];
    for (const { namespace } of [...this.#known.values()]) {
      if (namespace.ended || !isOrphan(namespace) || this.ask(namespace) !== "ended") continue;
      this.#known.delete(namespace);
      ended.push([namespace, true]);
    }
    return ended;
  }

  /** A process that has ended keeps its user namespace until somebody has waited for it. */
  #isHeldByZombie({ type, released, lastHolder }: KnownNamespace): boolean {
    if (type !== "user" || released !== "exit" || lastHolder === 0) return false;
    this.#reader ??= new ProcReader();
    return this.#reader.stat(lastHolder, lastHolder) !== null;
  }

  /** Looks for descriptors of namespaces that cannot be asked. */
  #search(namespaces: readonly KnownNamespace[], now: number): void {
    if (now - this.#searched < DELAYS.at(-1)!) return;
    this.#searched = now;
    const held = this.#descriptors();
    for (const namespace of namespaces) {
      if (held.has(`${namespace.type}:[${namespace.inum}]`)) {
        namespace.heldUnseen = true;
        continue;
      }
      this.#known.delete(namespace);
      this.#ended.push([namespace, false]);
    }
  }

  #descriptors(): Set<string> {
    const reader = this.#reader ??= new ProcReader();
    const held = new Set<string>();
    for (const pid of reader.numbers("/proc")) {
      for (const fd of reader.numbers(`/proc/${pid}/fd`)) {
        const link = reader.link(`/proc/${pid}/fd/${fd}`);
        if (link !== null && link.endsWith("]") && !link.startsWith("/")) held.add(link);
      }
    }
    return held;
  }

  #sweep(now: number): void {
    this.#sweepAt = now + SWEEP_INTERVAL;
    if (!this.#handles.calibrated) return;
    for (let i = 0; i < SWEEP_BATCH; i++) {
      this.#round ??= this.#all()[Symbol.iterator]();
      const next = this.#round.next();
      if (next.done) {
        this.#round = null;
        return;
      }
      const namespace = next.value;
      if (namespace.ended || this.#known.has(namespace)) continue;
      if (this.ask(namespace) === "ended") {
        // Whose end it was may be told a moment later: a process lets go of its namespaces before it is said to have ended.
        if (isOrphan(namespace) || this.#doubted.has(namespace)) this.#ended.push([namespace, true]);
        else this.#doubted.add(namespace);
      } else if (isOrphan(namespace)) this.orphaned(namespace, now);
    }
  }
}
