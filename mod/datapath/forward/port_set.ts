// Open ports that are watched: what comes to them is taken in turns.

import { E } from "../../../ffi/core/errno.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { SO, SOL_SOCKET } from "../../../ffi/net/constants.ts";
import { accept, type Peer } from "../../../ffi/net/listener.ts";
import { resetOnClose, setOption } from "../../../ffi/net/socket.ts";
import { EPOLL } from "../../../ffi/sys/epoll.ts";
import type { OpenPort } from "../../forward/ports.ts";
import type { Protocol } from "../../forward/rule.ts";
import { ipWords } from "../../inet/ip_words.ts";
import type { Reactor, Registration } from "../../reactor/reactor.ts";

/** Connections, and datagrams, that one port is given before others get their turn. */
export const TURN = 32;
/** Milliseconds for which nothing is accepted after descriptors have run out. */
const PAUSE = 100;

/** Ports on one side of a namespace. */
export abstract class PortSet implements Disposable {
  readonly #ports = new Map<OpenPort, Registration>();
  /** Who has connected, or sent the datagram that is looked at. */
  protected readonly peer: Peer = { address: ipWords(), port: 0, scope: 0 };

  /** @param reactor The loop. */
  constructor(readonly reactor: Reactor) {}

  /** Takes over the connection of {@linkcode PortSet.peer}; returns false if it is to be reset. */
  protected abstract connected(port: OpenPort, fd: Fd): boolean;
  /** Takes datagrams that wait at a port, {@linkcode TURN} at most. */
  protected abstract receive(port: OpenPort): void;
  /** Called after ports were removed, some of them UDP ports. */
  protected abstract removed(ports: ReadonlySet<OpenPort>): void;
  /** Called after something was taken. */
  protected taken(): void {}

  /**
   * Forwards what arrives at a port from now on.
   *
   * @param port The port; closed when this is disposed of, or by {@linkcode PortSet.removeAll}.
   * @throws {SysError} If it cannot be watched.
   */
  add(port: OpenPort): void {
    const tcp = port.rule.protocol === "TCP";
    // Only now, so that no other program could share the port when it was bound.
    if (!tcp) setOption(port.fd.number, SOL_SOCKET, SO.REUSEPORT, 1);
    const registration = this.reactor.watch(port.fd, EPOLL.IN, () => {
      if (tcp) this.#accept(port);
      else this.receive(port);
      this.taken();
    }, tcp ? "TCP port" : "UDP port");
    this.#ports.set(port, registration);
  }

  /** Number of ports. */
  get count(): number {
    return this.#ports.size;
  }

  /**
   * Stops forwarding ports, and closes them. Connections go on. Sequences of datagrams end.
   *
   * @param ports The ports.
   */
  removeAll(ports: readonly OpenPort[]): void {
    for (const port of ports) this.#remove(port);
    if (ports.some(({ rule }) => rule.protocol === "UDP")) this.removed(new Set(ports));
  }

  #remove(port: OpenPort): void {
    const registration = this.#ports.get(port);
    if (!registration) return;
    this.#ports.delete(port);
    registration.remove();
    port[Symbol.dispose]();
  }

  #accept(port: OpenPort): void {
    for (let i = 0; i < TURN; i++) {
      const s = accept(port.fd.number, this.peer);
      if (s < 0) {
        if (this.#mayRetry(port, s)) continue;
        return;
      }
      const fd = new Fd(s);
      if (this.connected(port, fd)) continue;
      resetOnClose(s);
      fd.close();
    }
  }

  /** Whether another connection may wait at a port after accept4(2) has failed; stops for a moment if it cannot be taken. */
  #mayRetry(port: OpenPort, error: number): boolean {
    // The kernel keeps a few connections, and says at once that they wait.
    if (error === -E.EMFILE || error === -E.ENFILE || error === -E.ENOMEM) this.#pause(port);
    // A peer that is gone already is an error of accept4(2) too.
    return error === -E.ECONNABORTED;
  }

  #pause(port: OpenPort): void {
    this.#ports.get(port)?.change(0);
    this.reactor.after(PAUSE, () => this.#ports.get(port)?.change(EPOLL.IN));
  }

  /** The numbers of the ports of a protocol. */
  numbers(protocol: Protocol): ReadonlySet<number> {
    return new Set([...this.#ports.keys()].filter(({ rule }) => rule.protocol === protocol).map(({ port }) => port));
  }

  /** Closes all ports. */
  [Symbol.dispose](): void {
    for (const port of [...this.#ports.keys()]) this.#remove(port);
  }
}
