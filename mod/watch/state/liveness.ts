// Finds out when namespaces have ended, without holding any of them.
//
// Theory of operation. The handle of a namespace can be opened as long as the namespace lives (Linux 6.18). Without the
// permission to open it the kernel answers as if the namespace had ended. So the answer is believed only if penne may open
// all namespaces, which takes CAP_SYS_ADMIN in the initial user namespace, or if it could open this one before. Without
// such an answer, a namespace is taken to have ended when it has no known holder and no process has a descriptor of it.
//
// Orphans, which have just lost their last known holder, are checked at growing intervals, in the end four times a second.
// All other namespaces are checked slowly, some at a time, in case a holder was counted wrong.

import { CAP } from "../../../ffi/core/consts.ts";
import { cString } from "../../../ffi/core/memory.ts";
import { Handles } from "../../../ffi/sys/namespace.ts";
import { effectiveCapabilities, hasCapability } from "../../host/caller.ts";
import { DescriptorFiles } from "../../namespaces/descriptors.ts";
import { namespaceFlag } from "../../namespaces/types.ts";
import { ProcReader } from "../proc/reader.ts";
import { isOrphan, type KnownNamespace } from "./known.ts";

/** Milliseconds between two checks of an orphan, by stage; it stays in the last stage. */
const DELAYS = [2, 10, 40, 150, 200, 250] as const;
const LAST_STAGE = DELAYS.length - 1;
/**
 * Milliseconds that the kernel may take to end a namespace after its last known holder has released it; a namespace that
 * lives longer has an unseen holder. A mount is dismantled by the task that called umount(2), after a while; a network
 * namespace, which holds its owner, by a kernel thread.
 */
const GRACE = { exit: 200, left: 200, unknown: 200, unmounted: 600, child: 600 } as const;
/** How many orphans are checked at once: at least so many, and at least this part, so that a storm builds up no backlog. */
const BATCH = 512;
const PART = 1 / 4;
/** Milliseconds after which a check stops early, so that other work gets its turn. */
const CHECK_MAX = 50;
/** Milliseconds between two parts of the slow round, and namespaces in one: some thousands take a second. */
const SWEEP_INTERVAL = 250;
const SWEEP_BATCH = 1024;
/** Inode number of the initial user namespace, the same on all kernels. */
const INIT_USER = 0xeffffffd;

/** Whether a namespace lives. */
export type Life = "alive" | "ended" | "unknown";

/** An orphan that is due for a check. */
interface Orphan {
  readonly namespace: KnownNamespace;
  /** When it was released, in milliseconds of `performance.now()`. */
  since: number;
  /** When to check it. */
  due: number;
  /** Index in {@linkcode DELAYS}; -1 if a later entry has replaced this one. */
  stage: number;
}

/** Takes the end of a namespace, and whether it is certain. */
export type OnEnd = (namespace: KnownNamespace, exact: boolean) => void;

type End = Parameters<OnEnd>;

/** Checks whether namespaces have ended. */
export class Liveness {
  #handles = new Handles();
  /** Whether "cannot be opened" means "has ended" for every namespace. */
  readonly trusted: boolean;
  /** Orphans by stage, each queue in the order of `due`. */
  #queues: Orphan[][] = DELAYS.map(() => []);
  #orphans = new Map<KnownNamespace, Orphan>();
  /** Namespaces that could be opened once. */
  #opened = new WeakSet<KnownNamespace>();
  /** Namespaces that seem to have ended although they have known holders. */
  #doubted = new WeakSet<KnownNamespace>();
  #onEnd: OnEnd;
  #beforeEnds: () => void;
  /** Ends that were found and not reported yet. */
  #ends: End[] = [];
  #all: () => Iterable<KnownNamespace>;
  /** Position in the slow round. */
  #round: Iterator<KnownNamespace> | null = null;
  #sweepAt = 0;
  #searched = -Infinity;
  #reader: ProcReader | null = null;
  #files: DescriptorFiles | null = null;

  /**
   * @param all Returns all known namespaces, for the slow round.
   * @param beforeEnds Called before ends are reported, so that their causes can be reported first.
   * @param onEnd Called with each end.
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

  /** Tests whether a namespace lives. */
  ask(namespace: KnownNamespace): Life {
    const { id, type, inum } = namespace;
    if (id === null || !this.#handles.calibrated) return "unknown";
    if (this.#handles.isAlive(BigInt(id), namespaceFlag(type), inum)) {
      if (!this.trusted) this.#opened.add(namespace);
      return "alive";
    }
    return this.trusted || this.#opened.has(namespace) ? "ended" : "unknown";
  }

  /**
   * Notes that a namespace has lost its last known holder.
   *
   * @param namespace The namespace.
   * @param now Milliseconds of `performance.now()`.
   */
  orphaned(namespace: KnownNamespace, now: number): void {
    const before = this.#orphans.get(namespace);
    if (before) before.stage = -1;
    this.#queue({ namespace, since: now, due: 0, stage: 0 }, now);
  }

  #queue(orphan: Orphan, now: number): void {
    orphan.due = now + DELAYS[orphan.stage]!;
    this.#queues[orphan.stage]!.push(orphan);
    this.#orphans.set(orphan.namespace, orphan);
  }

  /** Opens a new namespace once if not all can be opened, so that its end can be confirmed later. */
  meet(namespace: KnownNamespace): void {
    if (!this.trusted) this.ask(namespace);
  }

