// Tells which ports programs in a network namespace listen on, over and over again.
//
// The kernel is asked by sock_diag(7), over a socket that a task in the namespace has opened once. An answer takes some
// microseconds. As long as the socket is open, it keeps the namespace alive.

import { SysError } from "../../ffi/core/errno.ts";
import type { Task } from "../../ffi/core/task.ts";
import { AF, IPPROTO, NETLINK } from "../../ffi/net/constants.ts";
import { NetlinkSocket, type Request } from "../netlink/socket.ts";
import { decodeSocket, dumpSockets, SOCKET_STATE } from "../netlink/inet_diag.ts";
import { ListenerFiles, type ListeningPorts, type Reach } from "./listener_files.ts";
import type { Protocol } from "./rule.ts";

export type { ListeningPorts, Reach };

/** The IPv4 address that an IPv6 address stands for, or the address itself. */
function unmapped(address: Uint8Array): Uint8Array {
  const mapped = address.length === 16 && address.subarray(0, 10).every((byte) => byte === 0) &&
    address[10] === 0xff && address[11] === 0xff;
  return mapped ? address.subarray(12) : address;
}

/**
 * Tells whether a listener counts.
 *
 * @example
 * ```ts
 * import { counts } from "./listeners.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(counts(new Uint8Array([0, 0, 0, 0]), "elsewhere"), true);
 * assertEquals(counts(new Uint8Array([127, 0, 0, 1]), "elsewhere"), false);
 * ```
 *
 * @param bound The address that it is bound to, 4 or 16 bytes.
 * @param reach Which listeners count.
 * @returns Whether it does.
 */
export function counts(bound: Uint8Array, reach: Reach): boolean {
  const address = unmapped(bound);
  const last = address.length - 1;
  const first = address.subarray(1, last).every((byte) => byte === 0) && address[last] === 1 &&
    address[0] === (last === 3 ? 127 : 0);
  const elsewhere = !(last === 3 ? address[0] === 127 : first);
  if (reach === "elsewhere" || elsewhere && reach === "any") return elsewhere;
  return first || address.every((byte) => byte === 0);
}

/** The questions; the second one of each protocol is not for a kernel without IPv6. */
const QUESTIONS: readonly (readonly [Protocol, Request])[] = [AF.INET, AF.INET6].flatMap((family) => [
  ["TCP", dumpSockets(family, IPPROTO.TCP, SOCKET_STATE.LISTEN)],
  // A connected socket hears its peer only.
  ["UDP", dumpSockets(family, IPPROTO.UDP, SOCKET_STATE.CLOSE)],
]);

/** Asks the kernel by sock_diag(7). */
class ListenerSocket implements Disposable {
  readonly #socket: NetlinkSocket;

  constructor(task: Task, readonly reach: Reach) {
    this.#socket = new NetlinkSocket(task, NETLINK.SOCK_DIAG);
  }

  ports(): ListeningPorts {
    const found = { TCP: new Set<number>(), UDP: new Set<number>() };
    for (const [protocol, question] of QUESTIONS) {
      for (const answer of this.#socket.dump(question)) {
        const { address, port } = decodeSocket(answer);
        if (counts(address, this.reach)) found[protocol].add(port);
      }
    }
    return found;
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }
}

/** What can be asked for listeners. */
export type ListenerSource = Disposable & { ports(): ListeningPorts };

/** The listeners of one namespace. */
export class Listeners implements Disposable {
  readonly #source: ListenerSource;

  /**
   * @param task A task in the namespace.
   * @param reach Which listeners count.
   * @throws {SysError} If the kernel cannot be asked in any way.
   */
  constructor(task: Task, reach: Reach = "elsewhere") {
    this.#source = openSocket(task, reach) ?? new ListenerFiles(task, reach);
  }

  /**
   * Tells which ports are listened on.
   *
   * @returns The ports.
   * @throws {SysError} If the kernel does not answer.
   */
  ports(): ListeningPorts {
    return this.#source.ports();
  }

  /** Closes what keeps the namespace alive. */
  [Symbol.dispose](): void {
    this.#source[Symbol.dispose]();
  }
}

/** A socket that answers; null where sock_diag(7) is not there, as a module of the kernel that is not loaded. */
function openSocket(task: Task, reach: Reach): ListenerSource | null {
  let socket: ListenerSource | null = null;
  try {
    socket = new ListenerSocket(task, reach);
    socket.ports();
    return socket;
  } catch (error) {
    socket?.[Symbol.dispose]();
    if (!(error instanceof SysError)) throw error;
    return null;
  }
}
