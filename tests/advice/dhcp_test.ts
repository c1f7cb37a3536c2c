// The codec of DHCP, and what is answered.

import { assert, assertEquals } from "@std/assert";
import { test } from "../lib/helpers.ts";
import { AF } from "../../ffi/net/constants.ts";
import { answerDhcp } from "../../mod/advice/dhcp.ts";
import { type DhcpMessage, encodeDhcp, OP, OPTION, parseDhcp, TYPE } from "../../mod/advice/dhcp_message.ts";
import type { AdviceFacts } from "../../mod/advice/facts.ts";
import { decodeNames, encodeNames } from "../../mod/advice/names.ts";
import { formatIp, parseIp } from "../../mod/inet/ip.ts";
import { defaultRoute, newAddress } from "../../mod/network/routes.ts";

const NOBODY = new Uint8Array(4);
const MAC = Uint8Array.of(2, 0, 0, 0, 0, 7);
const ip = (text: string) => parseIp(text)!;

/** Facts of a namespace with one address. */
function facts(address = "192.0.2.7", prefix = 24, gateway: string | null = "192.0.2.1"): AdviceFacts {
  const addresses = [newAddress(ip(address), prefix)];
  const routes = gateway === null ? [] : [defaultRoute(ip(gateway), addresses)];
  return {
    families: [{ family: AF.INET, addresses, routes }],
    mtu: 1500,
    mac: Uint8Array.of(0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55),
    dns: [ip("192.0.2.53"), ip("2001:db8::53")],
    search: ["one.example", "two.example"],
    hostname: null,
    fqdn: null,
    dhcpv6: true,
  };
}

type Values = [number, Uint8Array | string | number[]][];

function request(type: number | null, values: Values = [], fields: Partial<DhcpMessage> = {}): DhcpMessage {
  const hardware = new Uint8Array(16);
  hardware.set(MAC);
  return {
    op: OP.REQUEST,
    hardwareType: 1,
    hardwareLength: 6,
    transaction: 0xfeedbeef,
    broadcast: false,
    client: NOBODY,
    yours: NOBODY,
    relay: NOBODY,
    hardware,
    options: new Map([
      ...type === null ? [] : [[OPTION.TYPE, Uint8Array.of(type)] as const],
      ...values.map(([code, value]) => [code, typeof value === "string" ? ip(value) : Uint8Array.from(value)] as const),
    ]),
    ...fields,
  };
}

/** The answer to a request, with its options. */
function ask(message: DhcpMessage, known = facts(), source = NOBODY) {
  const answer = answerDhcp(encodeDhcp(message, 1472), source, known);
  if (!answer) return null;
  const parsed = parseDhcp(answer.payload)!;
  const option = (code: number) => parsed.options.get(code);
  return {
    ...answer,
    parsed,
    option,
    type: option(OPTION.TYPE)?.[0],
    brief: [option(OPTION.TYPE)?.[0] ?? 0, formatIp(parsed.yours), formatIp(answer.to)],
  };
}

const OWN = "192.0.2.7";
const SERVER = "192.0.2.1";
const EVERYBODY = "255.255.255.255";

