// Malformed and hostile messages of DHCP and DHCPv6.

import { assert } from "@std/assert";
import { test } from "../lib/helpers.ts";
import { AF } from "../../ffi/net/constants.ts";
import { answerDhcp } from "../../mod/advice/dhcp.ts";
import { encodeDhcp, OP, OPTION, parseDhcp } from "../../mod/advice/dhcp_message.ts";
import type { AdviceFacts } from "../../mod/advice/facts.ts";
import { answerDhcp6, serverDuid } from "../../mod/advice/dhcp6.ts";
import { encodeDhcp6, OPTION6, type Option6, parseDhcp6, TYPE6 } from "../../mod/advice/dhcp6_message.ts";
import { decodeNames } from "../../mod/advice/names.ts";
import { parseIp } from "../../mod/inet/ip.ts";
import { defaultRoute, newAddress } from "../../mod/network/routes.ts";

/** Number of messages; PENNE_MESSAGES sets more. */
const MESSAGES = Number(Deno.env.get("PENNE_MESSAGES") ?? 10_000);
const PACKET_MAX = 1472;

let state = 4711;
function random(below: number): number {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return (state >>> 0) % below;
}

const addresses = [newAddress(parseIp("192.0.2.7")!, 24)];
const FACTS: AdviceFacts = {
  families: [
    { family: AF.INET, addresses, routes: [defaultRoute(parseIp("192.0.2.1")!, addresses)] },
    { family: AF.INET6, addresses: [newAddress(parseIp("2001:db8::7")!, 64)], routes: [] },
  ],
  mtu: 1500,
  mac: new Uint8Array(6),
  dns: [parseIp("192.0.2.53")!],
  search: ["one.example", "two.example"],
  hostname: "box",
  fqdn: "box.example",
  dhcpv6: true,
};

function bytes(length: number): Uint8Array {
  return Uint8Array.from({ length }, () => random(256));
}

/** A message with options of any kind, most of which a client may send. */
function message4(): Uint8Array {
  const known = Object.values(OPTION);
  const options = new Map<number, Uint8Array>([[OPTION.TYPE, Uint8Array.of(random(10))]]);
  for (let i = random(8); i > 0; i--) {
    options.set(known[random(known.length)]!, bytes(random(20) ? random(12) : random(600)));
  }
  const none = new Uint8Array(4);
  return encodeDhcp({
    op: OP.REQUEST,
    hardwareType: 1,
    hardwareLength: 6,
    transaction: random(2 ** 31),
    broadcast: random(2) === 1,
    client: random(2) ? none : bytes(4),
    yours: none,
    relay: none,
    hardware: bytes(16),
    options,
  }, PACKET_MAX);
}

/** Options of DHCPv6 of any kind, with others in them, most of which a client may send. */
function options6(depth = 0): Option6[] {
  const known = Object.values(OPTION6);
  return Array.from({ length: random(6) }, () => {
    const code = random(9) ? known[random(known.length)]! : random(65536);
    const inner = encodeDhcp6({ type: 0, transaction: 0, options: depth < 2 ? options6(depth + 1) : [] }).subarray(4);
    const head = bytes([0, 4, 12, 24, random(60)][random(5)]!);
    return [code, Uint8Array.of(...head, ...inner)];
  });
}

/** A message of DHCPv6, which names a client and maybe the server. */
function message6(): Uint8Array {
  const named: Option6[] = [[OPTION6.CLIENT, bytes(random(20) ? 10 : random(200))]];
  if (random(2)) named.push([OPTION6.SERVER, serverDuid(FACTS.mac)]);
  return encodeDhcp6({ type: random(12), transaction: random(2 ** 24), options: [...named, ...options6()] });
}

/** Changes some bytes, or cuts the message off. */
function mutated(message: Uint8Array): Uint8Array {
  for (let n = random(4); n > 0; n--) message[random(message.length)] = random(256);
  if (random(50) === 0) return bytes(random(PACKET_MAX));
  return random(4) ? message : message.subarray(0, random(message.length + 1));
}

test(`${MESSAGES} mutated messages of DHCP cause no error, and no answer that is malformed or too large`, () => {
  let answered = 0;
  for (let i = 0; i < MESSAGES; i++) {
    const sent = mutated(message4());
    decodeNames(sent);
    const answer = answerDhcp(sent, bytes(4), FACTS);
    if (!answer) continue;
    answered++;
    assert(answer.payload.length >= 300 && answer.payload.length <= PACKET_MAX, `${answer.payload.length}`);
    assert(parseDhcp(answer.payload)?.op === OP.REPLY);
  }
  assert(answered > MESSAGES / 20, `${answered} were answered`); // the others have errors, or want no answer
});

test(`${MESSAGES} mutated messages of DHCPv6 cause no error, and no answer that is malformed or too large`, () => {
  let answered = 0;
  for (let i = 0; i < MESSAGES; i++) {
    const answer = answerDhcp6(mutated(message6()), random(10) > 0, FACTS);
    if (!answer) continue;
    answered++;
    assert(answer.payload.length <= 1500 - 48, `${answer.payload.length}`);
    const type = parseDhcp6(answer.payload)?.type;
    assert(type === TYPE6.REPLY || type === TYPE6.ADVERTISE);
  }
  assert(answered > MESSAGES / 20, `${answered} were answered`);
});
