// The grammar of allow lists, on the command line and in the library.

import "../lib/preload.ts";
import { assertEquals, assertThrows } from "@std/assert";
import { parseIp } from "../../mod/inet/ip.ts";
import { parseAllow } from "../../mod/inet/allow.ts";
import { REACH, reachRequest } from "../../mod/network/options.ts";
import { checkReach } from "../../mod/network/reach.ts";
import { test } from "../lib/helpers.ts";

const ip = (text: string) => parseIp(text)!;
const NO_NAME = "it is neither an IP address nor a name";

test("an entry is an address, a block or a name, with or without ports", () => {
  const [v4, v6] = [ip("192.0.2.1"), ip("2001:db8::1")];
  const https = [[443, 443]];
  for (
    const [text, rule] of [
      ["192.0.2.1", { address: v4, prefix: 32, ports: null }],
      ["192.0.2.1/0", { address: v4, prefix: 0, ports: null }],
      ["192.0.2.1/24:443", { address: v4, prefix: 24, ports: https }],
      ["2001:db8::1", { address: v6, prefix: 128, ports: null }],
      ["2001:db8::1/32", { address: v6, prefix: 32, ports: null }],
      ["[2001:db8::1]", { address: v6, prefix: 128, ports: null }],
      ["[2001:db8::1]:443", { address: v6, prefix: 128, ports: https }],
      ["[2001:db8::1/32]:443", { address: v6, prefix: 32, ports: https }],
      ["[2001:db8::1]/32:443", { address: v6, prefix: 32, ports: https }],
      ["Example.ORG.", { name: "example.org", ports: null }],
      ["*.example.org:443,80-90", { name: "*.example.org", ports: [[443, 443], [80, 90]] }],
      ["_dmarc.example.org", { name: "_dmarc.example.org", ports: null }],
      ["mirror", { name: "mirror", ports: null }],
      ["BÜCHER.example", { name: "xn--bcher-kva.example", ports: null }],
      ["*.bücher.example:1", { name: "*.xn--bcher-kva.example", ports: [[1, 1]] }],
      ["xn--bcher-kva.example", { name: "xn--bcher-kva.example", ports: null }],
      ["3com.com", { name: "3com.com", ports: null }],
    ] as const
  ) {
    assertEquals<unknown>([text, parseAllow(text)], [text, rule]);
  }
});

test("what is neither, or an address that is written otherwise, is refused", () => {
  const names = [
    ...["", ".", "a..b", "-a.org", "a-.org", "*", "*.", "*.*.org", "a.*.org", "a b", "a/b", "a,b", "..", "*."],
    ...[
      "10.1",
      "0x7f000001",
      "a.0x7f",
      "2130706433",
      "010.0.0.1",
      "1.2.3.256",
      "1.2.3.4.5",
      "example.1",
      "example.org/24",
    ],
    ...["\u0000", "a\nb", `${"a".repeat(64)}.org`, Array(64).fill("abc").join("."), "example.org/", "10.0.0.1/"],
  ];
  for (const text of names) assertEquals([text, typeof parseAllow(text)], [text, "string"]);
  assertEquals([parseAllow("10.1"), parseAllow("a..b")], [NO_NAME, NO_NAME]);
  for (
    const ports of ["", "0", "65536", "1-", "-1", "2-1", "1,", ",1", "http", "1-2-3", " 1", "1e3", "443/tcp", "123456"]
  ) {
    assertEquals([ports, typeof parseAllow(`example.org:${ports}`)], [ports, "string"]);
    assertEquals([ports, typeof parseAllow(`[2001:db8::1]:${ports}`)], [ports, "string"]);
  }
  for (
    const text of ["10.0.0.0/33", "2001:db8::/129", "10.0.0.0/8/8", "[2001:db8::/32]/32", "[10.0.0.1]:80", "[a.org]:80"]
  ) {
    assertEquals([text, typeof parseAllow(text)], [text, "string"]);
  }
  for (const text of ["::ffff:192.0.2.1", "[::ffff:10.0.0.0/104]:80", "::ffff:c000:201"]) {
    assertEquals(parseAllow(text), "no packet has an IPv4-mapped address: write the IPv4 address");
  }
});

test("the library takes entries as texts and in parts", () => {
  const allow = [
    "example.org:443",
    { name: "*.example.org", ports: 443 },
    { address: "10.0.0.0", prefix: 8 },
    { address: ip("2001:db8::1"), ports: "80,443" },
  ];
  REACH.allow(allow, "reach.allow");
  assertEquals(reachRequest({ allow }).allow, [
    { name: "example.org", ports: [[443, 443]] },
    { name: "*.example.org", ports: [[443, 443]] },
    { address: ip("10.0.0.0"), prefix: 8, ports: null },
    { address: ip("2001:db8::1"), prefix: 128, ports: [[80, 80], [443, 443]] },
  ]);
  assertEquals([reachRequest({ allow: [] }).allow, reachRequest({}).allow], [[], undefined]);
  const wrong = [
    ...["10.1", 7, null, {}, { host: "a.org" }, { name: "a.org:80" }, { name: "10.0.0.1" }, { address: "a.org" }],
    ...[{ name: "a.org", address: "10.0.0.1" }, { name: "a.org", ports: 0 }, { address: "10.0.0.1", prefix: 33 }],
  ];
  for (const value of wrong) assertThrows(() => REACH.allow([value], "reach.allow"), TypeError, "reach.allow[0]");
});

test("a name needs an address inside that leads to the resolver", () => {
  const allow = [{ name: "example.org", ports: null }];
  assertThrows(
    () => checkReach({ allow }),
    Error,
    "use --allow example.org: no address inside leads to the host's resolver",
  );
  checkReach({ allow, dnsForward: [ip("169.254.1.1")] });
  checkReach({ allow: [] });
});
