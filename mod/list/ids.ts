// Lists all namespaces by their ids, also those that no file leads to: by listns(2) since Linux 6.19, and on Linux 6.18 by a
// program in the kernel that walks its own lists.

import { CAP } from "../../ffi/core/consts.ts";
import { PenneError } from "../base/errors.ts";
import { SysError } from "../../ffi/core/errno.ts";
import { readLink } from "../../ffi/sys/file.ts";
import { listNamespaces } from "../../ffi/sys/namespace.ts";
import { self } from "../../ffi/core/task.ts";
import { effectiveCapabilities, hasCapability } from "../host/caller.ts";
import type { NamespaceType } from "../namespaces/types.ts";

/** A namespace by its id; kind and inode number are known on Linux 6.18 only. */
export interface KnownId {
  readonly id: bigint;
  readonly type?: NamespaceType;
  readonly inum?: number;
}

/** All namespaces by id. */
export interface KnownIds {
  readonly source: "listns" | "ebpf";
  /** Whether these are all that exist: to other callers, the kernel tells their own only. */
  readonly complete: boolean;
  readonly ids: readonly KnownId[];
}

/** The initial user and pid namespaces, which have the same numbers on all kernels. */
const INITIAL = { user: "user:[4026531837]", pid: "pid:[4026531836]" } as const;

function isInitial(type: keyof typeof INITIAL): boolean {
  return readLink(self, `/proc/self/ns/${type}`) === INITIAL[type];
}

/**
 * Lists all namespaces by their ids.
 *
 * @returns The list; null where the kernel or the rights of the caller do not allow one.
 */
export async function listIds(): Promise<KnownIds | null> {
  const privileged = isInitial("user") && hasCapability(effectiveCapabilities(), CAP.SYS_ADMIN);
  const ids = listNamespaces();
  if (typeof ids === "object") {
    return { source: "listns", complete: privileged && isInitial("pid"), ids: ids.map((id) => ({ id })) };
  }
  if (!privileged) return null;
  try {
    const [{ listAll }, { LIST }] = await Promise.all([
      import("../watch/ebpf/list_all.ts"),
      import("../watch/ebpf/maps.ts"),
    ]);
    const namespaces = listAll();
    if (!namespaces) return null;
    return {
      source: "ebpf",
      complete: namespaces.length < LIST.MAX,
      ids: namespaces.map(({ type, inum, id }) => ({ type, inum, id: BigInt(id!) })),
    };
  } catch (error) {
    if (error instanceof PenneError || error instanceof SysError) return null; // without BTF, or where bpf(2) is refused
    throw error;
  }
}
