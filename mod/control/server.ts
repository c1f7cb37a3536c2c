// The control socket of a running penne: answers the requests of its user, between the frames that it forwards.
//
// Whoever is slow, silent or hostile costs a connection and nothing else: each packet is handled at once and as a whole, no
// call waits, and a client that does not take its reply is disconnected.

import { E } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { call, self } from "../../ffi/core/task.ts";
import { acceptUnix, peerOf, receive, send } from "../../ffi/net/unix.ts";
import { EPOLL } from "../../ffi/sys/epoll.ts";
import type { Reactor, Registration, Timer } from "../reactor/reactor.ts";
import type { ControlPlace } from "./place.ts";
import { encode, type Reply, REPLY_MAX, REQUEST_MAX } from "./message.ts";

/** Connections at once, and how many are accepted in a turn. */
const CONNECTIONS_MAX = 64;
const TURN = 16;
/** Milliseconds of silence after which a connection makes room for another. */
const SILENCE = 1000;
/** Milliseconds until connections are accepted again after there was no room, or no descriptor. */
const PAUSE = 100;

interface Connection {
  readonly fd: Fd;
  readonly registration: Registration;
  /** When it was last heard of. */
  at: number;
}

/** Made for the first request: most runs have none. */
let buffer: Uint8Array | undefined;

/** Listens on the control socket of one namespace. */
export class ControlServer implements Disposable {
  readonly #listener: Fd;
  readonly #registration: Registration;
  readonly #connections = new Set<Connection>();
  #resume: Timer | null = null;

  /**
   * @param reactor The loop.
   * @param place The directory of the socket, which must stay open.
   * @param name The name of the socket.
   * @param answer Carries out a request.
   * @throws {SysError} EADDRINUSE if another penne serves the namespace.
   */
  constructor(
    readonly reactor: Reactor,
    readonly place: ControlPlace,
    readonly name: string,
    readonly answer: (request: Uint8Array) => Reply,
  ) {
    this.#listener = place.listen(name);
    this.#registration = reactor.watch(this.#listener, EPOLL.IN, () => this.#accept(), "control socket");
  }

  #accept(): void {
    for (let i = 0; i < TURN; i++) {
      if (this.#connections.size >= CONNECTIONS_MAX && !this.#makeRoom()) return this.#pause();
      const fd = acceptUnix(this.#listener);
      if (typeof fd === "number") {
        // Without a descriptor for it, the connection would be reported again and again.
        return fd === -E.EMFILE || fd === -E.ENFILE || fd === -E.ENOMEM ? this.#pause() : undefined;
      }
      const { uid } = peerOf(fd);
      if (uid !== 0 && uid !== call(self, "geteuid")) {
        fd.close();
        continue;
      }
      const registration = this.reactor.watch(fd, EPOLL.IN, () => this.#read(connection), "control socket");
      const connection: Connection = { fd, registration, at: this.reactor.now };
      this.#connections.add(connection);
    }
  }

  /** Accepts nothing for a moment. */
  #pause(): void {
    if (this.#resume) return;
    this.#registration.change(0);
    this.#resume = this.reactor.after(PAUSE, () => {
      this.#resume = null;
      this.#registration.change(EPOLL.IN);
    });
  }

  /** Disconnects the client that has been silent for the longest time, if that is long. */
  #makeRoom(): boolean {
    const silent = [...this.#connections].reduce((a, b) => b.at < a.at ? b : a);
    if (this.reactor.now - silent.at < SILENCE) return false;
    this.#close(silent);
    return true;
  }

  #close(connection: Connection): void {
    this.#connections.delete(connection);
    connection.registration.remove();
    connection.fd.close();
  }

  /** Answers one request. */
  #read(connection: Connection): void {
    const request = buffer ??= new Uint8Array(REQUEST_MAX);
    const n = receive(connection.fd, request);
    if (n === -E.EAGAIN || n === -E.EINTR) return;
    if (n <= 0) return this.#close(connection);
    connection.at = this.reactor.now;
    const reply = encode(n > REQUEST_MAX ? tooLong(`more than ${REQUEST_MAX}`) : this.answer(request.subarray(0, n)));
    const whole = reply.length > REPLY_MAX ? encode(tooLong("a reply of too many")) : reply;
    if (send(connection.fd, whole) !== whole.length) this.#close(connection);
  }

  /** Closes the socket and removes its file. */
  [Symbol.dispose](): void {
    this.#resume?.cancel();
    for (const connection of [...this.#connections]) this.#close(connection);
    this.#registration.remove();
    this.place.remove(this.name);
    this.#listener.close();
  }
}

function tooLong(what: string): Reply {
  return { ok: false, error: { kind: "request", reason: `it has ${what} bytes` } };
}