  /** Milliseconds of `performance.now()` at which the next check is due. */
  get next(): number {
    let next = this.#sweepAt;
    for (const queue of this.#queues) if (queue.length > 0 && queue[0]!.due < next) next = queue[0]!.due;
    return next;
  }

  /**
   * Checks the namespaces that are due, and reports ends.
   *
   * @param now Milliseconds of `performance.now()`.
   */
  checkDue(now: number): void {
    let left = Math.max(BATCH, Math.ceil(this.#orphans.size * PART));
    const began = performance.now();
    const unknown: KnownNamespace[] = [];
    this.#queues.forEach((queue, stage) => {
      let taken = 0;
      // Orphans that are queued again meanwhile are behind these, and not due.
      while (taken < queue.length && left > 0 && queue[taken]!.due <= now) {
        const orphan = queue[taken++]!;
        const { namespace } = orphan;
        if (orphan.stage !== stage || this.#orphans.get(namespace) !== orphan) continue;
        if (namespace.ended || !isOrphan(namespace)) {
          this.#orphans.delete(namespace);
          continue;
        }
        left--;
        if (left % 64 === 0 && performance.now() - began > CHECK_MAX) left = 0;
        if (this.#check(orphan, now) === "unknown" && now - orphan.since > GRACE[namespace.released]) {
          unknown.push(namespace);
        }
      }
      if (taken > 0) queue.splice(0, taken);
    });
    if (unknown.length > 0) this.#search(unknown, now);
    if (now >= this.#sweepAt) this.#sweep(now);
    if (this.#ends.length > 0) this.#report();
  }

  /** Checks an orphan, and queues it for the next check unless it has ended. */
  #check(orphan: Orphan, now: number): Life {
    const { namespace } = orphan;
    const life = this.ask(namespace);
    if (life === "ended") {
      this.#end(namespace, true);
      return life;
    }
    // A user namespace is held by credentials, which the kernel frees after an RCU grace period.
    const grace = namespace.type === "user" ? GRACE.child : GRACE[namespace.released];
    if (life === "alive" && now - orphan.since > grace) {
      if (this.#isHeldByZombie(namespace)) orphan.since = now;
      else namespace.heldUnseen = true;
    }
    orphan.stage = Math.min(orphan.stage + 1, LAST_STAGE);
    this.#queue(orphan, now);
    return life;
  }

  #end(namespace: KnownNamespace, exact: boolean): void {
    this.#orphans.delete(namespace);
    this.#ends.push([namespace, exact]);
  }

  #report(): void {
    this.#beforeEnds();
    let ends = this.#ends;
    this.#ends = [];
    // Namespaces below one that has ended have ended before it, even if their checks are due later.
    if (ends.some(([{ children }]) => children > 0)) {
      for (const { namespace } of [...this.#orphans.values()]) {
        if (!namespace.ended && isOrphan(namespace) && this.ask(namespace) === "ended") this.#end(namespace, true);
      }
      ends.push(...this.#ends);
      this.#ends = [];
    }
    // Those below others come first, since their ends cause the others' ends.
    while (ends.length > 0) {
      const leaves = ends.filter(([{ children }]) => children <= 0);
      const others = ends.filter(([{ children }]) => children > 0);
      for (const [namespace, exact] of leaves.length > 0 ? leaves : others) this.#onEnd(namespace, exact);
      ends = leaves.length > 0 ? others : [];
    }
  }

  /** Whether a user namespace is held by a process that has exited, but was not waited for. */
  #isHeldByZombie({ type, released, lastHolder }: KnownNamespace): boolean {
    if (type !== "user" || released !== "exit" || lastHolder === 0) return false;
    this.#reader ??= new ProcReader();
    return this.#reader.stat(lastHolder, lastHolder) !== null;
  }

  /**
   * Decides at once about orphans that cannot be asked, without waiting for their checks, and reports their ends. For the
   * end of a watch, when their holders have had time to end.
   *
   * @param namespaces The namespaces in question.
   */
  decide(namespaces: Iterable<KnownNamespace>): void {
    let held: Set<number> | null = null;
    // The end of one may leave one above it without a holder.
    for (let left = [...namespaces], more = true; more;) {
      more = false;
      left = left.filter((namespace) => {
        const { inum, ended } = namespace;
        if (ended || !isOrphan(namespace) || this.ask(namespace) !== "unknown") return !ended;
        held ??= this.#descriptors();
        if (held.has(inum)) return true;
        this.#orphans.delete(namespace);
        this.#onEnd(namespace, false);
        more = true;
        return false;
      });
    }
  }

  /** Searches all processes for descriptors of namespaces that cannot be asked. */
  #search(namespaces: readonly KnownNamespace[], now: number): void {
    if (now - this.#searched < DELAYS[LAST_STAGE]!) return;
    this.#searched = now;
    const held = this.#descriptors();
    for (const namespace of namespaces) {
      if (held.has(namespace.inum)) namespace.heldUnseen = true;
      else this.#end(namespace, false);
    }
  }

  #descriptors(): Set<number> {
    const files = this.#files ??= new DescriptorFiles();
    const held = new Set<number>();
    for (const pid of files.numbers("/proc")) {
      for (const fd of files.numbers(`/proc/${pid}/fd`)) {
        const path = `/proc/${pid}/fd/${fd}`;
        const link = files.link(path);
        const inum = link === null ? null : files.inumOf(path, link);
        if (inum !== null) held.add(inum);
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
      if (namespace.ended || this.#orphans.has(namespace)) continue;
      const orphan = isOrphan(namespace);
      if (this.ask(namespace) !== "ended") {
        if (orphan) this.orphaned(namespace, now);
      } else if (orphan || this.#doubted.has(namespace)) this.#end(namespace, true);
      // A process releases its namespaces before its exit is reported, so wait a round for that.
      else this.#doubted.add(namespace);
    }
  }
}
