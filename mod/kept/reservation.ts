// Reserves the name of a set, and makes the set.
//
// Theory of operation. The order matters. Everything that takes time or may fail is done first: a set-up command runs to
// its end before anything is kept, in namespaces that end with penne. Then, under the set's lock,
//  1. namespaces are mounted on their files;
//  2. the info file is written, completely or not at all: from now on the set exists;
//  3. the candidate becomes its holder; up to here it ends with penne.
// If penne is killed before 2, files are left that are no set; between 2 and 3, a set whose holder has ended, which is
// broken. The next call that takes the lock finds either, and removes it.

import { O } from "../../ffi/core/consts.ts";
import { orNull, SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { cString } from "../../ffi/core/memory.ts";
import { pipe, write } from "../../ffi/sys/file.ts";
import { isReadable } from "../../ffi/sys/poll.ts";
import { call, self } from "../../ffi/core/task.ts";
import { attempt, PenneError, usage } from "../base/errors.ts";
import { holderFilter, type OnConfined } from "../confine/agents.ts";
import type { NamespaceType } from "../namespaces/types.ts";
import { isBehind } from "./store/fault.ts";
import { ownLayout, type WhichSet } from "./find.ts";
import type { Candidate } from "./holder.ts";
import { lockSet } from "./store/lock.ts";
import { occupantsOf } from "./occupied.ts";
import { identify, ownPids, type ProcessIdentity } from "./record/identity.ts";
import { type Base, encodeInfo, type KeptBy, type KeptNamespace } from "./record/info.ts";
import { filesOf, type SetFiles } from "./record/layout.ts";
import { parseKeptName } from "./record/set_name.ts";
import { discards } from "./record/stale.ts";
import { holderLabel, removeSet } from "./remove.ts";
import { checkHere, describe, examine } from "./set.ts";
import { asksForMatch, judge, type StaleOptions, wantedBase } from "./staleness.ts";
import { Store } from "./store/store.ts";

/** How to keep namespaces. */
export interface KeepOptions extends WhichSet, StaleOptions {
  /** Their kinds; by default all that differ from penne's own. */
  readonly types?: readonly NamespaceType[];
}

/** How to keep namespaces, and what the command line says beside that. */
export interface KeepRequest extends KeepOptions {
  /** Whether a holder gives up what it needs no more; it does by default. */
  readonly confine?: boolean;
  /** Called if it does. */
  readonly onConfined?: OnConfined;
}

/** What a set is made from. */
export interface SetContent {
  /** The namespaces. */
  readonly namespaces: ReadonlyMap<NamespaceType, Fd>;
  /** Where they are from, for people. */
  readonly source: string;
  /** PID 1 of the pid namespace among them. */
  readonly init: ProcessIdentity | null;
  /** Provides a process that keeps namespaces which are not mounted. */
  readonly hold: (namespaces: ReadonlyMap<NamespaceType, Fd>) => Candidate;
  /** Whether such a process is needed in any case. */
  readonly mustHold: boolean;
}

/** Longest source that is recorded, characters. */
const SOURCE_MAX = 1000;

/** Refuses what this caller can never keep. */
function checkOptions(name: string, { user, layout, types }: KeepRequest): void {
  const root = call(self, "geteuid") === 0;
  if (user !== undefined && !root) {
    throw usage(`keep "${name}" for user ${user}: only root can`, ["without --user it is kept for yourself"]);
  }
  if (layout !== "snap") return;
  if (types?.some((type) => type !== "mnt")) throw usage("keep anything but a mnt namespace in snap-confine's layout");
  if (!root) throw usage("keep in snap-confine's layout: only root can");
}

/** Why a namespace could not be mounted. */
function explainMount(type: NamespaceType, { syscall, code }: SysError, faulty: boolean): readonly string[] {
  if (faulty) return ["Linux 6.18 takes it by mistake for an older one than penne's own; 6.19 does not"];
  if (code === "EINVAL" && type === "mnt") {
    return ["a mount namespace can be mounted only in an older one: not in itself, nor in one that was made in it"];
  }
  if (code !== "ENOSPC" && code !== "EDQUOT") return [];
  if (syscall !== "mount") return ["the file system is full"];
  return ["there are as many mounts as fs.mount-max allows; as root: sysctl -w fs.mount-max=MORE"];
}

/** A locked name that no set has, so that one can be made. */
export class Reservation implements Disposable {
  readonly #store: Store;
  readonly #files: SetFiles;
  readonly #base: Base | null;
  readonly #key: string | null;
  readonly #owned: DisposableStack;
  readonly #options: KeepRequest;
  /** Descriptors that are free for the last step, which sends a filter through a pipe: the command has run by then. */
  readonly #spare: DisposableStack;

  private constructor(
    store: Store,
    files: SetFiles,
    base: Base | null,
    options: KeepRequest,
    owned: DisposableStack,
    spare: DisposableStack,
  ) {
    this.#options = options;
    this.#store = store;
    this.#files = files;
    this.#base = base;
    this.#key = options.key ?? null;
    this.#owned = owned;
    this.#spare = spare;
  }

  /**
   * Locks a name, and removes a broken or stale set that has it.
   *
   * @param name The name.
   * @param options How to keep the namespaces.
   * @returns The reservation; null if a set has the name that matches the base and key asked for.
   * @throws {PenneError} If the name is taken, or the place cannot be used.
   */
  static open(name: string, options: KeepRequest): Reservation | null {
    const word = parseKeptName(name);
    checkOptions(word, options);
    const { onWarning = () => {}, user = null, layout = "penne" } = options;
    const wanted = wantedBase(options);
    const files = filesOf(layout, word, user);
    using owned = new DisposableStack();
    const store = owned.use(Store.open(ownLayout(options), { write: true, create: true, onWarning })!);
    owned.use(lockSet(store.locks!, files, "exclusive"));
    using set = examine(store, files);
    checkHere(set, "keep");
    const isOccupied = () => occupantsOf(set).length > 0;
    if (set.state === "broken") {
      onWarning(`what was left of "${files.stem}" is cleared away: ${set.problems[0]}`);
      removeSet(store, set, isOccupied());
    } else if (set.state === "complete") {
      if (!asksForMatch(options)) {
        throw new PenneError(`keep "${files.stem}": that name is taken`, {
          hints: [`penne drop ${word} removes it`, "with --base or --key it is replaced when it is stale"],
        });
      }
      const { vote, reason } = judge(set, wanted);
      const occupied = isOccupied();
      if (!discards(vote, occupied)) {
        if (vote !== "no") onWarning(`"${files.stem}" is stale, and stays while it is in use: ${reason}`);
        return null;
      }
      onWarning(`"${files.stem}" is stale and replaced: ${reason}`);
      removeSet(store, set, occupied);
    }
    const spare = owned.use(new DisposableStack());
    attempt(`keep "${files.stem}"`, () => pipe().forEach((end) => spare.use(end)));
    return new Reservation(store, files, wanted.base ?? null, options, owned.move(), spare);
  }

  /**
   * Identifies the mount namespace in which mount namespaces are mounted.
   *
   * @returns Its id; null before Linux 6.18, or if nothing is mounted.
   * @throws {PenneError} If it cannot be opened.
   */
  mounterId(): bigint | null {
    const store = this.#store;
    return store.mounts ? attempt("open the mount namespace that names are kept in", () => store.mounterId()) : null;
  }

  /**
   * Makes the set.
   *
   * @param content What it is made from.
   * @throws {PenneError} If it fails; nothing is left then.
   */
  commit({ namespaces, source, init, hold, mustHold }: SetContent): void {
    const stem = this.#files.stem;
    const kept = new Map<NamespaceType, KeptNamespace>();
    try {
      attempt(`keep "${stem}"`, () => {
        for (const [type, fd] of namespaces) kept.set(type, describe(fd, this.#mount(type, fd)));
        const held = new Map([...namespaces].filter(([type]) => kept.get(type)!.by === "holder"));
        using candidate = mustHold || held.size ? hold(held) : null;
        const holder = candidate && identify(candidate.pidfd);
        if (candidate && !holder) throw new PenneError("start a holder: it has ended, or is not in /proc");
        this.#writeInfo(kept, source, holder, init);
        const { confine = true, onConfined } = this.#options;
        this.#spare.dispose();
        candidate?.become(holderLabel(this.#store, stem), confine ? holderFilter(onConfined) : null);
        if (candidate && isReadable(candidate.pidfd)) {
          throw new PenneError("start a holder: it ended at once");
        }
      });
    } catch (error) {
      this.#undo(kept);
      throw error;
    }
  }

  /** Mounts a namespace if possible, and returns how it is kept. */
  #mount(type: NamespaceType, fd: Fd): KeptBy {
    const store = this.#store;
    if (!store.mounts) return "holder";
    const file = this.#files.namespace(type);
    try {
      store.mount(file, fd);
      return "mount";
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      const faulty = error.code === "EINVAL" && type === "mnt" && isBehind(fd, store.mounterId());
      // A holder keeps what root cannot mount because of that fault; snap-confine knows no holders.
      if (faulty && store.layout.name === "penne") return "holder";
      throw new PenneError(`mount the ${type} namespace on ${store.layout.base}/ns/${file}`, {
        cause: error,
        hints: explainMount(type, error, faulty),
        context: { ownRights: true },
      });
    }
  }

  #writeInfo(
    namespaces: ReadonlyMap<NamespaceType, KeptNamespace>,
    source: string,
    holder: ProcessIdentity | null,
    init: ProcessIdentity | null,
  ): void {
    const store = this.#store;
    const { name, user, info } = this.#files;
    if (info === null) return;
    const bytes = encodeInfo({
      name,
      user,
      token: crypto.randomUUID().replaceAll("-", ""),
      created: new Date().toISOString(),
      creator: call(self, "geteuid"),
      source: source.length > SOURCE_MAX ? `${source.slice(0, SOURCE_MAX)}…` : source,
      namespaces,
      holder,
      init,
      pids: ownPids(),
      base: this.#base,
      key: this.#key,
    }, store.layout.name === "snap");
    const temporary = `${info}.new`;
    attempt(`write the info file ${info}`, () => {
      store.remove(temporary); // left by a call that was killed
      using file = store.openFile(temporary, O.WRONLY | O.CREAT | O.EXCL, 0o644)!;
      call(self, "fchmod", file, 0o644);
      write(file, bytes);
      call(self, "renameat2", store.namespaces, cString(temporary), store.namespaces, cString(info), 0);
    }, ({ code }) => code === "ENOSPC" || code === "EDQUOT" ? ["the file system is full"] : []);
  }

  /** Removes what a commit that failed has made. */
  #undo(kept: ReadonlyMap<NamespaceType, KeptNamespace>): void {
    const store = this.#store;
    const { info, namespace } = this.#files;
    const steps = info === null ? [] : [() => store.remove(info), () => store.remove(`${info}.new`)];
    for (const [type, { by }] of kept) if (by === "mount") steps.push(() => store.unmount(namespace(type)));
    for (const step of steps) orNull(step);
  }

  /** Unlocks the name. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
