// Addresses as words: what they mean, and which prefixes they are in.

import { assert, assertEquals } from "@std/assert";
import { inPrefix, parseIp } from "../../mod/inet/ip.ts";
import { addressSum, isGroup, isHostOnly, isLinkScoped, wordsOf } from "../../mod/inet/ip_words.ts";
import { sum } from "../../mod/inet/checksum.ts";
import { test } from "../lib/helpers.ts";

const words = (text: string) => wordsOf(parseIp(text)!);

/** Checks a predicate with addresses for which it is true, and others. */
function check(predicate: (address: ReturnType<typeof words>) => boolean, yes: string[], no: string[]): void {
  for (const text of yes) assert(predicate(words(text)), text);
  for (const text of no) assert(!predicate(words(text)), text);
}

test("isHostOnly() knows loopback in every guise", () => {
  const guises = ["127.0.0.1", "127.255.255.255", "0.0.0.0", "0.1.2.3", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1"];
  const others = ["126.0.0.1", "128.0.0.1", "192.0.2.1", "2001:db8::1", "fe80::1", "64:ff9b::7f00:1"];
  check(isHostOnly, [...guises, "::ffff:192.0.2.1"], others);
});

test("isGroup() knows multicast and broadcast", () => {
  const groups = ["224.0.0.1", "239.255.255.255", "255.255.255.255", "ff02::1"];
  check(isGroup, groups, ["223.255.255.255", "240.0.0.1", "fe80::1"]);
});

test("isLinkScoped() knows link-local addresses and groups", () => {
  const others = ["fec0::1", "ff05::1", "2001:db8::1", "169.254.0.1"];
  check(isLinkScoped, ["fe80::1", "febf::1", "ff02::1", "ff12::1"], others);
});

test("inPrefix() compares the first bits, of the same family only", () => {
  for (const [address, prefix] of [["192.0.2.129", "192.0.2.128"], ["2001:db8::8000:0:0:1", "2001:db8::"]] as const) {
    const [a, b] = [parseIp(address)!, parseIp(prefix)!];
    const bits = (bytes: Uint8Array) => [...bytes].map((byte) => byte.toString(2).padStart(8, "0")).join("");
    for (let n = 0; n <= 8 * a.length; n++) {
      assertEquals(inPrefix(a, b, n), bits(a).slice(0, n) === bits(b).slice(0, n), `${address} in ${prefix}/${n}`);
    }
  }
  assert(!inPrefix(parseIp("0.0.0.0")!, parseIp("::")!, 0));
});

test("addressSum() is the sum of the bytes on the wire", () => {
  for (const [a, b] of [["192.0.2.1", "255.255.255.255"], ["2001:db8::1", "fe80::ffff:1"]] as const) {
    const bytes = Uint8Array.from([...parseIp(a)!, ...parseIp(b)!]);
    assertEquals(addressSum(words(a), words(b)), sum(new DataView(bytes.buffer), 0, bytes.length, 0));
  }
});
