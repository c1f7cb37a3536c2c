// Opens ports of the host while programs inside listen on the ports that they lead to, "auto" of a port specification.

import type { ListenerTables } from "../../forward/listeners.ts";
import { type OpenPort, openPort } from "../../forward/ports.ts";
import type { ForwardingRule } from "../../forward/rule.ts";
import type { Reactor, Timer } from "../../reactor/reactor.ts";
import type { Inbound } from "./inbound.ts";

/** Milliseconds between two looks. */
const INTERVAL = 500;

/** Follows the listeners of one namespace. */
export class Follower implements Disposable {
  /** Open ports, by protocol and number, of each rule. */
  readonly #open = new Map<ForwardingRule, Map<number, OpenPort>>();
  #timer: Timer | null = null;

  /**
   * @param reactor The loop.
   * @param inbound Where open ports lead.
   * @param rules The rules to follow listeners for.
   * @param freebind Whether an address need not be the host's.
   * @param tables The listeners inside; closed here.
   */
  constructor(
    readonly reactor: Reactor,
    readonly inbound: Inbound,
    readonly rules: readonly ForwardingRule[],
    readonly freebind: boolean,
    readonly tables: ListenerTables,
  ) {
    for (const rule of rules) this.#open.set(rule, new Map());
    this.#look();
  }

  readonly #look = () => {
    const inside = this.tables.ports();
    for (const [rule, open] of this.#open) {
      // Some protocols have a control connection of TCP and data of UDP at the same number.
      const wanted = rule.protocol === "TCP" ? inside.TCP : new Set([...inside.UDP, ...inside.TCP]);
      for (const [number, port] of open) {
        if (wanted.has(port.to)) continue;
        open.delete(number);
        this.inbound.remove(port);
      }
      for (const to of wanted) {
        const number = to - rule.to + rule.first;
        if (number < rule.first || number > rule.last || open.has(number)) continue;
        const port = openPort(rule, number, this.freebind);
        if (typeof port === "number") continue; // another program has it; perhaps not for long
        open.set(number, port);
        this.inbound.add(port);
      }
    }
    this.#timer = this.reactor.after(INTERVAL, this.#look);
  };

  /** Stops following; the open ports are closed by what they lead to. */
  [Symbol.dispose](): void {
    this.#timer?.cancel();
    this.tables[Symbol.dispose]();
  }
}
