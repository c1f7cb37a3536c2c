// Codec of the DNS messages that a forwarder has to understand, RFC 1035 and RFC 6891; pure.
//
// A name is a text in lower case without a final dot; a byte that is no letter, digit, hyphen or underscore is \DDD, so a dot
// always separates two labels.

/** Bytes of a message's header. */
const HEADER = 12;
const LABEL_MAX = 63;
const NAME_MAX = 255;
const POINTER = 0xc0;
/** Pointers that are followed for one name at most: as many as it can have labels. */
const POINTERS_MAX = 127;
/** Aliases that are followed at most, and records that are read. */
const CHAIN_MAX = 16;
const RECORDS_MAX = 4096;
const CLASS_IN = 1;
/** Bits of the flags. */
const FLAG = { QR: 0x8000, OPCODE: 0x7800, AA: 0x0400, TC: 0x0200, RD: 0x0100, RA: 0x0080, AD: 0x0020, CD: 0x0010 };
const RCODE_MASK = 0xf;
/** The bit of an OPT record that asks for DNSSEC records. */
const DO = 0x8000;

/** Types of records. */
export const DNS_TYPE = {
  A: 1,
  CNAME: 5,
  AAAA: 28,
  OPT: 41,
  SVCB: 64,
  HTTPS: 65,
  /** From here on, a type stands for a transfer, a key exchange, or all types. */
  META: 249,
  META_LAST: 255,
} as const;

/** Response codes. */
export const RCODE = { NOERROR: 0, FORMERR: 1, SERVFAIL: 2, NOTIMP: 4, REFUSED: 5 } as const;

/** A question. */
export interface DnsQuery {
  /** Identifier of the message. */
  readonly id: number;
  /** The name. */
  readonly name: string;
  /** The type, such as {@linkcode DNS_TYPE}.A. */
  readonly type: number;
  /** Whether it is of the Internet's class. */
  readonly internet: boolean;
  /** Offset behind the question, which begins behind the header. */
  readonly end: number;
  /** Bytes that the asker takes by UDP, and whether it wants DNSSEC records; null without EDNS. */
  readonly edns: { readonly size: number; readonly dnssec: boolean } | null;
  /** Whether answers need not be validated, and whether the asker understands the bit that says that they are. */
  readonly unchecked: boolean;
  readonly authentic: boolean;
}

/** An address of an answer. */
export interface AnsweredAddress {
  /** 4 or 16 bytes. */
  readonly address: Uint8Array;
  /** Seconds for which it is valid: the least of its record and of all aliases that lead to it. */
  readonly ttl: number;
}

/** An answer. */
export interface DnsAnswer {
  /** Identifier of the message. */
  readonly id: number;
  /** The name that was asked for. */
  readonly name: string;
  /** The type that was asked for. */
  readonly type: number;
  /** Offset behind the question. */
  readonly end: number;
  /** Addresses of that name and type, also by aliases; of other records of the message none. */
  readonly addresses: readonly AnsweredAddress[];
}

/** A name and the offset behind it; null if there is none. */
function readName(bytes: Uint8Array, from: number): { readonly name: string; readonly end: number } | null {
  let name = "";
  let end = 0;
  let length = 0;
  let pointers = 0;
  for (let at = from;;) {
    const size = bytes[at];
    if (size === undefined) return null;
    if ((size & POINTER) === POINTER) {
      const low = bytes[at + 1];
      const target = (size & ~POINTER) << 8 | (low ?? 0);
      // A pointer leads back, so that there is an end.
      if (low === undefined || target >= at || ++pointers > POINTERS_MAX) return null;
      end ||= at + 2;
      at = target;
      continue;
    }
    if (size > LABEL_MAX || at + 1 + size > bytes.length) return null;
    length += 1 + size;
    if (length > NAME_MAX) return null;
    if (size === 0) return { name, end: end || at + 1 };
    if (name !== "") name += ".";
    for (let i = at + 1; i <= at + size; i++) name += character(bytes[i]!);
    at += 1 + size;
  }
}

/** A byte of a label as text. */
function character(byte: number): string {
  const lower = byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte;
  const plain = lower >= 0x61 && lower <= 0x7a || lower >= 0x30 && lower <= 0x39 || lower === 0x2d || lower === 0x5f;
  return plain ? String.fromCharCode(lower) : `\\${`${byte}`.padStart(3, "0")}`;
}

