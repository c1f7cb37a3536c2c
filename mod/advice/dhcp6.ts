// Answers to DHCPv6 clients, RFC 8415; pure.
//
// There is one client, and it gets all addresses for ever, so nothing is remembered: an address is right if it is one of
// these. A message that names another server, or none where it must name one, is not for penne and gets no answer.

import { AF } from "../../ffi/net/constants.ts";
import { inPrefix, isLinkLocal6, sameBytes } from "../inet/ip.ts";
import { routerAddress } from "./advertisement.ts";
import {
  ADDRESSES_MAX,
  addressOption,
  type Association,
  associationOption,
  associationsOf,
  type Dhcp6Message,
  encodeDhcp6,
  FOREVER6,
  OPTION6,
  type Option6,
  optionOf,
  parseDhcp6,
  STATUS,
  statusOption,
  TYPE6,
} from "./dhcp6_message.ts";
import type { AdviceFacts, FamilyAdvice } from "./facts.ts";
import { familyAdvice } from "./family.ts";
import { encodeNames } from "./names.ts";

/** An answer. */
export interface Dhcp6Answer {
  /** Payload of the datagram, from port 547 to port 546 of the client. */
  readonly payload: Uint8Array;
  /** Address of the server, a link-local one. */
  readonly from: Uint8Array;
}

/** The kind of DUID that is made of a MAC address, and the kind of hardware, RFC 8415 section 11.4. */
const DUID_LL = 3;
const ETHERNET = 1;
/** Lengths of a DUID with its kind, bytes. */
const DUID = { MIN: 3, MAX: 130 } as const;
/** Preference of a server that need not be compared with others. */
const PREFERENCE_MAX = 255;
/** Flags of option 39, RFC 4704: who updates names, and that the client's wish was overruled. */
const FQDN = { SERVER_UPDATES: 1, OVERRIDE: 2, NO_UPDATE: 4 } as const;
/** Bytes of a packet in which an answer is, at most, and of the headers before it. */
const PACKET_MAX = 1500;
const PACKET_MIN = 1280;
const HEADERS = 48;
const HEADER = 4;

/** Messages that a server must find itself named in. */
const NAMES_SERVER: readonly number[] = [TYPE6.REQUEST, TYPE6.RENEW, TYPE6.RELEASE, TYPE6.DECLINE];
/** Messages that must name no server. */
const NAMES_NONE: readonly number[] = [TYPE6.SOLICIT, TYPE6.CONFIRM, TYPE6.REBIND];

/** What is known when a message is answered. */
interface Known {
  readonly facts: AdviceFacts;
  /** The addresses inside that have a wider scope than the link. */
  readonly addresses: FamilyAdvice["addresses"];
  readonly request: Dhcp6Message;
  readonly associations: readonly Association[];
}

/**
 * The DUID of penne as a server, RFC 8415 section 11.4.
 *
 * @param mac MAC address of penne, 6 bytes.
 */
export function serverDuid(mac: Uint8Array): Uint8Array {
  return Uint8Array.of(0, DUID_LL, 0, ETHERNET, ...mac);
}

/** Whether a message has what RFC 8415 section 16 demands of its type. */
function isValid({ request, associations, facts }: Known): boolean {
  const client = optionOf(request, OPTION6.CLIENT);
  const server = optionOf(request, OPTION6.SERVER);
  if (client && (client.length < DUID.MIN || client.length > DUID.MAX)) return false;
  const isOurs = server !== undefined && sameBytes(server, serverDuid(facts.mac));
  if (request.type === TYPE6.INFORMATION) return (!server || isOurs) && associations.length === 0;
  if (!client) return false;
  return NAMES_SERVER.includes(request.type) ? isOurs : NAMES_NONE.includes(request.type) && !server;
}

function isOneOf(address: Uint8Array, { addresses }: Known): boolean {
  return addresses.some((own) => sameBytes(own.address, address));
}

/** Whether an address may be one of this link. */
function isAppropriate(address: Uint8Array, { addresses }: Known): boolean {
  return addresses.some((own) => inPrefix(address, own.address, own.prefix));
}

/**
 * The IAs with what the client gets: all addresses in the first one, and in the others nothing. What a client has that
 * asks to keep it, and that is not one of these, it is to use no longer.
 */
function assigned(known: Known): Option6[] {
  const { request: { type }, associations, addresses } = known;
  const keeps = type === TYPE6.RENEW || type === TYPE6.REBIND;
  const first = associations.find(({ code }) => code === OPTION6.ADDRESSES);
  return associations.map((association) => {
    const outdated = keeps
      ? association.addresses.filter((address) => association !== first || !isOneOf(address, known))
        .map((address) => addressOption(address, 0))
      : [];
    if (association.code === OPTION6.PREFIXES) {
      return associationOption(association, [statusOption(STATUS.NO_PREFIXES, "no prefix is delegated")]);
    }
    if (association !== first || addresses.length === 0) {
      const status = outdated.length > 0 ? [] : [statusOption(STATUS.NO_ADDRESSES, "there are no more addresses")];
      return associationOption(association, [...outdated, ...status]);
    }
    if (type === TYPE6.REQUEST && association.addresses.some((address) => !isAppropriate(address, known))) {
      return associationOption(association, [statusOption(STATUS.NOT_ON_LINK, "an address is not one of this link")]);
    }
    return associationOption(association, [
      ...addresses.map(({ address }) => addressOption(address, FOREVER6)),
      ...outdated.slice(0, Math.max(0, ADDRESSES_MAX - addresses.length)), // what it gets has the room first
    ]);
  });
}

