// The control socket of a running penne: answers the requests of its user, between the frames that it forwards.
//
// Whoever is slow, silent or hostile costs a connection and nothing else: each packet is handled at once and as a whole, no
// call waits, and a client that does not take its reply is disconnected. Flows are sent a piece in each round of the loop, as
// long as the client takes them.

import { sendPacket } from "../../ffi/agent/channel.ts";
import { E, SysError } from "../../ffi/core/errno.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { call, self } from "../../ffi/core/task.ts";
import { SO, SOL_SOCKET } from "../../ffi/net/constants.ts";
import { setOption } from "../../ffi/net/socket.ts";
import { openPipe } from "../../ffi/net/splice.ts";
import { acceptUnix, peerOf, receive, send } from "../../ffi/net/unix.ts";
import type { FlowStream, RestOfFlows } from "../flows/stream.ts";
import { EPOLL } from "../../ffi/sys/epoll.ts";
import type { Reactor, Registration, Timer } from "../reactor/reactor.ts";
import type { ControlPlace } from "./place.ts";
import { encode, refuse, type Reply, REPLY_MAX, REQUEST_MAX } from "./message.ts";

/** Connections at once, and how many are accepted in a turn. */
const CONNECTIONS_MAX = 64;
const TURN = 16;
/** Milliseconds of silence after which a connection makes room for another. */
const SILENCE = 1000;
/** Milliseconds until connections are accepted again after there was no room, or no descriptor. */
const PAUSE = 100;
/** Connections that follow flows: others have room beside them. Milliseconds in which somebody must take a piece of a list. */
const FOLLOWERS_MAX = 16;
const STUCK = 10_000;
/** Bytes that may wait in a socket at the end, so that a last packet has room; the host may have a lower limit. */
const ROOM = 1 << 20;
/** Bytes of a pipe for what a reader has not taken at the end; a user has one MiB at most. */
const PIPE_SIZES = [1 << 21, 1 << 20];

interface Connection {
  readonly fd: Fd;
  readonly registration: Registration;
  /** When it was last heard of, or has taken something. */
  at: number;
  /** What it is being sent, and the piece that it has not taken. */
  stream: FlowStream | null;
  piece: Uint8Array | null;
  follows: boolean;
}

/** What the server can do. */
export interface ControlAnswers {
  /** Carries out a request that has one reply. */
  answer(request: Uint8Array): Reply;
  /**
   * Opens what a request for flows is sent.
   *
   * @param request The request.
   * @param onMore Called when there is something to send again.
   * @returns What opens it, or null if it is another request.
   */
  stream(request: Uint8Array, onMore: () => void): FlowAnswer | null;
}

/** A request for flows. */
export interface FlowAnswer {
  /** Whether it has no end. */
  readonly follows: boolean;
  /** Resolves to what is sent. */
  readonly open: () => Promise<FlowStream>;
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
   * @param answers Carries out requests.
   * @throws {SysError} EADDRINUSE if another penne serves the namespace.
   */
  constructor(
    readonly reactor: Reactor,
    readonly place: ControlPlace,
    readonly name: string,
    readonly answers: ControlAnswers,
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
      const handle = (events: number) => {
        if (events & ~EPOLL.OUT) this.#read(connection);
        if (events & EPOLL.OUT && this.#connections.has(connection)) this.#pass(connection);
      };
      const registration = this.reactor.watch(fd, EPOLL.IN, handle, "control socket");
      const { now: at } = this.reactor;
      const connection: Connection = { fd, registration, at, stream: null, piece: null, follows: false };
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
    const silent = [...this.#connections].filter(({ follows }) => !follows).reduce((a, b) => b.at < a.at ? b : a);
    if (this.reactor.now - silent.at < SILENCE) return false;
    this.#close(silent);
    return true;
  }

  #close(connection: Connection): void {
    this.#connections.delete(connection);
    connection.stream?.close();
    connection.registration.remove();
    connection.fd.close();
  }

  /** Answers one request. */
  #read(connection: Connection): void {
    const request = buffer ??= new Uint8Array(REQUEST_MAX);
    const n = receive(connection.fd, request);
    if (n === -E.EAGAIN || n === -E.EINTR) return;
    if (n <= 0) return this.#close(connection);
    if (connection.stream) return this.#close(connection); // it is being answered
    connection.at = this.reactor.now;
    const bytes = request.subarray(0, n);
    const flows = n > REQUEST_MAX
      ? null
      : this.answers.stream(bytes, () => connection.registration.change(EPOLL.IN | EPOLL.OUT));
    if (flows) return this.#stream(connection, flows);
    this.#reply(connection, n > REQUEST_MAX ? tooLong(`more than ${REQUEST_MAX}`) : this.answers.answer(bytes));
  }

