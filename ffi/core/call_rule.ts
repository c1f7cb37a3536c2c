// What code needs of the kernel after penne has confined itself: rules stand beside the code that makes the calls.

import type { SyscallName } from "./syscalls.ts";

/** A condition on an argument of a system call. */
export interface ArgumentCheck {
  /** Which argument, from 0. */
  readonly argument: number;
  /** The values it may have. */
  readonly values: readonly number[];
  /** Bits that are compared; all 32 of an int by default. */
  readonly mask?: number;
  /** Whether the kernel takes 64 bits; the upper half must be 0 then. */
  readonly wide?: true;
}

/** A system call that some code makes. */
export interface CallRule {
  /** The kernel's name of the call. */
  readonly call: SyscallName;
  /** Conditions on its arguments, which must all hold; none by default. Several rules for one call are alternatives. */
  readonly when?: readonly ArgumentCheck[];
  /** The error that a call gets which no rule permits; by default it ends the process. */
  readonly otherwise?: number;
  /** What needs it. */
  readonly why: string;
  /** The test that exercises it, from the top of the repository. */
  readonly test: string;
}
