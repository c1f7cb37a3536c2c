// Messages of DNS: what is believed of an answer, and what is kept of a question.

import { assert, assertEquals, assertNotEquals } from "@std/assert";
import {
  DNS_TYPE,
  type DnsQuery,
  RCODE,
  readAnswer,
  readdress,
  readQuery,
  writeAnswer,
  writeQuery,
} from "../../mod/inet/dns.ts";
import { ResolvedNames } from "../../mod/datapath/netif/resolved_names.ts";
import { ipWords } from "../../mod/inet/ip_words.ts";
import { test } from "../lib/helpers.ts";

const { A, AAAA, CNAME } = DNS_TYPE;
const pair = (value: number) => [value >> 8 & 0xff, value & 0xff];
const nameBytes = (name: string) => [
  ...name.split(".").filter(Boolean).flatMap((label) => [label.length, ...new TextEncoder().encode(label)]),
  0,
];

type Part = [owner: string, type: number, data: number[], ttl?: number];

/** A message with one question. */
function message(name: string, type: number, answers: Part[], additional: Part[] = [], flags = 0x8180): Uint8Array {
  const record = ([owner, kind, data, ttl = 60]: Part) => [
    ...nameBytes(owner),
    ...pair(kind),
    ...pair(1),
    ...pair(ttl >>> 16),
    ...pair(ttl),
    ...pair(data.length),
    ...data,
  ];
  return Uint8Array.from([
    ...[...pair(7), ...pair(flags), ...pair(1), ...pair(answers.length), 0, 0, ...pair(additional.length)],
    ...[...nameBytes(name), ...pair(type), ...pair(1)],
    ...answers.flatMap(record),
    ...additional.flatMap(record),
  ]);
}

const found = (bytes: Uint8Array) =>
  readAnswer(bytes)?.addresses.map(({ address, ttl }) => `${address.join(".")} ${ttl}`) ?? null;

test("an answer has the addresses of the name that was asked for, and of its aliases", () => {
  const direct = message("Example.ORG", A, [["example.org", A, [192, 0, 2, 1], 5], ["EXAMPLE.org", A, [192, 0, 2, 2]]]);
  assertEquals(found(direct), ["192.0.2.1 5", "192.0.2.2 60"]);
  assertEquals(readAnswer(direct)?.name, "example.org");
  const chain: Part[] = [
    ["b.test", CNAME, nameBytes("c.test"), 7],
    ["c.test", A, [192, 0, 2, 3], 60],
    ["a.test", CNAME, nameBytes("b.test"), 30],
  ];
  assertEquals(found(message("a.test", A, chain)), ["192.0.2.3 7"]);
});

test("an answer has no address of another name, type, section or class", () => {
  const stray: Part = ["other.test", A, [192, 0, 2, 9]];
  assertEquals(found(message("a.test", A, [stray, ["a.test", A, [192, 0, 2, 1]]])), ["192.0.2.1 60"]);
  assertEquals(found(message("a.test", A, [["a.test", CNAME, nameBytes("b.test")], stray])), []);
  assertEquals(found(message("a.test", A, [], [["a.test", A, [192, 0, 2, 9]]])), []);
  assertEquals(found(message("a.test", AAAA, [["a.test", A, [192, 0, 2, 9]]])), []);
  assertEquals(found(message("a.test", 15, [["a.test", A, [192, 0, 2, 9]]])), []);
  assertEquals(found(message("a.test", A, [["a.test", A, [192, 0, 2, 9, 1]]])), []);
  assertEquals(found(message("a.test", A, [["a.test", A, [192, 0, 2, 9], 0xffffffff]])), ["192.0.2.9 0"]);
  // A circle of aliases has an end.
  const circle: Part[] = [["a.test", CNAME, nameBytes("b.test")], ["b.test", CNAME, nameBytes("a.test")]];
  assertEquals(found(message("a.test", A, circle)), []);
  // A question is no answer.
  assertEquals(found(message("a.test", A, [["a.test", A, [192, 0, 2, 1]]], [], 0x0100)), null);
});

test("a byte that is no letter or digit never separates labels", () => {
  const bytes = message("x.example", A, []);
  bytes[13] = 0x2e; // "." as a label
  assertEquals(readAnswer(bytes)?.name, "\\046.example");
});

