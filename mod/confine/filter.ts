// Makes a filter of system calls from rules, seccomp(2); pure.
//
// Theory of operation. The kernel asks the filter about each call, with `struct seccomp_data`: {u32 nr, arch; u64
// instruction pointer, args[6]}. Since Linux 5.11 it remembers the numbers that are permitted whatever their arguments, and
// does not ask about them again, so the order matters little. The kernel takes the lower half alone of an argument that is
// an int, and so does a check; of one that is a long both halves are checked.

import type { ArgumentCheck, CallRule } from "../../ffi/core/call_rule.ts";
import { type Architecture, numbersOf, type SyscallName } from "../../ffi/core/syscalls.ts";
import { assembleClassic, CODE, type Step } from "./classic.ts";
import { fatalCalls } from "./fatal.ts";
import { type RefusedCall, refusedCalls } from "./refused.ts";

/** What a filter answers: the action is in the upper half, and its number in the lower one. */
export const VERDICT = {
  /** Ends the process by SIGSYS, which nothing can catch. */
  KILL: 0x8000_0000,
  /** Sends SIGSYS. */
  TRAP: 0x0003_0000,
  /** Makes the call fail with the error number in the lower half. */
  ERRNO: 0x0005_0000,
  ALLOW: 0x7fff_0000,
} as const;

/** AUDIT_ARCH_* of each. */
export const AUDIT = { x86_64: 0xc000_003e, aarch64: 0xc000_00b7 } as const;
/** On x86_64, the first number of the x32 interface, which has a second way to most calls. */
const X32 = 0x4000_0000;

/** Offsets in `struct seccomp_data`. */
const DATA = { nr: 0, arch: 4, args: 16 } as const;

const load = (at: number): Step => ({ code: CODE.LOAD, operand: at });
const answer = (verdict: number): Step => ({ code: CODE.RETURN, operand: verdict });

/** Goes on if a check holds, and to a label ahead if not. */
function checkSteps({ argument, values, mask, wide }: ArgumentCheck, no: string, name: string): Step[] {
  const at = DATA.args + 8 * argument;
  const last = values.length - 1;
  if (last < 0) throw new RangeError(`A check of argument ${argument} permits no value`);
  return [
    ...wide ? [load(at + 4), { code: CODE.EQUAL, operand: 0, no }] : [],
    load(at),
    ...mask === undefined ? [] : [{ code: CODE.AND, operand: mask }],
    ...values.map((value, i): Step => ({ code: CODE.EQUAL, operand: value, ...i === last ? { no } : { yes: name } })),
    { label: name },
  ];
}

/** The part of a program that answers for one call; `other` is the verdict for arguments that no rule permits. */
function callSteps(name: SyscallName, number: number, rules: readonly CallRule[], other: number): Step[] {
  const end = `${name} no`;
  const head: Step = { code: CODE.EQUAL, operand: number, no: end };
  if (rules.some(({ when }) => !when)) return [head, answer(VERDICT.ALLOW), { label: end }];
  const alternatives = rules.flatMap(({ when }, i): Step[] => {
    const next = `${name} ${i}`;
    return [
      ...when!.flatMap((check, k) => checkSteps(check, next, `${next}.${k}`)),
      answer(VERDICT.ALLOW),
      { label: next },
    ];
  });
  const errno = rules.find(({ otherwise }) => otherwise !== undefined)?.otherwise;
  return [
    head,
    ...alternatives,
    answer(errno === undefined ? other : VERDICT.ERRNO | errno),
    { label: end },
  ];
}

/** The part of a program that lets one call fail. */
function refusalSteps(name: string, { number, errno, when = [] }: RefusedCall): Step[] {
  const end = `${name} no`;
  return [
    { code: CODE.EQUAL, operand: number, no: end },
    ...when.flatMap((check, k) => checkSteps(check, `${name} trapped`, `${name} ${k}`)),
    answer(VERDICT.ERRNO | errno),
    ...when.length > 0 ? [{ label: `${name} trapped` }, answer(VERDICT.TRAP)] : [],
    { label: end },
  ];
}

/**
 * Makes a filter that permits what rules say. What the runtime can do without fails. What no correct program of penne
 * does, such as executing another program, kills the process; anything else is trapped.
 *
 * @example
 * ```ts
 * import { makeFilter } from "./filter.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const rules = [{ call: "getpid", why: "an example", test: "mod/confine/filter.ts" }] as const;
 * assertEquals(makeFilter(rules, "x86_64").length % 8, 0);
 * ```
 *
 * @param rules The rules.
 * @param arch The architecture.
 * @returns An array of `struct sock_filter`.
 * @throws {RangeError} If a check permits no value.
 */
export function makeFilter(rules: readonly CallRule[], arch: Architecture): Uint8Array<ArrayBuffer> {
  const numbers = numbersOf(arch);
  const permitted = new Set(rules.map(({ call }) => numbers[call]));
  return filterOf(rules, arch, VERDICT.TRAP, [
    ...[...refusedCalls(arch)].flatMap(([name, refused]) =>
      permitted.has(refused.number) ? [] : refusalSteps(name, refused)
    ),
    ...[...fatalCalls(arch).values()].filter((number) => !permitted.has(number)).flatMap((number): Step[] => [
      { code: CODE.EQUAL, operand: number, no: `not ${number}` },
      answer(VERDICT.KILL),
      { label: `not ${number}` },
    ]),
  ]);
}

/**
 * Makes a filter that permits what rules say, and kills for everything else: for processes without a runtime.
 *
 * @example
 * ```ts
 * import { makeStrictFilter } from "./filter.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const rules = [{ call: "exit_group", why: "an example", test: "mod/confine/filter.ts" }] as const;
 * assertEquals(makeStrictFilter(rules, "aarch64").length, 7 * 8);
 * ```
 *
 * @param rules The rules.
 * @param arch The architecture.
 * @returns An array of `struct sock_filter`.
 * @throws {RangeError} If a check permits no value.
 */
export function makeStrictFilter(rules: readonly CallRule[], arch: Architecture): Uint8Array<ArrayBuffer> {
  return filterOf(rules, arch, VERDICT.KILL, []);
}

/** Makes a filter of rules, of what it answers for some other calls, and of its verdict for all the rest. */
function filterOf(
  rules: readonly CallRule[],
  arch: Architecture,
  other: number,
  rest: readonly Step[],
): Uint8Array<ArrayBuffer> {
  const numbers = numbersOf(arch);
  const calls = [...new Set(rules.map(({ call }) => call))];
  return assembleClassic([
    load(DATA.arch),
    { code: CODE.EQUAL, operand: AUDIT[arch], yes: "known" },
    answer(VERDICT.KILL),
    { label: "known" },
    load(DATA.nr),
    ...arch === "x86_64"
      ? [{ code: CODE.AT_LEAST, operand: X32, no: "native" }, answer(VERDICT.KILL), { label: "native" }]
      : [],
    ...calls.flatMap((name) => callSteps(name, numbers[name], rules.filter(({ call }) => call === name), other)),
    ...rest,
    answer(other),
  ]);
}
