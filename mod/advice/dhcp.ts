// Answers to DHCP clients, RFC 2131; pure.
//
// There is one client and one address, so nothing is remembered: what a client has is right if it is that address. The
// address is the client's for ever unless it asks for a shorter time, as nobody else can get it.

import { AF } from "../../ffi/net/constants.ts";
import { inPrefix, parseIp, sameBytes } from "../inet/ip.ts";
import { type DhcpMessage, encodeDhcp, OP, OPTION, parseDhcp, TYPE } from "./dhcp_message.ts";
import type { AdviceFacts, AdvisedRoute, FamilyAdvice } from "./facts.ts";
import { familyAdvice, prefixOf } from "./family.ts";
import { encodeNames } from "./names.ts";

/** An answer. */
export interface DhcpAnswer {
  /** Payload of the datagram, from port 67 to port 68. */
  readonly payload: Uint8Array;
  /** Address of the server. */
  readonly from: Uint8Array;
  /** Address to send to. */
  readonly to: Uint8Array;
  /** MAC address to send to. */
  readonly mac: Uint8Array;
}

const NOBODY = new Uint8Array(4);
const EVERYBODY = new Uint8Array(4).fill(255);
const EVERY_MAC = new Uint8Array(6).fill(255);
/** The server where there is no gateway: the one of a namespace without a network. */
const SERVER = parseIp("169.254.2.2")!;
const ETHERNET = 1;
const MAC = 6;
const FOREVER = 0xffffffff;
/** Shortest lease, seconds. */
const LEASE_MIN = 10;
/** Bytes of an IP packet that every client takes, and of the headers before the message. */
const PACKET_MIN = 576;
const HEADERS = 28;
/** Greatest packet that is sent, bytes: what an interface of any MTU takes in one piece. */
const PACKET_MAX = 1500;
/** Flags of option 81, RFC 4702: the server updates no names, and the name is as in DNS. */
const FQDN = { OVERRIDE: 2, ENCODED: 4, NO_UPDATE: 8 } as const;
const WANTS_UPDATE = 1;

function u32(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
}

function readU32(value: Uint8Array | undefined): number | null {
  return value?.length === 4 ? new DataView(value.buffer, value.byteOffset).getUint32(0) : null;
}

function text(value: string): Uint8Array {
  return new TextEncoder().encode(value);
}

/** The value of option 121, RFC 3442. */
export function encodeRoutes(routes: readonly AdvisedRoute[]): Uint8Array {
  return Uint8Array.from(
    routes.flatMap(({ destination, prefix, gateway }) => [
      prefix,
      ...prefixOf(destination, prefix).subarray(0, Math.ceil(prefix / 8)),
      ...gateway ?? NOBODY,
    ]),
  );
}

/** The routes that option 121 has to carry; none if the mask and the router say it all. */
function classlessRoutes({ addresses, gateway, leads, routes }: FamilyAdvice): AdvisedRoute[] {
  const { address, prefix } = addresses[0]!;
  const outside = gateway !== null && !inPrefix(gateway, address, prefix);
  const onLink = leads && gateway === null;
  if (!outside && !onLink && routes.length === 0) return [];
  const reached = (to: Uint8Array) =>
    routes.some((route) => !route.gateway && inPrefix(to, route.destination, route.prefix));
  const toGateway = outside && !reached(gateway) ? [{ destination: gateway, prefix: 32, gateway: null }] : [];
  return [...toGateway, ...routes, ...leads ? [{ destination: NOBODY, prefix: 0, gateway }] : []];
}

/** The value of option 81; the name is written as the client has written its own. */
function fqdnOption(fqdn: string, asked: Uint8Array | undefined): Uint8Array {
  const flags = asked?.[0] ?? FQDN.ENCODED;
  const encoded = flags & FQDN.ENCODED;
  const override = flags & WANTS_UPDATE ? FQDN.OVERRIDE : 0;
  return Uint8Array.of(
    encoded | override | (asked ? FQDN.NO_UPDATE : 0),
    asked ? 255 : 0,
    asked ? 255 : 0,
    ...encoded ? encodeNames([fqdn], false) : text(fqdn),
  );
}

/** What is said of the network. */
function networkOptions(facts: AdviceFacts, advice: FamilyAdvice, request: DhcpMessage): Map<number, Uint8Array> {
  const options = new Map<number, Uint8Array>();
  const add = (code: number, value: Uint8Array) => void (value.length > 0 && options.set(code, value));
  const { address, prefix } = advice.addresses[0]!;
  const mask = prefixOf(EVERYBODY, prefix);
  add(OPTION.MASK, mask);
  const routes = classlessRoutes(advice);
  add(OPTION.ROUTES, encodeRoutes(routes));
  if (advice.gateway) add(OPTION.ROUTERS, advice.gateway);
  const dns = facts.dns.filter(({ length }) => length === 4);
  add(OPTION.DNS, Uint8Array.from(dns.flatMap((server) => [...server])));
  if (prefix < 31) add(OPTION.BROADCAST, address.map((byte, i) => byte | ~mask[i]!));
  if (facts.mtu) add(OPTION.MTU, u32(facts.mtu).subarray(2));
  if (facts.hostname !== null) add(OPTION.HOSTNAME, text(facts.hostname));
  const [domain] = facts.search;
  if (domain !== undefined) add(OPTION.DOMAIN, text(domain));
  add(OPTION.SEARCH, encodeNames(facts.search, true));
  if (facts.fqdn !== null) add(OPTION.FQDN, fqdnOption(facts.fqdn, request.options.get(OPTION.FQDN)));
  return options;
}

