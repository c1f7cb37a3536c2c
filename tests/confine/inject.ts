// Makes a child execute a system call, as somebody who has taken it over would, and tells what came of it.
//
// ptrace(2) stops the process in the call that it waits in, and has it execute the same instruction once more with another
// number and other arguments. All its filters apply. It goes on as if its own call had been interrupted, so that calls can
// be made one after the other. Its end is left to who started it.

import { E } from "../../ffi/core/errno.ts";
import { address } from "../../ffi/core/memory.ts";
import { shim } from "../../ffi/core/shim.ts";
import { NR, type SyscallName } from "../../ffi/core/syscalls.ts";
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
const OPTION = { TRACESYSGOOD: 1n, TRACEEXEC: 1n << 4n } as const;
const PRSTATUS = 1n;
const P_PID = 1n;
/** WNOHANG, WSTOPPED, WEXITED and WNOWAIT of waitid(2). */
const LOOK = 1n | 2n | 4n | 0x0100_0000n;
/** WNOHANG and __WALL of wait4(2). */
const TAKE = 1n | 0x4000_0000n;
/** Codes of a child's end in `siginfo_t` go up to this one. */
const CLD_DUMPED = 3;
const SIGSYS = 31;
const SIGTRAP = 5;
/** The signal of a stop at a system call. */
const AT_CALL = SIGTRAP | 0x80;
/** Types of entries of the auxiliary vector, getauxval(3): one to skip, and where the vDSO is. */
const AUXILIARY = { IGNORE: 1n, SYSINFO_EHDR: 33n } as const;
/** Bytes at the beginning of a program's stack that have all pointers to its arguments and its environment. */
const HEAD = 32_768;
/** Indices of 64-bit words of the registers: arguments, number of the call or its result, and the instruction. */
const REGISTER = ARM
  ? { size: 34, args: [0, 1, 2, 3, 4, 5], number: 8, result: 0, interrupted: 8, at: 32, instruction: 4n, stack: 31 }
  : {
    size: 27,
    args: [14, 13, 12, 7, 9, 8],
    number: 10,
    result: 10,
    interrupted: 15,
    at: 16,
    instruction: 2n,
    stack: 19,
  };
/** The result of a call that was interrupted, as a register has it, and others of the kernel by which it is made again. */
const INTERRUPTED = BigInt.asUintN(64, BigInt(-E.EINTR));
const RESTARTED = [512n, 513n, 514n].map((errno) => BigInt.asUintN(64, -errno));
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

/** Reads or writes the registers of a stopped process. */
function registers(pid: number, request: "GETREGSET" | "SETREGSET", words: BigUint64Array): void {
  const bytes = new Uint8Array(words.buffer);
  const part = new BigUint64Array([address(bytes), BigInt(bytes.length)]);
  ptrace(request, pid, PRSTATUS, address(new Uint8Array(part.buffer)));
}

/** Stops a process in a call, and returns its registers; it may do something between two waits. */
function stopInCall(pid: number, waits: SyscallName): BigUint64Array {
  const words = new BigUint64Array(REGISTER.size);
  const end = performance.now() + LIMIT * PATIENCE;
  while (performance.now() < end) {
    ptrace("SEIZE", pid, 0n, OPTION.TRACESYSGOOD);
    ptrace("INTERRUPT", pid);
    if (nextStop(pid) === null) throw new Error(`process ${pid} has ended before`);
    registers(pid, "GETREGSET", words);
    const result = words[REGISTER.result]!;
    const interrupted = result === INTERRUPTED || RESTARTED.includes(result);
    if (words[REGISTER.interrupted] === BigInt(NR[waits]) && interrupted) return words;
    ptrace("DETACH", pid);
    pause();
  }
  throw new Error(`process ${pid} does not wait in ${waits}(2)`);
}

/**
 * Makes a child execute a system call.
 *
 * @param pid The child, which waits in a call.
 * @param number Number of the call.
 * @param args Its arguments.
 * @param stack The stack pointer during the call; by default as it is.
 * @param waits The call that it waits in.
 * @returns The result; null if the child is about to end, since its filter does not permit the call.
 */
export function inject(
  pid: number,
  number: number,
  args: readonly bigint[] = [],
  stack?: bigint,
  waits: SyscallName = "epoll_pwait",
): number | null {
  const words = stopInCall(pid, waits);
  const after = words.slice();
  after[REGISTER.result] = INTERRUPTED;
  REGISTER.args.forEach((register, i) => words[register] = BigInt.asUintN(64, args[i] ?? 0n));
  words[REGISTER.number] = BigInt(number);
  // The kernel must not make the interrupted call again by itself.
  if (!ARM) { for (const set of [words, after]) set[REGISTER.interrupted] = BigInt.asUintN(64, -1n); }
  words[REGISTER.at] = words[REGISTER.at]! - REGISTER.instruction;
  if (stack !== undefined) words[REGISTER.stack] = stack;
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
  registers(pid, "SETREGSET", after);
  ptrace("DETACH", pid);
  return Number(BigInt.asIntN(64, words[REGISTER.result]!));
}

/** Makes a program that has just begun ignore where the vDSO is. */
function hideVdso(pid: number): void {
  const words = new BigUint64Array(REGISTER.size);
  registers(pid, "GETREGSET", words);
  const stack = Number(words[REGISTER.stack]!);
  using memory = Deno.openSync(`/proc/${pid}/mem`, { read: true, write: true });
  memory.seekSync(stack, Deno.SeekMode.Start);
  const head = new BigUint64Array(HEAD / 8); // argc, argv, 0, envp, 0, pairs of the auxiliary vector, 0
  memory.readSync(new Uint8Array(head.buffer));
  let at = Number(head[0]!) + 2;
  while (head[at] !== 0n) at++;
  for (at++; head[at] !== AUXILIARY.SYSINFO_EHDR; at += 2) if (!head[at]) throw new Error("there is no vDSO");
  memory.seekSync(stack + 8 * at, Deno.SeekMode.Start);
  memory.writeSync(new Uint8Array(new BigUint64Array([AUXILIARY.IGNORE]).buffer));
}

/**
 * Takes the vDSO from a program, so that it has to make a system call to get the time, as where the clock source allows
 * no other way. What it executes is followed until the program comes.
 *
 * Nothing is awaited here: Deno would take a child that has stopped for one that has ended.
 *
 * @param pid A child, which waits for leave to execute something.
 * @param program The executable file.
 * @param go Gives it leave.
 */
export function withoutVdso(pid: number, program: string, go: () => void): void {
  ptrace("SEIZE", pid, 0n, OPTION.TRACEEXEC);
  go();
  for (;;) {
    const signal = nextStop(pid);
    if (signal !== SIGTRAP) throw new Error(`process ${pid}: ${signal} instead of a new program`);
    hideVdso(pid);
    if (Deno.readLinkSync(`/proc/${pid}/exe`) === program) break;
    ptrace("CONT", pid);
  }
  ptrace("DETACH", pid);
}
