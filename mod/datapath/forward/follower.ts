// Opens ports while programs on the other side listen on the ports that they lead to, "auto" of a port specification.

import { SysError } from "../../../ffi/core/errno.ts";
import type { SocketMaker } from "../../../ffi/net/listener.ts";
import type { Listeners, ListeningPorts } from "../../forward/listeners.ts";
import { type OpenPort, openPort } from "../../forward/ports.ts";
import type { ForwardingRule } from "../../forward/rule.ts";
import type { Reactor, Timer } from "../../reactor/reactor.ts";
import type { PortSet } from "./port_set.ts";

/** Milliseconds between two looks: a listener is found within a second, also where the machine is busy. */
const INTERVAL = 750;

/** A rule that is followed. */
interface Followed {
  readonly freebind: boolean;
  /** Open ports by number. */
  readonly open: Map<number, OpenPort>;
}

/** Follows the listeners of one namespace. */
export class Follower implements Disposable {
  readonly #rules = new Map<ForwardingRule, Followed>();
  #timer: Timer | null = null;

  /**
   * @param reactor The loop.
   * @param ports The open ports.
   * @param tables The listeners on the other side; closed here.
   * @param own The ports that penne itself has on the other side, which lead back and do not count.
   * @param maker Opens and binds sockets.
   */
  constructor(
    readonly reactor: Reactor,
    readonly ports: PortSet,
    readonly tables: Listeners,
    readonly own: PortSet | null,
    readonly maker: SocketMaker | undefined,
  ) {}

  /**
   * Follows listeners for more rules, from now on.
   *
   * @param rules The rules.
   * @param freebind Whether their addresses need not be the host's.
   * @throws {SysError} If the listeners cannot be read.
   */
  add(rules: readonly ForwardingRule[], freebind: boolean): void {
    if (rules.length === 0) return;
    for (const rule of rules) this.#rules.set(rule, { freebind, open: new Map() });
    this.#timer?.cancel();
    this.#follow(this.tables.ports());
  }

  /**
   * Follows listeners for a rule no longer.
   *
   * @param rule The rule.
   * @returns The ports that are open for it, to be removed.
   */
  remove(rule: ForwardingRule): OpenPort[] {
    const open = this.portsOf(rule);
    this.#rules.delete(rule);
    return open;
  }

  /** The ports that are open for a rule. */
  portsOf(rule: ForwardingRule): OpenPort[] {
    return [...this.#rules.get(rule)?.open.values() ?? []];
  }

  readonly #look = () => {
    this.#timer = null;
    if (this.#rules.size === 0) return;
    let there: ListeningPorts | null = null;
    try {
      there = this.tables.ports();
    } catch (error) {
      if (!(error instanceof SysError)) throw error; // such as a kernel that has no memory at the moment
    }
    this.#follow(there);
  };

  /** Opens and closes ports by what is listened on, if that is known, and looks again later. */
  #follow(there: ListeningPorts | null): void {
    if (there) this.#update(there);
    // Those who look look together, so that the process wakes up once for both directions.
    this.#timer = this.reactor.after(INTERVAL - performance.now() % INTERVAL, this.#look);
  }

  #update(there: ListeningPorts): void {
    const [tcp, udp] = (["TCP", "UDP"] as const).map((protocol) =>
      this.own ? there[protocol].difference(this.own.numbers(protocol)) : there[protocol]
    );
    for (const [rule, { freebind, open }] of this.#rules) {
      // Some protocols have a control connection of TCP and data of UDP at the same number.
      const wanted = rule.protocol === "TCP" ? tcp! : udp!.union(tcp!);
      const gone = [...open.values()].filter((port) => !wanted.has(port.to));
      for (const { port } of gone) open.delete(port);
      this.ports.removeAll(gone);
      for (const to of wanted) {
        const number = to - rule.to + rule.first;
        if (number < rule.first || number > rule.last || open.has(number)) continue;
        const port = openPort(rule, number, freebind, this.maker);
        if (typeof port === "number") continue; // another program has it; perhaps not for long
        open.set(number, port);
        this.ports.add(port);
      }
    }
  }

  /** Stops following; the open ports are closed by what they lead to. */
  [Symbol.dispose](): void {
    this.#timer?.cancel();
    this.#timer = null;
    this.#rules.clear();
    this.tables[Symbol.dispose]();
  }
}
