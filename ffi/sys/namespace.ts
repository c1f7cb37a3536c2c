// Namespaces: questions to an open one, ioctl_nsfs(2), and file handles, by which one can be checked without keeping it
// alive.

import type { CallRule } from "../core/call_rule.ts";
import { AT, AT_FDCWD, IOCTL, O } from "../core/consts.ts";
import { check, E } from "../core/errno.ts";
import { Fd } from "../core/fd.ts";
import { cString } from "../core/memory.ts";
import { Block, quick } from "../core/quick.ts";
import { NR } from "../core/syscalls.ts";
import { call, out, self, type Task } from "../core/task.ts";

/**
 * Returns the type of an open namespace.
 *
 * @example
 * ```ts
 * import { namespaceType } from "./namespace.ts";
 * import { open } from "./file.ts";
 * import { CLONE, O } from "../core/consts.ts";
 * import { self } from "../core/task.ts";
 * import { assertEquals } from "@std/assert";
 *
 * using fd = open(self, "/proc/self/ns/net", O.RDONLY);
 * assertEquals(namespaceType(fd), CLONE.NEWNET);
 * ```
 *
 * @param fd The namespace.
 * @returns CLONE_NEW*, or a negative error number.
 */
export function namespaceType(fd: Fd): number {
  return self.raw("ioctl", fd, IOCTL.NS_GET_NSTYPE);
}

/**
 * Returns the id of an open namespace, which is never reused.
 *
 * @param fd The namespace.
 * @returns The id; null before Linux 6.18.
 */
export function namespaceId(fd: Fd): bigint | null {
  const id = new BigUint64Array(1);
  return self.raw("ioctl", fd, IOCTL.NS_GET_ID, out(new Uint8Array(id.buffer))) === 0 ? id[0]! : null;
}

/**
 * Opens the user namespace that owns a namespace.
 *
 * @param fd The namespace; of a user namespace, its parent is opened.
 * @param task The task that opens it; this process by default.
 * @returns The user namespace.
 * @throws {SysError} EPERM if it is not the task's or below that.
 */
export function openOwningUser(fd: Fd, task: Task = self): Fd {
  return task.open("ioctl", fd, IOCTL.NS_GET_USERNS);
}

/**
 * Returns the user that owns a user namespace.
 *
 * @param user The user namespace.
 * @returns The user id, as our user namespace maps it.
 * @throws {SysError} EINVAL if it is another type of namespace.
 */
export function ownerUid(user: Fd): number {
  const uid = new Uint32Array(1);
  check("ioctl", self.raw("ioctl", user, IOCTL.NS_GET_OWNER_UID, out(new Uint8Array(uid.buffer))));
  return uid[0]!;
}

/** In place of a directory: the namespaces' own file system, Linux 6.18. */
const FD_NSFS_ROOT = -10003;
/** `struct file_handle`: {u32 bytes, i32 type}, then for a namespace {u64 id, u32 type, u32 inum}. */
const HANDLE = { header: 8, nsfs: 16 } as const;
/** Type of such handles; the kernel does not promise it to programs, so no handle is made before one has been read. */
const FILEID_NSFS = 0xf1;

/** Results for a handle that this caller cannot open: it is stale, or a filter, as docker's, refuses or hides the call. */
const NOT_OPENED: ReadonlySet<number> = new Set([-E.ESTALE, -E.EPERM, -E.ENOSYS]);

/** A handle of a namespace. */
export type NamespaceHandle = Uint8Array;

/**
 * Returns the handle of an open namespace, name_to_handle_at(2).
 *
 * @param fd The namespace.
 * @returns Its handle.
 * @throws {SysError} EOPNOTSUPP before Linux 6.18.
 */
export function namespaceHandle(fd: Fd): NamespaceHandle {
  const handle = new Uint8Array(HANDLE.header + HANDLE.nsfs);
  new DataView(handle.buffer).setUint32(0, HANDLE.nsfs, true);
  call(self, "name_to_handle_at", fd, cString(""), out(handle), out(new Uint8Array(4)), AT.EMPTY_PATH);
  return handle;
}

/**
 * Whether a namespace still exists, open_by_handle_at(2); the check keeps it alive for an instant only.
 *
 * For a caller that may not open it the answer is always no, so check once while it is known to exist.
 *
 * @example
 * ```ts
 * import { isAlive, namespaceHandle } from "./namespace.ts";
 * import { open } from "./file.ts";
 * import { self } from "../core/task.ts";
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
 * @throws {SysError} If the call fails with anything but ESTALE, EPERM and ENOSYS.
 */
export function isAlive(handle: NamespaceHandle): boolean {
  const result = self.raw("open_by_handle_at", FD_NSFS_ROOT, handle, O.CLOEXEC);
  if (NOT_OPENED.has(result)) return false;
  new Fd(check("open_by_handle_at", result)).close();
  return true;
}

/** What {@linkcode isAlive} needs. */
export const HANDLE_RULES: readonly CallRule[] = [
  { call: "open_by_handle_at", why: "a namespace: whether it is there", test: "tests/cli/wait_test.ts" },
  { call: "close", why: "a namespace: it was there", test: "tests/cli/wait_test.ts" },
];

