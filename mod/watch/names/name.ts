// What a name of a namespace is, and a change of one.

import type { NamespaceType } from "../../namespaces/types.ts";

/** A namespace that is mounted at a path. */
export interface Name {
  readonly path: string;
  readonly type: NamespaceType;
  readonly inum: number;
  /** Id, which is never reused; null if unknown. */
  readonly id: string | null;
}

/** A name that was added or removed. */
export interface NameChange extends Omit<Name, "inum"> {
  /** Null if the mount was removed before it could be examined. */
  readonly inum: number | null;
  /** Process that mounted it, if `inum` is null. */
  readonly pid: number | null;
  readonly state: "mounted" | "gone";
}

/** Returns a key that identifies a name. */
export function keyOf({ path, inum }: Pick<NameChange, "path" | "inum">): string {
  return `${inum} ${path}`;
}
