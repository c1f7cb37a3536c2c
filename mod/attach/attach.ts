// Gives network namespaces their network, and detaches each one at the right moment.

import { orNull } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { isAlive, type NamespaceHandle, namespaceHandle } from "../../ffi/sys/namespace.ts";
import { raiseOpenFilesLimit, setAffinity, stayOnProcessor } from "../../ffi/sys/process.ts";
import { self } from "../../ffi/core/task.ts";
import type { Agent } from "../../ffi/agent/agent.ts";
import { endAgents } from "../agents/enclosure.ts";
import { attempt, PenneError } from "../base/errors.ts";
import type { Hold } from "../forward/ports.ts";
import type { PortsRequest } from "../forward/request.ts";
import type { NamespaceId } from "../namespaces/id.ts";
import { NetlinkSocket } from "../netlink/socket.ts";
import { aliasFor } from "../network/announce.ts";
import { bringUpLoopback } from "../network/apply.ts";
import { Connector } from "../network/connect.ts";
import { readNetwork } from "../network/host.ts";
import type { NetworkOptions, ReachOptions } from "../network/options.ts";
import { checkReach, type ReachRequest } from "../network/reach.ts";
import { type NetworkPlan, planNetwork } from "../network/plan.ts";
import { checkRequest, type NetworkRequest } from "../network/request.ts";
import type { Reactor } from "../reactor/reactor.ts";
import type { TapServer } from "../datapath/server/reactor_server.ts";
import { spawnResident } from "../network/resident.ts";
import type { TapLink } from "../network/tap_link.ts";
import { type OpenTarget, openTarget } from "../netns/open.ts";
import { parseTarget, type Target } from "../netns/target.ts";
import { type Cause, findName } from "../netns/name.ts";
import { type TargetWatch, TargetWatcher } from "../netns/watcher.ts";

/** Why a namespace was detached. */
export type DetachCause = Cause | "interface removed";

/** How to attach: the network of the namespaces, what they can reach, and when to detach them. */
export interface AttachOptions extends NetworkOptions, ReachOptions {
  /**
   * Whether to detach when a target's name or process disappears, until which it is kept alive; true by default. Otherwise
   * the end of the namespace detaches it.
   */
  readonly quit?: boolean;
  /** Whether the interface is to say which resolver the namespace has, for who enters it; false by default. */
  readonly announce?: boolean;
  /** Ports that lead into the namespace, of which there must be one alone, and out of it. */
  readonly ports?: PortsRequest;
  /** Called with each problem that is not worth failing for. */
  readonly onWarning?: (message: string) => void;
  /** Called when a namespace was detached. */
  readonly onDetach?: (attached: Attached, cause: DetachCause) => void;
}

/** How to attach, with what a caller that serves by itself has decided. */
export interface ServeOptions
  extends NetworkRequest, ReachRequest, Pick<AttachOptions, "quit" | "announce" | "onWarning" | "onDetach"> {
  /**
   * What is held in a namespace for its ports until it is detached; nothing by default. It keeps the namespace alive, so a
   * target's name or process must tell the end.
   */
  readonly hold?: Hold | null;
  /** Whether the namespaces get no interface, and something is held there: ports lead from loopback to loopback. */
  readonly localOnly?: boolean;
  /** Whether a tap inside that has the name of the interface is used; not where the end of the namespace must be seen. */
  readonly adoptTap?: boolean;
  /** Called with what else is worth knowing. */
  readonly onInfo?: (message: string) => void;
}

/** An attached namespace. */
export interface Attached {
  /** The target as the user wrote it. */
  readonly target: string;
  /** The namespace. */
  readonly netns: NamespaceId;
  /** Name of its interface inside; `lo` if it has no other. */
  readonly interface: string;
}

/** An attached namespace and its resources. */
interface Served {
  /** What the library reports of it. */
  readonly attached: Attached;
  readonly link: TapLink | null;
  readonly plan: NetworkPlan | null;
  /** Tells whether it is alive; null before Linux 6.18, and if penne may not ask. */
  handle: NamespaceHandle | null;
  readonly watch: TargetWatch | null;
  readonly stop: () => void;
  /** Why it was detached. */
  cause: DetachCause | null;
}

/**
 * Parses targets, and refuses a request that can never be met.
 *
 * @param words The targets as the user wrote them.
 * @param request The network they are to get.
 * @returns The targets.
 * @throws {PenneError} A usage error.
 */
