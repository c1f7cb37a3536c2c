// What tests need of a machine: each probe tells where the thing is missing, and the table at the end of a run.

import { assertEquals, assertStringIncludes } from "@std/assert";
import { tableOfNeeds } from "../../packaging/test.ts";
import { penne, ROOT, sh, test, until } from "./helpers.ts";
import { NetLab } from "./netlab.ts";
import { PACKAGES } from "./packages.ts";

/** What is missing, by a program that runs behind a command line. */
async function missingBehind(argv: string[], needs: string[], script: string): Promise<string[]> {
  const program = `import { missingNeeds } from ${JSON.stringify(new URL("needs.ts", import.meta.url))};
    console.log(JSON.stringify(missingNeeds(${JSON.stringify(needs)})));`;
  const { code, stdout, stderr } = await sh([
    ...argv,
    "sh",
    "-ec",
    `${script}; exec "$@"`,
    "sh",
    Deno.execPath(),
    "eval",
    "--quiet",
    program,
  ]);
  assertEquals([code, stderr], [0, ""]);
  return JSON.parse(stdout);
}

test("each probe finds out that the thing is missing", ["user namespaces", "package:util-linux"], async () => {
  const inside = ["unshare", "--user", "--map-root-user", "--mount", "--net", "--pid", "--fork", "--mount-proc"];
  const needs = ["tun", "initial pid namespace", "process connector", "ebpf", "newuidmap", "snap-discard-ns"];
  const hide = `for place in /dev/net /usr/bin/newuidmap /usr/local; do
    [ ! -d $place ] || mount -t tmpfs none $place; [ ! -f $place ] || mount --bind /proc/self/comm $place; done
    echo 0 >/proc/sys/user/max_net_namespaces`;
  assertEquals(
    await missingBehind(inside, [...needs, "root", "user namespaces", "kernel:5.10", "kernel:99.0"], hide),
    [...needs, "root", "user namespaces", "kernel:99.0"],
  );
});

test("events that another has asked the process connector for are no answer of its own", [
  "root",
  "process connector",
  "package:util-linux",
], async () => {
  await using lab = new NetLab();
  const other = lab.start([penne(), "watch", "--backend", "proc"]);
  await until("it watches", () => other.output().includes("\n"));
  const inside = ["unshare", "--mount", "--pid", "--fork", "--mount-proc"];
  assertEquals(await missingBehind(inside, ["process connector"], "true"), ["process connector"]);
  assertEquals(await missingBehind(["env"], ["process connector"], "true"), []);
});

test("a program in no directory of PATH is a missing package", async () => {
  assertEquals(await missingBehind(["env"], ["package:bash"], "PATH=/nonexistent"), ["package:bash"]);
});

test("the table of a run has each need with its tests and what provides it, commonest first", () => {
  const need = (name: string) => ({ need: name as "root", provider: `get ${name}` });
  assertEquals(tableOfNeeds([]), []);
  assertEquals(
    tableOfNeeds([
      { name: "a", needs: [need("root")] },
      { name: "b", needs: [need("root"), need("package:iproute2")] },
      { name: "b", needs: [need("root")] },
    ]),
    [
      "2 tests were skipped, as this machine lacks:",
      "  need              tests  what provides it",
      "  root                  2  get root",
      "  package:iproute2      1  get package:iproute2",
      "packaging/prepare, as root, prepares a Debian machine for all of them.",
    ],
  );
});

test("packaging/prepare installs every package that tests may need", () => {
  const script = Deno.readTextFileSync(`${ROOT}packaging/prepare`);
  const installed = [...script.matchAll(/^packages\+?=\(([^)]*)\)/gm)].flatMap(([, words]) => words!.split(/\s+/));
  assertEquals(Object.keys(PACKAGES).filter((name) => !installed.includes(name)), []);
});

test("a run of tests ends with the table of what was missing", async () => {
  const directory = Deno.makeTempDirSync();
  try {
    const helpers = JSON.stringify(new URL("helpers.ts", import.meta.url));
    Deno.writeTextFileSync(
      `${directory}/x_test.ts`,
      `import { test } from ${helpers}; test("one", ["kernel:99.0"], () => {}); test("two", () => {});`,
    );
    const { code, stdout } = await sh([
      Deno.execPath(),
      "run",
      "-A",
      "--no-check",
      `${ROOT}packaging/test.ts`,
      directory,
    ]);
    assertEquals(code, 0);
    assertStringIncludes(stdout, "one [skipped: needs kernel:99.0]");
    assertStringIncludes(stdout, "1 test was skipped, as this machine lacks:\n");
    assertStringIncludes(stdout, "  kernel:99.0      1  Linux 99.0\n");
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});
