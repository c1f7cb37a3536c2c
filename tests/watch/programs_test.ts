// The programs that are made for kernels with less than this one: the verifier takes each of them.

import "../lib/preload.ts";
import { assert, assertEquals } from "@std/assert";
import { test } from "../lib/helpers.ts";
import { ATTACH_TYPE, createMap, loadBtf, loadProgram, MAP_FLAG, MAP_TYPE, PROGRAM_TYPE } from "../../ffi/sys/bpf.ts";
import { assemble } from "../../mod/bpf/assemble.ts";
import type { Code } from "../../mod/bpf/instruction.ts";
import { buildBtf } from "../../mod/bpf/btf_build.ts";
import { withKernelBtf } from "../../mod/bpf/kernel_btf.ts";
import type { Filter } from "../../mod/watch/facts/contract.ts";
import { type Layout, resolveLayout } from "../../mod/watch/ebpf/layout.ts";
import { CONTROL, Programs, STORAGE_SIZE } from "../../mod/watch/ebpf/programs.ts";

/** Every program, with what it is attached to. */
function programs(made: Programs, { attach }: Layout): [string, Code, number, number][] {
  const { TRACE_RAW_TP, TRACE_ITER } = ATTACH_TYPE;
  return [
    ["sys_enter", made.sysEnter(), attach.sysEnter, TRACE_RAW_TP],
    ["sys_exit", made.sysExit(), attach.sysExit, TRACE_RAW_TP],
    ["fork", made.newTask(), attach.newTask, TRACE_RAW_TP],
    ["exec", made.exec(), attach.exec, TRACE_RAW_TP],
    ["exit", made.exitTask(), attach.exit, TRACE_RAW_TP],
    ["tasks", made.iterator(), attach.iterator, TRACE_ITER],
  ];
}

const everything: Filter = {
  failed: true,
  trees: new Set([1]),
  pids: new Set([1, 2]),
  comms: new Set(["sh", "a name that is too long"]),
  uids: new Set([0, 4294967294]),
  cgroups: new Set([1n, 1n << 40n]),
  inums: new Set([4026531833]),
};

test("The verifier takes the programs of every layout and filter", { root: true }, async (t) => {
  const layout = withKernelBtf((btf) => resolveLayout(btf));
  using control = createMap({
    type: MAP_TYPE.ARRAY,
    name: "control",
    key: 4,
    value: CONTROL.SIZE,
    entries: 1,
    flags: MAP_FLAG.MMAPABLE,
  });
  using ring = createMap({ type: MAP_TYPE.RINGBUF, name: "ring", entries: 65536 });
  using trees = createMap({ type: MAP_TYPE.HASH, name: "trees", key: 4, value: 4, entries: 16 });
  using types = loadBtf(buildBtf([
    { kind: "int", name: "int", size: 4 },
    { kind: "int", name: "char", size: 1 },
    { kind: "array", type: 2, index: 1, length: STORAGE_SIZE },
  ]));
  using storage = createMap({
    type: MAP_TYPE.TASK_STORAGE,
    name: "storage",
    key: 4,
    value: STORAGE_SIZE,
    flags: MAP_FLAG.NO_PREALLOC,
    btf: { fd: types, key: 1, value: 3 },
  });
  const maps = { ring: ring.number, control: control.number, storage: storage.number };
  const check = (which: Layout, filter: Filter, level: number) => {
    const made = new Programs(which, filter, filter.trees ? { ...maps, trees: trees.number } : maps, level);
    for (const [name, code, attachId, attachType] of programs(made, which)) {
      using program = loadProgram({
        type: PROGRAM_TYPE.TRACING,
        name,
        instructions: assemble(code),
        attachId,
        attachType,
      });
      assert(program.number > 2);
    }
  };
  await t.step("this kernel's", () => check(layout, {}, 0));
  await t.step("with all filters at once", () => check(layout, everything, 0));
  await t.step("in a pid namespace three levels down", () => check(layout, everything, 3));
  await t.step("without 64-bit ids, as before Linux 6.18", () => {
    check({ ...layout, common: { ...layout.common, id: null, type: null, list: null } }, { failed: true }, 0);
  });
  await t.step(
    "without time namespaces, cgroups v2, 32-bit calls, and with an end that does not tell if it is the last",
    () => {
      const task = { ...layout.task, cgroups: null, compat: null, files: null, startBoottime: null };
      const slots = layout.slots.filter(({ slot }) => !slot.startsWith("time"));
      check({ ...layout, task, slots, cgroup: null, file: null, exitTellsLast: false }, { failed: true }, 0);
    },
  );
  await t.step("without a way to have pointers that are not trusted, as before Linux 6.2", () => {
    check({ ...layout, cast: null }, everything, 3);
  });
  await t.step("for one type alone", () => {
    for (const type of ["user", "pid", "time", "net"] as const) check(layout, { types: new Set([type]) }, 0);
  });
});

test("The programs for aarch64 look for its system calls", {}, () => {
  const layout = withKernelBtf((btf) => resolveLayout(btf));
  const code = assemble(new Programs(layout, {}, { ring: 3, control: 4, storage: 5 }, 0, "aarch64").sysEnter());
  const view = new DataView(code.buffer);
  const compared: number[] = [];
  for (let at = 0; at < code.length; at += 8) {
    if (code[at] === 0x16 && compared.length < 4) compared.push(view.getInt32(at + 4, true)); // JMP32 | JEQ | K
  }
  assertEquals(compared, [97, 268, 337, 375]);
});
