// fanotify(7): mounts that are added to a mount namespace or removed from it.

import { E, SysError } from "../core/errno.ts";
import type { Fd } from "../core/fd.ts";
import { call, out, self } from "../core/task.ts";

/** Events of a mount; a moved mount has both. */
export const FAN = { MNT_ATTACH: 0x1000000, MNT_DETACH: 0x2000000, Q_OVERFLOW: 0x4000 } as const;

/** Flags of fanotify_init(2), then of fanotify_mark(2). */
const INIT = { CLOEXEC: 1, NONBLOCK: 2, UNLIMITED_QUEUE: 0x10, REPORT_MNT: 0x4000 } as const;
const MARK = { ADD: 1, MNTNS: 0x110 } as const;
const INFO_TYPE_MNT = 7;
/** `struct fanotify_event_metadata`: {u32 length, u8, u8, u16, u64 mask, i32 fd, i32 pid}. */
const EVENT = 24;

/** An event of a mount. */
export interface MountEvent {
  /** FAN.*. */
  readonly mask: number;
  /** Id of the mount, which is never reused; 0 for Q_OVERFLOW. */
  readonly id: bigint;
  /** Process that caused it; 0 if it is not in our pid namespace. */
  readonly pid: number;
}

/**
 * Reports the mounts of a mount namespace, Linux 6.15.
 *
 * @example
 * ```ts
 * import { MountEvents } from "./fanotify.ts";
 * import { open } from "./file.ts";
 * import { self } from "../core/task.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const version = Number(Deno.osRelease().split(".", 2).join("."));
 * if (Deno.uid() === 0 && version >= 6.15) {
 *   using namespace = open(self, "/proc/self/ns/mnt", 0);
 *   using events = new MountEvents(namespace);
 *   assertEquals(events.fd.closed, false);
 * }
 * ```
 */
export class MountEvents implements Disposable {
  /** Readable when there is an event. */
  readonly fd: Fd;
  #buffer = new Uint8Array(16384);

  /**
   * @param namespace The mount namespace; it may be closed afterwards.
   * @throws {SysError} EINVAL before Linux 6.15, EPERM without CAP_SYS_ADMIN over the namespace.
   */
  constructor(namespace: Fd) {
    const flags = INIT.CLOEXEC | INIT.NONBLOCK | INIT.REPORT_MNT;
    // An unlimited queue takes a privilege; a limited one reports its overflow.
    let fd: Fd;
    try {
      fd = self.open("fanotify_init", flags | INIT.UNLIMITED_QUEUE, 0);
    } catch (error) {
      if (!(error instanceof SysError) || error.code !== "EPERM") throw error;
      fd = self.open("fanotify_init", flags, 0);
    }
    try {
      const mask = FAN.MNT_ATTACH | FAN.MNT_DETACH;
      call(self, "fanotify_mark", fd, MARK.ADD | MARK.MNTNS, mask, namespace, null);
    } catch (error) {
      fd.close();
      throw error;
    }
    this.fd = fd;
  }

  /**
   * Takes the events that have come, without waiting.
   *
   * @returns The events in their order.
   * @throws {SysError} If read(2) fails.
   */
  take(): MountEvent[] {
    const events: MountEvent[] = [];
    const view = new DataView(this.#buffer.buffer);
    for (;;) {
      const n = self.raw("read", this.fd, out(this.#buffer), this.#buffer.length);
      if (n === -E.EAGAIN) return events;
      if (n === -E.EINTR) continue;
      if (n < 0) throw new SysError("read", -n);
      for (let at = 0; at + EVENT <= n;) {
        const end = at + view.getUint32(at, true);
        const mask = view.getUint32(at + 8, true);
        let id = 0n;
        // Records follow: {u8 type, u8, u16 length, u32, u64 id}.
        for (let info = at + view.getUint16(at + 6, true); info + 16 <= end;) {
          if (view.getUint8(info) === INFO_TYPE_MNT) id = view.getBigUint64(info + 8, true);
          info += Math.max(4, view.getUint16(info + 2, true));
        }
        events.push({ mask, id, pid: view.getInt32(at + 20, true) });
        at = end;
      }
    }
  }

  /** Closes it. */
  [Symbol.dispose](): void {
    this.fd.close();
  }
}
