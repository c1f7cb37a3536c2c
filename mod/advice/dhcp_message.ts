// Codec of DHCP messages for IPv4: RFC 2131, RFC 2132, long options (RFC 3396) and option overload; pure.

/** Operation codes. */
export const OP = { REQUEST: 1, REPLY: 2 } as const;

/** Types of messages. */
export const TYPE = {
  DISCOVER: 1,
  OFFER: 2,
  REQUEST: 3,
  DECLINE: 4,
  ACK: 5,
  NAK: 6,
  RELEASE: 7,
  INFORM: 8,
} as const;

/** Numbers of options. */
export const OPTION = {
  PAD: 0,
  MASK: 1,
  ROUTERS: 3,
  DNS: 6,
  HOSTNAME: 12,
  DOMAIN: 15,
  MTU: 26,
  BROADCAST: 28,
  REQUESTED: 50,
  LEASE: 51,
  OVERLOAD: 52,
  TYPE: 53,
  SERVER: 54,
  PARAMETERS: 55,
  MESSAGE: 56,
  SIZE: 57,
  RENEW: 58,
  REBIND: 59,
  CLIENT: 61,
  RAPID: 80,
  FQDN: 81,
  SEARCH: 119,
  ROUTES: 121,
  END: 255,
} as const;

/** A message. */
export interface DhcpMessage {
  /** OP.*. */
  readonly op: number;
  /** Type and length of the client's hardware address. */
  readonly hardwareType: number;
  readonly hardwareLength: number;
  /** Number by which the client knows the answer. */
  readonly transaction: number;
  /** Whether the client takes broadcasts only: the flag of RFC 2131 section 2. */
  readonly broadcast: boolean;
  /** Address that the client has: `ciaddr`. */
  readonly client: Uint8Array;
  /** Address that the client gets: `yiaddr`. */
  readonly yours: Uint8Array;
  /** Address of the relay agent: `giaddr`. */
  readonly relay: Uint8Array;
  /** Hardware address of the client, 16 bytes: `chaddr`. */
  readonly hardware: Uint8Array;
  /** Values of the options by number, in their order. */
  readonly options: ReadonlyMap<number, Uint8Array>;
}

/** Offsets of the fixed part. */
const AT = { HARDWARE: 28, SNAME: 44, FILE: 108, COOKIE: 236, OPTIONS: 240 } as const;
const COOKIE = 0x63825363;
const BROADCAST = 0x8000;
/** Values of option 52: which of the two fields have options. */
const OVERLOAD = { FILE: 1, SNAME: 2 } as const;
/** Bytes of one option's value; longer values take several. */
const VALUE_MAX = 255;
/** Smallest size of a message: that of BOOTP, RFC 951. */
const MESSAGE_MIN = 300;

/** Reads options from a field; returns whether it is well-formed. */
function readOptions(bytes: Uint8Array, parts: Map<number, Uint8Array[]>): boolean {
  for (let at = 0; at < bytes.length;) {
    const code = bytes[at++]!;
    if (code === OPTION.PAD) continue;
    if (code === OPTION.END) return true;
    const length = bytes[at++];
    if (length === undefined || at + length > bytes.length) return false;
    const list = parts.get(code) ?? [];
    list.push(bytes.subarray(at, at + length));
    parts.set(code, list);
    at += length;
  }
  return true; // the end may be missing, as with BOOTP
}

