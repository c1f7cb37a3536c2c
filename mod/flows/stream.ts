// Flows for who has asked, as lines of JSON, piece by piece: a list of them, or each at its start and at its end.
//
// This is loaded when somebody asks for the first time. What a list shows is copied at one moment, numbers only. The lines
// are made piece by piece, between the rounds of the loop, so that transfers go on. What a follower has not taken waits, up
// to a limit; beyond that it is counted, and the follower is told how much is missing.

import type { IpWords } from "../../ffi/net/sockaddr.ts";
import { toJson } from "../base/visible.ts";
import { PROTOCOL } from "../inet/header.ts";
import { formatWords } from "../inet/ip.ts";
import {
  type Counted,
  ENDINGS,
  type FlowCounts,
  type FlowDestination,
  type FlowEnd,
  type FlowEvent,
  type FlowFacts,
  type FlowObserver,
  type FlowProtocol,
  type FlowRecord,
  type FlowState,
} from "./contract.ts";
import type { Ledger } from "./ledger.ts";
import type { Total } from "./totals.ts";

/** Characters of a piece, and those that may wait for a follower: at the end, both are to fit into a pipe of a MiB. */
const PIECE = 24 * 1024;
const WAITING_MAX = 960 * 1024;

/** A line of a list as it is sent. The last one has what is left. */
export type ListLine =
  | { readonly flow: FlowRecord }
  | { readonly destination: FlowDestination }
  | { readonly end: { readonly time: string; readonly other: FlowCounts } };

/** What a reader has not taken, and a piece in place of it, which says how much is missing. */
export interface RestOfFlows {
  readonly whole: Uint8Array;
  readonly lost: Uint8Array;
}