/** The value of option 39: the name, and that no names are updated. */
function fqdnOption(fqdn: string, asked: Uint8Array | undefined): Uint8Array {
  const overrides = (asked?.[0] ?? 0) & FQDN.SERVER_UPDATES;
  return Uint8Array.of(FQDN.NO_UPDATE | (overrides ? FQDN.OVERRIDE : 0), ...encodeNames([fqdn], false));
}

/** What is said of the network beside addresses. */
function networkOptions({ facts, request }: Known): Option6[] {
  const dns = facts.dns.filter(({ length }) => length === 16);
  const options: Option6[] = [
    [OPTION6.DNS, Uint8Array.from(dns.flatMap((server) => [...server]))],
    [OPTION6.SEARCH, encodeNames(facts.search, false)],
  ];
  const asked = optionOf(request, OPTION6.FQDN);
  const wanted = optionOf(request, OPTION6.WANTED) ?? new Uint8Array(0);
  const wantsName = asked || wanted.some((byte, i) => i % 2 === 1 && byte === OPTION6.FQDN && wanted[i - 1] === 0);
  if (facts.fqdn !== null && wantsName) options.push([OPTION6.FQDN, fqdnOption(facts.fqdn, asked)]);
  return options.filter(([, { length }]) => length > 0);
}

/** Type and options of the answer to a valid message; null if it gets none. */
function verdict(known: Known): { readonly type: number; readonly options: readonly Option6[] } | null {
  const { request, associations } = known;
  const reply = (...options: Option6[]) => ({ type: TYPE6.REPLY, options });
  switch (request.type) {
    case TYPE6.SOLICIT: {
      const rapid = optionOf(request, OPTION6.RAPID) !== undefined;
      return {
        type: rapid ? TYPE6.REPLY : TYPE6.ADVERTISE,
        options: [
          rapid ? [OPTION6.RAPID, new Uint8Array(0)] : [OPTION6.PREFERENCE, Uint8Array.of(PREFERENCE_MAX)],
          ...assigned(known),
          ...networkOptions(known),
        ],
      };
    }
    case TYPE6.CONFIRM: {
      const had = associations.flatMap(({ addresses }) => addresses);
      if (had.length === 0) return null;
      return had.every((address) => isOneOf(address, known))
        ? reply(statusOption(STATUS.SUCCESS, "all addresses are those of this interface"))
        : reply(statusOption(STATUS.NOT_ON_LINK, "an address is not that of this interface"));
    }
    case TYPE6.RELEASE:
    case TYPE6.DECLINE:
      return reply(statusOption(STATUS.SUCCESS, "nothing was to be done"));
    case TYPE6.INFORMATION:
      return reply(...networkOptions(known));
    default:
      return reply(...assigned(known), ...networkOptions(known));
  }
}

/** As many of the first options as there is room for. */
function fitting(options: readonly Option6[], room: number): Option6[] {
  let used = 0;
  return options.filter(([, { length }]) => {
    const fits = used + HEADER + length <= room;
    if (fits) used += HEADER + length;
    return fits;
  });
}

/**
 * Answers a DHCPv6 client.
 *
 * @param payload The payload of a datagram to port 547.
 * @param isMulticast Whether it was sent to all servers rather than to penne's address.
 * @param facts What is known of the network.
 * @returns The answer; null if the message gets none.
 */
export function answerDhcp6(payload: Uint8Array, isMulticast: boolean, facts: AdviceFacts): Dhcp6Answer | null {
  const request = parseDhcp6(payload);
  const advice = familyAdvice(facts, AF.INET6);
  const associations = request && associationsOf(request);
  if (!request || !advice || !associations || !facts.dhcpv6) return null;
  const addresses = advice.addresses.filter(({ address }) => !isLinkLocal6(address));
  const known: Known = { facts, addresses, request, associations };
  if (!isValid(known)) return null;
  // RFC 8415 sections 16 and 18.4: penne lets nobody send to its address.
  if (!isMulticast && !NAMES_SERVER.includes(request.type)) return null;
  const answer = isMulticast ? verdict(known) : {
    type: TYPE6.REPLY,
    options: [statusOption(STATUS.USE_MULTICAST, "messages are to be sent to ff02::1:2")],
  };
  if (!answer) return null;
  const client = optionOf(request, OPTION6.CLIENT);
  const options: Option6[] = [
    ...client ? [[OPTION6.CLIENT, client]] as const : [],
    [OPTION6.SERVER, serverDuid(facts.mac)],
    ...answer.options,
  ];
  const room = Math.min(Math.max(facts.mtu || PACKET_MAX, PACKET_MIN), PACKET_MAX) - HEADERS - HEADER;
  return {
    payload: encodeDhcp6({ type: answer.type, transaction: request.transaction, options: fitting(options, room) }),
    from: routerAddress(advice, facts.mac),
  };
}
