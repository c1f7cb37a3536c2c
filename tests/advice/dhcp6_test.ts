// The codec of DHCPv6, and what is answered.

import { assert, assertEquals } from "@std/assert";
import { test } from "../lib/helpers.ts";
import { AF } from "../../ffi/net/constants.ts";
import { advertise } from "../../mod/advice/advertisement.ts";
import { answerDhcp6, serverDuid } from "../../mod/advice/dhcp6.ts";
import {
  addressOption,
  associationOption,
  associationsOf,
  type Dhcp6Message,
  encodeDhcp6,
  OPTION6,
  type Option6,
  optionOf,
  parseDhcp6,
  STATUS,
  statusOption,
  TYPE6,
} from "../../mod/advice/dhcp6_message.ts";
import type { AdviceFacts } from "../../mod/advice/facts.ts";
import { decodeNames } from "../../mod/advice/names.ts";
import { formatIp, parseIp } from "../../mod/inet/ip.ts";
import { defaultRoute, newAddress } from "../../mod/network/routes.ts";

const ip = (text: string) => parseIp(text)!;
const MAC = Uint8Array.of(0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55);
const CLIENT = Uint8Array.of(0, 1, 0, 1, 9, 9, 9, 9, 2, 0, 0, 0, 0, 7);
const OWN = "2001:db8::7";
const TRANSACTION = 0xfeed01;

function facts(own: string[] = [OWN], changed: Partial<AdviceFacts> = {}): AdviceFacts {
  const addresses = own.map((address) => newAddress(ip(address), 64));
  return {
    families: [{ family: AF.INET6, addresses, routes: [defaultRoute(ip("fe80::1"), addresses)] }],
    mtu: 1500,
    mac: MAC,
    dns: [ip("192.0.2.53"), ip("2001:db8::53")],
    search: ["one.example", "two.example"],
    hostname: null,
    fqdn: null,
    dhcpv6: true,
    ...changed,
  };
}

const id: Option6 = [OPTION6.CLIENT, CLIENT];
const server: Option6 = [OPTION6.SERVER, serverDuid(MAC)];
const stranger: Option6 = [OPTION6.SERVER, serverDuid(new Uint8Array(6))];
const rapid: Option6 = [OPTION6.RAPID, new Uint8Array(0)];

/** An IA of a client, with addresses. */
function ia(addresses: string[] = [], number = 1, code: number = OPTION6.ADDRESSES): Option6 {
  const association = { code, id: Uint8Array.of(0, 0, 0, number), addresses: [] };
  return associationOption(association, addresses.map((address) => addressOption(ip(address), 0)));
}

function message(type: number, ...options: Option6[]): Dhcp6Message {
  return { type, transaction: TRANSACTION, options };
}

function ask(asked: Dhcp6Message, known = facts(), isMulticast = true): Dhcp6Message | null {
  const answer = answerDhcp6(encodeDhcp6(asked), isMulticast, known);
  if (!answer) return null;
  assertEquals(formatIp(answer.from), "fe80::1");
  return parseDhcp6(answer.payload)!;
}

function statusOf(value: Uint8Array | undefined): string {
  return value ? Object.entries(STATUS).find(([, code]) => code === value[1])![0] : "";
}

/** What an answer says: its kind, its status, and each IA with its addresses and its status. */
function brief(answer: Dhcp6Message): string[] {
  const kind = Object.entries(TYPE6).find(([, type]) => type === answer.type)![0];
  const associations = answer.options.flatMap(([code, value]) => {
    if (code !== OPTION6.ADDRESSES && code !== OPTION6.TEMPORARY && code !== OPTION6.PREFIXES) return [];
    const inner = parseDhcp6(Uint8Array.of(0, 0, 0, 0, ...value.subarray(code === OPTION6.TEMPORARY ? 4 : 12)))!;
    const addresses = inner.options.filter(([code]) => code === OPTION6.ADDRESS).map(([, address]) => {
      const times = new Set(address.subarray(16, 24));
      assert(times.size === 1);
      return `${formatIp(address.subarray(0, 16))} ${times.has(255) ? "for ever" : "no longer"}`;
    });
    return [[`${code}.${value[3]}`, ...addresses, statusOf(optionOf(inner, OPTION6.STATUS))].join(" ").trim()];
  });
  return [`${kind} ${statusOf(optionOf(answer, OPTION6.STATUS))}`.trim(), ...associations];
}

