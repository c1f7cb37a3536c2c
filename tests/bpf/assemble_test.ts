// Assembling and formatting BPF, against the encodings in the kernel's headers.

import "../lib/preload.ts";
import { assertEquals, assertThrows } from "@std/assert";
import { test } from "../lib/helpers.ts";
import { assemble, describe } from "../../mod/bpf/assemble.ts";
import * as bpf from "../../mod/bpf/instruction.ts";

const { alu, alu32, call, exit, format, goto, jump, jump32, label, load, map, mapMemory, mayGoto, move, store, wide } =
  bpf;
const { r0, r1, r2, r3, r6, r9, fp } = bpf.REGISTERS;

const hex = (code: bpf.Code) => Array.from(assemble(code), (byte) => byte.toString(16).padStart(2, "0")).join("");

test("instructions are encoded as in linux/bpf.h", () => {
  // {code, target | source << 4, offset (2), immediate (4)}, from linux/bpf.h and linux/bpf_common.h
  assertEquals(hex(move(r0, 1)), "b700000001000000"); // BPF_ALU64 | BPF_MOV | BPF_K
  assertEquals(hex(move(r6, r1)), "bf16000000000000");
  assertEquals(hex(alu(r2, "+", -8)), "07020000f8ffffff");
  assertEquals(hex(alu(r2, "<<", 4)), "6702000004000000");
  assertEquals(hex(alu(r2, ">>", 32)), "7702000020000000");
  assertEquals(hex(alu(r1, "-", r2)), "1f21000000000000");
  assertEquals(hex(alu32(r3, "&", 0xff)), "54030000ff000000");
  assertEquals(hex(alu32(r3, "|", r9)), "4c93000000000000");
  assertEquals(hex(load(8, r2, r1, 16)), "7912100000000000");
  assertEquals(hex(load(4, r2, r1, -4)), "6112fcff00000000");
  assertEquals(hex(load(2, r2, r1, 0)), "6912000000000000");
  assertEquals(hex(load(1, r2, r1, 0)), "7112000000000000");
  assertEquals(hex(store(8, fp, -8, r1)), "7b1af8ff00000000");
  assertEquals(hex(store(4, fp, -8, 7)), "620af8ff07000000");
  assertEquals(hex(store(1, r1, 3, 9)), "7201030009000000");
  assertEquals(hex(bpf.atomicAdd(r1, 64, r2)), "db21400000000000");
  assertEquals(hex(wide(r1, 0x1122334455667788n)), "18010000887766550000000044332211");
  assertEquals(hex(wide(r1, -1n)), "18010000ffffffff00000000ffffffff");
  assertEquals(hex(map(r1, 5)), "18110000050000000000000000000000");
  assertEquals(hex(mapMemory(r1, 5, 64)), "18210000050000000000000040000000");
  assertEquals(hex(call("ktime_get_ns")), "8500000005000000");
  assertEquals(hex(exit()), "9500000000000000");
});

test("jumps reach labels in both directions, across wide instructions too", () => {
  assertEquals(hex([jump(r1, "==", 5, "a"), wide(r1, 0n), label("a"), exit()]).slice(0, 16), "1501020005000000");
  assertEquals(hex([label("a"), goto("a")]), "0500ffff00000000");
  assertEquals(hex([jump32(r1, "s<", r2, "a"), label("a")]), "ce21000000000000");
  assertEquals(hex([jump(r1, "&", 2, "a"), label("a")]), "4501000002000000");
  assertEquals(hex([mayGoto("a"), exit(), label("a")]).slice(0, 16), "e500010000000000");
});

test("a label that is missing, defined twice or too far away is refused", () => {
  assertThrows(() => assemble(goto("nowhere")), RangeError, "no label nowhere");
  assertThrows(() => assemble([label("a"), label("a")]), RangeError, "label a twice");
  assertThrows(() => assemble([goto("a"), Array(40000).fill(exit()), label("a")]), RangeError, "an offset of 40000");
});

test("instructions are formatted as in the verifier's log", () => {
  const lines: [bpf.Instruction, string][] = [
    [move(r0, -1), "r0 = -1"],
    [alu32(r3, "<<", r9), "w3 <<= w9"],
    [alu(r2, "*", 16), "r2 *= 16"],
    [load(2, r2, r1, 24), "r2 = *(u16 *)(r1 +24)"],
    [store(1, r1, 0, 9), "*(u8 *)(r1 +0) = 9"],
    [store(4, fp, -4, r6), "*(u32 *)(r10 -4) = r6"],
    [bpf.atomicAdd(r1, 64, r2), "lock *(u64 *)(r1 +64) += r2"],
    [wide(r1, -2n), "r1 = 0xfffffffffffffffe"],
    [map(r1, 5), "r1 = map[fd:5]"],
    [mapMemory(r1, 5, 64), "r1 = map[fd:5][0]+64"],
    [jump(r1, "s>=", -1, "a"), "if r1 s>= 0xffffffff goto a"],
    [jump32(r1, "&", r2, "a"), "if w1 & w2 goto a"],
    [goto("a"), "goto a"],
    [mayGoto("a"), "may_goto a"],
    [call("ringbuf_output"), "call bpf_ringbuf_output#130"],
    [bpf.callKernel(7), "call kernel-function#7"],
    [exit(), "exit"],
  ];
  assertEquals(lines.map(([instruction]) => format(instruction)), lines.map(([, line]) => line));
});

test("an instruction is described by its distance from the label before it", () => {
  const code = [move(r0, 0), label("a"), wide(r1, 0n), [goto("b"), label("b")], exit()];
  assertEquals([0, 1, 3, 4].map((index) => describe(code, index)), [
    "start+0: r0 = 0",
    "a+0: r1 = 0x0",
    "a+2: goto b",
    "b+0: exit",
  ]);
  assertThrows(() => describe(code, 5), RangeError, "no instruction 5");
});
