// Ranges of ids: parsing, checking, formatting.

import { assertEquals, assertThrows } from "@std/assert";
import { PenneError } from "../../mod/base/errors.ts";
import { checkRanges, hasInside, mapText, parseRange, toInside } from "../../mod/idmap/ranges.ts";
import { test } from "../lib/helpers.ts";

test("parseRange() accepts three decimal numbers and nothing else", () => {
  assertEquals(parseRange("0:4294967294:1"), { inside: 0, outside: 4294967294, count: 1 });
  const wrong = [
    "",
    ":",
    "1:2",
    "1:2:3:4",
    "a:1:1",
    "-1:0:1",
    "0:0:0",
    " 0:0:1",
    "0:0:1 ",
    "0x1:0:1",
    "0:0:1e3",
    "00000000000:0:1",
  ];
  for (const text of wrong) assertThrows(() => parseRange(text), PenneError, "cannot use the id range");
});

test("parseRange() refuses ranges that end beyond 32 bits (CVE-2016-6252)", () => {
  for (const text of ["0:0:4294967296", "1:0:4294967295", "4294967295:0:1", "0:4294967294:2"]) {
    assertThrows(() => parseRange(text), PenneError);
  }
  assertEquals(parseRange("0:0:4294967295").count, 4294967295);
});

test("checkRanges() finds overlaps on both sides, in any order, and accepts neighbours", () => {
  const check = (...texts: string[]) => checkRanges("user", texts.map(parseRange));
  check("0:1000:10", "10:2000:10", "20:990:10");
  assertThrows(() => check("10:0:10", "0:100:11"), PenneError, "0:100:11 and 10:0:10 overlap inside");
  assertThrows(() => check("0:100:10", "50:95:6"), PenneError, "overlap outside");
  assertThrows(() => check("5:5:1", "5:5:1"), PenneError, "overlap");
});

test("checkRanges() knows the kernel's limits of 340 ranges and a page", () => {
  const many = (n: number, base: number) =>
    Array.from({ length: n }, (_, i) => ({ inside: i, outside: base + i, count: 1 }));
  checkRanges("group", many(340, 100));
  assertThrows(() => checkRanges("group", many(341, 100)), PenneError, "341 ranges");
  assertThrows(() => checkRanges("group", many(340, 1_000_000_000)), PenneError, "bytes is longer");
});

test("mapText(), toInside() and hasInside() agree", () => {
  const ranges = ["0:1000:1", "1:100000:65536"].map(parseRange);
  assertEquals(mapText(ranges), "0 1000 1\n1 100000 65536\n");
  assertEquals([1000, 100000, 165535, 165536, 0].map((id) => toInside(ranges, id)), [0, 1, 65536, null, null]);
  assertEquals([0, 1, 65536, 65537].map((id) => hasInside(ranges, id)), [true, true, true, false]);
});
