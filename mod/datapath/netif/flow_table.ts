// The flows of a namespace, by protocol, addresses and ports.

import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import type { Counted, FlowFacts } from "../../flows/contract.ts";
import { addressSum, copyOf, sameIp } from "../../inet/ip_words.ts";
import type { Packet } from "../../inet/packet.ts";
import { Garbage } from "../../reactor/garbage.ts";
import { FD_BUDGET } from "./fd_budget.ts";
import { WordHash } from "../../inet/word_hash.ts";

const KEY = [...crypto.getRandomValues(new Int32Array(2))] as [number, number];

/** Closed flows of all namespaces that are not collected yet; 500 of them justify a collection, twice a minute at most. */
export const FLOW_GARBAGE: Garbage = new Garbage(500, 30_000);

/** What identifies a flow of any protocol. */
export abstract class Flow implements Counted {
  /** Next flow in the same bucket. */
  chained: Flow | null = null;
  /** Hash of the key. */
  hash = 0;
  /** Index in {@linkcode FlowTable.list}, or -1. */
  place = -1;
  /** Its place in the ledger; 0 if it is not counted. */
  slot = 0;
  /** Protocol above IP. */
  readonly protocol: number;
  /** 4 or 6. */
  readonly family: number;
  /** Address of the namespace. */
  readonly inside: IpWords;
  /** Address of the peer as the namespace knows it. */
  readonly outside: IpWords;
  /** Sum of both addresses for checksums. */
  readonly addresses: number;

  /**
   * @param p The packet that begins the flow.
   * @param ports Port of the namespace and port of the peer: `inside << 16 | outside`.
   */
  constructor(p: Packet, readonly ports: number) {
    this.protocol = p.protocol;
    this.family = p.family;
    this.inside = copyOf(p.source);
    this.outside = copyOf(p.destination);
    this.addresses = addressSum(this.inside, this.outside);
  }

  /** Whether it was begun from outside. */
  get inward(): boolean {
    return false;
  }

  /** Its state, if its protocol has any. */
  protected get progress(): FlowFacts["state"] {
    return null;
  }

  get facts(): FlowFacts {
    const { protocol, inward, inside, outside, ports } = this;
    return {
      ...{ protocol, inward, inside, insidePort: ports >>> 16, outside, outsidePort: ports & 0xffff },
      state: this.progress,
    };
  }

  /**
   * Called regularly, for time-outs.
   *
   * @param now Milliseconds.
   */
  abstract tick(now: number): void;
  /** Closes the flow; neither side gets more than the kernel sends when a socket is closed. */
  abstract close(): void;
}

/**
 * A hash table whose look-up allocates nothing. The hash is keyed, so the namespace cannot cause collisions.
 *
 * @example
 * ```ts
 * import { Flow, FlowTable } from "./flow_table.ts";
 * import { Packet } from "../../inet/packet.ts";
 * import { PROTOCOL } from "../../inet/header.ts";
 * import { assertEquals } from "@std/assert";
 *
 * class Some extends Flow {
 *   override tick(): void {}
 *   override close(): void {}
 * }
 * const table = new FlowTable();
 * const packet = Object.assign(new Packet(), { family: 4, protocol: PROTOCOL.UDP });
 * packet.source.w3 = 1;
 * assertEquals(table.find(packet, 5 << 16 | 53), null);
 * const flow = new Some(packet, 5 << 16 | 53);
 * table.add(flow, packet);
 * assertEquals(table.find(packet, 5 << 16 | 53), flow);
 * table.remove(flow);
 * assertEquals(table.list.length, 0);
 * ```
 */
export class FlowTable {
  /** All flows, in no order. */
  readonly list: Flow[] = [];
  #buckets: (Flow | null)[] = new Array(64).fill(null);
  #words = new WordHash(...KEY);

  #hash(p: Packet, ports: number): number {
    const { source, destination } = p;
    const hash = this.#words;
    hash.begin();
    hash.add(ports);
    hash.add(source.w3);
    hash.add(destination.w3);
    if (p.family === 4) return hash.end(p.protocol);
    hash.add(source.w0);
    hash.add(source.w1);
    hash.add(source.w2);
    hash.add(destination.w0);
    hash.add(destination.w1);
    hash.add(destination.w2);
    return hash.end(p.protocol ^ 1 << 5);
  }

  /**
   * The flow of a packet from the namespace.
   *
   * @param p The packet.
   * @param ports Its ports: `source << 16 | destination`.
   * @returns The flow, or null.
   */
  find(p: Packet, ports: number): Flow | null {
    const hash = this.#hash(p, ports);
    let flow = this.#buckets[hash & (this.#buckets.length - 1)]!;
    while (flow !== null) {
      if (
        flow.hash === hash && flow.ports === ports && flow.protocol === p.protocol &&
        sameIp(flow.outside, p.destination) && sameIp(flow.inside, p.source)
      ) return flow;
      flow = flow.chained!;
    }
    return null;
  }

  /**
   * Adds a flow.
   *
   * @param flow The flow.
   * @param p The packet that begins it.
   */
  add(flow: Flow, p: Packet): void {
    flow.hash = this.#hash(p, flow.ports);
    flow.place = this.list.push(flow) - 1;
    FD_BUDGET.countFlow(1);
    if (this.list.length > this.#buckets.length) this.#resize(this.#buckets.length * 4);
    else this.#chain(flow);
  }

  /** Removes a flow if it is in the table. */
  remove(flow: Flow): void {
    if (flow.place < 0) return;
    const slot = flow.hash & (this.#buckets.length - 1);
    let other = this.#buckets[slot]!;
    if (other === flow) this.#buckets[slot] = flow.chained;
    else {
      while (other.chained !== flow) other = other.chained!;
      other.chained = flow.chained;
    }
    flow.chained = null;
    const last = this.list.pop()!;
    if (last !== flow) {
      this.list[flow.place] = last;
      last.place = flow.place;
    }
    flow.place = -1;
    FD_BUDGET.countFlow(-1);
    FLOW_GARBAGE.add();
    if (this.#buckets.length > 64 && this.list.length * 16 < this.#buckets.length) {
      this.#resize(this.#buckets.length / 4);
    }
  }

  #chain(flow: Flow): void {
    const slot = flow.hash & (this.#buckets.length - 1);
    flow.chained = this.#buckets[slot]!;
    this.#buckets[slot] = flow;
  }

  #resize(size: number): void {
    this.#buckets = new Array(size).fill(null);
    for (const flow of this.list) this.#chain(flow);
  }
}
