// Loads code into the kernel.

import type { Fd } from "../../ffi/core/fd.ts";
import { loadProgram, PROGRAM_TYPE, type ProgramSpec, runProgram } from "../../ffi/sys/bpf.ts";
import { assemble, describe } from "./assemble.ts";
import type { Code } from "./instruction.ts";

/** A program, not yet assembled. */
export interface CodeSpec extends Omit<ProgramSpec, "instructions" | "describe"> {
  readonly code: Code;
}

/**
 * Loads a program.
 *
 * @throws {SysError} If the kernel refuses it; the error has the end of the verifier's log and describes the instruction.
 */
export function loadCode({ code, ...spec }: CodeSpec): Fd {
  return loadProgram({ ...spec, instructions: assemble(code), describe: (index) => describe(code, index) });
}

/**
 * Runs code once, in the calling task.
 *
 * @throws {SysError} If the kernel refuses it.
 */
export function runCode(name: string, code: Code): void {
  using program = loadCode({ type: PROGRAM_TYPE.RAW_TRACEPOINT, name, code });
  runProgram(program);
}
