// The rules by which ports lead into one namespace, or out of it, and their open ports; both can be changed at any time.

import { E, SysError } from "../../../ffi/core/errno.ts";
import type { SocketMaker } from "../../../ffi/net/listener.ts";
import type { Listeners } from "../../forward/listeners.ts";
import { type FailedPort, type Forwarding, type OpenPort, openPorts } from "../../forward/ports.ts";
import { addRule, type ForwardingRule, narrowed, RuleError, type RuleLimits, sameRule } from "../../forward/rule.ts";
import type { ChangeFailure, RuleTable, ServedRule } from "../../forward/rule_table.ts";
import { Follower } from "./follower.ts";
import type { PortSet } from "./port_set.ts";

/** Ports that lead into one namespace, or out of it. */
export class PortTable implements RuleTable, Disposable {
  /** Open ports of each rule, those that are followed without. */
  readonly #rules = new Map<ForwardingRule, OpenPort[]>();
  #follower: Follower | null = null;
  #freebind = false;
  #openTables: (() => Listeners) | null = null;

  /**
   * @param ports The open ports.
   * @param limits Which rules there may be.
   * @param back Ports that lead the other way, which are no listeners to follow; null if there are none yet.
   * @param maker Opens and binds sockets; this process by default.
   */
  constructor(
    readonly ports: PortSet,
    readonly limits: RuleLimits,
    public back: PortSet | null = null,
    readonly maker?: SocketMaker,
  ) {}

  /**
   * Forwards what arrives at ports that are open already, and follows listeners.
   *
   * @param forwarding The ports, closed with what they lead to.
   * @param tables The listeners on the other side, if any may be followed; owned by this from now on. A function opens
   * them when they are needed.
   * @throws {SysError} If a port cannot be watched, or the listeners cannot be read.
   */
  begin({ open, followed, freebind }: Forwarding, tables: Listeners | null | (() => Listeners)): void {
    this.#freebind = freebind;
    if (typeof tables === "function") this.#openTables = tables;
    else if (tables) this.#follow(tables);
    for (const rule of followed) this.#rules.set(rule, []);
    for (const port of open) {
      this.ports.add(port);
      const ports = this.#rules.get(port.rule);
      if (ports) ports.push(port);
      else this.#rules.set(port.rule, [port]);
    }
    this.#follower?.add(followed, freebind);
  }

  #follow(tables: Listeners): Follower {
    return this.#follower = new Follower(this.ports.reactor, this.ports, tables, this.back, this.maker);
  }

  get follows(): boolean {
    return this.#follower !== null || this.#openTables !== null;
  }

  get served(): readonly ServedRule[] {
    return [...this.#rules].map(([rule, ports]) => ({
      rule,
      open: rule.scan ? this.#follower?.portsOf(rule).length ?? 0 : ports.length,
    }));
  }

  add(rules: readonly ForwardingRule[], freebind = this.#freebind): ChangeFailure | null {
    const all = [...this.#rules.keys()];
    const known = all.length;
    try {
      for (const rule of rules) addRule(all, rule, this.limits);
    } catch (error) {
      if (!(error instanceof RuleError)) throw error;
      const { rule, reason, message } = error;
      return { kind: "rule", rule, reason, pasta: message };
    }
    const added = all.slice(known);
    const followed = added.filter(({ scan }) => scan);
    if (followed.length > 0 && !this.follows) return { kind: "unfollowed", rule: followed[0]! };
    let failed: FailedPort | null = null;
    const open = openPorts(added, freebind, (port) => void (failed = port), this.ports.count, this.maker);
    if (!open) return { kind: "port", failed: failed! };
    const begun = this.#watch(open);
    if (begun) return { kind: "port", failed: begun };
    for (const rule of added) this.#rules.set(rule, []);
    for (const port of open) this.#rules.get(port.rule)!.push(port);
    try {
      if (followed.length > 0) (this.#follower ?? this.#follow(this.#openTables!())).add(followed, freebind);
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      this.#remove(added);
      return { kind: "port", failed: { rule: followed[0]!, port: followed[0]!.first, errno: error.errno } };
    }
    return null;
  }

  /** Forwards what arrives at open ports; closes all and returns the first that cannot be watched, if there is one. */
  #watch(open: readonly OpenPort[]): FailedPort | null {
    for (const [i, port] of open.entries()) {
      try {
        this.ports.add(port);
      } catch (error) {
        this.ports.removeAll(open.slice(0, i));
        for (const rest of open.slice(i)) rest[Symbol.dispose]();
        return { rule: port.rule, port: port.port, errno: error instanceof SysError ? error.errno : E.EIO };
      }
    }
    return null;
  }

  /** The rules that are to be deleted; or the first one that there is not. */
  #find(rules: readonly ForwardingRule[]): Set<ForwardingRule> | ForwardingRule {
    const found = new Set<ForwardingRule>();
    for (const rule of rules) {
      const wanted = narrowed(rule, this.limits);
      const known = [...this.#rules.keys()].find((known) =>
        !found.has(known) && (sameRule(known, wanted) || sameRule(known, rule))
      );
      if (!known) return wanted;
      found.add(known);
    }
    return found;
  }

  missing(rules: readonly ForwardingRule[]): ChangeFailure | null {
    const found = this.#find(rules);
    return found instanceof Set ? null : { kind: "absent", rule: found };
  }

  delete(rules: readonly ForwardingRule[]): ChangeFailure | null {
    const found = this.#find(rules);
    if (!(found instanceof Set)) return { kind: "absent", rule: found };
    this.#remove(found);
    return null;
  }

  #remove(rules: Iterable<ForwardingRule>): void {
    const ports: OpenPort[] = [];
    for (const rule of rules) {
      ports.push(...this.#rules.get(rule)!, ...this.#follower?.remove(rule) ?? []);
      this.#rules.delete(rule);
    }
    this.ports.removeAll(ports);
  }

  replace(rules: readonly ForwardingRule[]): readonly ChangeFailure[] {
    const wanted = rules.map((rule) => narrowed(rule, this.limits));
    this.#remove([...this.#rules.keys()].filter((known) => !wanted.some((rule) => sameRule(rule, known))));
    const failures: ChangeFailure[] = [];
    for (const rule of wanted) {
      if ([...this.#rules.keys()].some((known) => sameRule(rule, known))) continue;
      const failure = this.add([rule]);
      if (failure) failures.push(failure);
    }
    return failures;
  }

  /** Stops following; the open ports are closed by what they lead to. */
  [Symbol.dispose](): void {
    this.#follower?.[Symbol.dispose]();
    this.#follower = null;
    this.#rules.clear();
  }
}
