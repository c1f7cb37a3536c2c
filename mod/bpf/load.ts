// Loads code into the kernel.

import type { Fd } from "../../ffi/core/fd.ts";
import { loadProgram, PROGRAM_TYPE, type ProgramFields, runProgram } from "../../ffi/sys/bpf.ts";
import { assemble, describe } from "./assemble.ts";
import type { Code } from "./instruction.ts";

/**
 * Assembles and loads a program.
 *
 * @throws {SysError} If the kernel refuses it; the error has the end of the verifier's log and describes the instruction.
 */
export function loadCode(code: Code, program: ProgramFields): Fd {
  return loadProgram(assemble(code), program, (index) => describe(code, index));
}

/**
 * Runs code once, in the calling task.
 *
 * @throws {SysError} If the kernel refuses it.
 */
export function runCode(code: Code, name: string): void {
  using program = loadCode(code, { prog_type: PROGRAM_TYPE.RAW_TRACEPOINT, prog_name: name });
  runProgram(program);
}
