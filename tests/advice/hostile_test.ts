// Malformed and hostile DHCP messages.

import { assert } from "@std/assert";
import { test } from "../lib/helpers.ts";
import { AF } from "../../ffi/net/constants.ts";
import { answerDhcp } from "../../mod/advice/dhcp.ts";
import { encodeDhcp, OP, OPTION, parseDhcp } from "../../mod/advice/dhcp_message.ts";
import type { AdviceFacts } from "../../mod/advice/facts.ts";
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
  families: [{ family: AF.INET, addresses, routes: [defaultRoute(parseIp("192.0.2.1")!, addresses)] }],
  mtu: 1500,
  mac: new Uint8Array(6),
  dns: [parseIp("192.0.2.53")!],
  search: ["one.example", "two.example"],
  hostname: "box",
  fqdn: "box.example",
  dhcpv6: false,
};

function bytes(length: number): Uint8Array {
  return Uint8Array.from({ length }, () => random(256));
}

/** A message with options of any kind, most of which a client may send. */
function message(): Uint8Array {
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

test(`${MESSAGES} mutated messages of DHCP cause no error, and no answer that is malformed or too large`, () => {
  let answered = 0;
  for (let i = 0; i < MESSAGES; i++) {
    let sent = message();
    for (let n = random(4); n > 0; n--) sent[random(sent.length)] = random(256);
    if (random(4) === 0) sent = sent.subarray(0, random(sent.length + 1));
    if (random(50) === 0) sent = bytes(random(PACKET_MAX));
    decodeNames(sent);
    const answer = answerDhcp(sent, bytes(4), FACTS);
    if (!answer) continue;
    answered++;
    assert(answer.payload.length >= 300 && answer.payload.length <= PACKET_MAX, `${answer.payload.length}`);
    assert(parseDhcp(answer.payload)?.op === OP.REPLY);
  }
  assert(answered > MESSAGES / 20, `${answered} were answered`); // the others have errors, or want no answer
});
