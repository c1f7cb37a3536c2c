// Decides by an allow list which flows may begin, and which names are resolved.
//
// Theory of operation. A flow may begin to an address that the list has, or that the host's resolver has answered for a name
// that it has. Everything else is refused, so there is one way to a resolver: penne takes what is sent to the address inside
// that stands for it. It reads each question, and asks one of its own (exchange.ts) for a name that the list has, in which
// nothing of the message is repeated but name, type and a few flags. All other questions end here.
//
// This code is loaded only if there is such a list. It may be a copy of its own of modules that others have too, so it shares
// nothing with them but what it is given.

import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { DNS_TYPE, type DnsQuery, questionEnd, RCODE, readQuery, writeAnswer } from "../../inet/dns.ts";
import { PROTOCOL } from "../../inet/header.ts";
import { inPrefixWords, wordsOf } from "../../inet/ip_words.ts";
import { type AllowedPorts, type AllowRule, isNameRule } from "../../inet/allow.ts";
import type { Admission, AdmissionScene } from "../netif/admission.ts";
import { type Asked, Exchange } from "./exchange.ts";
import { Streams } from "./streams.ts";

/** Ports of DNS: another resolver would be a way out for anything, in names. They are reached only if they are named. */
const DNS_PORTS: readonly number[] = [53, 853];
/** Questions that are asked at the same time. */
const EXCHANGES_MAX = 256;

/** Whether ports include one. */
function includes(ports: AllowedPorts, protocol: number, port: number): boolean {
  const ported = protocol === PROTOCOL.TCP || protocol === PROTOCOL.UDP;
  if (ports === null) return !ported || !DNS_PORTS.includes(port);
  return ported && ports.some(([first, last]) => first <= port && port <= last);
}

/** Whether an entry for a name is for a name that was asked for. */
function matches(entry: string, name: string): boolean {
  // A dot always separates labels; a byte that no host name has is behind a backslash.
  return entry.startsWith("*.") ? name.endsWith(entry.slice(1)) && !name.includes("\\") : entry === name;
}

/** An allow list at work. */
export class AllowList implements Admission {
  readonly #blocks: readonly { readonly prefix: IpWords; readonly bits: number; readonly ports: AllowedPorts }[];
  readonly #names: readonly { readonly name: string; readonly ports: AllowedPorts }[];
  readonly #exchanges = new Set<Exchange>();
  readonly #streams: Streams;

  /**
   * @param scene What it is given.
   * @param allow The entries.
   */
  constructor(readonly scene: AdmissionScene, allow: readonly AllowRule[]) {
    this.#blocks = allow.flatMap((rule) =>
      isNameRule(rule) ? [] : [{ prefix: wordsOf(rule.address), bits: rule.prefix, ports: rule.ports }]
    );
    this.#names = allow.filter(isNameRule);
    this.#streams = new Streams(scene, (message, answer) => this.#ask(message, answer, true));
  }

  admits(to: IpWords, protocol: number, port: number): boolean {
    const { reactor, rules, names } = this.scene;
    if (
      this.#blocks.some(({ prefix, bits, ports }) => inPrefixWords(to, prefix, bits) && includes(ports, protocol, port))
    ) return true;
    if (this.#names.length === 0) return false;
    const named = names.validOf(to, reactor.now).some(({ name }) =>
      this.#names.some((entry) => matches(entry.name, name) && includes(entry.ports, protocol, port))
    );
    return named && rules.mayBeNamed(to);
  }

  question(message: Uint8Array, answer: (message: Uint8Array) => void): void {
    this.#ask(message, answer, false);
  }

  stream(): number {
    return this.#streams.port();
  }

  expect(from: number): void {
    this.#streams.expect(from);
  }

  /** Whether a question may leave the host. */
  #mayAsk({ name, type, internet }: DnsQuery): boolean {
    const single = type < DNS_TYPE.META || type > DNS_TYPE.META_LAST;
    return internet && single && type !== DNS_TYPE.OPT && this.#names.some((entry) => matches(entry.name, name));
  }

  /** Has a message answered; returns whether it is a question that will be. */
  #ask(message: Uint8Array, answer: (message: Uint8Array) => void, stream: boolean): boolean {
    const query = readQuery(message);
    if (query === null) return false;
    const code = typeof query === "number" ? query : this.#codeFor(query);
    if (typeof query === "number") answer(writeAnswer(message, query));
    else if (code !== null) answer(writeAnswer(message, code, query.end));
    else this.#pass({ message, query, stream }, answer);
    return true;
  }

  /** The code with which a question is answered at once; null if the resolver is to answer it. */
  #codeFor(query: DnsQuery): number | null {
    const { refusals, reactor } = this.scene;
    const { name, type, end } = query;
    if (!this.#mayAsk(query)) {
      refusals.question(name, reactor.now);
      return RCODE.REFUSED;
    }
    if (end !== questionEnd(name)) return RCODE.FORMERR; // its name is compressed
    // Such records may hold addresses, and names of other hosts. Programs that get none ask for addresses.
    if (type === DNS_TYPE.SVCB || type === DNS_TYPE.HTTPS) return RCODE.NOERROR;
    return this.#exchanges.size < EXCHANGES_MAX && this.scene.mayOpen(this.#exchanges.size) ? null : RCODE.SERVFAIL;
  }

  /** Asks the resolver. */
  #pass(asked: Asked, answer: (message: Uint8Array) => void): void {
    const exchange = new Exchange(this.scene, asked, (answered) => {
      this.#exchanges.delete(exchange);
      answer(answered ?? writeAnswer(asked.message, RCODE.SERVFAIL, asked.query.end));
    });
    this.#exchanges.add(exchange);
    exchange.begin();
  }

  /** Forgets all questions. */
  [Symbol.dispose](): void {
    this.#streams[Symbol.dispose]();
    for (const exchange of this.#exchanges) exchange[Symbol.dispose]();
    this.#exchanges.clear();
  }
}