/** Seconds of the lease: what the client asks for. */
function leaseOf({ options }: DhcpMessage): number {
  const asked = readU32(options.get(OPTION.LEASE)) ?? FOREVER;
  return Math.max(LEASE_MIN, asked || FOREVER);
}

function leaseOptions(seconds: number): [number, Uint8Array][] {
  const times: [number, Uint8Array][] = [[OPTION.LEASE, u32(seconds)]];
  if (seconds === FOREVER) return times;
  // RFC 2131 section 4.4.5.
  return [...times, [OPTION.RENEW, u32(seconds >>> 1)], [OPTION.REBIND, u32(Math.floor(seconds * 7 / 8))]];
}

/** What a request deserves: the type of the answer, 0 for an answer without a type, or null for none. */
function verdict(request: DhcpMessage, own: Uint8Array, server: Uint8Array): number | null {
  const { client, options } = request;
  const type = options.get(OPTION.TYPE);
  if (!type) return 0; // BOOTP
  const chosen = options.get(OPTION.SERVER);
  switch (type[0]) {
    case TYPE.DISCOVER:
      return options.has(OPTION.RAPID) ? TYPE.ACK : TYPE.OFFER;
    case TYPE.INFORM:
      return TYPE.ACK;
    case TYPE.REQUEST: {
      if (chosen && !sameBytes(chosen, server)) return null; // the client has chosen another server
      const named = options.get(OPTION.REQUESTED);
      const wanted = named ?? (sameBytes(client, NOBODY) ? null : client);
      // In the state SELECTING the address may be missing: that of the offer is meant.
      if (!wanted) return chosen ? TYPE.ACK : null;
      return sameBytes(wanted, own) ? TYPE.ACK : TYPE.NAK;
    }
    default: // nothing is remembered that RELEASE or DECLINE could change
      return null;
  }
}

/** Puts options into the order in which a client asks for them; those that it did not ask for come last. */
function ordered(options: Map<number, Uint8Array>, { options: asked }: DhcpMessage): [number, Uint8Array][] {
  const list = [...asked.get(OPTION.PARAMETERS) ?? []];
  const rank = (code: number) => {
    const at = list.indexOf(code);
    return at < 0 ? list.length : at;
  };
  return [...options].toSorted(([a], [b]) => rank(a) - rank(b));
}

/**
 * Answers a DHCP client.
 *
 * @param payload The payload of a datagram from port 68 to port 67.
 * @param source The source address of the datagram.
 * @param facts What is known of the network.
 * @returns The answer; null if the message gets none.
 */
export function answerDhcp(payload: Uint8Array, source: Uint8Array, facts: AdviceFacts): DhcpAnswer | null {
  const request = parseDhcp(payload);
  const advice = familyAdvice(facts, AF.INET);
  const own = advice?.addresses[0]?.address;
  if (!request || !advice || !own || request.op !== OP.REQUEST) return null;
  if (request.hardwareType !== ETHERNET || request.hardwareLength !== MAC) return null;
  if (!sameBytes(request.relay, NOBODY)) return null; // a relay agent sends from another port
  const server = advice.gateway ?? SERVER;
  const type = verdict(request, own, server);
  if (type === null) return null;
  const asked = request.options.get(OPTION.TYPE)?.[0];
  const informs = asked === TYPE.INFORM;
  const refuses = type === TYPE.NAK;
  const id = request.options.get(OPTION.CLIENT);
  const options = new Map<number, Uint8Array>([
    ...type ? [[OPTION.TYPE, Uint8Array.of(type)]] as const : [],
    ...type ? [[OPTION.SERVER, server]] as const : [],
    ...type && !informs && !refuses ? leaseOptions(leaseOf(request)) : [],
    ...asked === TYPE.DISCOVER && type === TYPE.ACK ? [[OPTION.RAPID, new Uint8Array(0)]] as const : [],
    ...id ? [[OPTION.CLIENT, id]] as const : [], // RFC 6842
    ...refuses
      ? [[OPTION.MESSAGE, text("the address is not that of this interface")]] as const
      : ordered(networkOptions(facts, advice, request), request),
  ]);
  const taken = request.options.get(OPTION.SIZE);
  const size = taken?.length === 2 ? taken[0]! << 8 | taken[1]! : 0;
  const limit = Math.min(
    Math.max(size, PACKET_MIN),
    Math.max(PACKET_MIN, Math.min(PACKET_MAX, facts.mtu || PACKET_MAX)),
  );
  const hasAddress = !sameBytes(request.client, NOBODY);
  const renews = hasAddress && !refuses;
  const aside = informs && !hasAddress && !sameBytes(source, NOBODY);
  const broadcast = refuses || !renews && !aside && (request.broadcast || informs);
  return {
    payload: encodeDhcp({
      ...request,
      op: OP.REPLY,
      client: refuses ? NOBODY : request.client,
      yours: informs || refuses ? NOBODY : own,
      // RFC 2131 section 4.3.2: a relay agent must pass a refusal on as a broadcast.
      broadcast: request.broadcast,
      options,
    }, limit - HEADERS),
    from: server,
    to: broadcast ? EVERYBODY : renews ? request.client : aside ? source : own,
    mac: broadcast ? EVERY_MAC : request.hardware.slice(0, MAC),
  };
}
