// Tasks by thread id, together with the threads of each process; without a syscall.

const NONE: readonly number[] = [];

/**
 * Keeps tasks.
 *
 * @example
 * ```ts
 * import { TaskBook } from "./task_book.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const book = new TaskBook<{ pid: number; tid: number }>();
 * for (const tid of [7, 8, 9]) book.add({ pid: 7, tid });
 * book.remove(8);
 * assertEquals([book.byTid.size, book.threads(7), book.threads(1)], [2, [7, 9], []]);
 * ```
 */
export class TaskBook<T extends { readonly pid: number; readonly tid: number }> {
  #byTid = new Map<number, T>();
  /** Threads of the processes that have, or had, more than one. */
  #threads = new Map<number, Set<number>>();

  /** All tasks. */
  get byTid(): ReadonlyMap<number, T> {
    return this.#byTid;
  }

  /** Adds a task; the caller has removed any earlier one with the same thread id. */
  add(task: T): void {
    const { pid, tid } = task;
    this.#byTid.set(tid, task);
    const threads = this.#threads.get(pid);
    if (threads) threads.add(tid);
    else if (tid !== pid) this.#threads.set(pid, new Set([pid, tid]));
  }

  /** Removes a task, and returns it; undefined if it is unknown. */
  remove(tid: number): T | undefined {
    const task = this.#byTid.get(tid);
    if (!task) return undefined;
    this.#byTid.delete(tid);
    const threads = this.#threads.get(task.pid);
    if (threads?.delete(tid) && threads.size === 0) this.#threads.delete(task.pid);
    return task;
  }

  /** Returns the threads of a process that has, or had, more than one; none for other processes. */
  threads(pid: number): readonly number[] {
    const threads = this.#threads.get(pid);
    return threads ? [...threads] : NONE;
  }

  /** Whether {@linkcode TaskBook.threads} is not empty. */
  hasThreads(pid: number): boolean {
    return this.#threads.has(pid);
  }

  /** Removes all tasks. */
  clear(): void {
    this.#byTid.clear();
    this.#threads.clear();
  }
}
