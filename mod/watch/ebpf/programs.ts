// The programs of the eBPF back end: their code, and when each is needed; layout.ts has what each is attached to.

import { ATTACH_TYPE, PROGRAM_TYPE, type ProgramFields } from "../../../ffi/sys/bpf.ts";
import type { Code } from "../../bpf/instruction.ts";
import type { FactKind } from "../facts/contract.ts";
import type { ProgramName } from "./layout.ts";
import type { Plan } from "./pieces.ts";
import { sysEnter, sysExit } from "./syscalls.ts";
import { exec, exit, iterator, newTask } from "./tasks.ts";

/** A program, and the kinds of facts, or the filter, that it is for. */
interface Program {
  readonly code: (plan: Plan) => Code;
  readonly for?: readonly (FactKind | "trees")[];
}

/** In the order of attachment: an exit that finds nothing saved by the entry emits a change without its old namespace. */
const PROGRAMS: Readonly<Record<ProgramName, Program>> = {
  tasks: { code: iterator },
  sys_exit: { code: sysExit, for: ["ns"] },
  sys_enter: { code: sysEnter, for: ["ns"] },
  fork: { code: newTask, for: ["fork", "ns", "trees"] },
  exec: { code: exec, for: ["exec", "ns"] },
  exit: { code: exit, for: ["exit", "trees"] },
};

/** Generates the programs that a plan needs, in the order of attachment. */
export function programs(plan: Plan): (readonly [Code, ProgramFields])[] {
  const needs = (reason: FactKind | "trees") => reason === "trees" ? plan.maps.trees !== null : plan.wants(reason);
  return (Object.keys(PROGRAMS) as ProgramName[])
    .filter((name) => PROGRAMS[name].for?.some(needs) ?? true)
    .map((name) => [PROGRAMS[name].code(plan), {
      prog_type: PROGRAM_TYPE.TRACING,
      prog_name: `penne_${name}`,
      expected_attach_type: name === "tasks" ? ATTACH_TYPE.TRACE_ITER : ATTACH_TYPE.TRACE_RAW_TP,
      attach_btf_id: plan.layout.attach[name],
    }]);
}
