// Where flows go, without a network.

import "../lib/preload.ts";
import { assert, assertEquals } from "@std/assert";
import { parseIp } from "../../mod/inet/ip.ts";
import {
  type Destination,
  isGroup,
  isHostOnly,
  type RuleOptions,
  Rules,
  words,
} from "../../mod/datapath/netif/rules.ts";
import { Packet, PROTOCOL } from "../../mod/inet/packet.ts";

const ip = (text: string) => parseIp(text)!;

function target(options: RuleOptions, to: string, protocol: number = PROTOCOL.TCP, port = 80): Destination | null {
  const p = new Packet();
  const { family, w0, w1, w2, w3 } = words(ip(to));
  Object.assign(p, { family, d0: w0, d1: w1, d2: w2, d3: w3, protocol });
  return new Rules(options).target(p, protocol, port);
}

function same(found: Destination | null, address: string, port: number, resolver = false): void {
  assertEquals(found, { ...words(ip(address)), port, scope: 0, resolver: resolver ? ip(address) : null });
}

Deno.test("isHostOnly() knows loopback in every guise", () => {
  const host = ["127.0.0.1", "127.255.255.255", "0.0.0.0", "0.1.2.3", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1"];
  for (const text of [...host, "::ffff:192.0.2.1"]) assert(isHostOnly(words(ip(text))), text);
  for (const text of ["126.0.0.1", "128.0.0.1", "192.0.2.1", "2001:db8::1", "fe80::1", "64:ff9b::7f00:1"]) {
    assert(!isHostOnly(words(ip(text))), text);
  }
});

Deno.test("isGroup() knows multicast and broadcast", () => {
  for (const text of ["224.0.0.1", "239.255.255.255", "255.255.255.255", "ff02::1"]) {
    assert(isGroup(words(ip(text))), text);
  }
  for (const text of ["223.255.255.255", "240.0.0.1", "fe80::1"]) assert(!isGroup(words(ip(text))), text);
});

Deno.test("an address goes where it says, unless it is the host's alone, a group, or excluded", () => {
  same(target({}, "192.0.2.1"), "192.0.2.1", 80);
  same(target({}, "2001:db8::1"), "2001:db8::1", 80);
  assertEquals(target({}, "127.0.0.1"), null);
  assertEquals(target({}, "::ffff:127.0.0.1"), null);
  assertEquals(target({}, "224.0.0.1"), null);
  same(target({}, "224.0.0.1", PROTOCOL.UDP), "224.0.0.1", 80);
  const exclude = [{ address: ip("192.0.2.128"), bits: 25 }, { address: ip("2001:db8::"), bits: 33 }];
  same(target({ exclude }, "192.0.2.127"), "192.0.2.127", 80);
  assertEquals(target({ exclude }, "192.0.2.128"), null);
  assertEquals(target({ exclude }, "2001:db8:7fff::1"), null);
  same(target({ exclude }, "2001:db8:8000::1"), "2001:db8:8000::1", 80);
  assertEquals(target({ exclude: [{ address: ip("0.0.0.0"), bits: 0 }] }, "192.0.2.1"), null);
});

Deno.test("addresses that were given for the host's loopback and for the host mean those", () => {
  const options = {
    mapHostLoopback: [ip("10.0.0.1"), ip("fd00::1")],
    mapGuestAddress: [ip("10.0.0.3")],
    hostAddress: [ip("192.0.2.9"), ip("2001:db8::9")],
  };
  same(target(options, "10.0.0.1"), "127.0.0.1", 80);
  same(target(options, "fd00::1"), "::1", 80);
  same(target(options, "10.0.0.3"), "192.0.2.9", 80);
  assertEquals(target({ mapGuestAddress: [ip("10.0.0.3")] }, "10.0.0.3"), null);
});

Deno.test("names are asked of the host's resolver, of the same family if there is one", () => {
  const resolver = (text: string) => ({ address: ip(text), scope: 0 });
  const dnsForward = [ip("10.0.0.1"), ip("fd00::1")];
  const both = { dnsForward, resolvers: () => [resolver("2001:db8::53"), resolver("127.0.0.53")] };
  same(target(both, "10.0.0.1", PROTOCOL.UDP, 53), "127.0.0.53", 53, true);
  same(target(both, "10.0.0.1", PROTOCOL.TCP, 853), "127.0.0.53", 853, true);
  same(target(both, "fd00::1", PROTOCOL.TCP, 53), "2001:db8::53", 53, true);
  same(
    target({ dnsForward, resolvers: () => [resolver("192.0.2.53")] }, "fd00::1", PROTOCOL.UDP, 53),
    "192.0.2.53",
    53,
    true,
  );
  assertEquals(target({ dnsForward }, "10.0.0.1", PROTOCOL.UDP, 53), null);
  // Nothing else there is the resolver's.
  same(target(both, "10.0.0.1", PROTOCOL.TCP, 80), "10.0.0.1", 80);
  same(target(both, "10.0.0.1", PROTOCOL.ICMP, 53), "10.0.0.1", 53);
});

Deno.test("a resolver that has failed is not asked for a while, unless all have", () => {
  const resolvers = ["192.0.2.1", "192.0.2.2"].map((text) => ({ address: ip(text), scope: 0 }));
  const rules = new Rules({ dnsForward: [ip("10.0.0.1")], resolvers: () => resolvers });
  const asked = () => {
    const p = new Packet();
    const { family, w0, w1, w2, w3 } = words(ip("10.0.0.1"));
    Object.assign(p, { family, d0: w0, d1: w1, d2: w2, d3: w3, protocol: PROTOCOL.UDP });
    return rules.target(p, PROTOCOL.UDP, 53)?.resolver;
  };
  assertEquals(asked(), ip("192.0.2.1"));
  rules.resolverFailed(ip("192.0.2.1"));
  assertEquals(asked(), ip("192.0.2.2"));
  rules.resolverFailed(ip("192.0.2.2"));
  assertEquals(asked(), ip("192.0.2.1"), "the one whose failure is longest ago");
});

Deno.test("a broadcast is not reached, since it would reach the host as if it came from the host", () => {
  assertEquals(target({}, "255.255.255.255", PROTOCOL.UDP, 5000), null);
});
