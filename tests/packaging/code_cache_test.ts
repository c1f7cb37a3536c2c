// What becomes of bundles that are loaded as a script.

import { assertEquals, assertThrows } from "@std/assert";
import { asScript } from "../../packaging/code_cache.ts";
import { test } from "../lib/helpers.ts";

test("a bundle and the script made of it are the same", async () => {
  // Strict code has no other `this`. Words in strings mean nothing.
  const bundle = `var a="import x",b=[a,function(){return this}(),class{#c=1;static d(e){return #c in e}}.d({})];
var told$=1;export{b as ENTRIES};
`;
  const module = await import(`data:text/javascript,${encodeURIComponent(bundle)}`);
  const entries = (0, eval)(asScript(bundle))();
  assertEquals(entries, ["import x", undefined, false]);
  assertEquals(entries, module.ENTRIES);
  assertEquals(Object.hasOwn(globalThis, "told$"), false);
});

test("what means something else in a script is refused", () => {
  for (
    const body of [
      "var a=import.meta.url;",
      'var a=1;import"./b.js";',
      'import{a}from"./b.js";a();',
      'import a from "./b.js";a();',
      'var a=import("./b.js");',
      "var a=1;export{a};",
      "export default 1;",
      "var a=1,b=a<!--a;",
      "var a=1,b=a\n-->0;",
    ]
  ) assertThrows(() => asScript(`${body}export{a as ENTRIES};`), Error, "the bundle has", body);
  for (const whole of ["var a=1;", "var a=1,b=2;export{a,b};"]) {
    assertThrows(() => asScript(whole), Error, "does not end", whole);
  }
});