/** Requests by what they are, and the answer: type, address that the client gets, address to send to; RFC 2131. */
const VERDICTS: [string, DhcpMessage, (number | string)[] | null][] = [
  ["DISCOVER", request(TYPE.DISCOVER), [TYPE.OFFER, OWN, OWN]],
  ["DISCOVER, to everybody", request(TYPE.DISCOVER, [], { broadcast: true }), [TYPE.OFFER, OWN, EVERYBODY]],
  ["DISCOVER with rapid commit", request(TYPE.DISCOVER, [[OPTION.RAPID, []]]), [TYPE.ACK, OWN, OWN]],
  ["DISCOVER of another address", request(TYPE.DISCOVER, [[OPTION.REQUESTED, "10.0.0.1"]]), [TYPE.OFFER, OWN, OWN]],
  ["SELECTING", request(TYPE.REQUEST, [[OPTION.SERVER, SERVER], [OPTION.REQUESTED, OWN]]), [TYPE.ACK, OWN, OWN]],
  ["SELECTING another server", request(TYPE.REQUEST, [[OPTION.SERVER, "192.0.2.9"], [OPTION.REQUESTED, OWN]]), null],
  [
    "SELECTING another address",
    request(TYPE.REQUEST, [[OPTION.SERVER, SERVER], [OPTION.REQUESTED, "192.0.2.8"]]),
    [TYPE.NAK, "0.0.0.0", EVERYBODY],
  ],
  ["INIT-REBOOT", request(TYPE.REQUEST, [[OPTION.REQUESTED, OWN]]), [TYPE.ACK, OWN, OWN]],
  [
    "INIT-REBOOT elsewhere",
    request(TYPE.REQUEST, [[OPTION.REQUESTED, "10.1.2.3"]]),
    [TYPE.NAK, "0.0.0.0", EVERYBODY],
  ],
  ["RENEWING", request(TYPE.REQUEST, [], { client: ip(OWN) }), [TYPE.ACK, OWN, OWN]],
  ["REBINDING", request(TYPE.REQUEST, [], { client: ip(OWN), broadcast: true }), [TYPE.ACK, OWN, OWN]],
  ["REBINDING elsewhere", request(TYPE.REQUEST, [], { client: ip("10.1.2.3") }), [TYPE.NAK, "0.0.0.0", EVERYBODY]],
  ["REQUEST of nothing", request(TYPE.REQUEST), null],
  ["INFORM", request(TYPE.INFORM, [], { client: ip("192.0.2.99") }), [TYPE.ACK, "0.0.0.0", "192.0.2.99"]],
  ["DECLINE", request(TYPE.DECLINE, [[OPTION.SERVER, SERVER], [OPTION.REQUESTED, OWN]]), null],
  ["RELEASE", request(TYPE.RELEASE, [[OPTION.SERVER, SERVER]], { client: ip(OWN) }), null],
  ["OFFER", request(TYPE.OFFER), null],
  ["an unknown type", request(77), null],
  ["BOOTP", request(null), [0, OWN, OWN]],
  ["a reply", request(TYPE.DISCOVER, [], { op: OP.REPLY }), null],
  ["from a relay agent", request(TYPE.DISCOVER, [], { relay: ip("192.0.2.200") }), null],
  ["of another kind of hardware", request(TYPE.DISCOVER, [], { hardwareType: 32, hardwareLength: 0 }), null],
];

test("each request of DHCP gets the answer of RFC 2131, or none", () => {
  for (const [what, message, wanted] of VERDICTS) {
    const answer = ask(message);
    assertEquals(answer && answer.brief, wanted, what);
    if (!answer) continue;
    assertEquals(answer.parsed.transaction, message.transaction, what);
    assertEquals(answer.mac, answer.to.every((byte) => byte === 255) ? new Uint8Array(6).fill(255) : MAC, what);
    const leases = answer.type !== undefined && answer.type !== TYPE.NAK &&
      message.options.get(OPTION.TYPE)![0] !== TYPE.INFORM;
    assertEquals(answer.option(OPTION.LEASE) !== undefined, leases, what);
    assertEquals(answer.option(OPTION.MASK) !== undefined, answer.type !== TYPE.NAK, what);
    assertEquals(answer.option(OPTION.SERVER), answer.type === undefined ? undefined : ip(SERVER), what);
  }
});

test("an answer has the client's id, the lease that it asks for, and the options in its order", () => {
  const id = [1, 2, 3];
  const asked = [OPTION.SEARCH, OPTION.DNS, OPTION.MASK];
  const answer = ask(
    request(TYPE.DISCOVER, [[OPTION.CLIENT, id], [OPTION.LEASE, [0, 0, 0, 60]], [OPTION.PARAMETERS, asked]]),
  )!;
  assertEquals(answer.option(OPTION.CLIENT), Uint8Array.from(id));
  assertEquals(answer.option(OPTION.LEASE), Uint8Array.of(0, 0, 0, 60));
  assertEquals([answer.option(OPTION.RENEW)![3], answer.option(OPTION.REBIND)![3]], [30, 52]);
  const order = [...answer.parsed.options.keys()];
  assertEquals(order.filter((code) => (asked as number[]).includes(code)), asked);
  assert(order.indexOf(OPTION.MASK) < order.indexOf(OPTION.ROUTERS)); // not asked for
  assertEquals(decodeNames(answer.option(OPTION.SEARCH)!), ["one.example", "two.example"]);
  assertEquals(ask(request(TYPE.DISCOVER))!.option(OPTION.LEASE), new Uint8Array(4).fill(255));
});

test("option 121 says what the mask and the router cannot", () => {
  const of = (known: AdviceFacts) => [...ask(request(TYPE.DISCOVER), known)!.option(OPTION.ROUTES) ?? []];
  assertEquals(of(facts()), []);
  const outside = facts("10.0.0.5", 32, "192.0.2.1");
  assertEquals(of(outside), [32, 192, 0, 2, 1, 0, 0, 0, 0, 0, 192, 0, 2, 1]);
  assertEquals(of(facts("10.0.0.5", 24, null)), []);
});

