// Prints the picture of imports between rooms that ARCHITECTURE.md shows; a test compares the two.
//
//   deno run -A packaging/picture.ts
//
// A room is `ffi` or a folder of `mod/`. An arrow that follows from others is left out, so a room may import every room
// below it that arrows lead to. What is loaded after a failure only, from everywhere, has no arrows to it.

import { graphOf } from "./checks/imports.ts";
import { PRODUCT, readModules } from "./checks/modules.ts";

/** The room that is loaded after a failure only. */
const AFTER_FAILURES = "mod/findings";

function roomOf(path: string): string {
  const [top, room] = path.split("/");
  return top === "mod" ? `mod/${room}` : top!;
}

/**
 * The picture, as a Mermaid graph.
 *
 * @param root The checkout.
 */
export function picture(root: string): string {
  const modules = readModules(root, PRODUCT, true).map((module) => ({
    ...module,
    imports: module.imports.filter((path) => roomOf(path) !== AFTER_FAILURES || roomOf(module.path) === AFTER_FAILURES),
  }));
  const graph = graphOf(modules, roomOf);
  const below = (room: string, seen = new Set<string>()): Set<string> => {
    for (const next of graph.get(room) ?? []) if (!seen.has(next)) below(next, seen.add(next));
    return seen;
  };
  const lines = [...graph].sort().flatMap(([from, targets]) => {
    const direct = [...targets].filter((to) => ![...targets].some((other) => other !== to && below(other).has(to)));
    return direct.length ? [`  ${from} --> ${direct.sort().join(" & ")}`] : [];
  });
  return ["graph TD", ...lines, ""].join("\n");
}

if (import.meta.main) console.log(picture(new URL("..", import.meta.url).pathname));
