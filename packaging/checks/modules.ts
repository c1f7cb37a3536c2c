// The modules of a checkout, and what each of them imports.

/** A module: its path from the root, its text, and the paths of the modules that it imports. */
export interface Module {
  path: string;
  text: string;
  imports: string[];
}

/** Folders of the product, and of everything else that is TypeScript. */
export const PRODUCT = ["main.ts", "ffi", "mod"];
export const OTHERS = ["packaging", "tests", "examples"];

/** A generated file: no limit and no rule applies to it. */
export const GENERATED = "ffi/core/shim_elf.ts";

const STATEMENT = /^(import|export)\b(?:[^"';]*?\bfrom)?\s*"([^"]+)";/gm;
const DYNAMIC = /\bimport\(\s*"(\.[^"]+)"\s*\)/g;

/** Source text without its comments, which may hold examples with imports of their own. */
export function withoutComments(text: string): string {
  return text.replace(/^\s*\/\*\*[\s\S]*?\*\//gm, "").replace(/^\s*\/\/.*$/gm, "");
}

/**
 * The specifiers of the static imports and re-exports in a module's text, in order, repeated ones included.
 *
 * @param text The text.
 * @param only `import` or `export`, if only these statements count.
 */
export function staticImports(text: string, only?: "import" | "export"): string[] {
  return [...withoutComments(text).matchAll(STATEMENT)]
    .filter(([, statement]) => !only || statement === only)
    .map(([, , specifier]) => specifier!);
}

/** The path that a relative specifier means in the module at `from`. */
export function resolve(from: string, specifier: string): string {
  return new URL(specifier, `file:///${from}`).pathname.slice(1);
}

/** All TypeScript files at and below some paths, by their paths from the root, sorted. */
export function sources(root: string, paths: string[], ending = ".ts"): string[] {
  const found: string[] = [];
  const visit = (path: string) => {
    const info = Deno.statSync(`${root}/${path}`);
    if (info.isFile && path.endsWith(ending)) found.push(path);
    if (!info.isDirectory) return;
    for (const { name } of Deno.readDirSync(`${root}/${path}`)) visit(`${path}/${name}`);
  };
  for (const path of paths) {
    try {
      visit(path);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return found.sort();
}

/**
 * Reads the modules below some paths.
 *
 * @param root The checkout.
 * @param paths Files and folders in it.
 * @param dynamic Whether `import("…")` counts too.
 */
export function readModules(root: string, paths: string[], dynamic = false): Module[] {
  return sources(root, paths).map((path) => {
    const text = Deno.readTextFileSync(`${root}/${path}`);
    const specifiers = staticImports(text).filter((specifier) => specifier.startsWith("."));
    if (dynamic) specifiers.push(...[...withoutComments(text).matchAll(DYNAMIC)].map((match) => match[1]!));
    return { path, text, imports: specifiers.map((specifier) => resolve(path, specifier)) };
  });
}

/** The folder of a module; a module at the top level stands for itself. */
export function folderOf(path: string): string {
  return path.includes("/") ? path.slice(0, path.lastIndexOf("/")) : path;
}