test("the full name is written as the client writes its own", () => {
  const known = { ...facts(), fqdn: "box.example" };
  const of = (flags: number) =>
    ask(request(TYPE.DISCOVER, [[OPTION.FQDN, [flags, 0, 0]]]), known)!.option(OPTION.FQDN)!;
  assertEquals([of(5)[0], decodeNames(of(5).subarray(3))], [14, ["box.example"]]);
  assertEquals([of(0)[0], new TextDecoder().decode(of(0).subarray(3))], [8, "box.example"]);
});

test("an answer has at most the size that the client takes, and uses other fields for what has no room", () => {
  const search = Array.from({ length: 20 }, (_, i) => `a-rather-long-domain-${i}.example${i}`);
  const known = { ...facts(), search, hostname: "h".repeat(60), fqdn: `${"f".repeat(50)}.example` };
  for (const size of [0, 576, 600, 700, 1000, 1500, 65535]) {
    const answer = ask(request(TYPE.DISCOVER, [[OPTION.SIZE, [size >> 8, size & 255]]]), known)!;
    assert(answer.payload.length <= Math.max(576, Math.min(size, 1500)) - 28, `${size}: ${answer.payload.length}`);
    assertEquals(answer.option(OPTION.HOSTNAME)?.length, 60);
    if (size >= 1200) assertEquals(decodeNames(answer.option(OPTION.SEARCH)!), search);
  }
  const few = { ...known, search: search.slice(0, 4), fqdn: `${"f".repeat(60)}.${"g".repeat(40)}.example` };
  const small = ask(request(TYPE.DISCOVER), few)!;
  assertEquals(decodeNames(small.option(OPTION.SEARCH)!), few.search);
  assertEquals(decodeNames(small.option(OPTION.FQDN)!.subarray(3)), [few.fqdn]);
  assert(small.payload.subarray(108, 236).some((byte) => byte !== 0)); // the field for the name of a file
});

test("messages of DHCP survive their codec, with long values and with any limit", () => {
  const long = Uint8Array.from({ length: 700 }, (_, i) => i);
  const message = request(TYPE.INFORM, [[OPTION.SEARCH, [...long]], [OPTION.CLIENT, []]], { broadcast: true });
  assertEquals(parseDhcp(encodeDhcp(message, 1472)), message);
  for (let limit = 0; limit < 1200; limit += 7) {
    const parsed = parseDhcp(encodeDhcp(message, limit))!;
    assertEquals(parsed.options.get(OPTION.TYPE), Uint8Array.of(TYPE.INFORM));
    assertEquals(parsed.hardware, message.hardware);
  }
});

test("names survive their codec, and pointers lead nowhere but back", () => {
  const names = ["eng.apple.example", "marketing.apple.example", "example", "x".repeat(63)];
  for (const compress of [false, true]) assertEquals(decodeNames(encodeNames(names, compress)), names);
  assert(encodeNames(names, true).length < encodeNames(names, false).length);
  assertEquals(encodeNames(["", ".", "a..b", "y".repeat(64), `${"z.".repeat(140)}z`], true), new Uint8Array(0));
  for (const bad of [[0xc0, 0], [1, 97, 0xc0, 2], [1, 97, 0xc0, 0], [0xc0], [63], [1, 97], [0x80, 0]]) {
    assertEquals(decodeNames(Uint8Array.from(bad)), []);
  }
});

test("With several templates one address is told, and the routes of all", () => {
  const addresses = [
    newAddress(ip("192.0.2.7"), 24),
    newAddress(ip("198.51.100.7"), 24),
    newAddress(ip("10.8.0.7"), 32),
  ];
  const to = (destination: string, prefix: number, gateway: string | null) => ({
    ...defaultRoute(ip("192.0.2.1"), addresses),
    ...{ destination: ip(destination), prefix },
    hops: [{ index: 0, gateway: gateway === null ? null : ip(gateway), flags: 0, weight: 1 }],
  });
  const routes = [
    to("192.0.2.0", 24, null),
    to("198.51.100.0", 24, null),
    to("10.20.0.0", 16, null),
    to("203.0.113.0", 24, "198.51.100.1"),
    defaultRoute(ip("192.0.2.1"), addresses),
    { ...defaultRoute(ip("198.51.100.1"), addresses), priority: 600 },
  ];
  const answer = ask(request(TYPE.DISCOVER), { ...facts(), families: [{ family: AF.INET, addresses, routes }] })!;
  assertEquals(answer.brief, [TYPE.OFFER, OWN, OWN]);
  assertEquals(formatIp(answer.option(OPTION.ROUTERS)!), "192.0.2.1");
  const link = [0, 0, 0, 0];
  assertEquals([...answer.option(OPTION.ROUTES)!], [
    ...[24, 198, 51, 100, ...link],
    ...[16, 10, 20, ...link],
    ...[24, 203, 0, 113, 198, 51, 100, 1],
    ...[0, 192, 0, 2, 1],
  ]);
});
