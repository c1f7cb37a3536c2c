// Option tables, their parser and their help.

import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { PenneError } from "../../mod/base/errors.ts";
import { commandHelp } from "../../mod/cli/options/help.ts";
import { allOptions, type CommandSpec, parseOptions } from "../../mod/cli/options/table.ts";
import { wordOption } from "../../mod/cli/options/values.ts";
import { SPEC as RUN } from "../../mod/cli/run.ts";
import { SUMMARIES } from "../../mod/cli/top_level.ts";
import { COMMANDS } from "../../mod/findings/survey/mod.ts";
import { SPECS } from "../../packaging/man.ts";
import { ROOT, test } from "../lib/helpers.ts";

const SPEC = {
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
} as const satisfies CommandSpec;

function parse(...args: string[]) {
  const options = parseOptions(SPEC, args);
  return {
    flags: (["flag", "other", "no-thing"] as const).filter((name) => options[name]),
    value: options.value,
    many: options.many,
    operands: options.operands,
  };
}

test("parseOptions() takes values in every form", () => {
  const none = { flags: [], value: undefined, many: [], operands: [] };
  assertEquals(parse(), { ...none });
  for (const args of [["--value", "a"], ["--value=a"], ["-v", "a"], ["-va"]]) {
    assertEquals(parse(...args), { ...none, value: "a" });
  }
  assertEquals(parse("--value", ""), { ...none, value: "" });
  assertEquals(parse("--value="), { ...none, value: "" });
  assertEquals(parse("--value", "-5"), { ...none, value: "-5" });
  assertEquals(parse("--value", "007"), { ...none, value: "007" });
  assertEquals(parse("--value", "true"), { ...none, value: "true" });
  assertEquals(parse("--value=--"), { ...none, value: "--" });
  assertEquals(parse("--value=a=b\n="), { ...none, value: "a=b\n=" });
  assertEquals(parse("-v=a"), { ...none, value: "=a" });
  assertEquals(parse("-fov", "x=y"), { ...none, flags: ["flag", "other"], value: "x=y" });
  assertEquals(parse("--many", "1", "--many=2"), { ...none, many: ["1", "2"] });
  assertEquals(parse("--no-thing"), { ...none, flags: ["no-thing"] });
});

test("parseOptions() stops at -- and at the first operand", () => {
  assertEquals(parse("-f", "word", "-o").operands, ["word", "-o"]);
  assertEquals(parse("-f", "true"), { flags: ["flag"], value: undefined, many: [], operands: ["true"] });
  assertEquals(parse("--", "-f", "--").operands, ["-f", "--"]);
  assertEquals(parse("-", "x").operands, ["-", "x"]);
  assertEquals(parse("1", "0x10").operands, ["1", "0x10"]);
});

test("parseOptions() finds options behind operands where a command mixes them, up to --", () => {
  const mixed = { ...SPEC, mixed: true } as const;
  const { flag, value, operands, tail } = parseOptions(mixed, ["a", "-f", "7", "--value", "b", "--", "c", "--many=1"]);
  assertEquals({ flag, value, operands, tail }, {
    flag: true,
    value: "b",
    operands: ["a", "7"],
    tail: ["c", "--many=1"],
  });
  assertEquals(parseOptions(mixed, ["a"]).tail, null);
  assertEquals(parseOptions(mixed, ["--"]).tail, []);
});

test("parseOptions() lets options follow so many operands, and takes the rest as it is", () => {
  const one = { ...SPEC, mixed: 1 } as const;
  const parsed = (...args: string[]) => {
    const { flag, value, operands, tail } = parseOptions(one, args);
    return [flag, value, operands, tail];
  };
  assertEquals(parsed("-f", "a", "--value", "b", "c", "--nope", "-o"), [true, "b", ["a", "c", "--nope", "-o"], null]);
  assertEquals(parsed("a", "-vb", "--", "--nope", "--"), [false, "b", ["a", "--nope", "--"], null]);
  assertEquals(parsed("a", "c", "-f", "--"), [false, undefined, ["a", "c", "-f", "--"], null]);
  assertEquals(parsed("--", "-a", "-f", "--"), [false, undefined, ["-a", "-f", "--"], null]);
  assertThrows(() => parsed("a", "--nope"), PenneError, "no such option");
});

