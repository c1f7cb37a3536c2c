// Takes questions to the resolver that come by TCP: their connections lead to a port of the host's loopback that is penne's.
//
// A flow of TCP needs a socket of the host's kernel at its end (mod/datapath/tcp), so there is one. Programs of the host can
// connect to that port too, and are turned away: who may connect is known by its own port.

import { E } from "../../../ffi/core/errno.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { Block } from "../../../ffi/core/quick.ts";
import { MSG, SOCK } from "../../../ffi/net/constants.ts";
import { accept, openListener, type Peer } from "../../../ffi/net/listener.ts";
import { localPort, receiveAt, sendAt } from "../../../ffi/net/socket.ts";
import { EPOLL } from "../../../ffi/sys/epoll.ts";
import { ipWords } from "../../inet/ip_words.ts";
import type { Registration, Timer } from "../../reactor/reactor.ts";
import type { AdmissionScene } from "../netif/admission.ts";

const LOOPBACK = ipWords(4, 0, 0, 0xffff, 0x7f000001);
/** Connections at once, and those that are accepted in a turn. */
const CONNECTIONS_MAX = 64;
const TURN = 16;
/** Connections that may still come. */
const EXPECTED_MAX = 256;
/** Questions of one connection that wait for their answers; RFC 7766 has many at once. */
const QUESTIONS_MAX = 16;
/** Milliseconds of silence after which a connection is closed, and between looks. */
const SILENCE = 30_000;
const LOOK = 10_000;
/** Milliseconds until connections are accepted again after there was no descriptor. */
const PAUSE = 100;
/** Bytes of a question at most, and of any message, which has its length before it. */
const QUESTION_MAX = 4096;
const MESSAGE_MAX = 65535;
const LENGTH = 2;

/** Holds what is sent and received; nothing stays there. */
const buffer = new Block(LENGTH + MESSAGE_MAX);

/** Has a message answered, at once or later; returns whether it is a question that will be. */
export type Ask = (message: Uint8Array, answer: (message: Uint8Array) => void) => boolean;

/** Two pieces as one. */
function joined(a: Uint8Array, b: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(a.length + b.length);
  bytes.set(a);
  bytes.set(b, a.length);
  return bytes;
}

/** A connection. */
class Connection {
  readonly #registration: Registration;
  /** What has come and is not handled, and what is still to be sent. */
  #in = new Uint8Array(0);
  #out = new Uint8Array(0);
  #waiting = 0;
  /** Whether nothing more comes. */
  #ended = false;
  at: number;

  constructor(readonly owner: Streams, readonly fd: Fd) {
    this.at = owner.scene.reactor.now;
    this.#registration = owner.scene.reactor.watch(fd, EPOLL.IN, (events) => this.#onEvents(events), "TCP connection");
  }

  /** Whether it waits for an answer of the resolver. */
  get waits(): boolean {
    return this.#waiting > 0;
  }

