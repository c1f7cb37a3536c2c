// Executes filters of system calls as the kernel does, so that they can be tried on every architecture.

import { AUDIT } from "../../mod/confine/filter.ts";
import type { Architecture } from "../../ffi/core/syscalls.ts";
import { CODE, INSTRUCTION } from "../../mod/confine/classic.ts";

/** A call, as a filter sees it. */
export interface SeenCall {
  readonly number: number;
  readonly args?: readonly bigint[];
  /** AUDIT_ARCH_* of the caller; by default that of the filter. */
  readonly audit?: number;
}

/** The verdict of a filter on a call, `VERDICT` and its number. */
export function verdictOf(program: Uint8Array, arch: Architecture, { number, args = [], audit }: SeenCall): number {
  const data = new DataView(new ArrayBuffer(64));
  data.setUint32(0, number, true);
  data.setUint32(4, audit ?? AUDIT[arch], true);
  args.forEach((arg, i) => data.setBigUint64(16 + 8 * i, BigInt.asUintN(64, arg), true));
  const view = new DataView(program.buffer, program.byteOffset, program.byteLength);
  let accumulator = 0;
  for (let at = 0; at < program.length; at += INSTRUCTION) {
    const operand = view.getUint32(at + 4, true);
    const jump = (taken: boolean) => at += INSTRUCTION * view.getUint8(at + (taken ? 2 : 3));
    switch (view.getUint16(at, true)) {
      case CODE.LOAD:
        accumulator = data.getUint32(operand, true);
        break;
      case CODE.AND:
        accumulator = (accumulator & operand) >>> 0;
        break;
      case CODE.EQUAL:
        jump(accumulator === operand);
        break;
      case CODE.AT_LEAST:
        jump(accumulator >= operand);
        break;
      case CODE.RETURN:
        return operand;
      default:
        throw new Error(`instruction ${at / INSTRUCTION} is none that the kernel permits here`);
    }
  }
  throw new Error("the filter ends without a verdict");
}
