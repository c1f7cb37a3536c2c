// File handles of namespaces: asking whether one still lives without keeping it alive.

import { check } from "./errno.ts";
import { Fd } from "./fd.ts";
import { cString } from "./memory.ts";
import { call, out, self } from "./task.ts";

const AT_EMPTY_PATH = 0x1000;
/** In place of a directory: the namespaces' own file system, Linux 6.18. */
const FD_NSFS_ROOT = -10003;
/** `struct file_handle`: {u32 bytes, i32 type}, then for a namespace {u64 id, u32 type, u32 inum}. */
const HANDLE = { header: 8, nsfs: 16 } as const;
const ESTALE = 116;

/** A handle of a namespace. */
export type NamespaceHandle = Uint8Array;

/**
 * The handle of an open namespace, name_to_handle_at(2).
 *
 * @param fd The namespace.
 * @returns Its handle.
 * @throws {SysError} EOPNOTSUPP before Linux 6.18.
 */
export function namespaceHandle(fd: Fd): NamespaceHandle {
  const handle = new Uint8Array(HANDLE.header + HANDLE.nsfs);
  new DataView(handle.buffer).setUint32(0, HANDLE.nsfs, true);
  call(self, "name_to_handle_at", fd, cString(""), out(handle), out(new Uint8Array(4)), AT_EMPTY_PATH);
  return handle;
}

/**
 * Whether a namespace still lives, open_by_handle_at(2); it is kept alive by that for an instant only.
 *
 * Who may not open it is told that it does not live: ask once while it is sure to.
 *
 * @example
 * ```ts
 * import { isAlive, namespaceHandle } from "./handle.ts";
 * import { open } from "./sys.ts";
 * import { self } from "./task.ts";
 * import { assert } from "@std/assert";
 *
 * const version = Number(Deno.osRelease().split(".", 2).join("."));
 * if (Deno.uid() === 0 && version >= 6.18) {
 *   using fd = open(self, "/proc/self/ns/net", 0);
 *   assert(isAlive(namespaceHandle(fd)));
 * }
 * ```
 *
 * @param handle The handle.
 * @returns Whether it could be opened.
 * @throws {SysError} If it cannot be told.
 */
export function isAlive(handle: NamespaceHandle): boolean {
  const result = self.raw("open_by_handle_at", FD_NSFS_ROOT, handle, 0o2000000);
  if (result === -ESTALE) return false;
  new Fd(check("open_by_handle_at", result)).close();
  return true;
}
