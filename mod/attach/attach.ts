// Gives network namespaces their network, and leaves each one at the right moment.

import { SysError } from "../../ffi/errno.ts";
import { setAffinity, stat, stayOnProcessor } from "../../ffi/sys.ts";
import { self } from "../../ffi/task.ts";
import type { RuleOptions } from "../datapath/rules.ts";
import { type Datapath, serveTap } from "../datapath/serve.ts";
import { attempt, PenneError } from "../errors.ts";
import type { NamespaceId } from "../namespaces/id.ts";
import type { NetlinkSocket } from "../netlink/socket.ts";
import { bringUpLoopback } from "../network/apply.ts";
import { Connector } from "../network/connect.ts";
import { readNetwork } from "../network/host.ts";
import { checkRequest, type NetworkPlan, type NetworkRequest, planNetwork } from "../network/plan.ts";
import type { Reactor } from "../reactor/reactor.ts";
import type { TapLink } from "../tap/link.ts";
import { type OpenTarget, openTarget } from "../target/open.ts";
import { parseTarget, type Target } from "../target/target.ts";
import { type Cause, findName, TargetWatcher, type Watch } from "../target/watch.ts";

/** Why a namespace is no longer served. */
export type DetachCause = Cause | "interface removed";

/** How to attach; what network the namespaces get as in {@linkcode NetworkRequest}. */
export interface AttachOptions extends NetworkRequest {
  /** Whether to leave when a target's name or process goes; true by default. At its own end a namespace is always left. */
  readonly quit?: boolean;
  /** What is reached from inside, and how. */
  readonly reach?: RuleOptions;
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
  readonly parsed: Target;
  readonly link: TapLink;
  readonly watch: Watch | null;
  readonly path: Datapath;
}

/**
 * Reads targets, and refuses what could never be attached.
 *
 * @param words What the user has given.
 * @param request What network they are to get.
 * @returns The targets.
 * @throws {PenneError} A usage error.
 */
export function checkAttach(words: readonly string[], request: NetworkRequest): Target[] {
  if (words.length === 0) {
    throw new PenneError("attach: no TARGET was given", {
      usage: true,
      hints: ["a TARGET is a PID, a name of ip netns, a path or fd:N"],
    });
  }
  checkRequest(request);
  const targets = words.map(parseTarget);
  const twice = words.find((word, i) => words.indexOf(word) !== i);
  if (twice !== undefined) throw new PenneError(`attach "${twice}" twice`, { usage: true });
  return targets;
}

/** Namespaces that are served from one reactor; they come and go each on its own. */
export class Attachments implements Disposable {
  #reactor: Reactor;
  #options: AttachOptions;
  #watcher: TargetWatcher | null = null;
  #served = new Set<Served>();

  /**
   * @param reactor The loop.
   * @param options How to attach.
   */
  constructor(reactor: Reactor, options: AttachOptions = {}) {
    this.#reactor = reactor;
    this.#options = options;
  }

  /** The namespaces that are served now. */
  get served(): readonly Attached[] {
    return [...this.#served];
  }

  /**
   * Gives namespaces their network: all of them, or, if one fails, none.
   *
   * @param targets The namespaces.
   * @throws {PenneError} If it fails; everything is as before then.
   */
  add(targets: readonly Target[]): void {
    const affinity = stayOnProcessor();
    const opened: OpenTarget[] = [];
    const added: { served: Served; socket: NetlinkSocket }[] = [];
    const undo: (() => void)[] = [];
    try {
      for (const target of targets) opened.push(this.#open(target, opened));
      using connector = new Connector();
      const plan = attempt("look at the host's network", () => planNetwork(this.#options, readNetwork()));
      for (const warning of plan.warnings) this.#options.onWarning?.(warning);
      targets.forEach((target, i) => added.push(this.#connect(target, opened[i]!, plan, connector)));
      // Last of all: what is up stays up when we go, while taps go with us.
      for (const { socket } of added) undo.push(bringUpLoopback(socket));
      this.#watcher?.check();
      const gone = added.find(({ served }) => !this.#served.has(served));
      if (gone) throw new PenneError(`attach "${gone.served.target}": it has gone meanwhile`);
    } catch (error) {
      for (const takeDown of undo) takeDown();
      for (const { served } of added) this.#release(served);
      throw error;
    } finally {
      for (const { socket } of added) socket[Symbol.dispose]();
      for (const target of opened) target[Symbol.dispose]();
      if (affinity) setAffinity(self, affinity);
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

  #connect(
    target: Target,
    opened: OpenTarget,
    plan: NetworkPlan,
    connector: Connector,
  ): { served: Served; socket: NetlinkSocket } {
    let gone: DetachCause | null = null;
    let served: Served | null = null;
    // The watch is there before the namespace is touched, so nothing that happens meanwhile is missed.
    const watch = this.#watch(target, opened.id.inum, (cause) => {
      gone = cause;
      if (served) this.#detach(served, cause);
    });
    try {
      const { link, warnings, socket } = connector.connect(opened, plan);
      for (const warning of warnings) this.#options.onWarning?.(`${opened.label}: ${warning}`);
      const entry = served = {
        target: target.text,
        netns: opened.id,
        interface: link.name,
        link,
        parsed: target,
        watch,
        path: serveTap(this.#reactor, link, {
          ...this.#options.reach,
          onDead: () => this.#detach(entry, this.#tapCause(entry)),
        }),
      };
      this.#served.add(entry);
      return { served: entry, socket };
    } catch (error) {
      watch?.cancel();
      if (gone) throw new PenneError(`attach ${opened.label}: it has gone meanwhile (${gone})`);
      throw error;
    }
  }

  /** Watches what a target is named by. */
  #watch(target: Target, inum: number, onGone: (cause: Cause) => void): Watch | null {
    if (this.#options.quit === false || target.kind === "fd") return null;
    const watcher = this.#watcher ??= new TargetWatcher(this.#reactor);
    const what = `watch "${target.text}"`;
    if (target.kind === "pid") return attempt(what, () => watcher.watchProcess(target.pid, onGone));
    const found = attempt(what, () => findName(target.path));
    if (found?.inum !== inum) throw new PenneError(`attach "${target.text}": it has been replaced meanwhile`);
    return watcher.watchName(found, onGone);
  }

  /** Why a tap has gone: with its namespace, unless that is still to be seen. */
  #tapCause({ parsed, netns }: Served): DetachCause {
    const path = parsed.kind === "path" ? parsed.path : parsed.kind === "pid" ? `/proc/${parsed.pid}/ns/net` : null;
    if (path === null) return "namespace ended";
    try {
      return Number(stat(self, path).ino) === netns.inum ? "interface removed" : "namespace ended";
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      return "namespace ended";
    }
  }

  #detach(served: Served, cause: DetachCause): void {
    if (!this.#served.has(served)) return;
    this.#release(served);
    this.#options.onDetach?.(served, cause);
  }

  #release(served: Served): void {
    this.#served.delete(served);
    served.watch?.cancel();
    served.path.close();
    served.link.tap.close();
  }

  /** Leaves all namespaces; their interfaces go. */
  [Symbol.dispose](): void {
    for (const served of [...this.#served]) this.#release(served);
    this.#watcher?.[Symbol.dispose]();
  }
}
