// deno task kernels: tries penne on kernels of Debian in software emulation, one after the other, as root.
//
//   [KERNEL…]       5.10, 6.1, 6.12, 7.2, 7.3, 6.12-aarch64, 6.12-aarch64-16k; all of them by default
//   --only WORDS    only checks whose command and title contain all these words; may be repeated
//   --core          only the few checks that CI runs
//   --half          run each check once, by root and by the user in turn, instead of by both
//   --other-half    run each check by the one who does not run it with --half
//   --outputs       print what each check printed
//   --list          list the checks, and run nothing
//   --table         write the table of docs/kernels.md, which follows from the checks, and run nothing
//   --tests         run tests of the project instead of checks, on aarch64; --only names files and folders
//   --limit SECONDS give a guest so much time (default: 7200)

import type { Check } from "./check.ts";
import { CHECKS } from "./checks/all.ts";
import { TESTED } from "./job.ts";
import { KERNELS } from "./kernels.ts";
import { updateDocument } from "./table.ts";
import { testOn, tryKernel } from "./try.ts";

function fail(message: string, code: number): never {
  console.error(`kernels: ${message}`);
  Deno.exit(code);
}

if (import.meta.main) {
  const [names, only]: [string[], string[]] = [[], []];
  const flags = new Set<string>();
  let limit = 7200;
  for (let i = 0; i < Deno.args.length; i++) {
    const word = Deno.args[i]!;
    if (word === "--only") only.push(Deno.args[++i] ?? "");
    else if (word === "--limit") limit = Number(Deno.args[++i]);
    else if (["--core", "--half", "--other-half", "--outputs", "--list", "--table", "--tests"].includes(word)) {
      flags.add(word);
    } else if (KERNELS.some(({ name }) => name === word)) names.push(word);
    else fail(`there is no kernel or option ${word}`, 2);
  }
  if (!(limit > 0)) fail("--limit takes a number of seconds", 2);
  if (flags.has("--table")) {
    await updateDocument();
    Deno.exit(0);
  }
  // Whose turn it is does not depend on what else is run.
  const checks = CHECKS.flatMap((check, i): Check[] => {
    const half = check.who ?? (i % 2 ? "user" : "root");
    if (flags.has("--half")) return [{ ...check, who: half }];
    if (!flags.has("--other-half")) return [check];
    return check.who ? [] : [{ ...check, who: half === "root" ? "user" : "root" }];
  }).filter(({ command, title, core }) =>
    (!flags.has("--core") || core) &&
    (!only.length || only.some((words) => words.split(" ").every((word) => `${command}: ${title}`.includes(word))))
  );
  if (!checks.length && !flags.has("--tests")) fail("there is no such check", 2);
  if (flags.has("--list")) {
    for (const { command, title, who } of checks) console.log(`${command}: ${title}${who ? ` (${who})` : ""}`);
    Deno.exit(0);
  }
  if (Deno.uid() !== 0) fail("making the disk of a guest needs root", 1);
  let wrong = 0;
  for (const kernel of KERNELS.filter(({ name }) => !names.length || names.includes(name))) {
    console.error(`kernels: ${kernel.name}`);
    const show = (line: string) => console.error(`${kernel.name}: ${line}`);
    if (flags.has("--tests")) {
      if (kernel.architecture !== "aarch64") continue;
      const { output, passed } = await testOn(kernel, only.length ? only : TESTED, limit, show);
      console.log(`## ${kernel.name}\n${output}`);
      if (!passed) wrong++;
      continue;
    }
    const seen = await tryKernel(kernel, checks, limit, show);
    for (const { check, who, output } of flags.has("--outputs") ? seen.outputs : []) {
      console.log(`## ${kernel.name}, ${who}: ${check.command}: ${check.title}\n${output}`);
    }
    for (const fault of seen.faults) console.log(`FAULT on ${kernel.name}: ${fault}`);
    const { release, checks: count, faults, seconds } = seen;
    console.log(`${kernel.name} (${release}): ${count} checks, ${faults.length} faults, ${seconds} s`);
    wrong += faults.length;
  }
  Deno.exit(wrong ? 1 : 0);
}
