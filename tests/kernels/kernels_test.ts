// An older kernel and another architecture, in software emulation, with the checks that matter most; and their tables.

import { assertEquals } from "@std/assert";
import { type Need, test } from "../lib/helpers.ts";
import { CHECKS } from "./checks/all.ts";
import { judge, outcomeOf } from "./check.ts";
import { parseLog } from "./guest.ts";
import { plan } from "./job.ts";
import { KERNELS } from "./kernels.ts";
import { documentWithTables } from "./table.ts";
import { tryKernel } from "./try.ts";

/** Seconds for a guest with these checks; it needs some 80 of a processor. */
const LIMIT = 600;
/** Tools that make and run a guest. */
const GUEST: readonly Need[] = [
  ...["root", "archive of Debian", "package:mmdebstrap", "package:e2fsprogs", "package:kmod"] as const,
  ...[
    "package:cpio",
    "package:xz-utils",
    "package:zstd",
    "package:util-linux",
    "package:qemu-system-x86",
    "package:qemu-system-arm",
  ] as const,
];

/** What is wrong on a kernel. */
async function faultsOn(name: string): Promise<string[]> {
  const kernel = KERNELS.find((one) => one.name === name)!;
  const core = CHECKS.filter((check) => check.core);
  const { faults, checks, seconds, release } = await tryKernel(kernel, core, LIMIT);
  console.error(`Linux ${release}, ${kernel.architecture}: ${checks} checks, ${seconds} s`);
  return faults.map((fault) => `${name}: ${fault}`);
}

test("penne works on Linux 5.10, and on aarch64", GUEST, async () => {
  // Side by side, as a guest uses one processor.
  const both = await Promise.allSettled(["5.10", "6.12-aarch64"].map(faultsOn));
  assertEquals(both.map((one) => one.status === "fulfilled" ? one.value : `${one.reason}`), [[], []]);
});

test("each check says what has to be seen on every kernel, and has a title of its own", () => {
  for (const kernel of KERNELS) for (const { check, who } of plan(CHECKS)) outcomeOf(check, kernel, who);
  const titles = CHECKS.map(({ command, title }) => `${command}: ${title}`);
  assertEquals(titles.filter((title, i) => titles.indexOf(title) !== i), []);
});

test("an outcome is of some versions and of some callers, and the first one counts", () => {
  const outcomes = [{ from: "6.2", before: "6.10", who: "root", code: 1 }, { before: "6.2", code: 2 }, {
    code: 3,
  }] as const;
  const check = { command: "run", title: "a", script: "", outcomes } as const;
  const code = (version: "5.10" | "6.1" | "6.2" | "6.9" | "6.10" | "7.0", who: "root" | "user") =>
    outcomeOf(check, { version, architecture: "x86_64" }, who).code;
  assertEquals([code("5.10", "root"), code("6.1", "user"), code("6.2", "root"), code("6.9", "user")], [2, 2, 1, 3]);
  assertEquals([code("6.9", "root"), code("6.10", "root"), code("7.0", "user")], [1, 3, 3]);
});

test("a wrong exit code, missing words and words too many are faults", () => {
  const ran = (code: number, output: string) => ({ name: "", code, output, milliseconds: 1 });
  const outcome = { code: 1, sees: ["cannot", /E[A-Z]+/], not: ["trap"] };
  assertEquals(judge(outcome, ran(1, "cannot (EPERM)")), null);
  assertEquals(judge(outcome, ran(0, "cannot (EPERM)"))?.split(":")[0], "exit 0 instead of 1");
  assertEquals(judge(outcome, ran(1, "(EPERM) trap"))?.split(":")[0], "it does not say cannot; it says trap");
});

test("what a guest has written is read up to where it ended", () => {
  const bytes = (text: string) => new TextEncoder().encode(text);
  const [first, second] = ["check 000.root 7 1200 3\na\nb\n", "check 000.user 0 5 0\n\n"];
  const ran = { name: "000.root", code: 7, milliseconds: 1200, output: "a\nb" };
  assertEquals(parseLog(bytes(`${first}${second}done\n\0\0`)), {
    ran: [ran, { name: "000.user", code: 0, milliseconds: 5, output: "" }],
    complete: true,
  });
  assertEquals(parseLog(bytes(`${first}\0\0\0`)), { ran: [ran], complete: false });
  assertEquals(parseLog(bytes(`${first}check 000.us`)), { ran: [ran], complete: false });
  assertEquals(parseLog(new Uint8Array(512)), { ran: [], complete: false });
});

test("docs/kernels.md has the tables that follow from the checks", async () => {
  const document = new URL("../../docs/kernels.md", import.meta.url);
  assertEquals(await Deno.readTextFile(document), await documentWithTables());
});
