// What serves a namespace that has no interface: ports from loopback to loopback, in both directions, and nothing else.

import { self } from "../../ffi/core/task.ts";
import { AF } from "../../ffi/net/constants.ts";
import { socket } from "../../ffi/net/socket.ts";
import { raiseOpenFilesLimit } from "../../ffi/sys/process.ts";
import { Listeners } from "../forward/listeners.ts";
import { type Forwarding, NO_PORTS } from "../forward/ports.ts";
import type { NamespaceRules } from "../forward/rule_table.ts";
import { Ledger } from "../flows/ledger.ts";
import type { Reactor } from "../reactor/reactor.ts";
import { LoopbackPorts, outboundError } from "./forward/outbound.ts";
import { PortTable } from "./forward/port_table.ts";
import type { Inside } from "./splice/inside.ts";
import { PIPES } from "./splice/pipes.ts";
import { Splices } from "./splice/splices.ts";

/** The families and protocols of loopback. */
const LIMITS = { families: { [AF.INET]: true, [AF.INET6]: true }, protocols: { TCP: true, UDP: true } };

/** Serves ports between the loopback of the host and that of a namespace. */
export class LocalPath implements NamespaceRules, Disposable {
  /** What its flows have moved, and where they went. */
  readonly ledger = new Ledger();
  readonly #splices: Splices;
  readonly #in: LoopbackPorts;
  readonly #out: LoopbackPorts;
  readonly ports: PortTable;
  readonly outward: PortTable;

  /**
   * @param reactor The loop.
   * @param inside What is held in the namespace; owned by this from now on.
   */
  constructor(reactor: Reactor, readonly inside: Inside) {
    raiseOpenFilesLimit(); // each connection needs descriptors
    this.#splices = new Splices(reactor, this.ledger);
    this.#in = new LoopbackPorts(reactor, { near: socket, far: inside.socket, outward: false }, this.#splices);
    this.#out = new LoopbackPorts(reactor, { near: inside.socket, far: socket, outward: true }, this.#splices);
    this.ports = new PortTable(this.#in, LIMITS, this.#out);
    this.outward = new PortTable(this.#out, LIMITS, this.#in, inside);
  }

  /** Grows whenever something has come from the namespace. */
  get received(): number {
    return this.#splices.progress;
  }

  /** Number of connections with data from the namespace that is still to come or to be passed on. */
  get unfinished(): number {
    return this.#splices.unfinished;
  }

  leadOut(): PortTable {
    return this.outward;
  }

  /**
   * Forwards what arrives at ports.
   *
   * @param forwarding The ports; those that are open are closed with this.
   * @throws {PenneError} If a port inside cannot be opened.
   * @throws {SysError} If a port cannot be watched, or the listeners cannot be read.
   */
  forward(forwarding: Forwarding): void {
    const { outward = [], opened = [] } = forwarding;
    PIPES.prepare();
    this.ports.begin(forwarding, this.inside.tables);
    this.outward.begin({ ...NO_PORTS, open: opened }, () => new Listeners(self, "loopback"));
    const failure = this.outward.add(outward);
    if (failure) throw outboundError(failure);
  }

  /** Closes everything. */
  [Symbol.dispose](): void {
    this.ledger.stopping = true;
    for (const one of [this.ports, this.outward, this.#in, this.#out, this.#splices, this.inside]) {
      one[Symbol.dispose]();
    }
  }
}