/** Reads 16 bits. */
function word(bytes: Uint8Array, at: number): number {
  return bytes[at]! << 8 | bytes[at + 1]!;
}

/** A record of a message. */
interface DnsRecord {
  readonly name: string;
  readonly type: number;
  readonly class: number;
  /** The TTL, or the extended flags of OPT; unsigned. */
  readonly ttl: number;
  /** Where its data is. */
  readonly from: number;
  readonly to: number;
}

function readRecord(bytes: Uint8Array, at: number): DnsRecord | null {
  const owner = readName(bytes, at);
  if (!owner || owner.end + 10 > bytes.length) return null;
  const { name, end } = owner;
  const from = end + 10;
  const to = from + word(bytes, end + 8);
  const ttl = (word(bytes, end + 4) * 0x10000) + word(bytes, end + 6);
  return to > bytes.length ? null : { name, type: word(bytes, end), class: word(bytes, end + 2), ttl, from, to };
}

/**
 * Reads a question.
 *
 * @example
 * ```ts
 * import { DNS_TYPE, type DnsQuery, RCODE, readQuery, writeQuery } from "./dns.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const bytes = writeQuery({ name: "example.org", type: DNS_TYPE.A, edns: null, unchecked: false, authentic: false }, 7);
 * const { id, name, type } = readQuery(bytes) as DnsQuery;
 * assertEquals([id, name, type], [7, "example.org", DNS_TYPE.A]);
 * bytes[5] = 2; // says that there are two questions
 * assertEquals(readQuery(bytes), RCODE.FORMERR);
 * ```
 *
 * @param bytes The message.
 * @returns The question; the code with which another message is to be answered; null if it deserves no answer.
 */
export function readQuery(bytes: Uint8Array): DnsQuery | number | null {
  if (bytes.length < HEADER) return null;
  const flags = word(bytes, 2);
  if (flags & FLAG.QR) return null;
  if (flags & FLAG.OPCODE) return RCODE.NOTIMP;
  // RFC 9619: one question. What else a question could carry is an OPT record, and signatures, which are not passed on.
  if (word(bytes, 4) !== 1 || word(bytes, 6) !== 0 || word(bytes, 8) !== 0 || word(bytes, 10) > 2) return RCODE.FORMERR;
  const asked = readName(bytes, HEADER);
  if (!asked || asked.end + 4 > bytes.length) return RCODE.FORMERR;
  const end = asked.end + 4;
  let edns: DnsQuery["edns"] = null;
  for (let i = word(bytes, 10), at = end; i > 0; i--) {
    const record = readRecord(bytes, at);
    if (!record) return RCODE.FORMERR;
    at = record.to;
    if (record.type === DNS_TYPE.OPT) edns = { size: record.class, dnssec: (record.ttl & DO) !== 0 };
  }
  return {
    id: word(bytes, 0),
    name: asked.name,
    type: word(bytes, asked.end),
    internet: word(bytes, asked.end + 2) === CLASS_IN,
    end,
    edns,
    unchecked: (flags & FLAG.CD) !== 0,
    authentic: (flags & FLAG.AD) !== 0,
  };
}

/**
 * Writes a question anew: nothing of the asker's message is in it but what the parameters say.
 *
 * @param query The question; its name has only letters, digits, hyphens and underscores.
 * @param id Identifier of the message.
 * @returns The message.
 */
export function writeQuery(
  { name, type, edns, unchecked, authentic }: Pick<DnsQuery, "name" | "type" | "edns" | "unchecked" | "authentic">,
  id: number,
): Uint8Array<ArrayBuffer> {
  const flags = FLAG.RD | (unchecked ? FLAG.CD : 0) | (authentic ? FLAG.AD : 0);
  const pair = (value: number) => [value >> 8, value & 0xff];
  const labels = name.split(".").flatMap((label) => [label.length, ...new TextEncoder().encode(label)]);
  const question = [...labels, 0, ...pair(type), ...pair(CLASS_IN)];
  const opt = edns ? [0, ...pair(DNS_TYPE.OPT), ...pair(edns.size), 0, 0, ...pair(edns.dnssec ? DO : 0), 0, 0] : [];
  return Uint8Array.from([...pair(id), ...pair(flags), 0, 1, 0, 0, 0, 0, 0, edns ? 1 : 0, ...question, ...opt]);
}

