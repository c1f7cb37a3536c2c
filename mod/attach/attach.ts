// Gives network namespaces their network, and leaves each one at the right moment.

import { orNull } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { isAlive, type NamespaceHandle, namespaceHandle } from "../../ffi/sys/namespace.ts";
import { raiseOpenFilesLimit, setAffinity, stayOnProcessor } from "../../ffi/sys/process.ts";
import { self } from "../../ffi/core/task.ts";
import { attempt, PenneError } from "../base/errors.ts";
import type { NamespaceId } from "../namespaces/id.ts";
import type { NetlinkSocket } from "../netlink/socket.ts";
import { bringUpLoopback } from "../network/apply.ts";
import { Connector } from "../network/connect.ts";
import { readNetwork } from "../network/host.ts";
import { checkReach, type ReachRequest } from "../network/reach.ts";
import { checkRequest, type NetworkPlan, type NetworkRequest, planNetwork } from "../network/plan.ts";
import type { Reactor } from "../reactor/reactor.ts";
import type { TapServer } from "../datapath/server/reactor_server.ts";
import type { TapLink } from "../network/tap_link.ts";
import { type OpenTarget, openTarget } from "../netns/open.ts";
import { parseTarget, type Target } from "../netns/target.ts";
import { type Cause, findName, TargetWatcher, type Watch } from "../netns/watcher.ts";

/** Why a namespace is no longer served. */
export type DetachCause = Cause | "interface removed";

/** How to attach; what network the namespaces get as in {@linkcode NetworkRequest}, what they reach as in {@linkcode ReachRequest}. */
export interface AttachOptions extends NetworkRequest, ReachRequest {
  /** Whether to leave when a target's name or process goes; true by default. At its own end a namespace is always left. */
  readonly quit?: boolean;
  /** Told of what could not be done and is not worth failing for. */
  readonly onWarning?: (message: string) => void;
  /** Told when a namespace is no longer served. */
  readonly onDetach?: (attached: Attached, cause: DetachCause) => void;
}

/** A namespace that is served. */
export interface Attached {
  /** As the user named it. */
  readonly target: string;
  /** The namespace. */
  readonly netns: NamespaceId;
  /** Name of its interface inside. */
  readonly interface: string;
}

/** What there is of a namespace that is served. */
interface Served extends Attached {
  readonly link: TapLink;
  /** To ask whether it lives; null before Linux 6.18. */
  readonly handle: NamespaceHandle | null;
  readonly watch: Watch | null;
  readonly stop: () => void;
  /** Why it is served no more. */
  cause: DetachCause | null;
}

/**
 * Reads targets, and refuses what could never be attached.
 *
 * @param words What the user has given.
 * @param request What network they are to get.
 * @returns The targets.
 * @throws {PenneError} A usage error.
 */
export function checkAttach(words: readonly string[], request: NetworkRequest & ReachRequest): Target[] {
  if (words.length === 0) {
    throw new PenneError("attach: no TARGET was given", {
      usage: true,
      hints: ["a TARGET is a PID, a name of ip netns, a path or fd:N"],
    });
  }
  checkRequest(request);
  checkReach(request);
  const targets = words.map(parseTarget);
  const twice = words.find((word, i) => words.indexOf(word) !== i);
  if (twice !== undefined) throw new PenneError(`attach "${twice}" twice`, { usage: true });
  return targets;
}

/** The handle of a namespace, if the kernel has handles, and we may use them. */
function handleOf(netns: Fd): NamespaceHandle | null {
  return orNull(() => {
    const handle = namespaceHandle(netns);
    return isAlive(handle) ? handle : null;
  });
}

/** Namespaces that are served from one reactor; they come and go each on its own. */
export class Attachments implements Disposable {
  #reactor: Reactor;
  #options: AttachOptions;
  #server: TapServer;
  #watcher: TargetWatcher | null = null;
  #served = new Set<Served>();
  /** What {@linkcode Attachments.add} has done that would stay. */
  #undo: { readonly socket: NetlinkSocket; takeDown: () => void }[] = [];

  /**
   * @param reactor The loop.
   * @param server Whoever serves the taps.
   * @param options How to attach.
   */
  constructor(reactor: Reactor, server: TapServer, options: AttachOptions = {}) {
    this.#reactor = reactor;
    this.#server = server;
    this.#options = options;
  }

