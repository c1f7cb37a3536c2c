// Checks that no file is too long to read and no folder too full to find one's way in.

import { folderOf, GENERATED, OTHERS, PRODUCT, sources } from "./modules.ts";

/** Most lines of a hand-written file of the product, and of any other file. */
const LINES = { product: 450, others: 600 };
/** Most lines of README.md, which is to be read in two minutes. */
const README = 200;
/** Most files beside each other in a folder. */
const FILES = 16;

/** Lines of a file; 0 if it does not exist. */
function countLines(path: string): number {
  try {
    return Deno.readTextFileSync(path).split("\n").length - 1;
  } catch {
    return 0;
  }
}

/** All files that are too long and all folders that are too full in a checkout. */
export function checkSizes(root: string): string[] {
  const problems: string[] = [];
  const files = new Map<string, number>();
  const look = (paths: string[], most: number, endings: string[]) => {
    for (const path of endings.flatMap((ending) => sources(root, paths, ending))) {
      files.set(folderOf(path), (files.get(folderOf(path)) ?? 0) + 1);
      const lines = countLines(`${root}/${path}`);
      if (lines > most && path !== GENERATED) problems.push(`${path} has ${lines} lines; the limit is ${most}`);
    }
  };
  look(PRODUCT, LINES.product, [".ts"]);
  look(OTHERS, LINES.others, [".ts", ".c"]);
  const readme = countLines(`${root}/README.md`);
  if (readme > README) problems.push(`README.md has ${readme} lines; the limit is ${README}`);
  for (const [folder, count] of files) {
    if (count > FILES) problems.push(`${folder} has ${count} files; the limit is ${FILES}`);
  }
  return problems;
}
