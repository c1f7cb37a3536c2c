// Decoding BTF: encoded here, and the running kernel's.

import "../lib/preload.ts";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { test } from "../lib/helpers.ts";
import { Btf, BTF_KIND } from "../../mod/bpf/btf.ts";
import { buildBtf } from "../../mod/bpf/btf_build.ts";
import { withKernelBtf } from "../../mod/bpf/kernel_btf.ts";

const small = () =>
  new Btf(buildBtf([
    { kind: "int", name: "int", size: 4 }, // 1
    { kind: "typedef", name: "number", type: 1 }, // 2
    {
      kind: "struct",
      name: "inner",
      size: 8,
      members: [{ name: "a", type: 1, offset: 0 }, { name: "b", type: 2, offset: 4 }],
    }, // 3
    {
      kind: "union",
      name: "",
      size: 8,
      members: [{ name: "", type: 3, offset: 0 }, { name: "c", type: 1, offset: 0 }],
    }, // 4
    { kind: "pointer", type: 6 }, // 5
    {
      kind: "struct",
      name: "outer",
      size: 32,
      members: [
        { name: "first", type: 1, offset: 0 },
        { name: "", type: 4, offset: 8 },
        { name: "next", type: 5, offset: 16 },
        { name: "named", type: 3, offset: 24 },
      ],
    }, // 6
  ]));

test("fields are found inside unnamed members of named and unnamed types", () => {
  const btf = small();
  const outer = btf.find("outer", BTF_KIND.STRUCT);
  assertEquals(outer, 6);
  assertEquals(btf.field(outer, "b"), { offset: 12, type: 2 });
  assertEquals(btf.field(outer, "c"), { offset: 8, type: 1 });
  assertEquals(btf.field(outer, "named.b"), { offset: 28, type: 2 });
  assertEquals(btf.field(outer, "named"), { offset: 24, type: 3 });
  assertEquals(btf.field(outer, "none"), undefined);
  assertEquals(btf.field(outer, "first.none"), undefined);
});

test("pointers and typedefs are followed", () => {
  const btf = small();
  const next = btf.field(6, "next")!;
  assertEquals(btf.target(next.type), 6);
  assertEquals(btf.strip(2), 1);
  assertEquals(btf.size(2), 4);
  assertEquals(btf.target(1), 0);
  assertEquals(btf.name(6), "outer");
  assertEquals(btf.count, 6);
  assertEquals(btf.find("outer", BTF_KIND.TYPEDEF), 0);
  assertEquals(btf.find("nothing", BTF_KIND.STRUCT), 0);
});

test("other data and truncated BTF are refused", () => {
  assertThrows(() => new Btf(new Uint8Array(10)), RangeError, "not BTF");
  assertThrows(() => new Btf(new Uint8Array(100)), RangeError, "not BTF");
  const whole = buildBtf([{ kind: "int", name: "int", size: 4 }]);
  assertThrows(() => new Btf(whole.subarray(0, whole.length - 2)), RangeError, "truncated");
});

test("structures that have each other as unnamed members are searched once each", () => {
  const members = Array.from({ length: 5000 }, (_, i) => ({ name: "", type: 1 + i % 2, offset: 0 }));
  const btf = new Btf(buildBtf([
    { kind: "struct", name: "a", size: 8, members },
    { kind: "struct", name: "b", size: 8, members: [...members, { name: "x", type: 1, offset: 4 }] },
  ]));
  // Otherwise this would take longer than the universe lasts.
  assertEquals(btf.field(1, "none"), undefined);
  assertEquals(btf.field(1, "x"), { offset: 4, type: 1 });
});

test("random changes to BTF give an error or another answer", () => {
  const original = buildBtf([
    { kind: "int", name: "int", size: 4 },
    { kind: "typedef", name: "number", type: 1 },
    { kind: "struct", name: "inner", size: 8, members: [{ name: "", type: 4, offset: 0 }] },
    {
      kind: "union",
      name: "",
      size: 8,
      members: [{ name: "", type: 3, offset: 0 }, { name: "c", type: 1, offset: 0 }],
    },
    { kind: "pointer", type: 3 },
    { kind: "array", type: 5, index: 1, length: 3 },
  ]);
  let refused = 0;
  let seed = 1;
  const random = (below: number) => (seed = (seed * 1103515245 + 12345) & 0x7fffffff) % below;
  for (let i = 0; i < 20_000; i++) {
    const bytes = original.slice();
    for (let n = 1 + random(4); n > 0; n--) bytes[random(bytes.length)] = random(256);
    try {
      const btf = new Btf(bytes);
      for (let id = 1; id <= Math.min(btf.count, 20); id++) {
        btf.field(id, "c.none");
        btf.target(id);
        btf.element(id);
        btf.parameters(id);
        btf.name(id);
      }
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      refused++;
    }
  }
  assert(refused > 100);
});

test("a FIFO in place of the kernel's BTF does not block", () => {
  const directory = Deno.makeTempDirSync({ prefix: "penne-btf-" });
  new Deno.Command("mkfifo", { args: [`${directory}/btf`] }).outputSync();
  assertThrows(() => withKernelBtf((btf) => btf.count, `${directory}/btf`), RangeError, "not BTF");
  Deno.removeSync(directory, { recursive: true });
});

test("the running kernel's BTF has the structures that watching needs", () => {
  withKernelBtf((btf) => {
    const task = btf.find("task_struct", BTF_KIND.STRUCT);
    const comm = btf.field(task, "comm")!;
    assertEquals(btf.kind(btf.strip(comm.type)), BTF_KIND.ARRAY);
    assertEquals(btf.size(btf.field(task, "pid")!.type), 4);
    const nsproxy = btf.target(btf.field(task, "nsproxy")!.type);
    assertEquals(btf.name(nsproxy), "nsproxy");
    const net = btf.target(btf.field(nsproxy, "net_ns")!.type);
    assertEquals(btf.name(net), "net");
    assertEquals(btf.size(btf.field(net, "ns.inum")!.type), 4);
    const exit = btf.parameters(btf.find("btf_trace_sys_exit", BTF_KIND.TYPEDEF));
    assertEquals(exit.length, 3);
    assertEquals(btf.name(btf.target(exit[1]!)), "pt_regs");
    assert(btf.count > 10_000);
  });
});
