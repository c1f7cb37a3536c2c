// Makes a child execute a system call, as somebody who has taken it over would, and tells what came of it.
//
// ptrace(2) stops the process in the call that it waits in, and has it execute the same instruction once more with another
// number and other arguments. All its filters apply. Its end is left to who started it.

import { address } from "../../ffi/core/memory.ts";
import { shim } from "../../ffi/core/shim.ts";
import { NR } from "../../ffi/core/syscalls.ts";
import { PATIENCE } from "../lib/patience.ts";

const ARM = Deno.build.arch === "aarch64";
const [PTRACE, WAITID] = ARM ? [117n, 95n] : [101n, 247n];
const REQUEST = {
  CONT: 7,
  DETACH: 17,
  SYSCALL: 24,
  GETREGSET: 0x4204,
  SETREGSET: 0x4205,
  SEIZE: 0x4206,
  INTERRUPT: 0x4207,
} as const;
const TRACESYSGOOD = 1n;
const PRSTATUS = 1n;
const P_PID = 1n;
/** WNOHANG, WSTOPPED, WEXITED and WNOWAIT of waitid(2). */
const LOOK = 1n | 2n | 4n | 0x0100_0000n;
/** WNOHANG and __WALL of wait4(2). */
const TAKE = 1n | 0x4000_0000n;
/** Codes of a child's end in `siginfo_t` go up to this one. */
const CLD_DUMPED = 3;
const SIGSYS = 31;
/** SIGTRAP of a stop at a system call. */
const AT_CALL = 5 | 0x80;
/** Indices of 64-bit words of the registers: arguments, number of the call or its result, and the instruction. */
const REGISTER = ARM
  ? { size: 34, args: [0, 1, 2, 3, 4, 5], number: 8, result: 0, interrupted: 8, at: 32, instruction: 4n }
  : { size: 27, args: [14, 13, 12, 7, 9, 8], number: 10, result: 10, interrupted: 15, at: 16, instruction: 2n };
/** Milliseconds in which the process must stop or end. */
const LIMIT = 60_000;

function call(nr: bigint, ...args: bigint[]): number {
  const [a = 0n, b = 0n, c = 0n, d = 0n] = args;
  return Number(shim().call(nr, a, b, c, d, 0n, 0n));
}

function ptrace(request: keyof typeof REQUEST, pid: number, at = 0n, data = 0n): void {
  const result = call(PTRACE, BigInt(REQUEST[request]), BigInt(pid), at, data);
  if (result < 0) throw new Error(`ptrace ${request}: ${result}`);
}

/** Lets a millisecond pass. */
function pause(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
}

/** Waits until the process has stopped, and returns by which signal; null if it has ended. */
function nextStop(pid: number): number | null {
  const info = new Int32Array(32); // siginfo_t: {i32 signal, error, code}
  const status = new Int32Array(1);
  const end = performance.now() + LIMIT * PATIENCE;
  while (performance.now() < end) {
    const looked = call(WAITID, P_PID, BigInt(pid), address(new Uint8Array(info.buffer)), LOOK);
    if (looked < 0) throw new Error(`waitid: ${looked}`);
    if (info[0] !== 0) {
      if (info[2]! <= CLD_DUMPED) return null;
      call(BigInt(NR.wait4), BigInt(pid), address(new Uint8Array(status.buffer)), TAKE);
      return status[0]! >> 8 & 0xff;
    }
    pause();
  }
  throw new Error(`process ${pid} does not stop`);
}

function registers(pid: number, request: "GETREGSET" | "SETREGSET", words: BigUint64Array): void {
  const bytes = new Uint8Array(words.buffer);
  const part = new BigUint64Array([address(bytes), BigInt(bytes.length)]);
  ptrace(request, pid, PRSTATUS, address(new Uint8Array(part.buffer)));
}

/** Stops a process in a system call, and returns its registers; it may do something between two waits. */
function stopInCall(pid: number): BigUint64Array {
  const words = new BigUint64Array(REGISTER.size);
  const end = performance.now() + LIMIT * PATIENCE;
  while (performance.now() < end) {
    ptrace("SEIZE", pid, 0n, TRACESYSGOOD);
    ptrace("INTERRUPT", pid);
    if (nextStop(pid) === null) throw new Error(`process ${pid} has ended before`);
    registers(pid, "GETREGSET", words);
    if (words[REGISTER.interrupted]! < 1n << 32n) return words;
    ptrace("DETACH", pid);
    pause();
  }
  throw new Error(`process ${pid} does not wait in a system call`);
}

/**
 * Makes a child execute a system call.
 *
 * @param pid The child, which waits in a system call.
 * @param number Number of the call.
 * @param args Its arguments.
 * @returns The result, with which the child goes on as if it were that of its own call; null if it is about to end.
 */
export function inject(pid: number, number: number, args: readonly bigint[] = []): number | null {
  const words = stopInCall(pid);
  REGISTER.args.forEach((register, i) => words[register] = BigInt.asUintN(64, args[i] ?? 0n));
  words[REGISTER.number] = BigInt(number);
  if (!ARM) words[REGISTER.interrupted] = BigInt.asUintN(64, -1n); // it is not made again
  words[REGISTER.at] = words[REGISTER.at]! - REGISTER.instruction;
  registers(pid, "SETREGSET", words);
  for (const stop of ["entry", "exit"]) {
    ptrace("SYSCALL", pid);
    const signal = nextStop(pid);
    if (signal === null) return null;
    if (signal !== AT_CALL) throw new Error(`process ${pid} was stopped by signal ${signal} at the ${stop}`);
  }
  const pending = /^SigPnd:\s*(\w+)/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`))![1]!;
  if (BigInt(`0x${pending}`) >> BigInt(SIGSYS - 1) & 1n) {
    ptrace("DETACH", pid); // the signal comes now
    return null;
  }
  registers(pid, "GETREGSET", words);
  ptrace("DETACH", pid);
  return Number(BigInt.asIntN(64, words[REGISTER.result]!));
}
