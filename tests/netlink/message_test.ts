// The netlink codec: errors, datagrams of several messages, and malformed input.

import { assert, assertEquals, assertThrows } from "@std/assert";
import { decodeAddress } from "../../mod/netlink/address.ts";
import { decodeLink } from "../../mod/netlink/link.ts";
import {
  decodeAcknowledgement,
  decodeAttributes,
  decodeMessages,
  encodeAttributes,
  encodeMessage,
  NLM_F,
  NLMSG,
} from "../../mod/netlink/message.ts";
import { decodeRoute } from "../../mod/netlink/route.ts";
import { test } from "../lib/helpers.ts";

/** The answer of the kernel to an RTM_NEWROUTE that it refuses, with NETLINK_EXT_ACK. */
function refusal(flags: number, request: Uint8Array): Uint8Array {
  const text = new TextEncoder().encode("Nexthop has invalid gateway\0");
  const payload = new Uint8Array([
    ...new Uint8Array(new Int32Array([-22]).buffer),
    ...request,
    ...encodeAttributes([[1, text]]),
  ]);
  return encodeMessage({ type: NLMSG.ERROR, flags: flags | NLM_F.ACK_TLVS, seq: 1, payload });
}

test("An error includes the kernel's explanation, whether or not it repeats the request", () => {
  const request = encodeMessage({ type: 24, flags: 5, seq: 1, payload: new Uint8Array(12) });
  const expected = { errno: 22, text: "Nexthop has invalid gateway" };
  const [whole] = decodeMessages(refusal(0, request));
  assertEquals(decodeAcknowledgement(whole!), expected);
  const [capped] = decodeMessages(refusal(NLM_F.CAPPED, request.subarray(0, 16)));
  assertEquals(decodeAcknowledgement(capped!), expected);
});

test("Several messages of a datagram are decoded, whatever their padding", () => {
  const messages = [1, 5, 8].map((length, i) => ({ type: 16 + i, flags: 2, seq: 9, payload: new Uint8Array(length) }));
  const bytes = new Uint8Array(messages.flatMap((message) => [...encodeMessage(message)]));
  assertEquals(decodeMessages(bytes), messages);
});

test("Wrong lengths are refused", () => {
  const message = encodeMessage({ type: 16, flags: 0, seq: 0, payload: new Uint8Array(8) });
  assertThrows(() => decodeMessages(message.subarray(0, 20)), RangeError, "truncated");
  assertThrows(() => decodeMessages(message.subarray(0, 9)), RangeError, "truncated");
  assertThrows(() => decodeAttributes(new Uint8Array([3, 0, 1, 0])), RangeError, "truncated");
  assertThrows(() => decodeAttributes(new Uint8Array([9, 0, 1, 0, 0, 0, 0, 0])), RangeError, "truncated");
});

test("Random bytes are decoded or refused", () => {
  let state = 1;
  const random = () => (state = Math.imul(state, 48271) >>> 0) >>> 24;
  const outcomes = { decoded: 0, refused: 0 };
  for (let i = 0; i < 20_000; i++) {
    const bytes = Uint8Array.from({ length: random() % 96 }, random);
    // Plausible lengths, so that more than the first check is reached.
    for (let at = 8; at + 4 <= bytes.length; at += 8) {
      if (random() & 1) bytes.set([random() % 24, 0, random() % 32, 0], at);
    }
    for (const decode of [decodeMessages, decodeAttributes, decodeLink, decodeAddress, decodeRoute]) {
      try {
        decode(bytes);
        outcomes.decoded++;
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
        outcomes.refused++;
      }
    }
  }
  assert(outcomes.decoded > 1000 && outcomes.refused > 1000, JSON.stringify(outcomes));
});
