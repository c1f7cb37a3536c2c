// Each check of the gate finds the fault that it is for.

import { assertEquals } from "@std/assert";
import { checkDocuments } from "../../packaging/checks/documents.ts";
import { checkImports } from "../../packaging/checks/imports.ts";
import { checkSizes } from "../../packaging/checks/sizes.ts";
import { checkTests } from "../../packaging/checks/tests.ts";
import { checkFormatOfC, checkSpelling, type ToolResult } from "../../packaging/checks/tools.ts";
import { sh, test } from "../lib/helpers.ts";

/** A small checkout with the given files, removed at the end of the scope. */
class Checkout implements Disposable {
  readonly root = Deno.makeTempDirSync({ prefix: "penne-checks-" });

  constructor(files: Record<string, string>) {
    for (const [path, text] of Object.entries(files)) {
      Deno.mkdirSync(`${this.root}/${path}`.replace(/\/[^/]*$/, ""), { recursive: true });
      Deno.writeTextFileSync(`${this.root}/${path}`, text);
    }
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.root, { recursive: true });
  }
}

const LAYERS = ["ffi/a", "mod/b", "mod/c", "main.ts"];

function imports(files: Record<string, string>): string[] {
  using checkout = new Checkout(files);
  return checkImports(checkout.root, LAYERS);
}

test("checkImports() accepts imports of lower folders and examples in comments", () => {
  const example = '/**\n * ```ts\n * import { c } from "../../mod/c/c.ts";\n * ```\n */\nexport const a = 1;\n';
  assertEquals(
    imports({
      "ffi/a/a.ts": example,
      "mod/b/b.ts": 'import { a } from "../../ffi/a/a.ts";\nexport const b = a;\n',
      "main.ts": 'import { b } from "./mod/b/b.ts";\nb;\n',
    }),
    [],
  );
});

test("checkImports() reports a circle of files", () => {
  const files = { "mod/b/x.ts": 'import { y } from "./y.ts";\n', "mod/b/y.ts": 'export * from "./x.ts";\n' };
  assertEquals(imports(files), ["circle of files: mod/b/x.ts, mod/b/y.ts"]);
});

test("checkImports() reports a circle of folders and the arrow upwards in it", () => {
  const files = {
    "mod/b/x.ts": 'import type { y } from "../c/y.ts";\n',
    "mod/c/y.ts": 'import {\n  z,\n} from "../b/z.ts";\n',
    "mod/b/z.ts": "export const z = 1;\n",
  };
  assertEquals(imports(files), [
    "circle of folders: mod/b, mod/c",
    "mod/b/x.ts imports mod/c/y.ts, which stands above it (packaging/layers.ts)",
  ]);
});

test("checkImports() reports a folder that is in no layer", () => {
  assertEquals(imports({ "mod/new/x.ts": "export const x = 1;\n" }), [
    "mod/new: this folder has no place in packaging/layers.ts",
  ]);
});

test("checkImports() reports a module that is imported twice, in tests too", () => {
  const twice = 'import { x } from "./x.ts";\nimport type { X } from "./x.ts";\n';
  assertEquals(imports({ "tests/y_test.ts": twice }), ["tests/y_test.ts imports ./x.ts twice"]);
});

test("checkSizes() reports long files and full folders", () => {
  using checkout = new Checkout({
    "mod/long.ts": "//\n".repeat(451),
    "mod/good.ts": "//\n".repeat(450),
    "tests/long.ts": "//\n".repeat(601),
    "README.md": "x\n".repeat(201),
    ...Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`ffi/${i}.ts`, ""])),
  });
  assertEquals(checkSizes(checkout.root).sort(), [
    "README.md has 201 lines; the limit is 200",
    "ffi has 17 files; the limit is 16",
    "mod/long.ts has 451 lines; the limit is 450",
    "tests/long.ts has 601 lines; the limit is 600",
  ]);
});

test("checkTests() reports a test that the leak tracer does not see", () => {
  using checkout = new Checkout({
    "tests/x_test.ts": `${["Deno", "test"].join(".")}("x", () => {});\n`,
    "tests/y_test.ts": "// Deno.test\n",
  });
  assertEquals(checkTests(checkout.root), [
    "tests/x_test.ts calls Deno.test; test() of tests/lib/helpers.ts looks for leaks",
  ]);
});

test("checkDocuments() reports a path or link that leads nowhere", () => {
  using checkout = new Checkout({
    "README.md":
      "See `mod/gone.ts`, `mod/here.ts`, [there](docs/a.md), [gone](docs/b.md), [web](https://example.org/x).\n",
    "docs/a.md": "Back to [the start](../README.md) and `libshim.c`.\n",
    "mod/here.ts": "",
  });
  assertEquals(checkDocuments(checkout.root), [
    "README.md names mod/gone.ts, which is not there",
    "README.md names docs/b.md, which is not there",
    "docs/a.md names libshim.c, which is not there",
  ]);
});

/** Runs a check that another program makes on a checkout with the given files. */
async function byTool(check: (root: string) => ToolResult, files: Record<string, string>): Promise<string[]> {
  using checkout = new Checkout({ "packaging/words.txt": "", ...files });
  await sh(["git", "init", "--quiet", checkout.root]);
  const result = check(checkout.root);
  return "problems" in result ? result.problems : [`${result.missing} is missing`];
}

test("checkSpelling() reports a misspelt word", ["package:codespell", "package:git"], async () => {
  const wrong = ["rec", "ieve"].join("");
  assertEquals(
    await byTool(checkSpelling, { "a.md": `We ${wrong} it.\n` }),
    [`./a.md:1: ${wrong} ==> receive`].map((
      line,
    ) => line.slice(2)),
  );
});

test("checkFormatOfC() reports C that is not formatted", ["package:clang-format", "package:git"], async () => {
  const files = { ".clang-format": "BasedOnStyle: Google\n", "a.c": "int  a;\n" };
  const [problem = ""] = await byTool(checkFormatOfC, files);
  assertEquals(problem.startsWith("a.c:1:4: error: code should be clang-formatted"), true, problem);
});
