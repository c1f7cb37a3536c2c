// Makes the filter of a command's system calls, seccomp(2); pure.
//
// It permits all but a few: what a command may do is not penne's to know. A program for another interface of the kernel,
// such as one of 32 bits, is filtered by its own numbers. The kernel takes the flags of clone(2) and unshare(2) that matter
// here from the lower half of an argument, and the request of ioctl(2) as an int, so the lower halves are looked at alone.

import { CLONE } from "../../ffi/core/consts.ts";
import { E } from "../../ffi/core/errno.ts";
import type { Architecture } from "../../ffi/core/syscalls.ts";
import { assembleClassic, CODE, type Step } from "./classic.ts";
import { AUDIT, VERDICT } from "./filter.ts";

/** AUDIT_ARCH_* of the interfaces for 32-bit programs. */
const AUDIT_32 = { x86_64: 0x4000_0003, aarch64: 0x4000_0028 } as const;
/** The bit that numbers of the x32 interface have. */
const X32 = 0x4000_0000;
/** Request of ioctl(2) that pastes into a console. */
const TIOCLINUX = 0x541c;
/** Request of ioctl(2) that types into a terminal. */
const TIOCSTI = 0x5412;

/** Numbers of calls in one interface. */
interface Numbers {
  readonly clone: number;
  readonly unshare: number;
  readonly ioctl: readonly number[];
}

/** Numbers of the interfaces, those of 64 bits first. x32 has an ioctl(2) of its own. */
const NUMBERS: Readonly<Record<Architecture, readonly [Numbers, Numbers]>> = {
  x86_64: [{ clone: 56, unshare: 272, ioctl: [16, 514] }, { clone: 120, unshare: 310, ioctl: [54] }],
  aarch64: [{ clone: 220, unshare: 97, ioctl: [29] }, { clone: 120, unshare: 337, ioctl: [54] }],
};
/** clone3(2) has the same number everywhere. */
const CLONE3 = 435;

/** Offsets in `struct seccomp_data`. */
const DATA = { nr: 0, arch: 4, args: 16 } as const;

const load = (at: number): Step => ({ code: CODE.LOAD, operand: at });
const answer = (verdict: number): Step => ({ code: CODE.RETURN, operand: verdict });
const equal = (operand: number, yes: string): Step => ({ code: CODE.EQUAL, operand, yes });

/** The part for one interface. */
function interfaceSteps(name: string, { clone, unshare, ioctl }: Numbers, typing: boolean): Step[] {
  return [
    { label: name },
    load(DATA.nr),
    ...name === "native" ? [{ code: CODE.AND, operand: ~X32 }] : [],
    equal(clone, `${name} flags`),
    equal(unshare, `${name} flags`),
    // Its flags are in memory, which a filter cannot read; the C library uses clone(2) then.
    equal(CLONE3, "missing"),
    ...typing ? ioctl.map((number) => equal(number, `${name} request`)) : [],
    answer(VERDICT.ALLOW),
    { label: `${name} request` },
    load(DATA.args + 8),
    equal(TIOCSTI, "refused"),
    equal(TIOCLINUX, "refused"),
    answer(VERDICT.ALLOW),
    { label: `${name} flags` },
    load(DATA.args),
    { code: CODE.AND, operand: CLONE.NEWUSER },
    { code: CODE.EQUAL, operand: 0, no: "refused" },
    answer(VERDICT.ALLOW),
  ];
}

/**
 * Makes the filter of a command.
 *
 * @example
 * ```ts
 * import { commandFilter } from "./command_filter.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(commandFilter("x86_64", true).length % 8, 0);
 * ```
 *
 * @param arch The architecture.
 * @param typing Whether typing and pasting into terminals is refused, beside further user namespaces.
 * @returns An array of `struct sock_filter`.
 */
export function commandFilter(arch: Architecture, typing: boolean): Uint8Array<ArrayBuffer> {
  const [native, compat] = NUMBERS[arch];
  return assembleClassic([
    load(DATA.arch),
    equal(AUDIT[arch], "native"),
    equal(AUDIT_32[arch], "compat"),
    answer(VERDICT.ERRNO | E.ENOSYS),
    ...interfaceSteps("native", native, typing),
    ...interfaceSteps("compat", compat, typing),
    { label: "missing" },
    answer(VERDICT.ERRNO | E.ENOSYS),
    { label: "refused" },
    answer(VERDICT.ERRNO | E.EPERM),
  ]);
}
