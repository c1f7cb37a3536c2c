// Answers programs inside that configure the interface themselves.
//
// The code of the answers is loaded with the first question, as hardly any namespace has such a program. The loop goes on
// meanwhile; the question is kept, so that the client need not repeat it.

import type { AdviceFacts } from "../../advice/facts.ts";
import { finish, sum } from "../../inet/checksum.ts";
import { PROTOCOL } from "../../inet/header.ts";
import { addressSum, wordsOf } from "../../inet/ip_words.ts";
import type { Packet } from "../../inet/packet.ts";
import type { ReachRequest } from "../../network/reach.ts";
import { RX, TX } from "../netif/buffers.ts";
import type { Netif } from "../netif/netif.ts";

type Answers = typeof import("../../advice/answers.ts");

/** Ports of clients and servers. */
const DHCP = { CLIENT: 68, SERVER: 67 } as const;
const UDP_HEADER = 8;
/** Questions that are kept while the code is loaded. */
const WAITING_MAX = 16;
/** Offset of the Ethernet destination in a frame. */
const MAC_AT = 10;

/** The answers, once they are loaded: by all namespaces of a thread. */
let answers: Answers | null = null;

/** The four bytes of an IPv4 address in RX. */
function address4(at: number): Uint8Array {
  return RX.bytes.slice(at, at + 4);
}

/** Answers the programs of one namespace. */
export class Adviser {
  readonly #netif: Netif;
  readonly #facts: () => AdviceFacts;
  readonly #dhcp: boolean;
  /** Questions that came before the code did. */
  readonly #waiting: ((answers: Answers) => void)[] = [];

  /**
   * @param netif The interface.
   * @param facts What is known of the network at the moment: asked for each answer, so that it may change.
   * @param off Protocols that are off.
   */
  constructor(netif: Netif, facts: () => AdviceFacts, off: NonNullable<ReachRequest["off"]>) {
    this.#netif = netif;
    this.#facts = facts;
    this.#dhcp = !off.includes("dhcp");
  }

  /**
   * Takes a datagram if it is a question.
   *
   * @param p The packet, in RX.
   * @param ports Its ports, `source << 16 | destination`.
   * @returns Whether it was taken.
   */
  takes(p: Packet, ports: number): boolean {
    if (ports === (DHCP.CLIENT << 16 | DHCP.SERVER) && p.family === 4 && this.#dhcp) {
      const payload = RX.bytes.slice(p.transport + UDP_HEADER, p.end);
      const source = address4(p.network + 12);
      this.#when(({ answerDhcp }) => {
        const answer = answerDhcp(payload, source, this.#facts());
        if (answer) this.#send(answer.payload, answer.from, answer.to, answer.mac, ports);
      });
      return true;
    }
    return false;
  }

  /** Calls a function with the answers, now or when they are loaded. */
  #when(use: (answers: Answers) => void): void {
    if (answers) return use(answers);
    const waiting = this.#waiting;
    if (waiting.length < WAITING_MAX) waiting.push(use);
    if (waiting.length > 1) return;
    this.#netif.reactor.await(
      import("../../advice/answers.ts").then((module) => {
        answers = module;
        for (const one of waiting.splice(0)) one(module);
      }),
    );
  }

  /** Sends a datagram; `ports` are those of the question. */
  #send(payload: Uint8Array, from: Uint8Array, to: Uint8Array, mac: Uint8Array | null, ports: number): void {
    const { view, bytes } = TX;
    const [outside, inside] = [wordsOf(from), wordsOf(to)];
    const addresses = addressSum(outside, inside);
    const size = UDP_HEADER + payload.length;
    const u = this.#netif.headers(view, 0, { inside, outside, addresses }, PROTOCOL.UDP, size);
    if (mac) bytes.set(mac, MAC_AT);
    view.setInt32(u, ports << 16 | ports >>> 16);
    view.setUint32(u + 4, size << 16);
    bytes.set(payload, u + UDP_HEADER);
    // Computed here: clients that read frames do not expect it to be left to them.
    const checksum = finish(sum(view, u, size, addresses + PROTOCOL.UDP + size));
    view.setUint16(u + 6, checksum || 0xffff);
    this.#netif.write(u + size);
  }
}