const GIVEN = `3.1 ${OWN} for ever`;
const ELSEWHERE = "fd00::7";
const NEIGHBOUR = "2001:db8::8";

/** Messages by what they are, and the answer; RFC 8415 sections 16 and 18.3. */
const VERDICTS: readonly [string, Dhcp6Message, string[] | null][] = [
  ["SOLICIT", message(TYPE6.SOLICIT, id, ia()), ["ADVERTISE", GIVEN]],
  ["SOLICIT with rapid commit", message(TYPE6.SOLICIT, id, ia(), rapid), ["REPLY", GIVEN]],
  ["SOLICIT of nothing", message(TYPE6.SOLICIT, id), ["ADVERTISE"]],
  ["SOLICIT of another address", message(TYPE6.SOLICIT, id, ia([ELSEWHERE])), ["ADVERTISE", GIVEN]],
  ["SOLICIT without a client", message(TYPE6.SOLICIT, ia()), null],
  ["SOLICIT to a server", message(TYPE6.SOLICIT, id, server, ia()), null],
  [
    "SOLICIT of more than there is",
    message(TYPE6.SOLICIT, id, ia([], 1), ia([], 2), ia([], 3, OPTION6.TEMPORARY), ia([], 4, OPTION6.PREFIXES)),
    ["ADVERTISE", GIVEN, "3.2 NO_ADDRESSES", "4.3 NO_ADDRESSES", "25.4 NO_PREFIXES"],
  ],
  ["REQUEST", message(TYPE6.REQUEST, id, server, ia([OWN])), ["REPLY", GIVEN]],
  ["REQUEST without an address", message(TYPE6.REQUEST, id, server, ia()), ["REPLY", GIVEN]],
  ["REQUEST of a neighbour's", message(TYPE6.REQUEST, id, server, ia([NEIGHBOUR])), ["REPLY", GIVEN]],
  ["REQUEST elsewhere", message(TYPE6.REQUEST, id, server, ia([ELSEWHERE])), ["REPLY", "3.1 NOT_ON_LINK"]],
  ["REQUEST to another server", message(TYPE6.REQUEST, id, stranger, ia([OWN])), null],
  ["REQUEST to no server", message(TYPE6.REQUEST, id, ia([OWN])), null],
  ["CONFIRM", message(TYPE6.CONFIRM, id, ia([OWN])), ["REPLY SUCCESS"]],
  ["CONFIRM elsewhere", message(TYPE6.CONFIRM, id, ia([OWN]), ia([ELSEWHERE], 2)), ["REPLY NOT_ON_LINK"]],
  ["CONFIRM of nothing", message(TYPE6.CONFIRM, id, ia()), null],
  ["CONFIRM to a server", message(TYPE6.CONFIRM, id, server, ia([OWN])), null],
  ["RENEW", message(TYPE6.RENEW, id, server, ia([OWN])), ["REPLY", GIVEN]],
  [
    "RENEW elsewhere",
    message(TYPE6.RENEW, id, server, ia([ELSEWHERE]), ia([OWN], 2)),
    ["REPLY", `${GIVEN} ${ELSEWHERE} no longer`, `3.2 ${OWN} no longer`],
  ],
  ["RENEW at another server", message(TYPE6.RENEW, id, stranger, ia([OWN])), null],
  ["REBIND", message(TYPE6.REBIND, id, ia([OWN])), ["REPLY", GIVEN]],
  ["REBIND elsewhere", message(TYPE6.REBIND, id, ia([ELSEWHERE])), ["REPLY", `${GIVEN} ${ELSEWHERE} no longer`]],
  ["REBIND at a server", message(TYPE6.REBIND, id, server, ia([OWN])), null],
  ["RELEASE", message(TYPE6.RELEASE, id, server, ia([OWN])), ["REPLY SUCCESS"]],
  ["RELEASE at another server", message(TYPE6.RELEASE, id, stranger, ia([OWN])), null],
  ["DECLINE", message(TYPE6.DECLINE, id, server, ia([OWN])), ["REPLY SUCCESS"]],
  ["INFORMATION", message(TYPE6.INFORMATION, id), ["REPLY"]],
  ["INFORMATION without a client", message(TYPE6.INFORMATION), ["REPLY"]],
  ["INFORMATION of penne", message(TYPE6.INFORMATION, server), ["REPLY"]],
  ["INFORMATION of another server", message(TYPE6.INFORMATION, stranger), null],
  ["INFORMATION with addresses", message(TYPE6.INFORMATION, id, ia()), null],
  ["a client without a name", message(TYPE6.SOLICIT, [OPTION6.CLIENT, Uint8Array.of(0, 1)], ia()), null],
  ["a client with a name too long", message(TYPE6.SOLICIT, [OPTION6.CLIENT, new Uint8Array(131)], ia()), null],
  ["an IA cut off", message(TYPE6.SOLICIT, id, [OPTION6.ADDRESSES, new Uint8Array(11)]), null],
  [
    "an address cut off",
    message(TYPE6.SOLICIT, id, [
      OPTION6.ADDRESSES,
      Uint8Array.of(...new Uint8Array(12), 0, OPTION6.ADDRESS, 0, 16, ...ip(OWN)),
    ]),
    null,
  ],
  ["of a server", message(TYPE6.REPLY, id, server, ia([OWN])), null],
  ["of a relay agent", message(12, id, ia()), null],
  ["an unknown type", message(99, id, ia()), null],
];