/** The offset behind the question of a message that {@linkcode writeQuery} makes of a name. */
export function questionEnd(name: string): number {
  return HEADER + name.length + 2 + 4;
}

/**
 * Writes an answer without records.
 *
 * @param question The message that is answered.
 * @param end Offset behind its question, or that of the header's end if that cannot be read.
 * @param rcode The response code.
 * @returns The answer.
 */
export function writeAnswer(question: Uint8Array, rcode: number, end: number = HEADER): Uint8Array<ArrayBuffer> {
  const answer = question.slice(0, end);
  const flags = FLAG.QR | FLAG.RA | word(question, 2) & (FLAG.OPCODE | FLAG.RD | FLAG.CD) | rcode;
  answer.set([flags >> 8, flags & 0xff, 0, end > HEADER ? 1 : 0, 0, 0, 0, 0, 0, 0], 2);
  return answer;
}

/**
 * Makes an answer that of the asker's message: its identifier, and its name in the letters in which it was asked for.
 *
 * @param answer The answer, which is changed.
 * @param question The asker's message.
 * @param end Offset behind its question, which is also that of the answer.
 */
export function readdress(answer: Uint8Array, question: Uint8Array, end: number): void {
  answer.set(question.subarray(0, 2));
  answer.set(question.subarray(HEADER, end), HEADER);
}

/** The response code of a message, and whether it is truncated. */
export function outcomeOf(answer: Uint8Array): { readonly rcode: number; readonly truncated: boolean } {
  const flags = word(answer, 2);
  return { rcode: flags & RCODE_MASK, truncated: (flags & FLAG.TC) !== 0 };
}

/**
 * Reads an answer with one question of the Internet's class.
 *
 * Only records of the answer section count that belong to the name that was asked for, or to one that it is an alias of.
 *
 * @param bytes The message.
 * @returns The answer; null if it is none, or malformed.
 */
export function readAnswer(bytes: Uint8Array): DnsAnswer | null {
  if (bytes.length < HEADER || !(word(bytes, 2) & FLAG.QR) || word(bytes, 4) !== 1) return null;
  const asked = readName(bytes, HEADER);
  if (!asked || asked.end + 4 > bytes.length || word(bytes, asked.end + 2) !== CLASS_IN) return null;
  const type = word(bytes, asked.end);
  const end = asked.end + 4;
  const size = type === DNS_TYPE.A ? 4 : type === DNS_TYPE.AAAA ? 16 : 0;
  const found: (AnsweredAddress & { readonly name: string })[] = [];
  const aliases = new Map<string, { readonly name: string; readonly ttl: number }>();
  const count = size > 0 ? Math.min(word(bytes, 6), RECORDS_MAX) : 0;
  for (let i = 0, at = end; i < count; i++) {
    const record = readRecord(bytes, at);
    if (!record) {
      if (outcomeOf(bytes).truncated) break;
      return null;
    }
    at = record.to;
    if (record.class !== CLASS_IN) continue;
    const ttl = record.ttl > 0x7fffffff ? 0 : record.ttl; // RFC 2181 section 8
    if (record.type === type && record.to - record.from === size) {
      found.push({ name: record.name, address: bytes.slice(record.from, record.to), ttl });
    } else if (record.type === DNS_TYPE.CNAME && !aliases.has(record.name)) {
      const target = readName(bytes, record.from);
      if (target) aliases.set(record.name, { name: target.name, ttl });
    }
  }
  const addresses: AnsweredAddress[] = [];
  let [name, least] = [asked.name, Infinity];
  for (let i = 0; i <= CHAIN_MAX; i++) {
    for (const one of found) {
      if (one.name === name) addresses.push({ address: one.address, ttl: Math.min(one.ttl, least) });
    }
    const alias = aliases.get(name);
    if (!alias || addresses.length > 0) break;
    name = alias.name;
    least = Math.min(least, alias.ttl);
  }
  return { id: word(bytes, 0), name: asked.name, type, end, addresses };
}
