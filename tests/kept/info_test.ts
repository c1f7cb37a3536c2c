// Info files: what is accepted, and how errors are reported.

import { assertEquals, assertThrows } from "@std/assert";
import {
  decodeInfo,
  decodeLines,
  decodeSnapInfo,
  encodeInfo,
  encodeLines,
  InfoError,
  type KeptInfo,
} from "../../mod/kept/record/info.ts";
import { test } from "../lib/helpers.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

test("decodeLines() accepts what snap-confine accepts", () => {
  for (
    const [text, entries] of [
      ["", []],
      ["key=value\n", [["key", "value"]]],
      ["key=\n", [["key", ""]]],
      ["key==\n", [["key", "="]]],
      ["# comment\nkey=value\n#\n", [["key", "value"]]],
      ["a=1\na=2\n", [["a", "1"]]],
      [" key = value \n", [[" key ", " value "]]],
      ["key=[x]\n", [["key", "[x]"]]],
    ] as const
  ) assertEquals([...decodeLines(bytes(text))], entries as unknown as [string, string][]);
});

test("decodeLines() names the line that is malformed", () => {
  for (
    const [text, message] of [
      ["key\0=value\n", "line 1 contains NUL byte"],
      ["a=1\nb=2\0\n", "line 2 contains NUL byte"],
      ["key=value", "line 1 does not end with a newline"],
      ["a=1\n# end", "line 2 does not end with a newline"],
      ["[section]\n", "line 1 contains unexpected section"],
      ["a=1\n[\n", "line 2 contains unexpected section"],
      ["malformed\n", "line 1 is not a key=value assignment"],
      ["a=1\n\nb=2\n", "line 2 is not a key=value assignment"],
      ["=value\n", "line 1 contains empty key"],
    ] as const
  ) {
    const error = assertThrows(() => decodeLines(bytes(text)), InfoError);
    assertEquals((error as Error).message, message);
  }
});

test("encodeLines() keeps every value in its line", () => {
  const text = encodeLines([["source", "process 1 (a\nholder=2 3 4)"], ["b", "\0\x1b[m"]]);
  assertEquals([...decodeLines(text)], [["source", "process 1 (a?holder=2 3 4)"], ["b", "??[m"]]);
});

const INFO: KeptInfo = {
  name: "build",
  user: 1000,
  token: "0123456789abcdef",
  created: "2026-01-02T03:04:05.678Z",
  creator: 0,
  source: "command make -j2",
  namespaces: new Map([
    ["user", { by: "mount", inum: 4026532189, device: "0:4", id: null }],
    ["net", { by: "holder", inum: 4026532190, device: "0:4", id: "18446744073709551615" }],
  ]),
  holder: { pid: 4711, start: "123456", inode: "99" },
  init: { pid: 4712, start: "123457", inode: null },
  pids: "4",
  base: { path: "/srv/a=b", device: "253:16" },
  key: "v1",
};

test("decodeInfo() returns what encodeInfo() was given", () => {
  assertEquals(decodeInfo(encodeInfo(INFO)), INFO);
  assertEquals(decodeSnapInfo(encodeInfo(INFO, true)), INFO);
  const least = { ...INFO, user: null, init: null, base: null, key: null };
  assertEquals(decodeInfo(encodeInfo(least)), least);
  assertEquals(new TextDecoder().decode(encodeInfo(INFO, true)).split("\n")[0], "base-snap-name=v1");
});

test("decodeInfo() refuses files with missing or malformed values", () => {
  const text = new TextDecoder().decode(encodeInfo(INFO));
  const without = (key: string) => text.replace(new RegExp(`^${key}=.*\n`, "m"), "");
  const changed = (key: string, value: string) => text.replace(new RegExp(`^${key}=.*`, "m"), `${key}=${value}`);
  for (
    const [wrong, message] of [
      [without("version"), "version is missing"],
      [changed("version", "2"), "this penne does not know version 2"],
      [without("name"), "name is missing"],
      [changed("name", "../x"), "name is malformed"],
      [changed("user", "x"), "user is malformed"],
      [changed("namespace.net", "mount 1 0:4"), "namespace.net is not how"],
      [changed("namespace.net", "file 1 0:4 5"), "namespace.net is not how"],
      [text.replace("namespace.net", "namespace.bogus"), "namespace.bogus is not a kind of namespace"],
      [without("namespace.net").replace(/^namespace.user=.*\n/m, ""), "no namespace is recorded"],
      [without("holder"), "holder is missing"],
      [changed("holder", "0 1 2"), "holder is not a process"],
      [without("pids"), "pids is missing"],
      [changed("init", "12"), "init is not a process"],
    ] as const
  ) assertThrows(() => decodeInfo(bytes(wrong)), InfoError, message);
});