test("each message of DHCPv6 gets the answer of RFC 8415, or none", () => {
  for (const [what, asked, wanted] of VERDICTS) {
    const answer = ask(asked);
    assertEquals(answer && brief(answer), wanted, what);
    if (!answer) continue;
    assertEquals(answer.transaction, TRANSACTION, what);
    assertEquals(optionOf(answer, OPTION6.SERVER), serverDuid(MAC), what);
    assertEquals(optionOf(answer, OPTION6.CLIENT), optionOf(asked, OPTION6.CLIENT), what);
    assertEquals(optionOf(answer, OPTION6.RAPID), optionOf(asked, OPTION6.RAPID), what);
    assertEquals(optionOf(answer, OPTION6.PREFERENCE)?.[0], answer.type === TYPE6.ADVERTISE ? 255 : undefined, what);
    // What only says a status says nothing of the network.
    assertEquals(optionOf(answer, OPTION6.DNS) !== undefined, optionOf(answer, OPTION6.STATUS) === undefined, what);
  }
});

test("what is sent to penne's own address is refused if it names penne, and else gets no answer", () => {
  for (const type of [TYPE6.REQUEST, TYPE6.RENEW, TYPE6.RELEASE, TYPE6.DECLINE]) {
    assertEquals(brief(ask(message(type, id, server, ia([OWN])), facts(), false)!), ["REPLY USE_MULTICAST"]);
    assertEquals(ask(message(type, id, stranger, ia([OWN])), facts(), false), null);
  }
  for (const type of [TYPE6.SOLICIT, TYPE6.CONFIRM, TYPE6.REBIND]) {
    assertEquals(ask(message(type, id, ia([OWN])), facts(), false), null);
  }
  assertEquals(ask(message(TYPE6.INFORMATION, id), facts(), false), null);
});

test("an answer has all addresses, name servers of IPv6, search domains, and the name that a client wants to know", () => {
  const several = facts([OWN, "fe80::7", "fd00::1:7"], { fqdn: "box.example" });
  const solicit = (...more: Option6[]) => ask(message(TYPE6.SOLICIT, id, ia(), ...more), several)!;
  const plain = solicit();
  assertEquals(brief(plain), ["ADVERTISE", `3.1 ${OWN} for ever fd00::1:7 for ever`]);
  assertEquals(optionOf(plain, OPTION6.DNS), ip("2001:db8::53"));
  assertEquals(decodeNames(optionOf(plain, OPTION6.SEARCH)!), ["one.example", "two.example"]);
  assertEquals(optionOf(plain, OPTION6.FQDN), undefined);
  const name = (flags: number) => optionOf(solicit([OPTION6.FQDN, Uint8Array.of(flags)]), OPTION6.FQDN)!;
  assertEquals([name(0)[0], name(1)[0], decodeNames(name(1).subarray(1))], [4, 6, ["box.example"]]);
  assert(optionOf(solicit([OPTION6.WANTED, Uint8Array.of(0, 23, 0, 39)]), OPTION6.FQDN));
  assertEquals(optionOf(solicit([OPTION6.WANTED, Uint8Array.of(39, 23, 39)]), OPTION6.FQDN), undefined);
  const silent = facts([OWN], { dns: [], search: [] });
  assertEquals(ask(message(TYPE6.INFORMATION, id), silent)!.options.map(([code]) => code), [
    OPTION6.CLIENT,
    OPTION6.SERVER,
  ]);
});

