// Asks the host's resolver one question, and takes its answer.

import { E } from "../../../ffi/core/errno.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { Block } from "../../../ffi/core/quick.ts";
import { MSG, SO, SOCK, SOL_SOCKET } from "../../../ffi/net/constants.ts";
import { connect, getOption, receiveAt, sendAt, socket } from "../../../ffi/net/socket.ts";
import { EPOLL } from "../../../ffi/sys/epoll.ts";
import { type DnsQuery, readAnswer, readdress, writeQuery } from "../../inet/dns.ts";
import { ipWords, wordsOf } from "../../inet/ip_words.ts";
import type { Registration, Timer } from "../../reactor/reactor.ts";
import type { AdmissionScene } from "../netif/admission.ts";

const DNS_PORT = 53;
/** Milliseconds that each try takes at most: each is with the resolver that is the best to ask then. */
const TRIES = [2000, 4000];
/** What the asker may say of the datagrams that it takes. */
const SIZE = { least: 512, most: 4096 };
/** Bytes of a message at most; a stream has its length before it. */
const MESSAGE_MAX = 65535;
const LENGTH = 2;
/** Datagrams that are looked at in one turn. */
const TURN = 16;

/** The ends of what no program inside has sent: only an address that was asked for counts. */
const NOBODY = { inside: ipWords(), outside: ipWords() };
/** Holds what is sent and received; nothing stays there. */
const buffer = new Block(LENGTH + MESSAGE_MAX);

/** A question of the namespace. */
export interface Asked {
  /** Its message. */
  readonly message: Uint8Array;
  /** What it asks for. */
  readonly query: DnsQuery;
  /** Whether the resolver is asked by TCP. */
  readonly stream: boolean;
}

/** A question to the resolver, until it is answered. */
export class Exchange implements Disposable {
  readonly #done: (answer: Uint8Array | null) => void;
  #tries = 0;
  #id = 0;
  #fd: Fd | null = null;
  #registration: Registration | null = null;
  #timer: Timer | null = null;
  #resolver: Uint8Array | null = null;
  /** What has come of a stream. */
  #received = new Uint8Array(0);

  /**
   * @param scene What it is given.
   * @param asked The question.
   * @param done Called once, with the answer for whoever has asked, or null if there is none.
   */
  constructor(readonly scene: AdmissionScene, readonly asked: Asked, done: (answer: Uint8Array | null) => void) {
    this.#done = done;
  }

  /** Asks. */
  begin(): void {
    for (;;) {
      const patience = TRIES[this.#tries++];
      const resolver = patience === undefined ? undefined : this.scene.rules.resolver(4);
      if (!resolver) return this.#finish(null);
      this.#resolver = resolver.address;
      if (this.#open(resolver)) {
        this.#timer = this.scene.reactor.after(patience!, () => this.#failed());
        return;
      }
      this.#close();
    }
  }

  /** Opens a socket to a resolver; returns whether that has succeeded. */
  #open({ address, scope }: { readonly address: Uint8Array; readonly scope: number }): boolean {
    const { egress, reactor, rules } = this.scene;
    const { stream } = this.asked;
    const to = wordsOf(address);
    const s = socket(to.family, stream ? SOCK.STREAM : SOCK.DGRAM);
    if (s < 0) return false;
    const fd = this.#fd = new Fd(s);
    this.scene.countDescriptor(1);
    let error = egress.bind(s, to, egress.sourceOf(NOBODY, to));
    if (error === 0) error = connect(s, to, DNS_PORT, scope);
    const isOpen = (error >= 0 || error === -E.EINPROGRESS) && (stream || this.#send());
    if (!isOpen) {
      rules.resolverFailed(address);
      return false;
    }
    try {
      this.#registration = reactor.watch(
        fd,
        stream ? EPOLL.OUT : EPOLL.IN,
        (events) => this.#onEvents(events),
        "UDP flow",
      );
    } catch {
      return false;
    }
    return true;
  }

  /** Sends the question; returns whether it was taken. */
  #send(): boolean {
    const { query, stream } = this.asked;
    const { edns } = query;
    this.#id = crypto.getRandomValues(new Uint16Array(1))[0]!;
    const size = Math.max(SIZE.least, Math.min(SIZE.most, edns?.size ?? 0));
    const message = writeQuery({ ...query, edns: edns && { ...edns, size } }, this.#id);
    buffer.bytes[0] = message.length >> 8;
    buffer.bytes[1] = message.length & 0xff;
    buffer.bytes.set(message, LENGTH);
    const [at, length] = stream ? [buffer.at, LENGTH + message.length] : [buffer.at + LENGTH, message.length];
    return sendAt(this.#fd!.number, at, length, MSG.DONTWAIT | MSG.NOSIGNAL) === length;
  }

  #onEvents(events: number): void {
    const s = this.#fd!.number;
    if (events & EPOLL.ERR && getOption(s, SOL_SOCKET, SO.ERROR) !== 0) return this.#failed();
    if (!this.asked.stream) return this.#receive(s);
    if (events & EPOLL.OUT) {
      if (!this.#send()) return this.#failed();
      this.#registration!.change(EPOLL.IN);
    } else this.#receiveStream(s);
  }

  #receive(s: number): void {
    for (let i = 0; i < TURN; i++) {
      const n = receiveAt(s, buffer.at, MESSAGE_MAX, MSG.DONTWAIT);
      if (n === -E.EAGAIN) return;
      if (n < 0) return this.#failed();
      if (this.#take(buffer.bytes.slice(0, n))) return;
    }
  }

  #receiveStream(s: number): void {
    const n = receiveAt(s, buffer.at, MESSAGE_MAX, MSG.DONTWAIT);
    if (n === -E.EAGAIN) return;
    if (n <= 0) return this.#failed();
    const before = this.#received;
    const received = this.#received = new Uint8Array(before.length + n);
    received.set(before);
    received.set(buffer.bytes.subarray(0, n), before.length);
    const length = received.length < LENGTH ? Infinity : received[0]! << 8 | received[1]!;
    if (received.length < LENGTH + length) return;
    if (!this.#take(received.slice(LENGTH, LENGTH + length))) this.#failed();
  }

  /** Takes a message if it is the answer; returns whether it is. */
  #take(message: Uint8Array): boolean {
    const { message: question, query } = this.asked;
    const answer = readAnswer(message);
    if (answer?.id !== this.#id || answer.name !== query.name || answer.type !== query.type) return false;
    if (answer.end !== query.end) return false;
    this.scene.names.learn(answer, this.scene.reactor.now);
    readdress(message, question, query.end);
    this.#finish(message);
    return true;
  }

  /** Tries again: the resolver has not answered. */
  #failed(): void {
    if (this.#resolver) this.scene.rules.resolverFailed(this.#resolver);
    this.#close();
    this.begin();
  }

  #finish(answer: Uint8Array | null): void {
    this.#close();
    this.#done(answer);
  }

  #close(): void {
    this.#timer?.cancel();
    if (this.#fd) this.scene.countDescriptor(-1);
    this.#fd?.close();
    this.#registration?.remove();
    this.#timer = this.#fd = this.#registration = null;
    this.#received = new Uint8Array(0);
  }

  /** Gives the question up. */
  [Symbol.dispose](): void {
    this.#close();
  }
}