test("nothing of a question but what is meant is kept", () => {
  const bytes = message("eXaMpLe.OrG", A, [], [["", DNS_TYPE.OPT, [0, 10, 0, 3, 1, 2, 3], 0x8000]], 0x0173);
  const query = readQuery(bytes) as DnsQuery;
  assertEquals([query.name, query.edns], ["example.org", { size: 1, dnssec: true }]);
  const anew = writeQuery(query, 0x1234);
  assertEquals(readQuery(anew), { ...query, id: 0x1234, end: query.end });
  assertEquals(anew.length, query.end + 11);
  // The asker gets its own letters and identifier back.
  const answer = message("example.org", A, [["example.org", A, [192, 0, 2, 1]]]);
  readdress(answer, bytes, query.end);
  assertEquals(answer.subarray(12, query.end), bytes.subarray(12, query.end));
  assertEquals(readQuery(writeAnswer(bytes, RCODE.REFUSED, query.end)), null);
});

test("questions that a forwarder cannot answer are told from others", () => {
  const good = message("a.test", A, [], [], 0x0100);
  const changed = (at: number, value: number) => {
    const bytes = good.slice();
    bytes[at] = value;
    return readQuery(bytes);
  };
  assertEquals(changed(2, 0x28), RCODE.NOTIMP); // an update
  assertEquals(
    [changed(5, 0), changed(5, 2), changed(7, 1), changed(9, 1), changed(11, 1)],
    Array(5).fill(RCODE.FORMERR),
  );
  assertEquals([changed(2, 0x81), readQuery(good.subarray(0, 11))], [null, null]);
  assertEquals(changed(12, 0xc0), RCODE.FORMERR); // points to itself
  assertEquals((changed(good.length - 1, 3) as DnsQuery).internet, false);
});

test("a mutated message neither fails nor takes long", () => {
  const rounds = Number(Deno.env.get("PENNE_MUTATIONS") ?? 20_000);
  const chain: Part[] = [["a.test", CNAME, nameBytes("b.test")], ["b.test", A, [192, 0, 2, 3]]];
  const seeds = [message("a.test", A, chain), message("a.test", A, [], [["", DNS_TYPE.OPT, [0, 10, 0, 0]]], 0x0100)];
  let read = 0;
  for (let i = 0; i < rounds; i++) {
    const bytes = seeds[i % 2]!.slice();
    for (let n = 0; n < 3; n++) bytes[Math.random() * bytes.length | 0] = Math.random() * 256;
    if (readAnswer(bytes) !== null) read++;
    readQuery(bytes);
  }
  assertNotEquals(read, 0);
  // The worst of pointers: each record points to the end of a chain of them.
  const worst = new Uint8Array(65535).fill(0xc0);
  worst.set(message("a.test", A, chain).subarray(0, 24));
  worst[6] = 0xff;
  for (let at = 24; at + 1 < worst.length; at += 2) worst.set(pair(0xc000 | Math.max(12, at - 2) & 0x3fff), at);
  assertEquals(readAnswer(worst), null);
});

test("as many addresses are known as there is room, and the oldest are forgotten", () => {
  const names = new ResolvedNames(100);
  for (let i = 0; i < 250; i++) {
    names.learn({ name: `n${i}.test`, addresses: [{ address: Uint8Array.of(10, 0, 0, i), ttl: 60 }] }, i);
  }
  const address = (last: number) => ipWords(4, 0, 0, 0xffff, 10 << 24 | last);
  assertEquals([names.size, names.nameOf(address(149)), names.nameOf(address(150))], [100, null, "n150.test"]);
  for (let i = 0; i < 50; i++) {
    names.learn({ name: `m${i}.test`, addresses: [{ address: Uint8Array.of(10, 0, 0, 1), ttl: 60 }] }, 0);
  }
  assert(names.validOf(address(1), 0).length < 50);
  assertEquals(names.nameOf(address(1)), "m49.test");
});

test("a short answer counts for half a minute, and an earlier one for as long as it said", () => {
  const names = new ResolvedNames();
  const address = Uint8Array.of(10, 0, 0, 1);
  const at = (now: number) => names.validOf(ipWords(4, 0, 0, 0xffff, 0x0a000001), now).length;
  names.learn({ name: "a.test", addresses: [{ address, ttl: 0 }] }, 0);
  assertEquals([at(30_000), at(30_001)], [1, 0]);
  names.learn({ name: "a.test", addresses: [{ address, ttl: 300 }] }, 0);
  names.learn({ name: "a.test", addresses: [{ address, ttl: 1 }] }, 1000);
  assertEquals([at(305_000), at(305_001)], [1, 0]);
  names.learn({ name: "a.test", addresses: [{ address, ttl: 1e9 }] }, 0);
  assertEquals(at(86_500_000), 0);
});
