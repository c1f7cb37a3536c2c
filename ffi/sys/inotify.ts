// inotify(7): changes of the names in directories.

import type { CallRule } from "../core/call_rule.ts";
import { O } from "../core/consts.ts";
import { E, SysError } from "../core/errno.ts";
import type { Fd } from "../core/fd.ts";
import { cString, text } from "../core/memory.ts";
import { call, out, self } from "../core/task.ts";

/** Events, and flags of watches. */
export const IN = {
  CLOSE_WRITE: 8,
  MOVED_FROM: 0x40,
  MOVED_TO: 0x80,
  CREATE: 0x100,
  DELETE: 0x200,
  DELETE_SELF: 0x400,
  MOVE_SELF: 0x800,
  UNMOUNT: 0x2000,
  Q_OVERFLOW: 0x4000,
  ONLYDIR: 0x1000000,
  MASK_ADD: 0x20000000,
} as const;

/** Size of `struct inotify_event` without the name. */
const EVENT = 16;

/** A change. */
export interface InotifyEvent {
  /** Number of the watch; -1 for Q_OVERFLOW. */
  readonly wd: number;
  /** IN.*. */
  readonly mask: number;
  /** Name in the directory; empty for the directory itself. */
  readonly name: string;
}

/** What {@linkcode Inotify} needs once it is open. */
export const INOTIFY_RULES: readonly CallRule[] = [
  { call: "inotify_add_watch", why: "inotify: a directory on the way to a name", test: "tests/cli/wait_test.ts" },
  {
    call: "inotify_rm_watch",
    why: "inotify: a directory that is not on the way any more",
    test: "tests/cli/wait_test.ts",
  },
  { call: "read", why: "inotify: events", test: "tests/cli/wait_test.ts" },
];

/**
 * An inotify instance.
 *
 * A watch refers to the directory, not to the mount it was reached through, so it makes nothing busy. Never watch a
 * namespace's own file: that would keep the namespace alive.
 *
 * @example
 * ```ts
 * import { IN, Inotify } from "./inotify.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const directory = Deno.makeTempDirSync();
 * using inotify = new Inotify();
 * const wd = inotify.add(directory, IN.CREATE);
 * Deno.writeTextFileSync(`${directory}/a`, "");
 * assertEquals(inotify.take(), [{ wd, mask: IN.CREATE, name: "a" }]);
 * Deno.removeSync(directory, { recursive: true });
 * ```
 */
export class Inotify implements Disposable {
  /** Readable when there is an event. */
  readonly fd: Fd;
  #buffer = new Uint8Array(4096);

  /** @throws {SysError} EMFILE if the user has too many instances (fs.inotify.max_user_instances). */
  constructor() {
    this.fd = self.open("inotify_init1", O.NONBLOCK | O.CLOEXEC);
  }

  /**
   * Watches a directory; for one that is watched already, adds events.
   *
   * @param path The directory.
   * @param mask IN.*.
   * @returns The watch's number.
   * @throws {SysError} ENOSPC if the user has too many watches (fs.inotify.max_user_watches).
   */
  add(path: string, mask: number): number {
    return call(self, "inotify_add_watch", this.fd, cString(path), mask | IN.ONLYDIR | IN.MASK_ADD);
  }

  /**
   * Watches a file by its inode, whatever its name; its events have no name.
   *
   * @param path The file, which must not be a namespace.
   * @param mask IN.*.
   * @returns The watch's number.
   * @throws {SysError} ENOSPC if the user has too many watches.
   */
  addFile(path: string, mask: number): number {
    return call(self, "inotify_add_watch", this.fd, cString(path), mask | IN.MASK_ADD);
  }

  /**
   * Removes a watch; does nothing if the kernel has removed it.
   *
   * @param wd Its number.
   */
  remove(wd: number): void {
    self.raw("inotify_rm_watch", this.fd, wd);
  }

  /**
   * Takes the events that have come, without waiting.
   *
   * @returns The events in their order.
   * @throws {SysError} If read(2) fails.
   */
  take(): InotifyEvent[] {
    const events: InotifyEvent[] = [];
    const view = new DataView(this.#buffer.buffer);
    for (;;) {
      const n = self.raw("read", this.fd, out(this.#buffer), this.#buffer.length);
      if (n === -E.EAGAIN || n === -E.EINTR) return events;
      if (n < 0) throw new SysError("read", -n);
      for (let at = 0; at + EVENT <= n;) {
        const length = view.getUint32(at + 12, true);
        const name = text(this.#buffer.subarray(at + EVENT, at + EVENT + length));
        events.push({ wd: view.getInt32(at, true), mask: view.getUint32(at + 4, true), name });
        at += EVENT + length;
      }
    }
  }

  /** Closes it. */
  [Symbol.dispose](): void {
    this.fd.close();
  }
}
