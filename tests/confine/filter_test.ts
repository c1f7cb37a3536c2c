// Filters of system calls: what they answer for every number, on both architectures, and that the kernel agrees.

import { assertEquals, assertThrows } from "@std/assert";
import type { CallRule } from "../../ffi/core/call_rule.ts";
import { type Architecture, numbersOf, type SyscallName } from "../../ffi/core/syscalls.ts";
import { assembleClassic, CODE } from "../../mod/confine/classic.ts";
import { fatalCalls } from "../../mod/confine/fatal.ts";
import { refusedCalls } from "../../mod/confine/refused.ts";
import { AUDIT, makeFilter, VERDICT } from "../../mod/confine/filter.ts";
import { permittedCalls } from "../../mod/confine/permitted.ts";
import { sh, test } from "../lib/helpers.ts";
import { verdictOf } from "./interpreter.ts";

const ARCHITECTURES: readonly Architecture[] = ["x86_64", "aarch64"];
const rule = (call: SyscallName, more: Partial<CallRule> = {}): CallRule => ({ call, why: "", test: "", ...more });

/** Numbers that no call has, and the edges of the ranges that a filter compares with. */
const ODD = [-1, 0x3fff_ffff, 0x4000_0000, 0x4000_0001, 0x7fff_ffff, 0x8000_0000].map((number) => number >>> 0);

for (const arch of ARCHITECTURES) {
  const number = numbersOf(arch);
  const verdict = (rules: readonly CallRule[], nr: number, ...args: bigint[]) =>
    verdictOf(makeFilter(rules, arch), arch, { number: nr, args });

  test(`A filter for ${arch} permits what rules name, refuses some, kills for what is fatal, and traps all else`, () => {
    const rules = [rule("read"), rule("futex"), rule("setns"), rule("uname"), rule("read")];
    const permitted = rules.map(({ call }) => number[call]);
    const fatal = [...fatalCalls(arch).values()];
    const refused = new Map([...refusedCalls(arch).values()].map((call) => [call.number, call]));
    const program = makeFilter(rules, arch);
    for (const nr of [...Array(1024).keys(), ...ODD]) {
      const expected = permitted.includes(nr)
        ? VERDICT.ALLOW
        : fatal.includes(nr) || (arch === "x86_64" && nr >= 0x4000_0000)
        ? VERDICT.KILL
        : refused.has(nr) && !refused.get(nr)!.when
        ? VERDICT.ERRNO | refused.get(nr)!.errno
        : VERDICT.TRAP;
      assertEquals(verdictOf(program, arch, { number: nr }), expected, `call ${nr}`);
      const other = AUDIT[arch === "x86_64" ? "aarch64" : "x86_64"];
      for (const audit of [other, 0x4000_0003, 0]) { // the other one, i386, and none
        assertEquals(
          verdictOf(program, arch, { number: nr, audit }),
          VERDICT.KILL,
          `call ${nr} of another architecture`,
        );
      }
    }
  });

  test(`A filter for ${arch} refuses some calls by their arguments, and traps others`, () => {
    const checked = [...refusedCalls(arch).values()].filter(({ when }) => when);
    assertEquals(checked.map((call) => call.number), [number.prctl, number.ioctl]);
    for (const { number: nr, errno, when } of checked) {
      const args = Array(6).fill(1n);
      assertEquals(verdict([], nr, ...args), VERDICT.TRAP);
      for (const { argument, values } of when!) args[argument] = BigInt(values[0]!);
      assertEquals(verdict([], nr, ...args), VERDICT.ERRNO | errno);
      const rules = [rule(nr === number.prctl ? "prctl" : "ioctl")];
      assertEquals(verdict(rules, nr, ...args), VERDICT.ALLOW);
    }
  });

  test(`A filter for ${arch} checks arguments: values, bits, and both halves of a long`, () => {
    const when = [{ argument: 0, values: [2, 10] }, { argument: 1, mask: 0xff, values: [3] }];
    const rules = [rule("socket", { when }), rule("fcntl", { when: [{ argument: 1, values: [-1], wide: true }] })];
    const { socket, fcntl } = number;
    assertEquals(verdict(rules, socket, 2n, 3n), VERDICT.ALLOW);
    assertEquals(verdict(rules, socket, 10n, 0xf03n), VERDICT.ALLOW);
    // The kernel takes the lower half alone of an int.
    assertEquals(verdict(rules, socket, 1n << 32n | 2n, 3n), VERDICT.ALLOW);
    for (const args of [[1n, 3n], [2n, 4n], [10n, 0n], [0n, 0n], [3n, 2n], [2n << 32n, 3n]]) {
      assertEquals(verdict(rules, socket, ...args), VERDICT.TRAP, `${args}`);
    }
    assertEquals(verdict(rules, fcntl, 0n, 0xffff_ffffn), VERDICT.ALLOW);
    assertEquals(verdict(rules, fcntl, 0n, -1n), VERDICT.TRAP);
    assertEquals(verdict(rules, fcntl, 0xffff_ffffn, 0n), VERDICT.TRAP);
  });

  test(`In a filter for ${arch} rules for one call are alternatives, and one without conditions wins`, () => {
    const first = rule("openat", { when: [{ argument: 2, values: [0o10000000] }], otherwise: 13 });
    const second = rule("openat", { when: [{ argument: 2, values: [5] }] });
    const { openat } = number;
    assertEquals(verdict([first, second], openat, 0n, 0n, 5n), VERDICT.ALLOW);
    assertEquals(verdict([second, first], openat, 0n, 0n, 0o10000000n), VERDICT.ALLOW);
    assertEquals(verdict([second, first], openat, 0n, 0n, 6n), VERDICT.ERRNO | 13);
    assertEquals(verdict([second], openat, 0n, 0n, 6n), VERDICT.TRAP);
    assertEquals(verdict([first, rule("openat")], openat, 0n, 0n, 6n), VERDICT.ALLOW);
    assertEquals(permittedCalls([first, rule("read"), second]), ["openat*", "read"]);
    assertEquals(permittedCalls([first, rule("openat")]), ["openat"]);
  });
}