test("without an address there is none to get, and without IPv6 or DHCPv6 there is no answer", () => {
  const solicit = message(TYPE6.SOLICIT, id, ia());
  assertEquals(brief(ask(solicit, facts([]))!), ["ADVERTISE", "3.1 NO_ADDRESSES"]);
  assertEquals(brief(ask(message(TYPE6.CONFIRM, id, ia([OWN])), facts([]))!), ["REPLY NOT_ON_LINK"]);
  assert(ask(message(TYPE6.INFORMATION, id), facts([])));
  assertEquals(ask(solicit, facts([OWN], { families: [] })), null);
  assertEquals(ask(solicit, facts([OWN], { dhcpv6: false })), null);
});

test("an advertisement says whether addresses, and the rest, are told by DHCPv6", () => {
  const flags = (known: AdviceFacts) => advertise(known)!.message[5];
  assertEquals([flags(facts()), flags(facts([])), flags(facts([OWN], { dhcpv6: false }))], [0xc0, 0x40, 0]);
});

test("an answer fits into a packet, whatever is known and asked", () => {
  const own = Array.from({ length: 30 }, (_, i) => `2001:db8::1:${i + 1}`);
  const search = Array.from({ length: 40 }, (_, i) => `a-rather-long-domain-${i}.example`);
  const many = Array.from({ length: 200 }, (_, i) => ia(own, i));
  for (const mtu of [0, 1280, 1500, 65520]) {
    const answer = answerDhcp6(
      encodeDhcp6(message(TYPE6.RENEW, id, server, ...many)),
      true,
      facts(own, { search, mtu }),
    );
    assert(answer!.payload.length <= (mtu === 1280 ? 1280 : 1500) - 48);
    const [, addresses = ""] = brief(parseDhcp6(answer!.payload)!);
    assertEquals(addresses.match(/for ever/g)?.length, own.length);
  }
});

test("a renewal of thousands of addresses is answered, with those of the client", () => {
  const some = Array.from({ length: 2300 }, (_, i) => `2001:db8::2:${(i + 1).toString(16)}`);
  for (const own of [[OWN], Array.from({ length: 30 }, (_, i) => `2001:db8::1:${i + 1}`)]) {
    const answer = ask(message(TYPE6.RENEW, id, server, ia(some)), facts(own))!;
    const [, addresses = ""] = brief(answer);
    assertEquals(addresses.match(/for ever/g)?.length, own.length);
    // Each has one of them that it is to use no longer, at least.
    assert(associationsOf(answer)![0]!.addresses.length > own.length);
  }
  assertEquals(brief(ask(message(TYPE6.CONFIRM, id, ia(some)))!), ["REPLY NOT_ON_LINK"]);
});

test("messages of DHCPv6 survive their codec, and are refused wherever they are cut off", () => {
  const asked = message(TYPE6.RENEW, id, server, ia([OWN, ELSEWHERE], 5), rapid, statusOption(STATUS.SUCCESS, "good"));
  const bytes = encodeDhcp6(asked);
  assertEquals(parseDhcp6(bytes), asked);
  assertEquals(associationsOf(asked), [
    { code: OPTION6.ADDRESSES, id: Uint8Array.of(0, 0, 0, 5), addresses: [ip(OWN), ip(ELSEWHERE)] },
  ]);
  const ends = new Set([4]);
  for (const [, value] of asked.options) ends.add(Math.max(...ends) + 4 + value.length);
  for (let length = 0; length < bytes.length; length++) {
    assertEquals(parseDhcp6(bytes.subarray(0, length)) !== null, ends.has(length), `${length}`);
  }
  const large = message(TYPE6.REPLY, [OPTION6.DNS, new Uint8Array(65535)], [OPTION6.SEARCH, new Uint8Array(65536)]);
  assertEquals(parseDhcp6(encodeDhcp6(large))!.options.map(([code]) => code), [OPTION6.DNS]);
});
