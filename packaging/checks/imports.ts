// Checks of the imports: no circle of files or folders, no arrow upwards, no module imported twice by one file.

import { folderOf, type Module, OTHERS, PRODUCT, readModules, staticImports } from "./modules.ts";

/** A directed graph: each node with the nodes it points to. */
export type Graph = Map<string, Set<string>>;

/** The graph of modules, or of their folders. */
export function graphOf(modules: Module[], name: (path: string) => string = (path) => path): Graph {
  const graph: Graph = new Map();
  for (const { path, imports } of modules) {
    const from = name(path);
    const targets = graph.get(from) ?? new Set();
    graph.set(from, targets);
    for (const target of imports) if (name(target) !== from) targets.add(name(target));
  }
  return graph;
}

/** The circles of a graph: its strongly connected components of two nodes and more (Tarjan's algorithm). */
export function circles(graph: Graph): string[][] {
  const index = new Map<string, number>();
  const low = new Map<string, number>();
  const stack: string[] = [];
  const found: string[][] = [];
  const visit = (node: string) => {
    index.set(node, index.size);
    low.set(node, index.get(node)!);
    stack.push(node);
    for (const next of graph.get(node) ?? []) {
      if (!index.has(next)) {
        visit(next);
        low.set(node, Math.min(low.get(node)!, low.get(next)!));
      } else if (stack.includes(next)) low.set(node, Math.min(low.get(node)!, index.get(next)!));
    }
    if (low.get(node) !== index.get(node)) return;
    const circle = stack.splice(stack.indexOf(node));
    if (circle.length > 1) found.push(circle.sort());
  };
  for (const node of graph.keys()) if (!index.has(node)) visit(node);
  return found;
}

/**
 * Imports that point to a folder that is not below the importer's in a list.
 *
 * @param layers Folders, lowest first. Each may import those before it.
 */
export function upwards(modules: Module[], layers: readonly string[]): string[] {
  const problems = new Set<string>();
  const levelOf = (path: string) => {
    const level = layers.indexOf(path) >= 0 ? layers.indexOf(path) : layers.indexOf(folderOf(path));
    if (level < 0) problems.add(`${folderOf(path)}: this folder has no place in packaging/layers.ts`);
    return level;
  };
  for (const { path, imports } of modules) {
    const from = levelOf(path);
    for (const target of imports) {
      const to = levelOf(target);
      if (from >= 0 && to > from) {
        problems.add(`${path} imports ${target}, which stands above it (packaging/layers.ts)`);
      }
    }
  }
  return [...problems];
}

/** All problems with the imports of a checkout. */
export function checkImports(root: string, layers: readonly string[]): string[] {
  const modules = readModules(root, PRODUCT);
  const problems = [
    ...circles(graphOf(modules)).map((circle) => `circle of files: ${circle.join(", ")}`),
    ...circles(graphOf(modules, (path) => layers.includes(path) ? path : folderOf(path)))
      .map((circle) => `circle of folders: ${circle.join(", ")}`),
    ...upwards(modules, layers),
  ];
  for (const { path, text } of [...modules, ...readModules(root, OTHERS)]) {
    const seen = new Set<string>();
    for (const specifier of staticImports(text, "import")) {
      if (seen.has(specifier)) problems.push(`${path} imports ${specifier} twice`);
      seen.add(specifier);
    }
  }
  return problems;
}
