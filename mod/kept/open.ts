// Opens a kept set: all of its namespaces, or none.

import { O } from "../../ffi/core/consts.ts";
import { SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { sleep } from "../../ffi/sys/clock.ts";
import { open, readLink } from "../../ffi/sys/file.ts";
import { stat } from "../../ffi/sys/stat.ts";
import { call, self } from "../../ffi/core/task.ts";
import { attempt, PenneError } from "../base/errors.ts";
import type { NamespaceType } from "../namespaces/types.ts";
import { devicesInside } from "./inside.ts";
import type { KeptInfo, SparseInfo } from "./record/info.ts";
import { filesOf, findLayout, type Layout, type LayoutName, ROOT_LAYOUT, type SetFiles } from "./record/layout.ts";
import { takeLock } from "./lock.ts";
import { parseKeptName } from "./record/set_name.ts";
import { occupants } from "./occupied.ts";
import { examine, isFull, type KeptSet, readInfo } from "./set.ts";
import { decide, type Verdict, voteOn, type Wanted } from "./record/stale.ts";
import { Store } from "./store.ts";

/** Most characters of a base's path, and of a key. */
const TEXT_MAX = 4096;

/** Which set is meant. */
export interface WhichSet {
  /** The user whom root has kept it for; by default the set is the caller's own, or else what root has kept for the caller. */
  readonly user?: number;
  /** Whose files: penne's own by default. */
  readonly layout?: LayoutName;
  /** Where they are, in place of the layout's own directory. */
  readonly directory?: string;
  /** Told of what is not worth failing for. */
  readonly onWarning?: (message: string) => void;
}

/** What a set must not be stale against. */
export interface StaleOptions {
  /** What it ought to be built on: a path, whose device is looked at. */
  readonly base?: string;
  /** What its key ought to be. */
  readonly key?: string;
}

/** An open set. */
export interface OpenKept extends Disposable {
  /** Its name. */
  readonly name: string;
  /** Its namespaces, in the order of `NAMESPACE_TYPES`. */
  readonly namespaces: ReadonlyMap<NamespaceType, Fd>;
  /** What is recorded of it; of one that penne has not made only what it is built on. */
  readonly info: KeptInfo | SparseInfo | null;
  /** A pidfd of its holder, if it has one. */
  readonly holder: Fd | null;
}

/**
 * The base as it is now.
 *
 * @param options What was asked for.
 * @returns What a set ought to be built on.
 * @throws {PenneError} If there is no such path.
 */
export function wantedBase({ base, key }: StaleOptions): Wanted {
  for (const [what, text] of [["base", base], ["key", key]] as const) {
    // deno-lint-ignore no-control-regex
    if (text !== undefined && (/[\x00-\x1f\x7f]/.test(text) || text.length > TEXT_MAX)) {
      throw new PenneError(`use that ${what}: it has a control character, or more than ${TEXT_MAX} characters`, {
        usage: true,
      });
    }
  }
  if (base === "") throw new PenneError("use that base: the path is empty", { usage: true });
  const path = base === undefined || base.startsWith("/") ? base : `${readLink(self, "/proc/self/cwd")}/${base}`;
  const device = base === undefined ? null : attempt(`look at the base ${base}`, () => {
    using place = open(self, path!, O.PATH);
    return stat(self, place).device;
  });
  return { base: device === null ? null : { path: path!, device }, key: key ?? null };
}

/**
 * Votes on a set that is there.
 *
 * @param set The set.
 * @param wanted What it ought to be built on.
 * @returns The vote and its reason.
 */
export function judge(set: KeptSet, wanted: Wanted): Verdict {
  const { base = null, key = null } = set.info ?? {};
  const devices = wanted.base && !base?.device ? devicesInside(set.namespaces) : [];
  return voteOn({ base, key, devices }, wanted);
}

/**
 * Votes on a set by what it was built on, as that is now.
 *
 * @param set The set.
 * @returns The vote and its reason; a base that has gone is no reason to give up what was built on it.
 */
export function voteNow(set: KeptSet): Verdict {
  const path = set.info?.base?.path;
  if (path === undefined) return { vote: "no", reason: "" };
  try {
    return judge(set, wantedBase({ base: path }));
  } catch (error) {
    if (!(error instanceof PenneError)) throw error;
    return { vote: "no", reason: error.message };
  }
}

/**
 * Who is in a set, its holder left out.
 *
 * @param set The set.
 * @returns The processes.
 */
export function occupantsOf(set: KeptSet): ReturnType<typeof occupants> {
  const info = isFull(set.info) ? set.info : null;
  const inums = new Map([...set.kept].map(([type, { inum }]) => [type, inum]));
  return occupants(inums, set.holder && info?.holder ? [info.holder.pid] : []);
}

/** Places where a set may be, the first one that has it being meant. */
export function places(name: string, which: WhichSet): { layout: Layout; files: SetFiles }[] {
  const { user, layout = "penne", directory } = which;
  const own = call(self, "geteuid");
  if (user !== undefined && own !== 0 && user !== own) {
    throw new PenneError(`use the set that root keeps for user ${user}: you are user ${own}`, { usage: true });
  }
  const at = (place: Layout, of: number | null) => ({ layout: place, files: filesOf(layout, name, of) });
  if (own === 0) return [at(findLayout(layout, directory), user ?? null)];
  if (layout === "snap" || directory !== undefined) {
    const place = findLayout(layout, directory);
    return user !== undefined ? [at(place, user)] : [at(place, null), at(place, own)];
  }
  if (user !== undefined) return [at(ROOT_LAYOUT, user)];
  try {
    return [at(findLayout(layout), null), at(ROOT_LAYOUT, own)];
  } catch (error) {
    if (!(error instanceof PenneError)) throw error;
    // Without a place of one's own there may still be what root has kept.
    using there = rootKeeps(name, own);
    if (there) return [at(ROOT_LAYOUT, own)];
    throw error;
  }
}

function rootKeeps(name: string, user: number): Fd | null {
  try {
    return open(self, `${ROOT_LAYOUT.base}/ns/${filesOf("penne", name, user).info}`, O.PATH | O.NOFOLLOW);
  } catch (error) {
    if (error instanceof SysError) return null;
    throw error;
  }
}

/** Locks of a set for looking at it; none where the caller may not lock, and has to look twice. */
function lockToLook(store: Store, files: SetFiles): Disposable & { readonly locked: boolean } {
  const stack = new DisposableStack();
  let locked = false;
  const mayLock = call(self, "geteuid") === stat(self, store.namespaces).uid;
  if (mayLock && store.locks) {
    for (const lock of files.locks) {
      stack.use(takeLock(store.locks, lock, "shared", `"${files.stem}"`));
    }
    locked = true;
  }
  return { locked, [Symbol.dispose]: () => stack.dispose() };
}

/**
 * Looks at a set under its locks, as far as the caller may take them.
 *
 * @param store Where it is.
 * @param files Its files.
 * @returns What there is of it.
 * @throws {PenneError} If the locks cannot be had in time.
 */
export function look(store: Store, files: SetFiles): KeptSet {
  using lock = lockToLook(store, files);
  for (let tries = 0;; tries++) {
    const before = lock.locked ? null : fileText(store, files.info);
    const set = examine(store, files);
    // A set's info file is written last and removed first: if it was the same before and after, so was the set.
    if (lock.locked || (before === fileText(store, files.info) && set.state !== "broken") || tries === 20) return set;
    set[Symbol.dispose]();
    sleep(5);
  }
}

function fileText(store: Store, file: string | null): string | null {
  if (file === null) return null;
  try {
    const bytes = readInfo(store, file);
    return bytes && new TextDecoder().decode(bytes);
  } catch (error) {
    if (error instanceof Error) return error.message;
    throw error;
  }
}

/** Says that there is no such set. */
export function noSuchSet(name: string, base: string): PenneError {
  return new PenneError(`find the kept set "${name}": there is none in ${base}`, {
    hints: ["penne inspect lists the sets there are", `penne keep ${name} … makes one`],
  });
}

/**
 * Opens a kept set.
 *
 * What is opened is complete: every namespace is the one that was kept, by the kernel's own ids, and PID 1 of a pid
 * namespace lives. A set that is being made or removed at that moment is waited for.
 *
 * @example
 * ```ts
 * import { openKept } from "./open.ts";
 * import { PenneError } from "../base/errors.ts";
 * import { assertThrows } from "@std/assert";
 *
 * assertThrows(() => openKept("no-such-set", { directory: "/proc/no/such" }), PenneError);
 * ```
 *
 * @param name Its name.
 * @param options Which one, and what it must not be stale against.
 * @returns The set; its namespaces live as long as that is open.
 * @throws {PenneError} If there is none, it is not complete, or it is so stale that it is to be discarded.
 */
export function openKept(name: string, options: WhichSet & StaleOptions = {}): OpenKept {
  const word = parseKeptName(name);
  const wanted = wantedBase(options);
  const candidates = places(word, options);
  for (const { layout, files } of candidates) {
    using store = Store.open(layout, { write: false, ...warner(options) });
    if (!store) continue;
    const set = look(store, files);
    try {
      if (set.state === "absent") continue;
      if (set.state === "broken") throw brokenSet(files.stem, set.problems);
      const verdict = judge(set, wanted);
      const discard = verdict.vote !== "no" && decide(verdict.vote, occupantsOf(set).length > 0) === "discard";
      if (discard) {
        throw new PenneError(`use the kept set "${files.stem}": it is stale: ${verdict.reason}`, {
          hints: [`penne keep ${word} … with the same --base and --key makes it anew`, `penne drop ${word} removes it`],
        });
      }
    } catch (error) {
      set[Symbol.dispose]();
      throw error;
    }
    if (set.state === "complete") {
      const { namespaces, info, holder } = set;
      return { name: word, namespaces, info, holder, [Symbol.dispose]: () => set[Symbol.dispose]() };
    }
    set[Symbol.dispose]();
  }
  throw noSuchSet(word, candidates.map(({ layout }) => `${layout.base}/ns`).join(" or "));
}

/** Options that pass warnings on. */
export function warner({ onWarning }: WhichSet): { onWarning?: (message: string) => void } {
  return onWarning ? { onWarning } : {};
}

/** Says that a set cannot be judged from here, and so must not be cleared away. */
export function seenElsewhere(what: string, stem: string): PenneError {
  return new PenneError(
    `${what} "${stem}": it was made in another pid namespace, and its processes are not to be seen`,
    {
      hints: ["run penne where it was made", "if that is no more: penne drop --force removes what is left"],
    },
  );
}

/** Says what is wrong with a set. */
export function brokenSet(stem: string, problems: readonly string[]): PenneError {
  const name = stem.split(".")[0]!;
  return new PenneError(`use the kept set "${stem}": ${problems[0]}`, {
    hints: [...problems.slice(1), `penne drop ${name} removes what is left of it`],
  });
}
