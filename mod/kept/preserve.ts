// Keeps namespaces under a name: those of a process, or new ones after a set-up command has succeeded in them.

import { IOCTL, O } from "../../ffi/core/consts.ts";
import { orNull, type SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { open, readText } from "../../ffi/sys/file.ts";
import { openPid } from "../../ffi/sys/process.ts";
import { stat } from "../../ffi/sys/stat.ts";
import { self } from "../../ffi/core/task.ts";
import { attempt, PenneError, usage } from "../base/errors.ts";
import { failedCall } from "../base/failed_call.ts";
import { caller } from "../host/caller.ts";
import { NAMESPACE_TYPES, namespaceFile, type NamespaceType } from "../namespaces/types.ts";
import type { Child } from "../run/child.ts";
import { readFacts } from "../run/facts.ts";
import { planRun, type RunOptions, type RunPlan } from "../run/plan.ts";
import type { StartOptions } from "../run/start.ts";
import { lookUpUser } from "../users/lookup.ts";
import type { User } from "../users/passwd.ts";
import { makeMountable } from "./store/fault.ts";
import { type Candidate, joinAsHolder } from "./holder.ts";
import { commOf, identify, pidsIn, type ProcessIdentity } from "./record/identity.ts";
import { type KeepRequest, Reservation } from "./reservation.ts";
import { openNamespaceOf } from "./set.ts";

const PID_MAX = 2 ** 22;
/**
 * Milliseconds for a set-up command that another user controls. That user can stop it, and it holds the lock of the name and
 * the prompt of root meanwhile.
 */
const USER_LIMIT = 300_000;

/** Inode number of our own namespace of a kind; null if the kernel has no such kind. */
function ownInum(type: NamespaceType): bigint | null {
  return orNull(() => stat(self, `/proc/thread-self/ns/${namespaceFile(type)}`).ino, "ENOENT");
}

/** PID 1 of a pid namespace, by its pid in our /proc; null if it cannot be found. */
function findInit(namespace: Fd): ProcessIdentity | null {
  const direct = self.raw("ioctl", namespace, IOCTL.NS_GET_PID_FROM_PIDNS, 1);
  const { ino } = stat(self, namespace);
  const isInit = (pid: number) =>
    orNull(() =>
      /^NSpid:.*\t1$/m.test(readText(self, `/proc/${pid}/status`)) && stat(self, `/proc/${pid}/ns/pid`).ino === ino
    ) ?? false;
  const pid = direct > 0 ? direct : pidsIn("/proc").find(isInit);
  if (pid === undefined) return null;
  return orNull(
    () => {
      using pidfd = openPid(pid);
      return identify(pidfd);
    },
    "ESRCH",
    "ENOENT",
  );
}

/**
 * Keeps the namespaces of a running process under a name.
 *
 * As root they are mounted; without privilege a process of 20 kB stays in them, which the caller must be allowed to join.
 *
 * @param name The name.
 * @param pid The process.
 * @param options Which of them to keep, and where.
 * @returns Whether a set was made; false if the name has one that is not stale.
 * @throws {PenneError} If it fails; nothing is left then.
 */
export function keepProcess(name: string, pid: number, options: KeepRequest = {}): boolean {
  const doing = `keep the namespaces of process ${pid}`;
  if (!Number.isInteger(pid) || pid < 1 || pid > PID_MAX) throw usage(`${doing}: that is not a PID`);
  using pidfd = attempt(doing, () => openPid(pid), ({ code }) => code === "ESRCH" ? ["no process has that PID"] : []);
  const explain = async (error: SysError) => {
    if (error.code === "ESRCH") return ["it has just ended"];
    return (await import("../findings/mod.ts")).processHints(failedCall(error), pid);
  };
  using owned = new DisposableStack();
  const namespaces = new Map<NamespaceType, Fd>();
  const wanted = options.layout === "snap" ? (["mnt"] as const) : options.types ?? NAMESPACE_TYPES;
  for (const type of NAMESPACE_TYPES.filter((one) => wanted.includes(one))) {
    const own = attempt(`${doing} (${type})`, () => ownInum(type), explain);
    if (own === null && !options.types) continue;
    const fd = owned.use(attempt(`${doing} (${type})`, () => openNamespaceOf(pidfd, type), explain));
    if (options.types || stat(self, fd).ino !== own) namespaces.set(type, fd);
  }
  if (namespaces.size === 0) {
    throw new PenneError(`${doing}: it is in none but penne's own`, { hints: ["--type LIST keeps those too"] });
  }
  using reservation = Reservation.open(name, options);
  if (!reservation) return false;
  const comm = commOf(pid);
  const pidns = namespaces.get("pid");
  const init = pidns ? findInit(pidns) : null;
  if (pidns && !init) {
    throw new PenneError(`${doing}: PID 1 of its pid namespace has ended, or cannot be seen`, {
      hints: ["without pid in --type the others are kept"],
    });
  }
  const source = `process ${pid}${comm && ` (${comm})`}`;
  reservation.commit({ namespaces, source, init, hold: joinAsHolder, mustHold: false });
  return true;
}

/** A set-up command that is to run in namespaces to be kept. */
export interface SetUp extends Disposable {
  /** How to run it. */
  readonly plan: RunPlan;
  /** What else its start takes. */
  readonly start: StartOptions;
  /** Milliseconds after which it is killed unless the caller says otherwise; null if it is the caller's own. */
  readonly timeLimit: number | null;
  /** Keeps its namespaces; to be called when it has succeeded, while they still exist. */
  readonly keep: (child: Child) => void;
}

/** Refuses a set-up command whose namespaces could not be kept. */
function checkRequest(name: string, { command, net, init }: RunOptions, { types }: KeepRequest): void {
  if (!command?.length) {
    throw usage(`keep "${name}": the set-up command is missing`, ["penne keep NAME -- true does nothing"]);
  }
  if (net === "tap") {
    throw usage("keep a network that a process serves: that would end with it", [
      "--net=none keeps a net namespace with loopback alone; penne attach gives it a network while that runs",
    ]);
  }
  if (init === false) throw usage("keep namespaces without an init: PID 1 has to stay");
  if (types) throw usage("choose with --type what to keep of new namespaces: --unshare does");
}

/** Finds a user, whose group is needed too. */
function knownUser(uid: number): User {
  const { user, looked, unseen } = lookUpUser(uid);
  if (user) return user;
  throw usage(`keep for user ${uid}: ${[`${looked} has no such user`, ...unseen ? [unseen] : []].join("; ")}`);
}

/**
 * Prepares namespaces in which a command sets things up.
 *
 * @param name The name to keep them under.
 * @param run The command and its namespaces; its network is none or the host's.
 * @param options Where to keep them.
 * @returns How to run it; null if the name has a set that is not stale.
 * @throws {PenneError} If it cannot be done.
 */
export function prepareSetUp(name: string, run: RunOptions, options: KeepRequest = {}): SetUp | null {
  checkRequest(name, run, options);
  const who = caller();
  const user = options.user === undefined ? null : knownUser(options.user);
  const snap = options.layout === "snap";
  const loopback = run.net === undefined && (run.unshare?.includes("net") ?? true) ? { net: "none" as const } : {};
  const owner = user && user.uid !== who.uid ? user : null;
  const request: RunOptions = { ...run, ...snap ? { unshare: run.unshare ?? ["mnt"] } : loopback };
  const plan = planRun(request, readFacts(request, owner ? { ...who, uid: owner.uid, gid: owner.gid } : who));
  const types = plan.namespaces;
  if (types.length === 0) throw usage(`keep "${name}": no namespace is made`);
  if (snap && (types.length !== 1 || types[0] !== "mnt")) {
    throw usage("keep anything but a mnt namespace in snap-confine's layout", ["--unshare mnt"]);
  }
  if (owner && !snap && !types.includes("user")) {
    options.onWarning?.(`"${name}" has no user namespace that is user ${owner.uid}'s: only root can enter it`);
  }
  using owned = new DisposableStack();
  const reservation = owned.use(Reservation.open(name, options));
  if (!reservation) return null;
  const mounter = types.includes("mnt") ? reservation.mounterId() : null;
  const opened = new Map<NamespaceType, Fd>();
  const resources = owned.move();
  return {
    plan,
    timeLimit: owner ? USER_LIMIT : null,
    start: {
      onWarning: run.onWarning,
      onInfo: run.onInfo,
      preserve: {
        // Only the owner of the user namespace can enter the set.
        owner: types.includes("user") ? owner : null,
        made: (agent) => makeMountable(agent, mounter),
      },
      // Before the command can do anything to the agent.
      beforeExec: ({ enclosure: { agent } }) => {
        for (const type of NAMESPACE_TYPES.filter((one) => types.includes(one))) {
          opened.set(type, resources.use(open(agent, `/proc/self/ns/${namespaceFile(type)}`, O.RDONLY)));
        }
      },
    },
    keep(child) {
      const { pidfd } = child.enclosure.agent;
      const become: Candidate["become"] = (label, filter) => child.enclosure.handOverToHolder(label, filter);
      reservation.commit({
        namespaces: opened,
        source: `command ${run.command!.join(" ")}`,
        init: types.includes("pid") ? identify(pidfd) : null,
        hold: () => ({ pidfd, become, [Symbol.dispose]() {} }),
        mustHold: types.includes("pid"),
      });
    },
    [Symbol.dispose]: () => resources.dispose(),
  };
}