function join(parts: readonly Uint8Array[]): Uint8Array {
  const joined = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

/**
 * Parses a message.
 *
 * @example
 * ```ts
 * import { encodeDhcp, OP, OPTION, parseDhcp, TYPE } from "./dhcp_message.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const none = new Uint8Array(4);
 * const message = {
 *   op: OP.REQUEST,
 *   hardwareType: 1,
 *   hardwareLength: 6,
 *   transaction: 7,
 *   broadcast: true,
 *   client: none,
 *   yours: none,
 *   relay: none,
 *   hardware: new Uint8Array(16),
 *   options: new Map([[OPTION.TYPE, Uint8Array.of(TYPE.DISCOVER)]]),
 * };
 * assertEquals(parseDhcp(encodeDhcp(message, 576)), message);
 * assertEquals(parseDhcp(new Uint8Array(100)), null);
 * ```
 *
 * @param bytes The payload of a datagram.
 * @returns The message; null if it is malformed.
 */
export function parseDhcp(bytes: Uint8Array): DhcpMessage | null {
  if (bytes.length < AT.OPTIONS) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (view.getUint32(AT.COOKIE) !== COOKIE) return null;
  const parts = new Map<number, Uint8Array[]>();
  if (!readOptions(bytes.subarray(AT.OPTIONS), parts)) return null;
  const [overload = 0] = parts.get(OPTION.OVERLOAD)?.[0] ?? [];
  parts.delete(OPTION.OVERLOAD);
  if (overload & OVERLOAD.FILE && !readOptions(bytes.subarray(AT.FILE, AT.COOKIE), parts)) return null;
  if (overload & OVERLOAD.SNAME && !readOptions(bytes.subarray(AT.SNAME, AT.FILE), parts)) return null;
  parts.delete(OPTION.OVERLOAD);
  return {
    op: bytes[0]!,
    hardwareType: bytes[1]!,
    hardwareLength: bytes[2]!,
    transaction: view.getUint32(4),
    broadcast: (view.getUint16(10) & BROADCAST) !== 0,
    client: bytes.slice(12, 16),
    yours: bytes.slice(16, 20),
    relay: bytes.slice(24, 28),
    hardware: bytes.slice(AT.HARDWARE, AT.SNAME),
    options: new Map([...parts].map(([code, list]) => [code, join(list)])),
  };
}

/** An option as it is written. */
function written(code: number, value: Uint8Array): Uint8Array {
  const parts: Uint8Array[] = [];
  for (let at = 0; at < value.length || at === 0; at += VALUE_MAX) {
    const part = value.subarray(at, at + VALUE_MAX);
    parts.push(Uint8Array.of(code, part.length), part);
  }
  return join(parts);
}

/** A field of options, and how much of it is used. */
class Field {
  used = 0;
  readonly options: Uint8Array[] = [];

  constructor(readonly at: number, readonly size: number) {}

  /** Takes an option if there is room for it and for the end. */
  take(option: Uint8Array): boolean {
    if (this.used + option.length + 1 > this.size) return false;
    this.used += option.length;
    this.options.push(option);
    return true;
  }

  write(out: Uint8Array): void {
    out.set(join([...this.options, Uint8Array.of(OPTION.END)]), this.at);
  }
}

/**
 * Encodes a message. Options that have no room go into the fields `file` and `sname` (option overload), and those that
 * have no room there either are left out.
 *
 * @param message The message; option 52 is written as needed.
 * @param limit Greatest size of the message, bytes.
 * @returns The payload of a datagram.
 */
export function encodeDhcp(message: DhcpMessage, limit: number): Uint8Array {
  const options = [...message.options].map(([code, value]) => written(code, value));
  const total = options.reduce((sum, { length }) => sum + length, 1);
  const room = Math.max(limit, MESSAGE_MIN) - AT.OPTIONS;
  const overloads = total > room;
  const main = new Field(AT.OPTIONS, overloads ? room - 3 : room);
  const file = new Field(AT.FILE, AT.COOKIE - AT.FILE);
  const sname = new Field(AT.SNAME, AT.FILE - AT.SNAME);
  const fields = overloads ? [main, file, sname] : [main];
  for (const option of options) fields.find((field) => field.take(option));
  const overload = (file.used && OVERLOAD.FILE) | (sname.used && OVERLOAD.SNAME);
  if (overload) main.options.push(written(OPTION.OVERLOAD, Uint8Array.of(overload)));
  const size = AT.OPTIONS + main.used + (overload ? 3 : 0) + 1;
  const out = new Uint8Array(Math.max(size, MESSAGE_MIN));
  const view = new DataView(out.buffer);
  out.set([message.op, message.hardwareType, message.hardwareLength]);
  view.setUint32(4, message.transaction);
  view.setUint16(10, message.broadcast ? BROADCAST : 0);
  out.set(message.client, 12);
  out.set(message.yours, 16);
  out.set(message.relay, 24);
  out.set(message.hardware, AT.HARDWARE);
  view.setUint32(AT.COOKIE, COOKIE);
  main.write(out);
  if (file.used) file.write(out);
  if (sname.used) sname.write(out);
  return out;
}