/** What is sent to who has asked. */
export interface FlowStream {
  /** The next piece: whole lines; null if there is none at the moment. */
  next(): Uint8Array | null;
  /** Whether nothing will come any more. */
  readonly over: boolean;
  /**
   * What is left where nobody waits for the reader.
   *
   * @param piece The piece that came last, and was not taken.
   * @returns That piece and all that follows; null if the reader sees by itself that something is missing.
   */
  rest(piece: Uint8Array): RestOfFlows | null;
  /** Ends it. */
  close(): void;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** A moment, RFC 3339; what the data path knows of time is `performance.now()`. */
function clock(): (at: number) => string {
  const offset = Date.now() - performance.now();
  return (at) => new Date(offset + at).toISOString();
}

function protocolOf(protocol: number): FlowProtocol {
  switch (protocol) {
    case PROTOCOL.TCP:
      return "tcp";
    case PROTOCOL.UDP:
      return "udp";
    default:
      return protocol === PROTOCOL.ICMP ? "icmp" : "icmpv6";
  }
}

/** An end; the other end of a ping has no port. */
function endOf(address: IpWords, port: number, ported = true): FlowEnd {
  return { address: formatWords(address), port: ported ? port : null };
}

function hasPorts(protocol: number): boolean {
  return protocol === PROTOCOL.TCP || protocol === PROTOCOL.UDP;
}

/** What the ledger has of a flow. */
interface Entry {
  readonly facts: FlowFacts;
  readonly total: Total;
  readonly number: number;
  readonly since: number;
  readonly sent: number;
  readonly received: number;
}

function entryOf(ledger: Ledger, slot: number): Entry {
  return {
    facts: ledger.flows[slot]!.facts,
    total: ledger.destinations[slot]!,
    number: ledger.numbers[slot]!,
    since: ledger.since[slot]!,
    sent: ledger.sent[slot]!,
    received: ledger.received[slot]!,
  };
}

/** A flow as programs get it. */
function recordOf({ facts, total, number, since, sent, received }: Entry, now: number, text: (at: number) => string) {
  const { protocol, inward, inside, insidePort, outside, outsidePort, state } = facts;
  const ported = hasPorts(protocol);
  const answered: FlowState = (inward ? sent : received) > 0 ? "answered" : "unanswered";
  const record: FlowRecord = {
    flow: number,
    protocol: protocolOf(protocol),
    direction: inward ? "in" : "out",
    inside: endOf(inside, insidePort),
    outside: endOf(outside, outsidePort, ported),
    reached: endOf(total.address, total.port, ported),
    name: total.name,
    state: state ?? answered,
    since: text(since),
    age: Math.max(0, Math.round(now - since)) / 1000,
    sent,
    received,
  };
  return record;
}

/** Numbers of a destination at one moment. */
type Row = { -readonly [Key in keyof FlowCounts]: number } & { readonly total: Total; last: number };

function rowOf(total: Total): Row {
  const { flows, active, refused, sent, received, last } = total;
  return { total, flows, active, refused, sent, received, last };
}

function countsOf({ flows, active, refused, sent, received }: Row): FlowCounts {
  return { flows, active, refused, sent, received };
}

function destinationOf(row: Row, text: (at: number) => string): FlowDestination {
  const { protocol, inward, address, port, name, first } = row.total;
  return {
    protocol: protocolOf(protocol),
    direction: inward ? "in" : "out",
    ...endOf(address, port, hasPorts(protocol)),
    name,
    ...countsOf(row),
    first: text(first),
    last: text(row.last),
  };
}

/** The numbers of a ledger at one moment. */
interface Picture {
  readonly flows: readonly { readonly flow: Counted; readonly slot: number; readonly total: Total }[];
  readonly ledger: Pick<Ledger, "sent" | "received" | "since" | "numbers">;
  readonly now: number;
}

function picture(ledger: Ledger): Picture {
  const { flows, destinations, sent, received, since, numbers } = ledger;
  const live = [];
  for (let slot = 1; slot < flows.length; slot++) {
    const flow = flows[slot]!;
    if (flow !== null) live.push({ flow, slot, total: destinations[slot]! });
  }
  const size = flows.length;
  const part = (array: Float64Array<ArrayBuffer>) => array.slice(0, size);
  return {
    flows: live,
    ledger: { sent: part(sent), received: part(received), since: part(since), numbers: part(numbers) },
    now: performance.now(),
  };
}

/** The records of a picture, made one by one. */
function* recordsOf({ flows, ledger, now }: Picture): Generator<FlowRecord> {
  const text = clock();
  for (const { flow, slot, total } of flows) {
    const { sent, received, since, numbers } = ledger;
    const numbersOf = { number: numbers[slot]!, since: since[slot]!, sent: sent[slot]!, received: received[slot]! };
    yield recordOf({ facts: flow.facts, total, ...numbersOf }, now, text);
  }
}

/** All destinations, with the bytes of flows that have not ended. */
function rowsOf(totals: Ledger["totals"], { flows, ledger: { sent, received }, now }: Picture) {
  const rows = new Map<Total, Row>();
  for (const total of totals.kept.values()) rows.set(total, rowOf(total));
  const other = rowOf(totals.other);
  for (const { slot, total } of flows) {
    const row = rows.get(total) ?? other;
    row.sent += sent[slot]!;
    row.received += received[slot]!;
    row.last = now;
  }
  return { rows: [...rows.values()], other };
}

/** The lines of a list. */
function* listLines(seen: Picture, rows: readonly Row[], other: Row): Generator<ListLine> {
  const text = clock();
  for (const flow of recordsOf(seen)) yield { flow };
  for (const row of rows) yield { destination: destinationOf(row, text) };
  yield { end: { time: text(seen.now), other: countsOf(other) } };
}

/** Whole lines from a source, of some size; null if it has none. */
function pieceOf(lines: Iterator<unknown>): Uint8Array | null {
  let text = "";
  while (text.length < PIECE) {
    const { done, value } = lines.next();
    if (done) break;
    text += `${toJson(value)}\n`;
  }
  return text === "" ? null : encoder.encode(text);
}

/** A list of the flows at this moment. */
class List implements FlowStream {
  readonly #lines: Iterator<ListLine>;
  over = false;

  constructor(ledger: Ledger) {
    const seen = picture(ledger);
    const { rows, other } = rowsOf(ledger.totals, seen);
    this.#lines = listLines(seen, rows, other);
  }

