// Assembling BPF, against the encodings that the kernel's instruction-set.rst gives.

import { assertEquals, assertThrows } from "@std/assert";
import { assemble } from "../../mod/bpf/assemble.ts";
import {
  alu,
  alu32,
  atomicAdd,
  call,
  type Code,
  exit,
  fp,
  goto,
  HELPER,
  jump,
  jump32,
  label,
  load,
  map,
  mapMemory,
  mayGoto,
  move,
  r0,
  r1,
  r2,
  r3,
  r6,
  r9,
  store,
  wide,
} from "../../mod/bpf/instruction.ts";

const hex = (code: Code) => Array.from(assemble(code), (byte) => byte.toString(16).padStart(2, "0")).join("");

Deno.test("Instructions are encoded as the kernel's headers say", () => {
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
  assertEquals(hex(atomicAdd(r1, 64, r2)), "db21400000000000");
  assertEquals(hex(wide(r1, 0x1122334455667788n)), "18010000887766550000000044332211");
  assertEquals(hex(wide(r1, -1n)), "18010000ffffffff00000000ffffffff");
  assertEquals(hex(map(r1, 5)), "18110000050000000000000000000000");
  assertEquals(hex(mapMemory(r1, 5, 64)), "18210000050000000000000040000000");
  assertEquals(hex(call(HELPER.ktime_get_ns)), "8500000005000000");
  assertEquals(hex(exit()), "9500000000000000");
});

Deno.test("Jumps go to labels, forward and back, over wide instructions too", () => {
  assertEquals(hex([jump(r1, "==", 5, "a"), wide(r1, 0n), label("a"), exit()]).slice(0, 16), "1501020005000000");
  assertEquals(hex([label("a"), goto("a")]), "0500ffff00000000");
  assertEquals(hex([jump32(r1, "s<", r2, "a"), label("a")]), "ce21000000000000");
  assertEquals(hex([jump(r1, "&", 2, "a"), label("a")]), "4501000002000000");
  assertEquals(hex([mayGoto("a"), exit(), label("a")]).slice(0, 16), "e500010000000000");
});

Deno.test("A label that is missing, is there twice or too far away is refused", () => {
  assertThrows(() => assemble(goto("nowhere")), RangeError, "no label nowhere");
  assertThrows(() => assemble([label("a"), label("a")]), RangeError, "label a twice");
  assertThrows(() => assemble([goto("a"), Array(40000).fill(exit()), label("a")]), RangeError, "an offset of 40000");
});
