// The manual pages: complete, and without a fault that a formatter can see.

import { assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { allOptions, COMMON_OPTIONS, parseOptions } from "../../mod/cli/options/table.ts";
import { manPage, manPages, SPECS } from "../../packaging/man.ts";
import { ROOT, sh, test } from "../lib/helpers.ts";

const INFO = { version: "1.2.3", date: "2026-01-31" };
const SECTIONS = [
  "NAME",
  "SYNOPSIS",
  "DESCRIPTION",
  "OPTIONS",
  "EXIT STATUS",
  "ENVIRONMENT",
  "FILES",
  "NOTES",
  "EXAMPLES",
  "SEE ALSO",
];

/** Names of the commands, as main.ts dispatches them. */
function commands(): string[] {
  const table = /COMMANDS[^]*?^\};/m.exec(Deno.readTextFileSync(`${ROOT}main.ts`))![0];
  return [...table.matchAll(/^ {2}(\w+): \((?:args)?\) => /gm)].map(([, name]) => name!);
}

/** An option as it stands in the source of a page. */
function inRoff(name: string): string {
  return `\\fB\\-\\-${name.replaceAll("-", "\\-")}\\fR`;
}

test("every command has a page, and penne(1) names it", () => {
  const pages = manPages(INFO);
  assertEquals([...pages.keys()].sort(), ["penne.1", ...commands().map((name) => `penne-${name}.1`)].sort());
  for (const name of commands()) assertStringIncludes(pages.get("penne.1")!, `\\fBpenne\\-${name}\\fR(1)`);
});

for (const spec of SPECS) {
  test(`penne-${spec.name}(1) has every option, exit code and example of the table`, () => {
    const page = manPages(INFO).get(`penne-${spec.name}.1`)!;
    for (const { name, help } of allOptions(spec)) assertEquals(page.includes(inRoff(name)), help !== null, name);
    for (const section of ["OPTIONS", "EXIT STATUS"]) assertStringIncludes(page, `\n.SH ${section}\n`);
    for (const [line] of spec.examples) assertStringIncludes(page, line.replaceAll("-", "\\-").replaceAll("…", "..."));
  });
}

for (const spec of SPECS) {
  test(`the examples of penne ${spec.name} are understood as they are meant`, () => {
    for (const [line] of spec.examples) {
      // A redirection or a pipe is the shell's.
      const words = line.split(/ (?:\d?[<>]|\|)/)[0]!.split(" ");
      assertEquals(words.slice(0, 2), ["penne", spec.name], line);
      const { operands } = parseOptions(spec, words.slice(2));
      // Behind TARGET there is a command, so an option there would be taken for one.
      if (spec.name === "enter" && operands.length > 1) assertMatch(operands[1]!, /^(--$|[^-])/, line);
    }
  });
}

test("sections follow the usual order", () => {
  for (const [name, page] of manPages(INFO)) {
    const found = [...page.matchAll(/^\.SH (.*)$/gm)].map(([, section]) => section!);
    const usual = found.filter((section) => SECTIONS.includes(section));
    assertEquals(usual, SECTIONS.filter((section) => usual.includes(section)), name);
    assertEquals(new Set(found).size, found.length, name);
  }
});

test("options that a prose file names exist in a table", () => {
  const known = new Set([...COMMON_OPTIONS, ...SPECS.flatMap(allOptions)].map(({ name }) => `--${name}`));
  for (const name of ["penne", ...SPECS.map((spec) => spec.name)]) {
    const prose = Deno.readTextFileSync(`${ROOT}docs/man/${name}.md`);
    const named = [...prose.matchAll(/`(--[a-z][a-z0-9-]*)/g)].map(([, option]) => option!);
    assertEquals(named.filter((option) => !known.has(option)), [], name);
  }
});

test("text that roff would read as a request or an escape is guarded", () => {
  const prose =
    "# penne-x - try `a-b`\n\n## DESCRIPTION\n\n.SH is no heading, `\\n` no number…\n\n```\n'a' ~ `b`\n```\n";
  const page = manPage(prose, null, INFO);
  assertStringIncludes(page, "\n\\&.SH is no heading, \\fB\\en\\fR no number...\n");
  assertStringIncludes(page, "\n\\(aqa\\(aq \\(ti \\(gab\\(ga\n");
  assertStringIncludes(page, '.TH PENNE-X 1 2026-01-31 "penne 1.2.3" "User Commands"\n');
  assertThrows(() => manPage("DESCRIPTION\n", null, INFO), Error, "begins with");
});

/** Runs a formatter over all pages; what it says. */
async function complaints(argv: readonly string[]): Promise<string> {
  const directory = Deno.makeTempDirSync({ prefix: "penne-man-" });
  try {
    const files = [...manPages(INFO)].map(([name, page]) => {
      Deno.writeTextFileSync(`${directory}/${name}`, page);
      return name;
    });
    const { code, stdout, stderr } = await sh([...argv, ...files], { cwd: directory });
    return code === 0 ? stdout + stderr : `exit ${code}: ${stdout}${stderr}`;
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

test("mandoc finds no fault in the manual pages", ["package:mandoc"], async () => {
  assertEquals(await complaints(["mandoc", "-T", "lint"]), "");
});

test("groff formats the manual pages without a warning", ["package:groff"], async () => {
  assertEquals(await complaints(["groff", "-man", "-ww", "-z", "-Tutf8"]), "");
});
