// What a namespace is a member of, by its reports.

import { assertEquals } from "@std/assert";
import { describe, GROUPS_MAX, Memberships, SILENT_MAX } from "../../mod/datapath/multicast/memberships.ts";
import { parseIp } from "../../mod/inet/ip.ts";
import { RECORD } from "../../mod/inet/membership.ts";
import { wordsOf } from "../../mod/inet/ip_words.ts";
import { test } from "../lib/helpers.ts";

const words = (text: string) => wordsOf(parseIp(text)!);
const GROUP = "239.1.2.3";

function reported(...records: [keyof typeof RECORD, ...string[]][]): Memberships {
  const memberships = new Memberships();
  for (const [type, ...sources] of records) {
    memberships.apply([{ type: RECORD[type], group: words(GROUP), sources: sources.map(words), silent: false }], 0);
  }
  return memberships;
}

function state(...records: [keyof typeof RECORD, ...string[]][]): string | null {
  const [one] = reported(...records).list;
  if (!one) return null;
  const sources = [...one.sources.values()].map(({ w3 }) => w3 & 255).sort();
  return `${one.excludes ? "all but" : "only"} ${sources}`;
}

test("records change the sources as RFC 3376 section 6.4 says", () => {
  const [a, b] = ["192.0.2.1", "192.0.2.2"];
  assertEquals(state(["TO_EXCLUDE"]), "all but ");
  assertEquals(state(["TO_EXCLUDE"], ["TO_INCLUDE"]), null);
  assertEquals(state(["ALLOW", a], ["ALLOW", b]), "only 1,2");
  assertEquals(state(["ALLOW", a, b], ["BLOCK", a]), "only 2");
  assertEquals(state(["ALLOW", a], ["BLOCK", a]), null);
  assertEquals(state(["TO_EXCLUDE", a], ["BLOCK", b]), "all but 1,2");
  assertEquals(state(["TO_EXCLUDE", a, b], ["ALLOW", a]), "all but 2");
  assertEquals(state(["ALLOW", a], ["TO_EXCLUDE"]), "all but ");
  assertEquals(state(["TO_EXCLUDE"], ["TO_INCLUDE", b]), "only 2");
  assertEquals(state(["BLOCK", a]), null);
});

test("a repeated report changes nothing, and what is no group is not taken", () => {
  const memberships = new Memberships();
  const say = (group: string, now = 0, silent = false) =>
    memberships.apply([{ type: RECORD.TO_EXCLUDE, group: words(group), sources: [], silent }], now);
  assertEquals([say(GROUP), say(GROUP), say("192.0.2.1"), say("255.255.255.255"), say("2001:db8::1")], [
    true,
    ...Array(4).fill(false),
  ]);
  assertEquals(memberships.list.map(describe), ["-"]);
  assertEquals([say("239.1.2.4", 1000, true), memberships.anySilent], [true, true]);
  assertEquals([memberships.expire(1000 + SILENT_MAX), memberships.list.length], [false, 2]);
  say("239.1.2.4", 2000, true);
  assertEquals([memberships.expire(1001 + SILENT_MAX), memberships.expire(2001 + SILENT_MAX)], [false, true]);
  assertEquals([memberships.list.length, memberships.anySilent], [1, false]);
});

test("groups and sources are bounded", () => {
  const memberships = new Memberships();
  for (let i = 0; i < 2 * GROUPS_MAX; i++) {
    const sources = Array.from({ length: 100 }, (_, j) => words(`192.0.2.${j}`));
    const group = words(`239.1.${i >> 8}.${i & 255}`);
    memberships.apply([{ type: RECORD.ALLOW, group, sources, silent: false }], 0);
  }
  assertEquals([memberships.list.length, memberships.overflowed], [GROUPS_MAX, true]);
  assertEquals(Math.max(...memberships.list.map(({ sources }) => sources.size)), 64);
});