/** Commands whose operands are names of what they work on. */
const NAMED = SPECS.filter(({ synopsis }) => /TARGET|NAME/.test(synopsis));

test("Options that stand behind a TARGET or NAME are taken as before it, by every command that has one", () => {
  assertEquals(NAMED.map(({ name }) => name).toSorted(), [
    "attach",
    "drop",
    "enter",
    "flows",
    "inspect",
    "keep",
    "ls",
    "ports",
    "wait",
  ]);
  for (const spec of NAMED) {
    for (const { name, value, optional } of allOptions(spec)) {
      const option = optional ? [`--${name}=1`] : [`--${name}`, ...value ? ["1"] : []];
      const before = parseOptions(spec, [...option, "box"]);
      const after = parseOptions(spec, ["box", ...option]);
      assertEquals(after, before, `penne ${spec.name} box ${option.join(" ")}`);
    }
  }
});

test("parseOptions() refuses what the table does not have", () => {
  for (
    const [args, text] of [
      [["--nope"], "use --nope: there is no such option"],
      [["--falg"], "no such option"],
      [["-x"], "no such option"],
      [["--flag=1"], "takes no value"],
      [["--flag="], "takes no value"],
      [["--flag=true"], "takes no value"],
      [["--no-thing=1"], "takes no value"],
      [["--no-flag"], "no such option"],
      [["--no-value=1"], "use --no-value: there is no such option"],
      [["--flag", "-f"], "given twice"],
      [["--value=1", "-v2"], "given twice"],
      [["--value"], "is missing"],
      [["--value", "--"], "is missing"],
      [["-v"], "is missing"],
      [["--__proto__"], "no such option"],
      [["--constructor=1"], "no such option"],
      [["--=1"], "no such option"],
    ] as const
  ) assertThrows(() => parse(...args), PenneError, text);
});

test("a misspelt option does not compile", () => {
  const options = parseOptions(SPEC, ["--value", "a"]);
  // @ts-expect-error: the table has no such option.
  assertEquals(options.valueless, undefined);
  // @ts-expect-error: the table has no such option.
  assertEquals(options["no-thingy"], undefined);
  // @ts-expect-error: a switch has no value.
  const value: string | undefined = options.flag;
  assertEquals(value, false);
  assertEquals(wordOption(options, "value", ["a", "b"]), "a");
  // @ts-expect-error: the table has no such option.
  assertEquals(wordOption(options, "valueless", ["a"]), undefined);
  const run = parseOptions(RUN, []);
  // @ts-expect-error: only `enter` has it.
  assertEquals(run["target-env"], undefined);
});

for (const spec of SPECS) {
  test(`the help of ${spec.name} lists every option and exit code, within the width, and names its page`, () => {
    const help = commandHelp(spec);
    for (const { name, help: text } of allOptions(spec)) {
      if (text !== null) assertStringIncludes(help, `--${name}`);
      else assertEquals(help.includes(`--${name}`), false);
    }
    for (const [code] of spec.exitCodes) assertStringIncludes(help, `  ${code} `);
    assertEquals(help.split("\n").filter((line) => line.length > 100), []);
    assertStringIncludes(help, `\nSee penne-${spec.name}(1).\n`);
  });

  test(`option names of ${spec.name} are unique, and short ones too`, () => {
    const names = allOptions(spec).flatMap(({ name, short }) => [name, ...short ? [short] : []]);
    assertEquals(new Set(names).size, names.length);
    assertEquals(names.filter((name) => ["operands", "tail"].includes(name)), []);
  });
}

test("the program's help has a line for each command, and doctor() takes each", () => {
  assertEquals(Object.keys(SUMMARIES).toSorted(), SPECS.map(({ name }) => name).toSorted());
  assertEquals(Object.keys(SUMMARIES).toSorted(), COMMANDS.toSorted());
});

test("the manual page names the commands that take options after other words", () => {
  const page = Deno.readTextFileSync(`${ROOT}docs/man/penne.md`);
  const [, names = ""] = /Except in ([^]*?), the first word\s/.exec(page) ?? [];
  const mixed = SPECS.filter((spec) => "mixed" in spec && spec.mixed === true).map(({ name }) => name);
  assertEquals(Array.from(names.matchAll(/\*\*(\w+)\*\*/g), ([, name]) => name!).toSorted(), mixed.toSorted());
});
