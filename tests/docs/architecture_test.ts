// ARCHITECTURE.md and CONTRIBUTING.md: the picture of imports is that of the code, and names in them are in the code.

import { assertEquals, assertStringIncludes } from "@std/assert";
import { sources } from "../../packaging/checks/modules.ts";
import { picture } from "../../packaging/picture.ts";
import { ROOT, test } from "../lib/helpers.ts";

test("ARCHITECTURE.md shows the imports between rooms as they are", () => {
  const document = Deno.readTextFileSync(`${ROOT}ARCHITECTURE.md`);
  // If this fails: deno run -A packaging/picture.ts prints the picture that belongs there.
  assertStringIncludes(document, `\`\`\`mermaid\n${picture(ROOT)}\`\`\`\n`);
});

test("functions, types and constants that the documents name are in the code", () => {
  const code = ["ffi", "mod", "tests", "packaging"].flatMap((folder) => sources(ROOT, [folder]))
    .concat("main.ts", "libshim.c").map((path) => Deno.readTextFileSync(`${ROOT}${path}`)).join("\n");
  const words = new Set(code.match(/\w+/g));
  for (const document of ["ARCHITECTURE.md", "CONTRIBUTING.md"]) {
    const text = Deno.readTextFileSync(`${ROOT}${document}`);
    const names = [...text.matchAll(/`([A-Za-z]\w*)(?:\(\))?`/g)].map(([, name]) => name!);
    assertEquals(names.filter((name) => !words.has(name)), [], document);
  }
});
