// Identifies namespaces: by inode number and, where the kernel has it, by an id that is never reused.

import { O } from "../../ffi/core/consts.ts";
import { orNull } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { open } from "../../ffi/sys/file.ts";
import { namespaceId } from "../../ffi/sys/namespace.ts";
import { stat } from "../../ffi/sys/stat.ts";
import { self, type Task } from "../../ffi/core/task.ts";
import { namespaceFile, type NamespaceType } from "./types.ts";

/** Identity of a namespace. */
export interface NamespaceId {
  /** Inode number, as in `net:[4026531840]`; reused after the end of the namespace. */
  readonly inum: number;
  /** Id as a decimal string, never reused; null before Linux 6.18. */
  readonly id: string | null;
}

/**
 * Identifies an open namespace.
 *
 * @param fd The namespace.
 * @returns Its identity.
 * @throws {SysError} If its inode number cannot be read.
 */
export function namespaceIdOf(fd: Fd): NamespaceId {
  const id = namespaceId(fd);
  return { inum: Number(stat(self, fd).ino), id: id === null ? null : `${id}` };
}

/**
 * Returns the inode number of one of this process's namespaces.
 *
 * @param type The kind.
 * @returns The inode number, or null if the kernel lacks this kind.
 */
export function ownInum(type: NamespaceType): bigint | null {
  return orNull(() => stat(self, `/proc/self/ns/${type}`).ino, "ENOENT");
}

/**
 * Identifies the namespaces that children of a task are born in.
 *
 * @example
 * ```ts
 * import { namespaceIds } from "./id.ts";
 * import { self } from "../../ffi/core/task.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const ids = namespaceIds(self, ["net"]);
 * assertEquals(`net:[${ids.net?.inum}]`, Deno.readLinkSync("/proc/self/ns/net"));
 * ```
 *
 * @param task The task.
 * @param types The kinds.
 * @returns Identity by kind.
 * @throws {SysError} If one cannot be opened.
 */
export function namespaceIds(
  task: Task,
  types: readonly NamespaceType[],
): Partial<Record<NamespaceType, NamespaceId>> {
  const ids: Partial<Record<NamespaceType, NamespaceId>> = {};
  for (const type of types) {
    using fd = open(task, `/proc/self/ns/${namespaceFile(type)}`, O.RDONLY);
    ids[type] = namespaceIdOf(fd);
  }
  return ids;
}
