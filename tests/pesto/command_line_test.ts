// pesto's command line: commands in their order, and its words.

import { assertEquals, assertThrows } from "@std/assert";
import { formatRule } from "../../mod/forward/rule.ts";
import { change, readPestoCommandLine, Refusal } from "../../mod/pesto/command_line.ts";
import { decodeState } from "../../mod/pesto/wire.ts";
import { test } from "../lib/helpers.ts";
import { STATE } from "./recorded.ts";

const FACTS = { program: "/usr/bin/pesto", version: "pesto 1\n" };
const EPHEMERAL = [32768, 60999] as const;
const FIRST = ["TCP [*]:8080  =>  80", "UDP [127.0.0.1]%lo:5353  =>  5353", "TCP [::1]:7070-7071  =>  80-81"];
const SECOND = [
  "TCP [*]%lo:1-32767  =>  1-32767  (best effort) (auto-scan)",
  "TCP [*]%lo:61000-65535  =>  61000-65535  (best effort) (auto-scan)",
];

/** The tables after a command line. */
function after(...args: string[]): string[][] {
  const request = readPestoCommandLine([...args, "/socket"], FACTS);
  if ("code" in request) throw new Refusal(request.stderr);
  const sides = change(decodeState(STATE)!, request.steps, EPHEMERAL);
  return sides.map(({ rules }) => rules.map((rule) => formatRule(rule).trimEnd()));
}

test("commands are carried out in their order", () => {
  const cases: readonly [string[], string[], string[]][] = [
    [[], FIRST, SECOND],
    [["-A", "-t", "90"], [...FIRST, "TCP [*]:90  =>  90"], SECOND],
    [["--add", "-t", "0.0.0.0/90:10.89.0.2/80"], [...FIRST, "TCP [0.0.0.0]:90  =>  10.89.0.2:80"], SECOND],
    [["--add", "-t", "[::]/90:fd00::2/80"], [...FIRST, "TCP [::]:90  =>  fd00::2:80"], SECOND],
    [["-A", "--tcp-ports=0.0.0.0/90:80"], [...FIRST, "TCP [0.0.0.0]:90  =>  80"], SECOND],
    [["-A", "--udp-ports=::/90:80"], [...FIRST, "UDP [::]:90  =>  80"], SECOND],
    [["-D", "-t", "8080:80", "--delete", "-u", "127.0.0.1%lo/5353"], [FIRST[2]!], SECOND],
    [["-t", "90", "-u", "91"], ["TCP [*]:90  =>  90", "UDP [*]:91  =>  91"], SECOND],
    [["-t", "none"], [], SECOND],
    [["-t", "90", "-T", "none"], ["TCP [*]:90  =>  90"], []],
    [["-C", "HOST", "-C", "SPLICE", "-U", "91"], [], ["UDP [*]%lo:91  =>  91"]],
    [["-A", "-t", "90", "-C", "HOST", "-A", "-t", "91", "-D", "-T", "auto"], ["TCP [*]:91  =>  91"], []],
  ];
  for (const [args, host, inside] of cases) assertEquals([args, ...after(...args)], [args, host, inside]);
});

test("what cannot be done is refused in pesto's words", () => {
  const cases: readonly [string[], string][] = [
    [["-A", "-t", "8080"], "Forwarding configuration conflict: TCP [*]:8080  =>  8080  versus TCP [*]:8080  =>  80 \n"],
    [["-D", "-t", "8080"], "Couldn't find forwarding rule to delete: TCP [*]:8080  =>  8080 \nUnable to delete rule "],
    [["-C", "NOPE"], "Unsupported pif name NOPE"],
    [["-A", "-t", "80:90:100"], "Invalid port specifier '80:90:100'"],
    [["-A", "-T", "127.0.0.1/80"], "Listening address not allowed for -T 127.0.0.1/80"],
    [["-Z"], "/usr/bin/pesto: invalid option -- 'Z'\nUsage: "],
  ];
  for (const [args, message] of cases) assertThrows(() => after(...args), Refusal, message);
  for (const args of [[], ["a", "b"]]) {
    const answer = readPestoCommandLine(args, FACTS);
    assertEquals(
      "code" in answer && [answer.code, answer.stderr.startsWith("Usage: /usr/bin/pesto [OPTION]... PATH\n")],
      [
        1,
        true,
      ],
    );
  }
  assertEquals(readPestoCommandLine(["--version"], FACTS), { stdout: "pesto 1\n", stderr: "", code: 0 });
});
