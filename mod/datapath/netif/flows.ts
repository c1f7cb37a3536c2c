// The table of a namespace's flows, by protocol, addresses and ports.

import type { Packet } from "../../inet/packet.ts";
import { WordHash } from "./hash.ts";
import { countFlow } from "./fd_budget.ts";
import { FLOW_GARBAGE } from "./tidy.ts";

const KEY = [...crypto.getRandomValues(new Int32Array(2))] as [number, number];

/** What the flows of every protocol have in common. */
export abstract class Flow {
  /** Next flow in the same chain. */
  chained: Flow | null = null;
  /** Hash of the key. */
  hash = 0;
  /** Place in {@linkcode FlowTable.list}. */
  place = -1;
  /** Protocol number of IP. */
  readonly protocol: number;
  /** 4 or 6. */
  readonly family: number;
  /** The namespace's address: words 0 to 3. */
  readonly s0: number;
  readonly s1: number;
  readonly s2: number;
  readonly s3: number;
  /** The address it talks to, as it knows it. */
  readonly d0: number;
  readonly d1: number;
  readonly d2: number;
  readonly d3: number;

  /**
   * @param p The packet that begins it.
   * @param ports Its port and the other side's: `port << 16 | port`.
   */
  constructor(p: Packet, readonly ports: number) {
    this.protocol = p.protocol;
    this.family = p.family;
    this.s0 = p.s0;
    this.s1 = p.s1;
    this.s2 = p.s2;
    this.s3 = p.s3;
    this.d0 = p.d0;
    this.d1 = p.d1;
    this.d2 = p.d2;
    this.d3 = p.d3;
  }

  /** Looks after the flow as time goes by; `now` is in milliseconds. */
  abstract tick(now: number): void;
  /** Ends it without a word to either side but what the kernel says when a socket is closed. */
  abstract close(): void;
}

/** Port outside. */
export function outsidePort(flow: Flow): number {
  return flow.ports & 0xffff;
}

/**
 * A hash table whose look-up allocates nothing; who is inside cannot choose what collides, as the hash is seeded.
 *
 * @example
 * ```ts
 * import { Flow, FlowTable } from "./flows.ts";
 * import { Packet, PROTOCOL } from "../../inet/packet.ts";
 * import { assertEquals } from "@std/assert";
 *
 * class Some extends Flow {
 *   override tick(): void {}
 *   override close(): void {}
 * }
 * const table = new FlowTable();
 * const packet = Object.assign(new Packet(), { family: 4, protocol: PROTOCOL.UDP, s3: 1, d3: 2 });
 * assertEquals(table.find(packet, 5 << 16 | 53), null);
 * const flow = new Some(packet, 5 << 16 | 53);
 * table.add(flow, packet);
 * assertEquals(table.find(packet, 5 << 16 | 53), flow);
 * table.remove(flow);
 * assertEquals(table.size, 0);
 * ```
 */
export class FlowTable {
  /** All flows, in no order. */
  readonly list: Flow[] = [];
  #buckets: (Flow | null)[] = new Array(64).fill(null);
  #words = new WordHash(...KEY);

  /** Number of flows. */
  get size(): number {
    return this.list.length;
  }

  #hash(p: Packet, ports: number): number {
    const hash = this.#words;
    hash.begin();
    hash.add(ports);
    hash.add(p.s3);
    hash.add(p.d3);
    if (p.family === 4) return hash.end(p.protocol);
    hash.add(p.s0);
    hash.add(p.s1);
    hash.add(p.s2);
    hash.add(p.d0);
    hash.add(p.d1);
    hash.add(p.d2);
    return hash.end(p.protocol ^ 1 << 5);
  }

  /**
   * The flow that a packet from inside belongs to.
   *
   * @param p The packet.
   * @param ports Its source port and destination port, `source << 16 | destination`.
   * @returns The flow, or null.
   */
  find(p: Packet, ports: number): Flow | null {
    const hash = this.#hash(p, ports);
    let flow = this.#buckets[hash & (this.#buckets.length - 1)]!;
    while (flow !== null) {
      if (
        flow.hash === hash && flow.ports === ports && flow.d3 === p.d3 && flow.s3 === p.s3 &&
        flow.protocol === p.protocol && flow.family === p.family && flow.d2 === p.d2 && flow.d1 === p.d1 &&
        flow.d0 === p.d0 && flow.s2 === p.s2 && flow.s1 === p.s1 && flow.s0 === p.s0
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
    countFlow(1);
    if (this.list.length > this.#buckets.length) this.#resize(this.#buckets.length * 4);
    else this.#chain(flow);
  }

  /** Removes a flow; one that is not there stays so. */
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
    countFlow(-1);
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
