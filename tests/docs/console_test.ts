// Every command line that README and the recipes show is run, and prints what they show.

import { assert, assertEquals } from "@std/assert";
import { penne, ROOT, test, TEST_USER } from "../lib/helpers.ts";
import { consoleBlocks, matches, problemOf, runBlock } from "./console.ts";

test("consoleBlocks() tells commands, input and output apart", () => {
  const markdown = [
    "text",
    "```console",
    "$ sh \\",
    "> -s",
    "# id -u",
    "0",
    "$ true",
    "```",
    "```console not run: needs a moon",
    "# ls",
    "```",
  ];
  assertEquals(consoleBlocks(markdown.join("\n")), [
    {
      line: 2,
      root: false,
      notRun: null,
      steps: [
        { command: "sh \\\n-s", input: ["id -u"], expected: ["0"] },
        { command: "true", input: [], expected: [] },
      ],
    },
    { line: 9, root: true, notRun: "needs a moon", steps: [{ command: "ls", input: [], expected: [] }] },
  ]);
});

test("matches() accepts other numbers, addresses and times, and … for anything", () => {
  assertEquals(matches(["pid=858 ok"], "pid=12345 ok\n"), true);
  assertEquals(matches(["pid=858 ok"], "pid=x ok\n"), false);
  assertEquals(matches(["10"], "11\n"), false);
  assertEquals(matches(["eth0 UP 192.0.2.2/24 fd00::2/64"], "eth0   UP  10.0.0.1/24 fe80::1:2/64 \n"), true);
  assertEquals(matches(["a", "…", "z"], "a\nb\nc\nz\n"), true);
  assertEquals(matches(["a … z"], "a b z\n"), true);
  assertEquals(matches(["a … z"], "a b y\n"), false);
  assertEquals(matches(["made 2026-11-29T19:39:49.965Z by me"], "made 2031-01-02T03:04:05.006Z by me\n"), true);
});

const NEEDS = [
  "root",
  "user",
  "tun",
  "newuidmap",
  "package:util-linux",
  "package:iproute2",
  "package:procps",
  "package:curl",
  "package:make",
  "package:python3",
  "package:dnsmasq-base",
  "package:bind9-dnsutils",
  "package:socat",
] as const;
/** What the programs of a document need. */
const DOCUMENTS = { "README.md": ["root"], "docs/recipes.md": ["root", "tun"] } as const;

for (const [document, needs] of Object.entries(DOCUMENTS)) {
  test(`the programs of ${document} compile, and run with the permissions they name`, needs, async () => {
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    const checker = new Deno.Command(Deno.execPath(), {
      args: ["check", "--quiet", "--doc-only", document],
      cwd: ROOT,
    });
    const { code, stderr } = await checker.output();
    assertEquals([code, text(stderr)], [0, ""]);
    const programs = [...Deno.readTextFileSync(`${ROOT}${document}`).matchAll(/^```ts\n([^]*?)^```$/gm)];
    assert(programs.length > 0);
    for (const [, program] of programs) {
      const flags = /^\/\/ deno run (.*) \S+$/m.exec(program!)![1]!.split(" ");
      const process = new Deno.Command(Deno.execPath(), {
        args: ["run", "--no-check", "--quiet", "--no-prompt", ...flags, "-"],
        cwd: `${ROOT}${document.replace(/[^/]*$/, "")}`,
        stdin: "piped",
        stdout: "piped",
        stderr: "piped",
      }).spawn();
      const writer = process.stdin.getWriter();
      await writer.write(new TextEncoder().encode(program));
      await writer.close();
      const { code, stderr } = await process.output();
      assertEquals([code, text(stderr)], [0, ""]);
    }
  });

  test(`the commands of ${document} print what it shows`, NEEDS, async (t) => {
    const directory = Deno.makeTempDirSync({ prefix: "penne-docs-" });
    try {
      Deno.chmodSync(directory, 0o755);
      await new Deno.Command("chown", { args: [TEST_USER, directory] }).output();
      for (const block of consoleBlocks(Deno.readTextFileSync(`${ROOT}${document}`))) {
        const name = `line ${block.line}: ${block.steps[0]!.command}`;
        await t.step({
          name: block.notRun === null ? name : `${name} [not run: ${block.notRun}]`,
          ignore: block.notRun !== null,
          fn: async () => {
            const results = await runBlock(block, directory, penne());
            results.forEach((result, i) => {
              const problem = problemOf(result, block.steps[i + 1]);
              const { step, output } = result;
              if (problem) {
                throw new Error(
                  `${step.command}: ${problem}\n--- shown\n${step.expected.join("\n")}\n--- is\n${output}`,
                );
              }
            });
          },
        });
      }
    } finally {
      Deno.removeSync(directory, { recursive: true });
    }
  });
}