/** Content of a handle. */
export interface HandleFields {
  /** Id, which is never reused. */
  readonly id: bigint;
  /** CLONE_NEW* of its type. */
  readonly flag: number;
  /** Inode number. */
  readonly inum: number;
}

/**
 * Reads and makes handles by the thousand, in memory that is used again.
 *
 * @example
 * ```ts
 * import { Handles } from "./namespace.ts";
 * import { cString } from "../core/memory.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const handles = new Handles();
 * const found = handles.read(cString("/proc/self/ns/net"));
 * if (typeof found === "object") { // Linux 6.18
 *   assertEquals(`net:[${found.inum}]`, Deno.readLinkSync("/proc/self/ns/net"));
 *   if (Deno.uid() === 0) assertEquals(handles.isAlive(found.id, found.flag, found.inum), true);
 *   if (Deno.uid() === 0) assertEquals(handles.isAlive(found.id + 10n ** 9n, found.flag, found.inum), false);
 * }
 * ```
 */
export class Handles {
  #handle = new Block(HANDLE.header + HANDLE.nsfs);
  #mount = new Block(8);
  #path = new Block(4096);
  /** Type of the handles of this file system, known from the first one that is read. */
  #type = 0;

  /**
   * Reads the handle of the namespace at a path without opening it.
   *
   * @param path The path, with a NUL at the end; a symbolic link is followed, also one of /proc.
   * @returns Its content, or a negative error number: -EOPNOTSUPP if the file is not a namespace, or before Linux 6.18.
   */
  read(path: Uint8Array): HandleFields | number {
    const { view, at } = this.#handle;
    view.setUint32(0, HANDLE.nsfs, true);
    this.#path.bytes.set(path);
    const n = quick(NR.name_to_handle_at, AT_FDCWD, this.#path.at, at, this.#mount.at, AT.SYMLINK_FOLLOW, 0);
    if (n < 0) return n;
    const type = view.getInt32(4, true);
    // Other file systems have handles too.
    if (view.getUint32(0, true) !== HANDLE.nsfs || type !== FILEID_NSFS) return -E.EOPNOTSUPP;
    this.#type = type;
    const fields = { id: view.getBigUint64(8, true), flag: view.getUint32(16, true), inum: view.getUint32(20, true) };
    return fields;
  }

  /** Whether a handle has been read, without which none can be made. */
  get calibrated(): boolean {
    return this.#type !== 0;
  }

  /**
   * Opens the namespace with such a handle.
   *
   * @param id Its id.
   * @param flag CLONE_NEW* of its type; 0, with an inode number of 0, since Linux 6.19.
   * @param inum Inode number.
   * @returns A descriptor, or a negative error number: -ESTALE if it has ended, or may not be opened.
   */
  open(id: bigint, flag: number, inum: number): number {
    const { view, at } = this.#handle;
    view.setUint32(0, HANDLE.nsfs, true);
    view.setInt32(4, this.#type, true);
    view.setBigUint64(8, id, true);
    view.setUint32(16, flag, true);
    view.setUint32(20, inum, true);
    return quick(NR.open_by_handle_at, FD_NSFS_ROOT, at, O.RDONLY | O.CLOEXEC, 0, 0, 0);
  }

  /**
   * Whether the namespace with such a handle exists; see {@linkcode isAlive} of this module.
   *
   * @param id Its id.
   * @param flag CLONE_NEW* of its type.
   * @param inum Inode number.
   * @returns Whether it could be opened.
   * @throws {SysError} If the call fails with anything but ESTALE, EPERM and ENOSYS.
   */
  isAlive(id: bigint, flag: number, inum: number): boolean {
    const n = this.open(id, flag, inum);
    if (NOT_OPENED.has(n)) return false;
    quick(NR.close, check("open_by_handle_at", n), 0, 0, 0, 0, 0);
    return true;
  }
}

/** Ids of namespaces that one call of listns(2) returns at most. */
const PAGE = 8192;
/** `struct ns_id_req`: {u32 size, u32 0, u64 last id, u32 types, u32 0, u64 owner}; of any owner and type. */
const REQUEST = 32;

/**
 * Lists the ids of all namespaces that the caller may see, listns(2).
 *
 * @example
 * ```ts
 * import { listNamespaces } from "./namespace.ts";
 * import { assert } from "@std/assert";
 *
 * const ids = listNamespaces();
 * assert(ids === -38 || ids === -1 || typeof ids === "object"); // ENOSYS before Linux 6.19, EPERM by a filter
 * ```
 *
 * @returns The ids, in their order; a negative error number: -ENOSYS before Linux 6.19.
 */
export function listNamespaces(): bigint[] | number {
  const request = new Block(REQUEST);
  const page = new Block(8 * PAGE);
  const ids: bigint[] = [];
  request.view.setUint32(0, REQUEST, true);
  for (;;) {
    const n = quick(NR.listns, request.at, page.at, PAGE, 0, 0, 0);
    if (n === -E.ENOENT && ids.length) return ids; // the last page was full, and there is no other one
    if (n < 0) return n;
    for (let i = 0; i < n; i++) ids.push(page.view.getBigUint64(8 * i, true));
    if (n < PAGE) return ids;
    request.view.setBigUint64(8, ids.at(-1)!, true);
  }
}
