// Which code `penne run` loads, and that it is always enough.

import { assert, assertEquals } from "@std/assert";
import { asUser, penne, ROOT, sh, test } from "../../lib/helpers.ts";

/** Modules that a module imports statically, itself included, relative to the root. */
async function modules(path: string): Promise<string[]> {
  const { stdout } = await sh([Deno.execPath(), "info", "--json", "--no-lock", path], { cwd: ROOT });
  const graph: { specifier: string; dependencies?: { isDynamic?: boolean; code?: { specifier: string } }[] }[] = JSON
    .parse(stdout).modules;
  const found = new Set<string>();
  const add = (specifier: string) => {
    if (found.has(specifier)) return;
    found.add(specifier);
    const { dependencies = [] } = graph.find((module) => module.specifier === specifier) ?? {};
    for (const { isDynamic, code } of dependencies) if (!isDynamic && code) add(code.specifier);
  };
  add(new URL(path, `file://${ROOT}`).href);
  return [...found].map((specifier) => specifier.replace(`file://${ROOT}`, ""));
}

test("penne run without a network does not load the data path", [], async () => {
  const isFlow = (path: string) => /^mod\/datapath\/(tcp|datagram|server)\//.test(path);
  assertEquals((await modules("mod/cli/run.ts")).filter(isFlow), []);
  assert((await modules("mod/cli/run_tap.ts")).some(isFlow));
});

test("the network does not depend on what the command line looks like", [
  "root",
  "user",
  "user namespaces",
  "tun",
], async (t) => {
  const show = "wc -l </proc/net/dev"; // two lines of head, and the loopback
  const cases: [words: string[], interfaces: number][] = [
    [["--net=none", "--", "sh", "-c", show], 1],
    [["--net", "none", "--", "sh", "-c", show], 1],
    [["sh", "-c", show, "--net=none"], 2],
    [["--", "sh", "-c", show, "--net=none"], 2],
    [["--env", "A=1", "sh", "-c", show, "--net=host", "--"], 2],
  ];
  for (const [words, interfaces] of cases) {
    await t.step(words.filter((word) => word !== show).join(" "), async () => {
      const { code, stdout, stderr } = await sh(asUser([penne(), "run", ...words]), { cwd: "/" });
      assertEquals([code, stdout], [0, `${2 + interfaces}\n`], stderr);
    });
  }
});
