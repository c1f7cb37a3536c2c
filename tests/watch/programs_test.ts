// The programs for kernels that lack something: the verifier accepts each of them.

import "../lib/preload.ts";
import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { test } from "../lib/helpers.ts";
import { SysError } from "../../ffi/core/errno.ts";
import { assemble } from "../../mod/bpf/assemble.ts";
import { exit, jump32, label, load, move, REGISTERS, store } from "../../mod/bpf/instruction.ts";
import { withKernelBtf } from "../../mod/bpf/kernel_btf.ts";
import { loadCode, runCode } from "../../mod/bpf/load.ts";
import type { Filter } from "../../mod/watch/facts/contract.ts";
import { type Layout, resolveLayout } from "../../mod/watch/ebpf/layout.ts";
import { createMaps } from "../../mod/watch/ebpf/maps.ts";
import { Plan } from "../../mod/watch/ebpf/pieces.ts";
import { programs } from "../../mod/watch/ebpf/programs.ts";
import { sysEnter } from "../../mod/watch/ebpf/syscalls.ts";

const everything: Filter = {
  failed: true,
  trees: new Set([1]),
  pids: new Set([1, 2]),
  comms: new Set(["sh", "a name that is too long"]),
  uids: new Set([0, 4294967294]),
  cgroups: new Set([1n, 1n << 40n]),
  inums: new Set([4026531833]),
};

test("the verifier accepts the programs of every layout and filter", ["root"], async (t) => {
  const layout = withKernelBtf((btf) => resolveLayout(btf));
  using owner = new DisposableStack();
  const { trees, ...maps } = createMaps(owner, 65536, true);
  const check = (which: Layout, filter: Filter, level: number) => {
    const made = programs(new Plan(which, filter, { ...maps, trees: filter.trees ? trees : null }, level));
    assertEquals(made.length, 6);
    for (const [code, fields] of made) {
      using program = loadCode(code, fields);
      assert(program.number > 2);
    }
  };
  await t.step("this kernel's layout", () => check(layout, {}, 0));
  await t.step("with all filters at once", () => check(layout, everything, 0));
  await t.step("with a filter, and all holders of namespaces", () => {
    check(layout, { ...everything, inums: undefined, state: true }, 0);
    check({ ...layout, cast: null, exitTellsLast: false }, { comms: everything.comms, state: true }, 3);
  });
  await t.step("in a pid namespace three levels down", () => check(layout, everything, 3));
  await t.step("without 64-bit ids, as before Linux 6.18", () => {
    check({ ...layout, common: { ...layout.common, id: null, type: null, list: null } }, { failed: true }, 0);
  });
  await t.step(
    "without time namespaces, cgroups v2, 32-bit calls, and a flag for the end of a process",
    () => {
      const task = { ...layout.task, cgroups: null, compat: null, files: null, start: null };
      const slots = layout.slots.filter(({ slot }) => !slot.startsWith("time"));
      check({ ...layout, task, slots, cgroup: null, file: null, exitTellsLast: false }, { failed: true }, 0);
    },
  );
  await t.step("without untrusted pointers, as before Linux 6.2", () => {
    check({ ...layout, cast: null }, everything, 3);
  });
  await t.step("for a single type", () => {
    for (const type of ["user", "pid", "time", "net"] as const) check(layout, { types: new Set([type]) }, 0);
  });
});

test("a refusal has the verifier's reason, and names the instruction by its label", ["root"], () => {
  const { r0, r1, r6, fp } = REGISTERS;
  const code = [
    load(8, r6, r1, 0),
    move(r0, 7),
    store(4, fp, -8, 1),
    jump32(r0, "!=", 7, "end"),
    label("broken"),
    store(8, fp, -16, r0),
    load(8, r0, r0, 16),
    label("end"),
    exit(),
  ];
  const { message } = assertThrows(() => runCode(code, "penne_broken"), SysError);
  // The same text by the kernel, then by penne.
  assertStringIncludes(message, "(79) r0 = *(u64 *)(r0 +16); R0 invalid mem access 'scalar'");
  assertStringIncludes(message, "in penne_broken at broken+1: r0 = *(u64 *)(r0 +16)");
});

test("the programs for aarch64 compare with its system call numbers", () => {
  const layout = withKernelBtf((btf) => resolveLayout(btf));
  const maps = { ring: { number: 3 }, control: { number: 4 }, storage: { number: 5 }, trees: null };
  const code = assemble(sysEnter(new Plan({ ...layout, arch: "aarch64" }, {}, maps, 0)));
  const view = new DataView(code.buffer);
  const compared: number[] = [];
  for (let at = 0; at < code.length; at += 8) {
    if (code[at] === 0x16 && compared.length < 4) compared.push(view.getInt32(at + 4, true)); // JMP32 | JEQ | K
  }
  assertEquals(compared, [97, 268, 337, 375]);
});