  /** The namespaces that are served now. */
  get served(): readonly Attached[] {
    return [...this.#served];
  }

  /**
   * Gives namespaces their network: all of them, or, if one fails, none.
   *
   * Until {@linkcode Attachments.keep} everything can be taken back: disposing of this object leaves no trace then.
   *
   * @param targets The namespaces.
   * @param interrupted Asked in between whether to give up.
   * @throws {PenneError} If it fails; everything is as before then.
   */
  add(targets: readonly Target[], interrupted: () => boolean = () => false): void {
    raiseOpenFilesLimit(); // up to three a target meanwhile
    const affinity = stayOnProcessor();
    const opened: OpenTarget[] = [];
    const added: Served[] = [];
    const goOn = () => {
      if (interrupted()) throw new PenneError("attach: a signal has come meanwhile");
    };
    try {
      for (const target of targets) opened.push(this.#open(target, opened));
      using connector = new Connector();
      const plan = attempt("look at the host's network", () => planNetwork(this.#options, readNetwork()));
      for (const warning of plan.warnings) this.#options.onWarning?.(warning);
      targets.forEach((target, i) => {
        goOn();
        added.push(this.#connect(target, opened[i]!, plan, connector));
        opened[i]!.netns.close();
      });
      this.#watcher?.check();
      const gone = added.find((served) => !this.#served.has(served));
      if (gone) throw new PenneError(`attach "${gone.target}": it has gone meanwhile (${gone.cause})`);
      goOn();
      // Last of all: what is up stays up when we go, while taps go with us.
      for (const undo of this.#undo) undo.takeDown = bringUpLoopback(undo.socket);
    } catch (error) {
      for (const served of added) this.#release(served);
      this.#takeBack();
      throw error;
    } finally {
      for (const target of opened) target[Symbol.dispose]();
      if (affinity) setAffinity(self, affinity);
    }
  }

  /** From now on what was done stays, but for the taps. */
  keep(): void {
    for (const { socket } of this.#undo.splice(0)) socket[Symbol.dispose]();
  }

  #takeBack(): void {
    for (const { socket, takeDown } of this.#undo.splice(0)) {
      takeDown();
      socket[Symbol.dispose]();
    }
  }

  /** Opens a target, unless it is one of those that are open or served. */
  #open(target: Target, opened: readonly OpenTarget[]): OpenTarget {
    const one = openTarget(target);
    const twin = opened.find(({ id }) => id.inum === one.id.inum)?.label ??
      this.served.find(({ netns }) => netns.inum === one.id.inum)?.target;
    if (twin === undefined) return one;
    one[Symbol.dispose]();
    throw new PenneError(`attach ${one.label}: it is the same namespace as ${twin}`);
  }

  #connect(target: Target, opened: OpenTarget, plan: NetworkPlan, connector: Connector): Served {
    let served: Served | null = null;
    // The watch is there before the namespace is touched, so nothing that happens meanwhile is missed.
    const watch = this.#watch(target, opened, (cause) => {
      if (served) this.#detach(served, cause);
    });
    try {
      const { link, warnings, socket } = connector.connect(opened, plan);
      this.#undo.push({ socket, takeDown: () => {} });
      for (const warning of warnings) this.#options.onWarning?.(`${opened.label}: ${warning}`);
      const entry = served = {
        target: target.text,
        netns: opened.id,
        interface: link.name,
        link,
        handle: handleOf(opened.netns),
        watch,
        stop: this.#server.serve(link, plan, () => this.#detach(entry, this.#tapCause(entry))),
        cause: null,
      };
      this.#served.add(entry);
      return entry;
    } catch (error) {
      watch?.cancel();
      throw error;
    }
  }

  /** Watches what a target is named by. */
  #watch(target: Target, { id, pidfd }: OpenTarget, onGone: (cause: Cause) => void): Watch | null {
    if (this.#options.quit === false || target.kind === "fd") return null;
    const watcher = this.#watcher ??= new TargetWatcher(this.#reactor);
    const what = `watch "${target.text}"`;
    if (pidfd) return attempt(what, () => watcher.watchProcess(pidfd, onGone));
    const found = target.kind === "path" ? attempt(what, () => findName(target.path)) : null;
    if (found?.inum !== id.inum) throw new PenneError(`attach "${target.text}": it has been replaced meanwhile`);
    return watcher.watchName(found, onGone);
  }

  /** Why a tap has gone: with its namespace, unless that is known to live. */
  #tapCause({ handle }: Served): DetachCause {
    return handle && isAlive(handle) ? "interface removed" : "namespace ended";
  }

  #detach(served: Served, cause: DetachCause): void {
    if (!this.#served.has(served)) return;
    this.#release(served);
    served.cause = cause;
    // One that goes while others are still being set up is told of by the error.
    if (this.#undo.length === 0) this.#options.onDetach?.(served, cause);
  }

  #release(served: Served): void {
    this.#served.delete(served);
    served.watch?.cancel();
    served.stop();
    served.link.tap.close();
  }

  /** Leaves all namespaces; their interfaces go. */
  [Symbol.dispose](): void {
    this.#takeBack();
    for (const served of [...this.#served]) this.#release(served);
    this.#watcher?.[Symbol.dispose]();
  }
}
