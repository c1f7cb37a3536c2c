// The rules that decide where flows go.

import "../lib/preload.ts";
import { assertEquals } from "@std/assert";
import { PROTOCOL } from "../../mod/inet/header.ts";
import { parseIp } from "../../mod/inet/ip.ts";
import { wordsOf } from "../../mod/inet/ip_words.ts";
import { type Destination, type RuleOptions, Rules } from "../../mod/datapath/netif/rules.ts";
import { test } from "../lib/helpers.ts";

const ip = (text: string) => parseIp(text)!;

/** Where a flow to an address goes. */
function destination(options: RuleOptions, to: string, protocol: number = PROTOCOL.TCP, port = 80): Destination | null {
  return new Rules(options).destination(wordsOf(ip(to)), protocol, port);
}

function same(found: Destination | null, address: string, port: number, resolver = false): void {
  assertEquals(found, { ...wordsOf(ip(address)), port, scope: 0, resolver: resolver ? ip(address) : null });
}

test("a flow goes to its destination unless that is the host itself, a group, or excluded", () => {
  same(destination({}, "192.0.2.1"), "192.0.2.1", 80);
  same(destination({}, "2001:db8::1"), "2001:db8::1", 80);
  assertEquals(destination({}, "127.0.0.1"), null);
  assertEquals(destination({}, "::ffff:127.0.0.1"), null);
  assertEquals(destination({}, "224.0.0.1"), null);
  same(destination({}, "224.0.0.1", PROTOCOL.UDP), "224.0.0.1", 80);
  const exclude = [{ address: ip("192.0.2.128"), prefix: 25 }, { address: ip("2001:db8::"), prefix: 33 }];
  same(destination({ exclude }, "192.0.2.127"), "192.0.2.127", 80);
  assertEquals(destination({ exclude }, "192.0.2.128"), null);
  assertEquals(destination({ exclude }, "2001:db8:7fff::1"), null);
  same(destination({ exclude }, "2001:db8:8000::1"), "2001:db8:8000::1", 80);
  assertEquals(destination({ exclude: [{ address: ip("0.0.0.0"), prefix: 0 }] }, "192.0.2.1"), null);
});

test("an IPv6 address that leads to an excluded IPv4 address is excluded", () => {
  const exclude = [{ address: ip("10.0.0.0"), prefix: 8 }];
  const forms = [
    "::ffff:10.1.2.3", // mapped
    "::10.1.2.3", // compatible
    "::ffff:0:10.1.2.3", // translated, RFC 2765
    "64:ff9b::10.1.2.3",
    "64:ff9b:1:a01:2:300::", // RFC 6052, section 2.4: 48, 56, 64 and 96 bits
    "64:ff9b:1:20a:1:203::",
    "64:ff9b:1:2:a:102:300:0",
    "64:ff9b:1:2:3:4:10.1.2.3",
    "2002:a01:203::1",
    "2001:0:5ef5:79fb:0:3fff:f5fe:fdfc", // the client is the complement
  ];
  for (const form of forms) assertEquals([form, destination({ exclude }, form)], [form, null]);
  for (const form of forms.slice(3)) {
    same(destination({}, form), form, 80);
    same(destination({ exclude: [{ address: ip("11.0.0.0"), prefix: 8 }] }, form), form, 80);
    const own = { has: () => false, hasOnLoopback: ({ w3 }: { w3: number }) => w3 === 0x0a010203 };
    assertEquals([form, destination({ own }, form)], [form, null]);
    assertEquals(new Rules({ exclude }).admits(wordsOf(ip(form))), false);
  }
  same(destination({ exclude }, "2001:db8::10.1.2.3"), "2001:db8::10.1.2.3", 80);
});

test("addresses mapped to the host's loopback and to the host lead there", () => {
  const options = {
    mapHostLoopback: [ip("10.0.0.1"), ip("fd00::1")],
    mapGuestAddress: [ip("10.0.0.3")],
    hostAddress: [ip("192.0.2.9"), ip("2001:db8::9")],
  };
  same(destination(options, "10.0.0.1"), "127.0.0.1", 80);
  same(destination(options, "fd00::1"), "::1", 80);
  same(destination(options, "10.0.0.3"), "192.0.2.9", 80);
  assertEquals(destination({ mapGuestAddress: [ip("10.0.0.3")] }, "10.0.0.3"), null);
});

test("DNS goes to a resolver of the host, of the same family if possible", () => {
  const resolver = (text: string) => ({ address: ip(text), scope: 0 });
  const dnsForward = [ip("10.0.0.1"), ip("fd00::1")];
  const both = { dnsForward, resolvers: () => [resolver("2001:db8::53"), resolver("127.0.0.53")] };
  same(destination(both, "10.0.0.1", PROTOCOL.UDP, 53), "127.0.0.53", 53, true);
  same(destination(both, "10.0.0.1", PROTOCOL.TCP, 853), "127.0.0.53", 853, true);
  same(destination(both, "fd00::1", PROTOCOL.TCP, 53), "2001:db8::53", 53, true);
  same(
    destination({ dnsForward, resolvers: () => [resolver("192.0.2.53")] }, "fd00::1", PROTOCOL.UDP, 53),
    "192.0.2.53",
    53,
    true,
  );
  assertEquals(destination({ dnsForward }, "10.0.0.1", PROTOCOL.UDP, 53), null);
  // Other ports and protocols do not go to the resolver.
  same(destination(both, "10.0.0.1", PROTOCOL.TCP, 80), "10.0.0.1", 80);
  same(destination(both, "10.0.0.1", PROTOCOL.ICMP, 53), "10.0.0.1", 53);
});

test("a resolver that has failed is avoided for a while, unless all have failed", () => {
  const resolvers = ["192.0.2.1", "192.0.2.2"].map((text) => ({ address: ip(text), scope: 0 }));
  const rules = new Rules({ dnsForward: [ip("10.0.0.1")], resolvers: () => resolvers });
  const asked = () => rules.destination(wordsOf(ip("10.0.0.1")), PROTOCOL.UDP, 53)?.resolver;
  assertEquals(asked(), ip("192.0.2.1"));
  rules.resolverFailed(ip("192.0.2.1"));
  assertEquals(asked(), ip("192.0.2.2"));
  rules.resolverFailed(ip("192.0.2.2"));
  assertEquals(asked(), ip("192.0.2.1"), "the oldest failure");
});

test("a broadcast reaches the host too, and never a server of DHCP", () => {
  same(destination({}, "255.255.255.255", PROTOCOL.UDP, 5000), "255.255.255.255", 5000);
  assertEquals(destination({}, "255.255.255.255", PROTOCOL.UDP, 67), null);
  assertEquals(destination({}, "255.255.255.255", PROTOCOL.ICMP), null);
  assertEquals(destination({ excludeHost: true }, "255.255.255.255", PROTOCOL.UDP, 5000), null);
});
