// What penne holds in a namespace to open sockets there: an agent, and a few sockets that it has opened ahead.
//
// All of it keeps the namespace alive. So it is for a namespace whose end penne learns of otherwise, or that ends with penne.

import { type Agent, AgentGoneError } from "../../../ffi/agent/agent.ts";
import { E, SysError } from "../../../ffi/core/errno.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { AF, SOCK } from "../../../ffi/net/constants.ts";
import { type IpWords, sockaddrSize, writeSockaddr } from "../../../ffi/net/sockaddr.ts";
import { endAgents } from "../../agents/enclosure.ts";
import { confineServing, type OnConfined } from "../../confine/agents.ts";
import { Listeners } from "../../forward/listeners.ts";
import type { SocketMaker } from "../../../ffi/net/listener.ts";
import type { Hold } from "../../forward/ports.ts";
import { KEPT } from "../../network/resident.ts";

/** Milliseconds for the agent to answer, and to end. A process in its user namespace can stop it, and penne waits. */
const ANSWER_TIMEOUT = 1000;
const END_TIMEOUT = 1000;
/** Most sockets that are opened at once, and milliseconds after which few are opened again. */
const AHEAD = 32;
const CALM = 100;

/** Sockets of one kind that wait to be used. */
interface Stock {
  readonly fds: Fd[];
  /** How many were opened last, and when. */
  count: number;
  at: number;
}

/** What is held in one namespace. */
export class Inside implements Disposable {
  readonly #stocks = new Map<number, Stock>();
  #lost = false;
  #closed = false;

  /**
   * @param agent An agent in the namespace; ended with this.
   * @param tables The listeners there, if they are followed; closed with this.
   */
  constructor(readonly agent: Agent, readonly tables: Listeners | null) {
    agent.setDeadline(ANSWER_TIMEOUT);
  }

  /** Whether the agent has ended or does not answer. */
  get lost(): boolean {
    return this.#lost;
  }

  /**
   * Opens a socket in the namespace, non-blocking and closed on exec.
   *
   * @param family 4 or 6.
   * @param type SOCK.STREAM or SOCK.DGRAM.
   * @returns The descriptor, which the caller owns, or a negative error number; -ESRCH if the agent is gone.
   */
  readonly socket = (family: number, type: number): number => {
    const kind = family << 8 | type;
    let stock = this.#stocks.get(kind);
    if (!stock) this.#stocks.set(kind, stock = { fds: [], count: 0, at: -Infinity });
    const known = stock.fds.pop();
    if (known) return known.release();
    if (this.#lost) return -E.ESRCH;
    const now = performance.now();
    // The more come at a time, the more are opened at once.
    const count = stock.count = now - stock.at < CALM ? Math.min(AHEAD, 2 * stock.count) : 1;
    stock.at = now;
    const domain = family === 4 ? AF.INET : AF.INET6;
    try {
      stock.fds.push(...this.agent.openMany(count, "socket", domain, type | SOCK.NONBLOCK | SOCK.CLOEXEC, 0));
    } catch (error) {
      if (error instanceof SysError) return -error.errno;
      if (!(error instanceof AgentGoneError)) throw error;
      this.#lost = true;
      return -E.ESRCH;
    }
    return stock.fds.pop()!.release();
  };

  /**
   * Binds a socket of the namespace, as the agent, which may use low ports there.
   *
   * @param s The socket.
   * @param address The address.
   * @param port The port.
   * @returns 0, or a negative error number; -ESRCH if the agent is gone.
   */
  readonly bind = (s: number, address: IpWords, port: number): number => {
    if (this.#lost) return -E.ESRCH;
    try {
      return bindAs(this.agent, s, address, port);
    } catch (error) {
      if (!(error instanceof AgentGoneError)) throw error;
      this.#lost = true;
      return -E.ESRCH;
    }
  };

  /**
   * Takes from the agent what opening sockets does not need.
   *
   * @param onConfined Called with the calls that it may still make.
   */
  confine(onConfined: OnConfined): void {
    try {
      confineServing(this.agent, "ports", KEPT, onConfined);
    } catch (error) {
      if (!(error instanceof AgentGoneError)) throw error;
      this.#lost = true;
    }
  }

  /** Closes everything, and ends the agent. */
  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const { fds } of this.#stocks.values()) for (const fd of fds) fd.close();
    this.#stocks.clear();
    this.#lost = true;
    this.tables?.[Symbol.dispose]();
    endAgents([this.agent], END_TIMEOUT);
  }
}

/** Binds a socket as an agent. */
function bindAs(agent: Agent, s: number, address: IpWords, port: number): number {
  const name = new Uint8Array(sockaddrSize(address.family));
  writeSockaddr(new DataView(name.buffer), 0, address, port);
  return agent.raw("bind", Fd.borrow(s), name, name.length);
}

/**
 * Opens sockets in the namespace of an agent, one after the other.
 *
 * @param agent The agent, which continues to belong to the caller.
 * @returns What opens and binds them; it throws an {@linkcode AgentGoneError} if the agent is gone.
 */
export function makerBy(agent: Agent): SocketMaker {
  return {
    socket: (family, type) => {
      try {
        const domain = family === 4 ? AF.INET : AF.INET6;
        return agent.open("socket", domain, type | SOCK.NONBLOCK | SOCK.CLOEXEC, 0).release();
      } catch (error) {
        if (error instanceof SysError) return -error.errno;
        throw error;
      }
    },
    bind: (s, address, port) => bindAs(agent, s, address, port),
  };
}

/**
 * Has an agent in a namespace keep open what ports need.
 *
 * @param agent The agent, see {@linkcode Inside}; it is ended if this fails.
 * @param hold What is held.
 * @param onConfined Called with the calls that the agent may still make; null if it may make any.
 * @returns What is held there.
 * @throws {SysError} If the tables of listeners cannot be opened.
 */
export function holdInside(agent: Agent, hold: Hold, onConfined: OnConfined | null): Inside {
  try {
    const reach = hold === "all listeners" ? "any" : "elsewhere";
    const inside = new Inside(agent, hold === "sockets" ? null : new Listeners(agent, reach));
    if (onConfined) inside.confine(onConfined);
    return inside;
  } catch (error) {
    endAgents([agent], END_TIMEOUT);
    throw error;
  }
}
