// Programs in C that tests run.

import { assert } from "@std/assert";
import { ROOT } from "../lib/helpers.ts";

const built = new Map<string, string>();

/** Compiles a test program with gcc under a name; the file goes with the process. */
export function compile(source: string, name: string): string {
  let path = built.get(`${source} ${name}`);
  if (!path) {
    const directory = Deno.makeTempDirSync({ prefix: "penne-watch-" });
    globalThis.addEventListener("unload", () => Deno.removeSync(directory, { recursive: true }));
    path = `${directory}/${name}`;
    const args = ["-O1", "-pthread", "-o", path, `${ROOT}${source}`];
    const { success, stderr } = new Deno.Command("gcc", { args }).outputSync();
    assert(success, new TextDecoder().decode(stderr));
    built.set(`${source} ${name}`, path);
  }
  return path;
}