  next(): Uint8Array | null {
    const piece = pieceOf(this.#lines);
    this.over = piece === null;
    return piece;
  }

  /** A list that is not whole has no end. */
  rest(): null {
    return null;
  }

  close(): void {
    this.over = true;
  }
}

/** All who follow the flows of one ledger: a line is made once for all of them. */
class Followers implements FlowObserver {
  readonly all = new Set<Follower>();

  constructor(readonly ledger: Ledger) {}

  began(slot: number): void {
    this.#tell(slot, (record) => ({ event: "start", time: record.since, ...record }));
  }

  ended(slot: number, how: number): void {
    this.#tell(slot, (record) => ({ event: "end", time: new Date().toISOString(), how: ENDINGS[how]!, ...record }));
  }

  #tell(slot: number, event: (record: FlowRecord) => FlowEvent): void {
    let line: string | null = null;
    for (const follower of this.all) {
      if (!follower.hasRoom()) continue;
      line ??= `${toJson(event(recordOf(entryOf(this.ledger, slot), performance.now(), clock())))}\n`;
      follower.put(line);
    }
  }
}

/** A line that says how much is missing. */
function lostPiece(count: number): Uint8Array {
  const event: FlowEvent = { event: "lost", time: new Date().toISOString(), count };
  return encoder.encode(`${JSON.stringify(event)}\n`);
}

/** Flows as they begin and end; at first those that there are. */
class Follower implements FlowStream {
  readonly over = false;
  readonly #present: Iterator<FlowEvent>;
  readonly #followers: Followers;
  #lines: string[] = [];
  #waiting = 0;
  #lost = 0;

  constructor(ledger: Ledger, readonly onMore: () => void) {
    const starts = recordsOf(picture(ledger)).map((record): FlowEvent => ({
      event: "start",
      time: record.since,
      ...record,
    }));
    this.#present = starts;
    this.#followers = ledger.observer instanceof Followers ? ledger.observer : new Followers(ledger);
    this.#followers.all.add(this);
    ledger.observer = this.#followers;
  }

  /** Whether a line has room; if not, it is counted as lost, and so are all others until that was told. */
  hasRoom(): boolean {
    if (this.#lost === 0 && this.#waiting < WAITING_MAX) return true;
    this.#lost++;
    return false;
  }

  put(line: string): void {
    this.#lines.push(line);
    this.#waiting += line.length;
    if (this.#lines.length === 1) this.onMore();
  }

  next(): Uint8Array | null {
    const present = pieceOf(this.#present);
    if (present !== null) return present;
    if (this.#lines.length === 0 && this.#lost > 0) {
      const piece = lostPiece(this.#lost);
      this.#lost = 0;
      return piece;
    }
    let [text, count] = ["", 0];
    while (count < this.#lines.length && text.length < PIECE) text += this.#lines[count++];
    if (count === 0) return null;
    this.#lines = this.#lines.slice(count);
    this.#waiting -= text.length;
    return encoder.encode(text);
  }

  rest(piece: Uint8Array): RestOfFlows {
    let text = decoder.decode(piece);
    for (let next; (next = this.next()) !== null;) text += decoder.decode(next);
    let count = 0;
    for (const line of text.trimEnd().split("\n")) {
      const event: FlowEvent = JSON.parse(line);
      count += event.event === "lost" ? event.count : 1;
    }
    return { whole: encoder.encode(text), lost: lostPiece(count) };
  }

  close(): void {
    const { all, ledger } = this.#followers;
    all.delete(this);
    if (all.size === 0) ledger.observer = null;
  }
}

/**
 * Lists the flows of a namespace as they are at this moment.
 *
 * @param ledger Its ledger.
 * @returns The list, piece by piece: lines of {@linkcode ListLine}.
 */
export function listFlows(ledger: Ledger): FlowStream {
  return new List(ledger);
}

/**
 * Tells of each flow of a namespace at its start and at its end, until it is closed.
 *
 * @param ledger Its ledger.
 * @param onMore Called when there is something to send again.
 * @returns The events, piece by piece: lines of {@linkcode FlowEvent}.
 */
export function followFlows(ledger: Ledger, onMore: () => void): FlowStream {
  return new Follower(ledger, onMore);
}