export function checkAttach(words: readonly string[], request: NetworkRequest & ReachRequest): Target[] {
  if (words.length === 0) {
    throw new PenneError("attach: TARGET is missing", {
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

/** The handle of a namespace; null if the kernel has none. */
function handleOf(netns: Fd): NamespaceHandle | null {
  return orNull(() => ifUsable(namespaceHandle(netns)));
}

/** A handle of a namespace that exists, unless we may not use it. */
function ifUsable(handle: NamespaceHandle): NamespaceHandle | null {
  return isAlive(handle) ? handle : null;
}

/** Namespaces that are served from one reactor, each for its own time. */
export class Attachments implements Disposable {
  #reactor: Reactor;
  #options: ServeOptions;
  #server: TapServer;
  #watcher: TargetWatcher | null = null;
  #served = new Set<Served>();
  /** Sockets in the namespaces, until nothing has to be undone any more. */
  #sockets: NetlinkSocket[] = [];
  /** Undo what {@linkcode Attachments.add} changed and would outlive penne, by those sockets. */
  #undo: (() => void)[] = [];

  /**
   * @param reactor The loop.
   * @param server The server of the taps.
   * @param options How to attach.
   */
  constructor(reactor: Reactor, server: TapServer, options: ServeOptions = {}) {
    this.#reactor = reactor;
    this.#server = server;
    this.#options = options;
  }

  /** The attached namespaces. */
  get served(): readonly Attached[] {
    return Array.from(this.#served, ({ attached }) => attached);
  }

  /** The taps of the attached namespaces, and what those were given. */
  get links(): readonly { readonly link: TapLink; readonly plan: NetworkPlan; readonly target: string }[] {
    return [...this.#served].flatMap(({ link, plan, attached: { target } }) =>
      link && plan ? [{ link, plan, target }] : []
    );
  }

  /**
   * Attaches namespaces: all of them, or none if one fails.
   *
   * Until {@linkcode Attachments.keep} is called, disposing of this object undoes every change.
   *
   * @param targets The namespaces.
   * @param interrupted Called in between; returns whether to give up.
   * @throws {PenneError} If it fails; nothing is changed then.
   */
  add(targets: readonly Target[], interrupted: () => boolean = () => false): void {
    raiseOpenFilesLimit(); // up to three descriptors per target
    const affinity = stayOnProcessor();
    const opened: OpenTarget[] = [];
    const added: Served[] = [];
    const goOn = () => {
      if (interrupted()) throw new PenneError("attach: interrupted by a signal");
    };
    try {
      for (const target of targets) opened.push(this.#open(target, opened));
      using connector = new Connector();
      const plan = this.#options.localOnly ? null : this.#plan();
      targets.forEach((target, i) => {
        goOn();
        added.push(this.#connect(target, opened[i]!, plan, connector));
        opened[i]!.netns.close();
      });
      this.#watcher?.check();
      const gone = added.find((served) => !this.#served.has(served));
      if (gone) throw new PenneError(`attach "${gone.attached.target}": it has just disappeared (${gone.cause})`);
      goOn();
      // Last, as loopback stays up after penne ends, while taps disappear.
      for (const socket of this.#sockets) this.#undo.push(bringUpLoopback(socket));
    } catch (error) {
      for (const served of added) this.#release(served);
      this.#undoAll();
      throw error;
    } finally {
      for (const target of opened) target[Symbol.dispose]();
      if (affinity) setAffinity(self, affinity);
    }
  }

  /** Makes the changes permanent, except for the taps. */
  keep(): void {
    this.#undo = [];
    this.#undoAll();
  }

  /** Whether there is a namespace that only CAP_SYS_ADMIN shows to be alive: no name or process of it is followed. */
  get needsAdmin(): boolean {
    return [...this.#served].some(({ handle, watch }) => handle !== null && watch === null);
  }

  /** Finds out anew which namespaces can be asked whether they are alive, after this process has given up capabilities. */
  capabilitiesChanged(): void {
    for (const served of this.#served) served.handle &&= ifUsable(served.handle);
  }

  #undoAll(): void {
    for (const undo of this.#undo.splice(0)) undo();
    for (const socket of this.#sockets.splice(0)) socket[Symbol.dispose]();
  }

  /** Opens a target; throws if it is the namespace of another one. */
  #open(target: Target, opened: readonly OpenTarget[]): OpenTarget {
    const found = openTarget(target);
    const twin = opened.find(({ id }) => id.inum === found.id.inum)?.label ??
      this.served.find(({ netns }) => netns.inum === found.id.inum)?.target;
    if (twin === undefined) return found;
    found[Symbol.dispose]();
    throw new PenneError(`attach ${found.label}: it is the same namespace as ${twin}`);
  }

  /** The network that the namespaces get. */
  #plan(): NetworkPlan {
    const plan = attempt(
      "look at the host's network",
      () => planNetwork(this.#options, readNetwork(this.#options)),
    );
    for (const warning of plan.warnings) this.#options.onWarning?.(warning);
    for (const note of plan.notes) this.#options.onInfo?.(note);
    return { ...plan, alias: this.#options.announce ? aliasFor(this.#options.dnsForward ?? []) : null };
  }

  /** @param plan The network it gets; null for none. */
  #connect(target: Target, opened: OpenTarget, plan: NetworkPlan | null, connector: Connector): Served {
    let served: Served | null = null;
    // Watch before changing the namespace, so that nothing is missed.
    const watch = this.#watch(target, opened, (cause) => {
      if (served) this.#detach(served, cause);
    });
    let tap: Fd | null = null;
    let agent: Agent | null = null;
    try {
      const { link, warnings, socket } = plan
        ? connector.connect(opened, plan, { adopt: this.#options.adoptTap ?? false, inside: watch !== null })
        : { link: null, warnings: [], socket: connector.within(opened, (inside) => new NetlinkSocket(inside)) };
      tap = link?.tap ?? null;
      const { hold } = this.#options;
      if (hold) agent = spawnResident(opened.netns, opened.owner?.fd ?? null);
      this.#sockets.push(socket);
      for (const warning of warnings) this.#options.onWarning?.(`${opened.label}: ${warning}`);
      const held = agent && hold ? { agent, hold } : null;
      agent = null; // the server's from then on
      // What has happened to its name or process comes first, if penne learns of both at once: its watch is closed then.
      const dead = () =>
        this.#reactor.soon(() => {
          if (this.#served.has(entry)) this.#detach(entry, this.#tapCause(entry));
        });
      const entry: Served = served = {
        attached: { target: target.text, netns: opened.id, interface: link?.name ?? "lo" },
        link,
        plan,
        handle: handleOf(opened.netns),
        watch,
        stop: this.#server.serve(link, plan, dead, {
          netns: opened.id,
          held,
          followed: plan,
        }),
        cause: null,
      };
      this.#served.add(entry);
      return entry;
    } catch (error) {
      if (agent) endAgents([agent]);
      tap?.close();
      watch?.cancel();
      throw error;
    }
  }

  /** Watches the name or process of a target. */
  #watch(target: Target, { id, pidfd }: OpenTarget, onGone: (cause: Cause) => void): TargetWatch | null {
    if (this.#options.quit === false || target.kind === "fd") return null;
    const watcher = this.#watcher ??= new TargetWatcher(this.#reactor);
    const what = `watch "${target.text}"`;
    if (pidfd) return attempt(what, () => watcher.watchProcess(pidfd, onGone));
    const found = target.kind === "path" ? attempt(what, () => findName(target.path)) : null;
    if (found?.inum !== id.inum) throw new PenneError(`attach "${target.text}": it has just been replaced`);
    return watcher.watchName(found, onGone);
  }

  /** Why a tap disappeared: its namespace ended, unless that is known to be alive, by itself or else by its target. */
  #tapCause({ handle, watch }: Served): DetachCause {
    const alive = handle ? isAlive(handle) : watch?.isThere();
    return alive ? "interface removed" : "namespace ended";
  }

  #detach(served: Served, cause: DetachCause): void {
    if (!this.#served.has(served)) return;
    this.#release(served);
    served.cause = cause;
    // While others are still being set up, the error reports it.
    if (this.#sockets.length === 0) this.#options.onDetach?.(served.attached, cause);
  }

  #release(served: Served): void {
    this.#served.delete(served);
    served.watch?.cancel();
    served.stop();
    served.link?.tap.close();
  }

  /** Detaches all namespaces, and removes their interfaces. */
  [Symbol.dispose](): void {
    this.#undoAll();
    for (const served of [...this.#served]) this.#release(served);
    this.#watcher?.[Symbol.dispose]();
  }
}
