// Namespaces as a tree: user and pid namespaces below their parents, all others below the user namespace that owns them.

import type { ListedNamespace } from "../../list/listing.ts";

/** How branches are drawn. */
const BRANCHES = {
  unicode: { next: "├─", last: "└─", along: "│ ", past: "  " },
  ascii: { next: "|-", last: "`-", along: "| ", past: "  " },
} as const;

/** A namespace in the tree, and what is drawn before it. */
export interface Leaf {
  readonly prefix: string;
  readonly namespace: ListedNamespace;
}

function keyOf(type: string, inum: number): string {
  return `${type}:${inum}`;
}

/** The key of the namespace above one; null if it is not known. */
function above({ type, owner, parent }: ListedNamespace): string | null {
  if (type === "pid" && parent) return keyOf("pid", parent.inum);
  return owner && keyOf("user", owner.inum);
}

/**
 * Arranges namespaces.
 *
 * @param namespaces The namespaces.
 * @param unicode Whether the terminal has more than ASCII.
 * @returns Them in the order of the tree; one whose superior is not among them begins a tree.
 */
export function tree(namespaces: readonly ListedNamespace[], unicode: boolean): Leaf[] {
  const draw = unicode ? BRANCHES.unicode : BRANCHES.ascii;
  const below = new Map<string, ListedNamespace[]>();
  const known = new Set(namespaces.map(({ type, inum }) => keyOf(type, inum)));
  const roots: ListedNamespace[] = [];
  for (const namespace of namespaces) {
    const key = above(namespace);
    if (key === null || !known.has(key)) roots.push(namespace);
    else if (below.has(key)) below.get(key)!.push(namespace);
    else below.set(key, [namespace]);
  }
  const leaves: Leaf[] = [];
  const add = (namespace: ListedNamespace, prefix: string, rest: string) => {
    leaves.push({ prefix, namespace });
    const children = below.get(keyOf(namespace.type, namespace.inum)) ?? [];
    children.forEach((child, i) => {
      const last = i === children.length - 1;
      add(child, rest + (last ? draw.last : draw.next), rest + (last ? draw.past : draw.along));
    });
  };
  for (const root of roots) add(root, "", "");
  return leaves;
}
