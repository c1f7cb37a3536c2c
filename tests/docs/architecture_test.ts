// ARCHITECTURE.md: its picture of imports is that of the code.

import { assertStringIncludes } from "@std/assert";
import { picture } from "../../packaging/picture.ts";
import { ROOT, test } from "../lib/helpers.ts";

test("ARCHITECTURE.md shows the imports between rooms as they are", {}, () => {
  const document = Deno.readTextFileSync(`${ROOT}ARCHITECTURE.md`);
  // If this fails: deno run -A packaging/picture.ts prints the picture that belongs there.
  assertStringIncludes(document, `\`\`\`mermaid\n${picture(ROOT)}\`\`\`\n`);
});