  #onEvents(events: number): void {
    this.at = this.owner.scene.reactor.now;
    if (events & (EPOLL.ERR | EPOLL.HUP)) return this.close();
    if (events & EPOLL.OUT) this.#flush();
    if (events & EPOLL.IN) this.#receive();
    this.#goOn();
  }

  #receive(): void {
    if (this.fd.closed) return;
    const n = receiveAt(this.fd.number, buffer.at, MESSAGE_MAX, MSG.DONTWAIT);
    if (n === -E.EAGAIN) return;
    if (n < 0) return this.close();
    if (n === 0) this.#ended = true;
    else this.#in = joined(this.#in, buffer.bytes.subarray(0, n));
  }

  /** Whether another question is taken. */
  get #mayAsk(): boolean {
    return !this.fd.closed && this.#waiting < QUESTIONS_MAX && this.#out.length === 0;
  }

  /** Handles the messages that are whole, as many as may wait, and waits for what can be gone on with. */
  #goOn(): void {
    while (this.#mayAsk && this.#in.length >= LENGTH) {
      const end = LENGTH + (this.#in[0]! << 8 | this.#in[1]!);
      if (end > LENGTH + QUESTION_MAX) return this.close();
      if (this.#in.length < end) break;
      const message = this.#in.slice(LENGTH, end);
      this.#in = this.#in.subarray(end); // a copy for each of many small messages would take long
      this.#ask(message);
    }
    if (this.fd.closed) return;
    if (this.#in.byteOffset > 0) this.#in = this.#in.slice();
    if (this.#ended && this.#waiting === 0 && this.#out.length === 0) return this.close();
    const reads = !this.#ended && this.#mayAsk;
    this.#registration.change((reads ? EPOLL.IN : 0) | (this.#out.length > 0 ? EPOLL.OUT : 0));
  }

  #ask(message: Uint8Array): void {
    let later = false;
    this.#waiting++;
    const asked = this.owner.ask(message, (answer) => {
      this.#waiting--;
      if (this.fd.closed) return;
      this.at = this.owner.scene.reactor.now;
      this.#out = joined(this.#out, joined(Uint8Array.of(answer.length >> 8, answer.length & 0xff), answer));
      this.#flush();
      if (later) this.#goOn();
    });
    later = true;
    if (asked) return;
    this.#waiting--;
    this.close(); // what is no question has no place here
  }

  #flush(): void {
    while (this.#out.length > 0 && !this.fd.closed) {
      const n = Math.min(this.#out.length, MESSAGE_MAX);
      buffer.bytes.set(this.#out.subarray(0, n));
      const sent = sendAt(this.fd.number, buffer.at, n, MSG.DONTWAIT | MSG.NOSIGNAL);
      if (sent === -E.EAGAIN) return;
      if (sent < 0) return this.close();
      this.#out = this.#out.slice(sent);
    }
  }

  close(): void {
    if (this.fd.closed) return;
    this.#registration.remove();
    this.fd.close();
    this.owner.ended(this);
  }
}

/** The connections of one namespace. */
export class Streams implements Disposable {
  readonly #connections = new Set<Connection>();
  /** Ports of sockets that have connected and are not accepted yet. */
  readonly #expected = new Set<number>();
  #listener: Fd | null = null;
  #registration: Registration | null = null;
  #timer: Timer | null = null;
  #resume: Timer | null = null;
  #port = 0;
  readonly #peer: Peer = { address: ipWords(), port: 0, scope: 0 };

  /**
   * @param scene What it is given.
   * @param ask Has messages answered.
   */
  constructor(readonly scene: AdmissionScene, readonly ask: Ask) {}

  /** The port of 127.0.0.1, opened with the first call; or a negative error number. */
  port(): number {
    if (this.#listener) return this.#port;
    const binding = { address: LOOPBACK, dual: false, port: 0, interface: null, freebind: false };
    const s = this.scene.mayOpen(0) ? openListener(SOCK.STREAM, binding) : -E.EMFILE;
    if (s < 0) return s;
    const listener = new Fd(s);
    try {
      this.#registration = this.scene.reactor.watch(listener, EPOLL.IN, () => this.#accept(), "TCP port");
    } catch {
      listener.close();
      return -E.ENOMEM;
    }
    this.#listener = listener;
    return this.#port = localPort(s);
  }

  /** Tells that a socket with that local port connects to the port. */
  expect(from: number): void {
    this.#expected.add(from);
    if (this.#expected.size > EXPECTED_MAX) this.#expected.delete(this.#expected.values().next().value!);
  }

  #accept(): void {
    for (let i = 0; i < TURN; i++) {
      const s = accept(this.#listener!.number, this.#peer);
      if (s === -E.ECONNABORTED) continue;
      // Without a descriptor for it, the connection would be reported again and again.
      if (s === -E.EMFILE || s === -E.ENFILE || s === -E.ENOMEM) return this.#pause();
      if (s < 0) return;
      const fd = new Fd(s);
      if (!this.#expected.delete(this.#peer.port) || !this.#makeRoom()) {
        fd.close();
        continue;
      }
      try {
        this.#connections.add(new Connection(this, fd));
        this.scene.countDescriptor(1);
      } catch {
        fd.close();
      }
      this.#timer ??= this.scene.reactor.after(LOOK, this.#look);
    }
  }

  /** Accepts nothing for a moment. */
  #pause(): void {
    this.#registration?.change(0);
    this.#resume ??= this.scene.reactor.after(PAUSE, () => {
      this.#resume = null;
      this.#registration?.change(EPOLL.IN);
    });
  }

  /** Makes room for a connection, in place of one that waits for no answer. */
  #makeRoom(): boolean {
    if (this.#connections.size < CONNECTIONS_MAX) return this.scene.mayOpen(this.#connections.size);
    const idle = [...this.#connections].filter(({ waits }) => !waits);
    if (idle.length === 0) return false;
    idle.reduce((a, b) => b.at < a.at ? b : a).close();
    return true;
  }

  /** Closes the connections that have been silent for long. */
  readonly #look = () => {
    const before = this.scene.reactor.now - SILENCE;
    for (const one of [...this.#connections]) if (!one.waits && one.at < before) one.close();
    this.#timer = this.#connections.size > 0 ? this.scene.reactor.after(LOOK, this.#look) : null;
  };

  /** Forgets a connection that is closed. */
  ended(connection: Connection): void {
    if (this.#connections.delete(connection)) this.scene.countDescriptor(-1);
  }

  /** Closes everything. */
  [Symbol.dispose](): void {
    this.#timer?.cancel();
    this.#resume?.cancel();
    for (const one of [...this.#connections]) one.close();
    this.#registration?.remove();
    this.#listener?.close();
    this.#listener = null;
  }
}
