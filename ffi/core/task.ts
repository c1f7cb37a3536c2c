// Tasks: a syscall is made by this process (`self`) or by an agent, with the same arguments.

import { check, E } from "./errno.ts";
import { Fd } from "./fd.ts";
import { address, keepAlive } from "./memory.ts";
import { shim } from "./shim.ts";
import { NR, type SyscallName } from "./syscalls.ts";

/** Memory that the kernel writes to; see {@linkcode out}. */
export class Out {
  /** @param bytes Passed to the kernel, and overwritten with what it writes. */
  constructor(readonly bytes: Uint8Array) {}
}

/**
 * Marks an argument as memory that the kernel writes to.
 *
 * @param bytes The memory; its content is passed to the kernel too.
 * @returns The argument.
 */
export function out(bytes: Uint8Array): Out {
  return new Out(bytes);
}

/** A NULL-terminated array of pointers; see {@linkcode pointers}. */
export class Pointers {
  /**
   * @param targets What each pointer points to.
   * @param head A word before the pointers, as `struct sock_fprog` has its length there; none by default.
   */
  constructor(readonly targets: readonly Uint8Array[], readonly head: bigint | null = null) {}
}

/**
 * A NULL-terminated array of pointers, such as the `argv` of execve(2).
 *
 * @param targets What each pointer points to.
 * @returns The argument.
 */
export function pointers(targets: readonly Uint8Array[]): Pointers {
  return new Pointers(targets);
}

/**
 * An argument of a syscall.
 *
 * - a number or bigint: itself. A descriptor given as a number is the *task's* own.
 * - an {@linkcode Fd}: a descriptor of *this* process; an agent gets a duplicate for the time of the call.
 * - bytes: a pointer to them. `null`: a null pointer.
 */
export type Arg = number | bigint | Fd | Uint8Array | Out | Pointers | null;

/** A process that makes syscalls: this one, or an agent. */
export interface Task {
  /**
   * Makes a syscall.
   *
   * @param name The kernel's name of the call.
   * @param args Up to six arguments.
   * @returns The value, or a negative error number.
   */
  raw(name: SyscallName, ...args: Arg[]): number;
  /**
   * Makes a syscall whose result is a descriptor, which is brought to this process.
   *
   * @param name The kernel's name of the call.
   * @param args Up to six arguments.
   * @returns The descriptor, owned by the caller, with close-on-exec as the call has set it.
   * @throws {SysError} If the call fails.
   */
  open(name: SyscallName, ...args: Arg[]): Fd;
}

/** A NULL-terminated pointer array, and the memory that must stay referenced while it is used. */
function pointerArray(list: Pointers): { array: Uint8Array; keep: readonly Uint8Array[] } {
  const { targets, head } = list;
  const words = BigUint64Array.from([...head === null ? [] : [head], ...targets.map(address), 0n]);
  return { array: new Uint8Array(words.buffer), keep: list.targets };
}

class Self implements Task {
  raw(name: SyscallName, ...args: Arg[]): number {
    const keep: unknown[] = [];
    const word = (i: number): bigint => {
      const arg = args[i];
      switch (typeof arg) {
        case "number":
          return BigInt(arg);
        case "bigint":
          return arg;
        default:
      }
      if (arg === null || arg === undefined) return 0n;
      if (arg instanceof Fd) return BigInt(arg.number);
      if (arg instanceof Out) return address(arg.bytes);
      if (arg instanceof Pointers) {
        const built = pointerArray(arg);
        keep.push(built);
        return address(built.array);
      }
      return address(arg);
    };
    const nr = BigInt(NR[name]);
    const result = shim().call(nr, word(0), word(1), word(2), word(3), word(4), word(5));
    keepAlive([args, keep]);
    return Number(result);
  }

  open(name: SyscallName, ...args: Arg[]): Fd {
    return new Fd(check(name, this.raw(name, ...args), args));
  }
}

/**
 * Makes a syscall again for as long as a signal interrupts it.
 *
 * @param task Where to make it.
 * @param name The kernel's name of the call.
 * @param args Up to six arguments.
 * @returns The value, or a negative error number other than -EINTR.
 */
export function retry(task: Task, name: SyscallName, ...args: Arg[]): number {
  for (;;) {
    const result = task.raw(name, ...args);
    if (result !== -E.EINTR) return result;
  }
}

/** An open descriptor of a task's own, whose number means nothing in this process. */
export class TaskFd implements Disposable {
  #task: Task;
  /** The number, to be passed to calls of the same task. */
  readonly number: number;

  /**
   * Makes a syscall that opens a descriptor, and owns the result.
   *
   * @param task The task.
   * @param name The kernel's name of the call.
   * @param args Up to six arguments.
   * @throws {SysError} If the call fails.
   */
  constructor(task: Task, name: SyscallName, ...args: Arg[]) {
    this.#task = task;
    this.number = call(task, name, ...args);
  }

  /** Closes it; does nothing if the task has ended, which leaves an error that is under way as it is. */
  [Symbol.dispose](): void {
    try {
      this.#task.raw("close", this.number);
    } catch {
      // An agent that has ended has no descriptors.
    }
  }
}

/** This process (in a Worker: the calling thread). */
export const self: Task = new Self();

/**
 * Makes a syscall and checks its result.
 *
 * @example
 * ```ts
 * import { call, self } from "./task.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(call(self, "getpid"), Deno.pid);
 * ```
 *
 * @param task Where to make it.
 * @param name The kernel's name of the call.
 * @param args Up to six arguments.
 * @returns The value.
 * @throws {SysError} If the call fails.
 */
export function call(task: Task, name: SyscallName, ...args: Arg[]): number {
  return check(name, task.raw(name, ...args), args);
}
