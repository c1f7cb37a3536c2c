// The reference that `deno doc` makes of the entry points says what a caller has to know.

import { assert, assertEquals } from "@std/assert";
import { ROOT, sh, test } from "../lib/helpers.ts";

const { exports } = JSON.parse(Deno.readTextFileSync(`${ROOT}deno.json`)) as { exports: Record<string, string> };

for (const [entry, path] of Object.entries(exports)) {
  test(`the reference of ${entry} shows as optional what may be left out`, async () => {
    const { code, stdout, stderr } = await sh([Deno.execPath(), "doc", "--json", `${ROOT}${path}`]);
    assertEquals(code, 0, stderr);
    // A parameter with a default is an assignment there, and `deno doc` shows it as one that is needed.
    const kinds: Record<string, string[]> = {};
    JSON.parse(stdout, (_, value) => {
      for (const parameter of Array.isArray(value?.params) ? value.params : []) {
        (kinds[parameter.kind] ??= []).push(`${value.name ?? ""} ${parameter.left?.name ?? parameter.name}`);
      }
      return value;
    });
    assert(kinds.identifier?.length, "there are functions");
    assertEquals(kinds.assign ?? [], []);
  });
}