test("A check that permits no value is refused, since it would permit all", () => {
  assertThrows(() => makeFilter([rule("socket", { when: [{ argument: 0, values: [] }] })], "x86_64"), RangeError);
});

test("Labels that are missing, doubled, behind or too far are refused", () => {
  const back = { code: CODE.RETURN, operand: 0 };
  const jump = { code: CODE.EQUAL, operand: 0, yes: "there" };
  assertThrows(() => assembleClassic([jump, back]), RangeError, "cannot jump");
  assertThrows(() => assembleClassic([{ label: "there" }, jump, back]), RangeError, "cannot jump");
  assertThrows(() => assembleClassic([{ label: "there" }, { label: "there" }, back]), RangeError, "twice");
  assertThrows(() => assembleClassic([jump, ...Array(256).fill(back), { label: "there" }, back]), RangeError);
  assertEquals(assembleClassic([jump, ...Array(255).fill(back), { label: "there" }, back]).length, 8 * 257);
});

test(
  "Numbers of fatal and refused calls, and of those that rules name, are the kernel's",
  ["package:gcc"],
  async () => {
    const { arch } = Deno.build;
    const refused = [...refusedCalls(arch)].map(([name, { number }]): [string, number] => [name, number]);
    const known = [...Object.entries(numbersOf(arch)), ...fatalCalls(arch), ...refused];
    const file = Deno.makeTempFileSync({ suffix: ".c" });
    const line = (name: string) => `#ifdef __NR_${name}\n${name} __NR_${name}\n#endif\n`;
    Deno.writeTextFileSync(file, `#include <asm/unistd.h>\n${known.map(([name]) => line(name)).join("")}`);
    const { stdout, code } = await sh(["gcc", "-E", "-P", file]);
    Deno.removeSync(file);
    assertEquals(code, 0);
    const numbers = new Map(
      stdout.trim().split("\n").map((text): [string, number] => {
        const [name, number] = text.split(" ");
        return [name!, Number(number)];
      }),
    );
    for (const [name, number] of known) if (numbers.has(name)) assertEquals(numbers.get(name), number, name);
    assertEquals(new Set(fatalCalls(arch).values()).size, fatalCalls(arch).size);
    assertEquals(new Set(refused.map(([, number]) => number)).size, refused.length);
  },
);
