// The agent's wire format.

import { assertEquals } from "@std/assert";
import { cString } from "../../ffi/core/memory.ts";
import { out, pointers } from "../../ffi/core/task.ts";
import { decodeAnswer, encodeRequest, marshal, Operation, REQUEST_SIZE } from "../../ffi/agent/wire.ts";
import { test } from "../lib/helpers.ts";

test("marshal() puts what the kernel writes first, and every piece at a multiple of 8", () => {
  const m = marshal([cString("abc"), out(new Uint8Array(3)), 7, out(new Uint8Array([9])), null]);
  assertEquals(m.args, [16n, 0n, 7n, 8n, 0n, 0n]);
  assertEquals([m.pointers, m.fdMask, m.replyAt, m.replyLength], [0b1011, 0, 0, 16]);
  assertEquals([...m.payload], [0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 97, 98, 99, 0, 0, 0, 0, 0]);
});

test("marshal() lists each pointer of an array, with a NULL at the end", () => {
  const m = marshal([pointers([cString("a"), cString("b")])]);
  const words = new BigUint64Array(m.payload.buffer, 0, 3);
  assertEquals([...words], [24n, 32n, 0xffff_ffff_ffff_ffffn]);
  assertEquals(m.relocs, [0, 8, 16]);
});

test("encodeRequest() puts relocations after the payload", () => {
  const m = marshal([pointers([])]);
  const view = new DataView(encodeRequest({ operation: Operation.SYSCALL, nr: 59, flags: 1 }, m).buffer);
  assertEquals(view.byteLength, REQUEST_SIZE + 8 + 4);
  assertEquals([0, 4, 56, 64, 68, 72].map((at) => view.getUint32(at, true)), [0, 59, 1, 1, 8, 1]);
});

test("decodeAnswer() distinguishes answers and events, and refuses the rest", () => {
  const packet = (kind: number, status: number, result: bigint) => {
    const view = new DataView(new ArrayBuffer(16));
    view.setUint32(0, kind, true);
    view.setUint32(4, status, true);
    view.setBigInt64(8, result, true);
    return new Uint8Array(view.buffer);
  };
  assertEquals(decodeAnswer(packet(0, 0, -13n)), { kind: "answer", result: -13, payload: new Uint8Array(0) });
  assertEquals(decodeAnswer(packet(1, 0x700, 42n)), { kind: "child", pid: 42, status: 0x700 });
  assertEquals(decodeAnswer(packet(2, 0, 0n)), null);
  assertEquals(decodeAnswer(new Uint8Array(15)), null);
});
