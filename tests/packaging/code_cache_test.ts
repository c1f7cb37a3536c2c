// What becomes of bundles that are loaded as scripts.

import { assertEquals, assertThrows } from "@std/assert";
import { asScript } from "../../packaging/code_cache.ts";
import { test } from "../lib/helpers.ts";

/** Evaluates a script as the program does. */
async function evaluate(
  script: string,
  load: (name: string) => Promise<unknown> = () => Promise.reject(new Error("it imports something")),
): Promise<Record<string, unknown>> {
  return await (0, eval)(script)(load);
}

test("a bundle and the script made of it export the same", async () => {
  const bundle = `var a=1,b=await Promise.resolve(2);class C{#d=3;get d(){return this.#d}}
function f(){return this}export{a,b as two,C as Three,f};
`;
  const module = await import(`data:text/javascript,${encodeURIComponent(bundle)}`);
  const script = await evaluate(asScript(bundle));
  for (const { a, two, Three, f } of [module, script]) {
    // Strict code has no other `this`.
    assertEquals([a, two, new Three().d, f.call(undefined)], [1, 2, 3, undefined]);
  }
});

test("a script imports what its bundle did", async () => {
  const bundle = 'var a=async()=>(await import("./b-c.js")).d;export{a};';
  const { a } = await evaluate(asScript(bundle), (name) => Promise.resolve({ d: name }));
  assertEquals(await (a as () => Promise<string>)(), "b-c.js");
});

test("what means something else in a script is refused", () => {
  for (
    const bundle of [
      "var a=1;",
      "var a=import.meta.url;export{a};",
      "var a=1;export{a};var b=2;export{b};",
      "export default 1;var a;export{a};",
      "var a=1,b=a<!--a;export{b};",
      "var a=1,b=a\n-->0;export{b};",
    ]
  ) assertThrows(() => asScript(bundle), Error, "bundle", bundle);
});