  #reply(connection: Connection, reply: Reply): void {
    const bytes = encode(reply);
    const whole = bytes.length > REPLY_MAX ? encode(tooLong("a reply of too many")) : bytes;
    if (send(connection.fd, whole) !== whole.length) this.#close(connection);
  }

  /** Begins to send flows, by code that may have to be loaded first. */
  #stream(connection: Connection, { follows, open }: FlowAnswer): void {
    const followers = [...this.#connections].filter((one) => one.follows).length;
    if (follows && followers >= FOLLOWERS_MAX) {
      return this.#reply(connection, refuse(`${FOLLOWERS_MAX} readers follow its flows already`));
    }
    this.#reply(connection, { ok: true });
    if (!this.#connections.has(connection)) return;
    connection.follows = follows;
    connection.registration.change(0); // one request at a time
    const opened = open().then((stream) => {
      if (!this.#connections.has(connection)) return stream.close();
      connection.stream = stream;
      connection.registration.change(EPOLL.IN | EPOLL.OUT);
      if (!follows) this.#watchList(connection);
    });
    // As where the files of the code may not be read any more.
    this.reactor.await(opened.catch(() => {
      if (this.#connections.has(connection)) this.#close(connection);
    }));
  }

  /** Disconnects a client that does not take its list, which holds what has ended since. */
  #watchList(connection: Connection): void {
    const { stream } = connection;
    this.reactor.after(STUCK, () => {
      if (!this.#connections.has(connection) || connection.stream !== stream) return;
      if (this.reactor.now - connection.at >= STUCK) this.#close(connection);
      else this.#watchList(connection);
    });
  }

  /** Sends one piece; returns whether there may be another one that the client takes. */
  #pass(connection: Connection): boolean {
    const { stream, fd, registration } = connection;
    if (!stream) return false;
    const piece = connection.piece ??= stream.next();
    if (piece === null) {
      registration.change(EPOLL.IN);
      if (stream.over) connection.stream = null;
      return false;
    }
    const n = send(fd, piece);
    if (n === -E.EAGAIN) return false;
    connection.piece = null;
    connection.at = this.reactor.now;
    if (n !== piece.length) this.#close(connection);
    return n === piece.length;
  }

  /** Closes the socket and removes its file. */
  [Symbol.dispose](): void {
    this.#resume?.cancel();
    for (const connection of [...this.#connections]) {
      // Followers are told of the last ends. What a follower does not take now goes into a pipe, because penne does not wait for it.
      while (connection.follows && this.#connections.has(connection) && this.#pass(connection));
      if (!this.#connections.has(connection)) continue;
      const { fd, follows, stream, piece } = connection;
      const rest = follows && stream && piece && stream.rest(piece);
      if (rest) {
        setOption(fd.number, SOL_SOCKET, SO.SNDBUF, ROOM);
        if (!sendWhole(fd, rest)) send(fd, rest.lost);
      }
      this.#close(connection);
    }
    this.#registration.remove();
    this.place.remove(this.name);
    this.#listener.close();
  }
}

/** Sends what is left in a pipe, which goes along with what is to be read without it; returns whether it could. */
function sendWhole(socket: Fd, { whole, lost }: RestOfFlows): boolean {
  const pipe = openPipe(PIPE_SIZES, 1);
  if (typeof pipe === "number") return false;
  using reader = new Fd(pipe.reader);
  using writer = new Fd(pipe.writer);
  if (self.raw("write", writer, whole, whole.length) !== whole.length) return false;
  writer.close(); // the reader sees the end
  try {
    return sendPacket(socket, lost, [reader]);
  } catch (error) {
    if (error instanceof SysError) return false; // there is no room in the socket
    throw error;
  }
}

function tooLong(what: string): Reply {
  return { ok: false, error: { kind: "request", reason: `it has ${what} bytes` } };
}
