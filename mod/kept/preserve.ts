// Keeps namespaces under a name: those of a process, or new ones in which a command has set things up.
//
// Theory of operation, the order being what matters. All that takes time, or may fail, is done first: a set-up command
// runs to its end before anything is kept, in namespaces that end with penne. Then, under the set's lock,
//  1. namespaces are mounted on their files,
//  2. the info file is written, as a whole or not at all: from now on there is a set,
//  3. the holder becomes one. Up to here it ends with penne.
// Whoever is killed before 2 leaves files that are no set; between 2 and 3, a set whose holder has ended, which is none
// either. The next call that has the lock sees both, and clears them away.

import { O, POLL } from "../../ffi/core/consts.ts";
import { SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { cString } from "../../ffi/core/memory.ts";
import { open, readText, write } from "../../ffi/sys/file.ts";
import { openPid } from "../../ffi/sys/process.ts";
import { poll } from "../../ffi/sys/poll.ts";
import { stat } from "../../ffi/sys/stat.ts";
import { call, out, self } from "../../ffi/core/task.ts";
import { IOCTL } from "../../ffi/core/consts.ts";
import { attempt, PenneError, usage } from "../base/errors.ts";
import { caller } from "../host/caller.ts";
import { userOf } from "../host/passwd.ts";
import { NAMESPACE_TYPES, namespaceFile, type NamespaceType } from "../namespaces/types.ts";
import type { Child, StartOptions } from "../run/child.ts";
import type { RunOptions, RunPlan } from "../run/plan.ts";
import { planRun } from "../run/plan.ts";
import { makeMountable } from "./fault.ts";
import { type Candidate, joinAsHolder } from "./holder.ts";
import { commOf, identify, ownPids, type ProcessIdentity } from "./record/identity.ts";
import { type Base, encodeInfo, type KeptBy, type KeptInfo, type KeptNamespace } from "./record/info.ts";
import { filesOf, findLayout, type SetFiles } from "./record/layout.ts";
import { takeLock } from "./lock.ts";
import { parseKeptName } from "./record/set_name.ts";
import { judge, occupantsOf, seenElsewhere, type StaleOptions, wantedBase, warner, type WhichSet } from "./open.ts";
import { pidsIn } from "./occupied.ts";
import { holderLabel, removeSet } from "./remove.ts";
import { describe, examine, openNamespaceOf } from "./set.ts";
import { decide } from "./record/stale.ts";
import { Store } from "./store.ts";

/** How to keep namespaces. */
export interface KeepOptions extends WhichSet, StaleOptions {
  /** Which ones; by default those that are not penne's own. */
  readonly types?: readonly NamespaceType[];
}

/** What has become of a request to keep. */
export interface Kept {
  /** Whether it was kept now; else it was already, and is not stale. */
  readonly made: boolean;
}

/** Most characters that are recorded of what a set was made from. */
const SOURCE_MAX = 1000;

const ALREADY: Kept = { made: false };
const MADE: Kept = { made: true };

/** What is being kept: whatever was under the name before has been looked at, and is out of the way. */
class Keeping implements Disposable {
  readonly store: Store;
  readonly files: SetFiles;
  readonly options: KeepOptions;
  #owned: DisposableStack;
  #base: Base | null;

  constructor(store: Store, files: SetFiles, options: KeepOptions, owned: DisposableStack, base: Base | null) {
    this.store = store;
    this.files = files;
    this.options = options;
    this.#owned = owned;
    this.#base = base;
  }

  /**
   * Locks a name, and clears away what is left or stale under it.
   *
   * @returns It; null if there is a set that is to be used as it is.
   */
  static start(name: string, options: KeepOptions): Keeping | null {
    const { user, layout = "penne", directory, types } = options;
    const word = parseKeptName(name);
    const uid = call(self, "geteuid");
    if (user !== undefined && uid !== 0) {
      throw usage(`keep "${word}" for user ${user}: only root can`, ["without --user it is kept for yourself"]);
    }
    if (layout === "snap" && (types?.some((type) => type !== "mnt") ?? false)) {
      throw usage("keep anything but a mnt namespace in snap-confine's layout");
    }
    if (layout === "snap" && uid !== 0) throw usage("keep in snap-confine's layout: only root can");
    const wanted = wantedBase(options);
    const files = filesOf(layout, word, user ?? null);
    using owned = new DisposableStack();
    const store = owned.use(
      Store.open(findLayout(layout, directory), { write: true, create: true, ...warner(options) })!,
    );
    for (const [i, lock] of files.locks.entries()) {
      const last = i === files.locks.length - 1;
      owned.use(takeLock(store.locks!, lock, last ? "exclusive" : "shared", `"${files.stem}"`));
    }
    using set = examine(store, files);
    if (set.elsewhere) throw seenElsewhere("keep", files.stem);
    if (set.state === "broken") {
      options.onWarning?.(`what was left of "${files.stem}" is cleared away: ${set.problems[0]}`);
      removeSet(store, set, occupantsOf(set).length > 0);
    } else if (set.state === "complete") {
      const asked = options.base !== undefined || options.key !== undefined;
      if (!asked) {
        throw new PenneError(`keep "${files.stem}": that name is taken`, {
          hints: [`penne drop ${word} removes it`, "with --base or --key it is kept anew when it is stale"],
        });
      }
      const { vote, reason } = judge(set, wanted);
      const occupied = occupantsOf(set).length > 0;
      if (decide(vote, occupied) === "reuse") {
        if (vote !== "no") options.onWarning?.(`"${files.stem}" is stale, and stays while it is in use: ${reason}`);
        return null;
      }
      options.onWarning?.(`"${files.stem}" is stale and kept anew: ${reason}`);
      removeSet(store, set, occupied);
    }
    return new Keeping(store, files, options, owned.move(), wanted.base ?? null);
  }

  /**
   * Keeps namespaces; either all is kept afterwards, or nothing.
   *
   * @param namespaces What to keep.
   * @param source What it was made from.
   * @param init PID 1 of the pid namespace among them.
   * @param hold Gives a process to keep what no mount does.
   * @param mustHold Whether one is needed in any case.
   */
  commit(
    namespaces: ReadonlyMap<NamespaceType, Fd>,
    source: string,
    init: ProcessIdentity | null,
    hold: (what: ReadonlyMap<NamespaceType, Fd>) => Candidate,
    mustHold: boolean,
  ): void {
    const { store, files } = this;
    const kept = new Map<NamespaceType, KeptNamespace>();
    try {
      for (const [type, fd] of namespaces) kept.set(type, describe(fd, this.#mount(type, fd)));
      const held = new Map([...namespaces].filter(([type]) => kept.get(type)!.by === "holder"));
      using candidate = mustHold || held.size ? hold(held) : null;
      const holder = candidate && identify(candidate.pidfd);
      if (candidate && !holder) throw new PenneError("start a holder: it has ended, or is not in /proc");
      this.#writeInfo(kept, source, holder, init);
      candidate?.become(holderLabel(store, files.stem));
      if (candidate && poll([{ fd: candidate.pidfd, events: POLL.IN }], 0)[0]) {
        throw new PenneError("start a holder: it has ended at once");
      }
    } catch (error) {
      this.#undo(kept);
      if (error instanceof SysError) throw new PenneError(`keep "${files.stem}"`, { cause: error });
      throw error;
    }
  }

  /** Mounts a namespace, if that can be done. */
  #mount(type: NamespaceType, fd: Fd): KeptBy {
    const { store, files } = this;
    if (!store.mounts) return "holder";
    try {
      store.mount(files.namespace(type), fd);
      return "mount";
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      // A holder keeps what root cannot mount for the kernel's fault; snap-confine knows of no holders.
      const fault = error.code === "EINVAL" && type === "mnt" && store.isBehind(fd);
      if (fault && store.layout.name === "penne") return "holder";
      throw new PenneError(`mount the ${type} namespace on ${store.layout.base}/ns/${files.namespace(type)}`, {
        cause: error,
        hints: fault
          ? ["Linux 6.18 takes it by mistake for an older one than penne's own; 6.19 does not"]
          : error.code === "EINVAL" && type === "mnt"
          ? ["a mount namespace can be mounted only in an older one: not in itself, nor in one that was made in it"]
          : error.code === "EPERM"
          ? ["mounting takes CAP_SYS_ADMIN"]
          : error.code === "ENOSPC" || error.code === "EDQUOT"
          ? ["the file system is full, or there are too many mounts (fs.mount-max)"]
          : [],
      });
    }
  }

  #writeInfo(
    namespaces: ReadonlyMap<NamespaceType, KeptNamespace>,
    source: string,
    holder: ProcessIdentity | null,
    init: ProcessIdentity | null,
  ): void {
    const { store, files, options } = this;
    if (files.info === null) return;
    const random = new Uint8Array(16);
    call(self, "getrandom", out(random), random.length, 0);
    const info: KeptInfo = {
      name: files.name,
      user: files.user,
      token: Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join(""),
      created: new Date().toISOString(),
      creator: call(self, "geteuid"),
      source: source.length > SOURCE_MAX ? `${source.slice(0, SOURCE_MAX)}…` : source,
      namespaces,
      holder,
      init,
      pids: ownPids(),
      base: this.#base,
      key: options.key ?? null,
    };
    const temporary = `${files.info}.new`;
    attempt(`write the info file ${files.info}`, () => {
      store.remove(temporary); // of a call that was cut short
      using file = store.openFile(temporary, O.WRONLY | O.CREAT | O.EXCL, 0o644)!;
      call(self, "fchmod", file, 0o644);
      write(file, encodeInfo(info, store.layout.name === "snap"));
      call(self, "renameat2", store.namespaces, cString(temporary), store.namespaces, cString(files.info!), 0);
    }, ({ code }) => code === "ENOSPC" || code === "EDQUOT" ? ["the file system is full"] : []);
  }

  /** Leaves nothing of what was begun. */
  #undo(kept: ReadonlyMap<NamespaceType, KeptNamespace>): void {
    const { store, files } = this;
    const ignore = (body: () => void) => {
      try {
        body();
      } catch (error) {
        if (!(error instanceof SysError)) throw error;
      }
    };
    if (files.info !== null) {
      ignore(() => store.remove(files.info!));
      ignore(() => store.remove(`${files.info}.new`));
    }
    for (const [type, { by }] of kept) if (by === "mount") ignore(() => store.unmount(files.namespace(type)));
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/** Inode number of our own namespace of a kind; null if the kernel has no such kind. */
function ownInum(type: NamespaceType): bigint | null {
  try {
    return stat(self, `/proc/thread-self/ns/${namespaceFile(type)}`).ino;
  } catch (error) {
    if (error instanceof SysError) return null;
    throw error;
  }
}

/** PID 1 of a pid namespace, as our /proc has it. */
function findInit(namespace: Fd): ProcessIdentity | null {
  const direct = self.raw("ioctl", namespace, IOCTL.NS_GET_PID_FROM_PIDNS, 1);
  const link = `pid:[${stat(self, namespace).ino}]`;
  const isInit = (pid: number) => {
    try {
      return /^NSpid:.*\t1$/m.test(readText(self, `/proc/${pid}/status`)) &&
        `pid:[${stat(self, `/proc/${pid}/ns/pid`).ino}]` === link;
    } catch (error) {
      if (error instanceof SysError) return false;
      throw error;
    }
  };
  const pid = direct > 0 ? direct : pidsIn("/proc").find(isInit);
  if (pid === undefined) return null;
  try {
    using pidfd = openPid(pid);
    return identify(pidfd);
  } catch (error) {
    if (error instanceof SysError) return null;
    throw error;
  }
}

/**
 * Keeps the namespaces of a running process under a name.
 *
 * As root they are mounted; without privilege a process of 16 kB stays in them, which the caller must be allowed to join.
 *
 * @param name The name.
 * @param pid The process.
 * @param options Which of them, and where.
 * @returns Whether it was kept now.
 * @throws {PenneError} If it fails; nothing is left then.
 */
export function keepProcess(name: string, pid: number, options: KeepOptions = {}): Kept {
  const doing = `keep the namespaces of process ${pid}`;
  if (!Number.isInteger(pid) || pid < 1 || pid > 2 ** 22) throw usage(`${doing}: that is no PID`);
  using pidfd = attempt(doing, () => openPid(pid), ({ code }) => code === "ESRCH" ? ["there is no such process"] : []);
  const explain = ({ code }: SysError) =>
    code === "EACCES" || code === "EPERM"
      ? [`process ${pid} is another user's, or has privileges that you lack: run penne as root`]
      : code === "ESRCH"
      ? ["it has just ended"]
      : [];
  using owned = new DisposableStack();
  const namespaces = new Map<NamespaceType, Fd>();
  const wanted = options.layout === "snap" ? (["mnt"] as const) : options.types ?? NAMESPACE_TYPES;
  for (const type of NAMESPACE_TYPES.filter((one) => wanted.includes(one))) {
    const own = ownInum(type);
    if (own === null && !options.types) continue;
    const fd = owned.use(attempt(`${doing} (${type})`, () => openNamespaceOf(pidfd, type), explain));
    if (options.types || stat(self, fd).ino !== own) namespaces.set(type, fd);
  }
  if (namespaces.size === 0) {
    throw new PenneError(`${doing}: it is in none but penne's own`, { hints: ["--type LIST keeps those, too"] });
  }
  using keeping = Keeping.start(name, options);
  if (!keeping) return ALREADY;
  const comm = commOf(pid);
  const pidns = namespaces.get("pid");
  const init = pidns ? findInit(pidns) : null;
  if (pidns && !init) {
    throw new PenneError(`${doing}: PID 1 of its pid namespace has ended, or cannot be seen`, {
      hints: ["without pid in --type the others are kept"],
    });
  }
  keeping.commit(namespaces, `process ${pid}${comm ? ` (${comm})` : ""}`, init, joinAsHolder, false);
  return MADE;
}

/** A set-up command that is to run in namespaces to be kept. */
export interface SetUp extends Disposable {
  /** How to run it. */
  readonly plan: RunPlan;
  /** What else its start takes. */
  readonly start: StartOptions;
  /** Keeps its namespaces; to be called when it has succeeded, and they are still there. */
  readonly keep: (child: Child) => void;
}

/**
 * Gets everything ready for making namespaces in which a command sets things up.
 *
 * @param name The name to keep them under.
 * @param run What to run, in what; its network is none or the host's.
 * @param options Where to keep them.
 * @returns What to run; null if the name has a set that is not stale.
 * @throws {PenneError} If it cannot be done.
 */
export function prepareSetUp(name: string, run: RunOptions, options: KeepOptions = {}): SetUp | null {
  if (!run.command?.length) {
    throw usage(`keep "${name}": there is no set-up command`, ["penne keep NAME -- true does nothing"]);
  }
  if (run.net === "tap") {
    throw usage("keep a network that a process serves: that would end with it", [
      "--net=none keeps a net namespace with loopback alone; penne attach gives it a network, as long as that runs",
    ]);
  }
  if (run.init === false) throw usage("keep namespaces without an init: PID 1 has to stay");
  if (options.types) throw usage("choose with --type what to keep of new namespaces: --unshare does");
  const who = caller();
  const user = options.user === undefined ? null : userOf(options.user);
  if (options.user !== undefined && !user) throw usage(`keep for user ${options.user}: there is no such user`);
  const net = run.net === undefined && (run.unshare?.includes("net") ?? true) ? { net: "none" as const } : {};
  const snap = options.layout === "snap";
  const request = { ...run, ...snap ? { unshare: run.unshare ?? ["mnt"] as const } : net };
  const own = user && user.uid !== who.uid ? user : null;
  const plan = planRun(request, own ? { ...who, uid: own.uid, gid: own.gid } : who);
  const types = plan.namespaces;
  if (types.length === 0) throw usage(`keep "${name}": no namespace is made`);
  if (snap && (types.length !== 1 || types[0] !== "mnt")) {
    throw usage("keep anything but a mnt namespace in snap-confine's layout", ["--unshare mnt"]);
  }
  if (own && !snap && !types.includes("user")) {
    options.onWarning?.(`"${name}" has no user namespace that is user ${own.uid}'s: only root can enter it`);
  }
  const keeping = Keeping.start(name, options);
  if (!keeping) return null;
  const opened = new Map<NamespaceType, Fd>();
  const { store } = keeping;
  const mounter = store.mounts && types.includes("mnt") ? store.mounterId() : null;
  return {
    plan,
    start: {
      enclosure: {
        guard: true,
        // Who is to enter must own the user namespace.
        owner: own && types.includes("user") ? own : null,
        made: (agent) => makeMountable(agent, mounter),
      },
      // Before the command has had a chance to do anything to the agent.
      beforeExec: ({ agent }) => {
        for (const type of NAMESPACE_TYPES.filter((one) => types.includes(one))) {
          opened.set(type, open(agent, `/proc/self/ns/${namespaceFile(type)}`, O.RDONLY));
        }
      },
    },
    keep(child) {
      const { pidfd } = child.agent;
      const become = (label: string) => child.leave(label);
      const candidate = () => ({ pidfd, become, [Symbol.dispose]() {} });
      const init = types.includes("pid") ? identify(pidfd) : null;
      keeping.commit(opened, `command ${run.command!.join(" ")}`, init, candidate, types.includes("pid"));
    },
    [Symbol.dispose]() {
      for (const fd of opened.values()) fd.close();
      keeping[Symbol.dispose]();
    },
  };
}
