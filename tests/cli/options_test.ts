// Option tables, their parser and their help.

import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { PenneError } from "../../mod/base/errors.ts";
import { commandHelp } from "../../mod/cli/options/help.ts";
import { allOptions, type CommandSpec, parseOptions } from "../../mod/cli/options/table.ts";
import { ENTER_SPEC } from "../../mod/cli/enter_spec.ts";
import { DROP_SPEC } from "../../mod/cli/drop_spec.ts";
import { INSPECT_SPEC } from "../../mod/cli/inspect_spec.ts";
import { KEEP_SPEC } from "../../mod/cli/keep_spec.ts";
import { NSEXEC_SPEC } from "../../mod/cli/nsexec_spec.ts";
import { RUN_SPEC } from "../../mod/cli/run_spec.ts";
import { WATCH_SPEC } from "../../mod/cli/watch_spec.ts";

const SPEC: CommandSpec = {
  name: "test",
  synopsis: "",
  summary: "",
  groups: [{
    title: "",
    options: [
      { name: "flag", short: "f", help: "" },
      { name: "other", short: "o", help: "" },
      { name: "value", short: "v", value: "X", help: "" },
      { name: "many", value: "X", repeat: true, help: "" },
      { name: "no-thing", help: "" },
    ],
  }],
  exitCodes: [],
  examples: [],
};

function parse(...args: string[]) {
  const options = parseOptions(SPEC, args);
  return {
    flags: ["flag", "other", "no-thing"].filter((name) => options.has(name)),
    value: options.get("value"),
    many: options.all("many"),
    rest: options.rest,
  };
}

Deno.test("parseOptions() takes values in every form", () => {
  const none = { flags: [], value: undefined, many: [], rest: [] };
  assertEquals(parse(), none);
  for (const args of [["--value", "a"], ["--value=a"], ["-v", "a"], ["-va"]]) {
    assertEquals(parse(...args), { ...none, value: "a" });
  }
  assertEquals(parse("--value", ""), { ...none, value: "" });
  assertEquals(parse("--value="), { ...none, value: "" });
  assertEquals(parse("--value", "-5"), { ...none, value: "-5" });
  assertEquals(parse("--value", "true"), { ...none, value: "true" });
  assertEquals(parse("--value=--"), { ...none, value: "--" });
  assertEquals(parse("-fov", "x=y"), { ...none, flags: ["flag", "other"], value: "x=y" });
  assertEquals(parse("--many", "1", "--many=2"), { ...none, many: ["1", "2"] });
  assertEquals(parse("--no-thing"), { ...none, flags: ["no-thing"] });
});

Deno.test("parseOptions() stops at -- and at the first word that is no option", () => {
  assertEquals(parse("-f", "word", "-o").rest, ["word", "-o"]);
  assertEquals(parse("--", "-f", "--").rest, ["-f", "--"]);
  assertEquals(parse("-", "x").rest, ["-", "x"]);
});

Deno.test("parseOptions() refuses what the table does not have", () => {
  for (
    const [args, text] of [
      [["--nope"], "no such option"],
      [["--falg"], "no such option"],
      [["-x"], "no such option"],
      [["--flag=1"], "takes no value"],
      [["--flag", "-f"], "given twice"],
      [["--value"], "is missing"],
      [["--value", "--"], "is missing"],
      [["-v"], "is missing"],
      [["--__proto__"], "no such option"],
    ] as const
  ) assertThrows(() => parse(...args), PenneError, text);
});

for (const spec of [RUN_SPEC, ENTER_SPEC, NSEXEC_SPEC, WATCH_SPEC, KEEP_SPEC, INSPECT_SPEC, DROP_SPEC]) {
  Deno.test(`the help of ${spec.name} tells of every option and exit code, within the width`, () => {
    const help = commandHelp(spec);
    for (const { name, help: text } of allOptions(spec)) {
      if (text !== null) assertStringIncludes(help, `--${name}`);
      else assertEquals(help.includes(`--${name}`), false);
    }
    for (const [code] of spec.exitCodes) assertStringIncludes(help, `  ${code} `);
    assertEquals(help.split("\n").filter((line) => line.length > 100), []);
  });

  Deno.test(`option names of ${spec.name} are unique, and short ones too`, () => {
    const names = allOptions(spec).flatMap(({ name, short }) => [name, ...short ? [short] : []]);
    assertEquals(new Set(names).size, names.length);
  });
}
