// pesto's protocol: bytes of the reference, parts of messages, and bytes that have no meaning.

import { assert, assertEquals, assertThrows } from "@std/assert";
import { formatRule } from "../../mod/forward/rule.ts";
import { decodeState, decodeUpdate, encodeState, encodeUpdate, PestoError, STATE_MAX } from "../../mod/pesto/wire.ts";
import { test } from "../lib/helpers.ts";
import { STATE, UPDATE } from "./recorded.ts";

const shown = (sides: readonly { rules: readonly Parameters<typeof formatRule>[0][] }[]) =>
  sides.map(({ rules }) => rules.map((rule) => formatRule(rule).trimEnd()));

const RULES = [
  ["TCP [*]:8080  =>  80", "UDP [127.0.0.1]%lo:5353  =>  5353", "TCP [::1]:7070-7071  =>  80-81"],
  [
    "TCP [*]%lo:1-32767  =>  1-32767  (best effort) (auto-scan)",
    "TCP [*]%lo:61000-65535  =>  61000-65535  (best effort) (auto-scan)",
  ],
];

test("what pasta and pesto say is read as they mean it, and written to the same bytes", () => {
  const state = decodeState(STATE)!;
  assertEquals(state.map(({ id, name, follows }) => [id, name, follows]), [[1, "HOST", true], [3, "SPLICE", true]]);
  assertEquals(shown(state), RULES);
  assertEquals(encodeState(state), STATE);
  const update = decodeUpdate(UPDATE)!;
  assertEquals(update.map(({ id }) => id), [1, 3]);
  assertEquals(shown(update), [
    [...RULES[0]!, "TCP [198.51.100.7]:9000  =>  192.0.2.5:9000 "].map((s) => s.trimEnd()),
    RULES[1],
  ]);
  assertEquals(encodeUpdate(update), UPDATE);
});

test("a part of a message is no message yet, and more than one is an error", () => {
  for (let length = 0; length < STATE.length; length++) assertEquals(decodeState(STATE.subarray(0, length)), null);
  for (let length = 0; length < UPDATE.length; length++) assertEquals(decodeUpdate(UPDATE.subarray(0, length)), null);
  assertThrows(() => decodeState(Uint8Array.of(...STATE, 0)), PestoError);
  assertThrows(() => decodeUpdate(Uint8Array.of(...UPDATE, 1)), PestoError);
});

test("other versions and other protocols are told from this one at once", () => {
  const other = STATE.slice();
  other[11] = 1;
  assertThrows(() => decodeState(other), PestoError, "it speaks version 1 of the protocol, not 2");
  assertThrows(() => decodeState(new TextEncoder().encode("HT")), PestoError, "it is not pasta's");
  assertThrows(() => decodeUpdate(Uint8Array.of(1, 0, 0, 1, 0)), PestoError, "256 rules are too many");
  assertThrows(() => decodeUpdate(Uint8Array.of(1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0)), PestoError, "there twice");
});

test("changed bytes are read, are incomplete, or are an error of the protocol", () => {
  let [read, refused] = [0, 0];
  // A generator of its own, so that a failure can be repeated.
  let seed = 14;
  const random = (below: number) => (seed = (seed * 1103515245 + 12345) % 2147483648) % below;
  for (let i = 0; i < 3000; i++) {
    const [bytes, decode] = i % 2 ? [STATE.slice(), decodeState] as const : [UPDATE.slice(), decodeUpdate] as const;
    for (let n = 0; n <= random(3); n++) bytes[random(bytes.length)] = random(256);
    try {
      const decoded = decode(bytes);
      if (!decoded) continue;
      read++;
      // What is read is written to what is read as the same.
      const again = decode === decodeState ? decodeState(encodeState(decodeState(bytes)!)) : null;
      if (again) assertEquals(again, decodeState(bytes));
      else assertEquals(decodeUpdate(encodeUpdate(decodeUpdate(bytes)!)), decodeUpdate(bytes));
    } catch (error) {
      if (!(error instanceof PestoError)) throw error;
      refused++;
    }
  }
  assert(read > 100 && refused > 100, `${read} ${refused}`);
  assert(STATE_MAX < 200_000);
});
