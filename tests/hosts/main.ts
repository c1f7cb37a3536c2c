// deno task hosts: tries README's commands and the compiled binary in bare hosts, one after the other, as root.
//
//   [SUITE…]        Debian suites: bullseye, bookworm, trixie, sid; all of them by default
//   --kind WORDS    only hosts whose description contains all these words, as in --kind "user open"; may be repeated
//   --quick         only a few of the tests
//   --only PATH     only the tests of a file or folder; may be repeated
//   --limit SECONDS give the tests so much time (default: 480), on a machine that is busy
//   --anew          make the trees anew
//   --logs DIR      where to write what was printed; a temporary directory by default

import { describe, Host, KINDS } from "./host.ts";
import { SUITES, Tree } from "./tree.ts";
import { bundle, LIMIT, QUICK, type Seen, tryHost } from "./try.ts";

/** A row of the table for the documents. */
function row(host: string, { first, tests, faults }: Seen): string {
  const cells = [
    host,
    first,
    tests ? `${tests.summary}, ${tests.seconds} s, ${tests.processor} s of a processor` : "",
    faults.length ? "faults" : "right",
  ];
  return `| ${cells.join(" | ").replaceAll("\n", " ")} |`;
}

if (import.meta.main) {
  const [names, kinds, only]: [string[], string[], string[]] = [[], [], []];
  const flags = new Set<string>();
  let logs: string | undefined;
  let limit = LIMIT;
  for (let i = 0; i < Deno.args.length; i++) {
    const word = Deno.args[i]!;
    if (word === "--kind") kinds.push(Deno.args[++i] ?? "");
    else if (word === "--only") only.push(Deno.args[++i] ?? "");
    else if (word === "--logs") logs = Deno.args[++i];
    else if (word === "--limit") limit = Number(Deno.args[++i]);
    else if (["--quick", "--anew"].includes(word)) flags.add(word);
    else if (SUITES.some(({ name }) => name === word)) names.push(word);
    else {
      console.error(`hosts: there is no suite or option ${word}`);
      Deno.exit(2);
    }
  }
  if (!(limit > 0)) {
    console.error("hosts: --limit takes a number of seconds");
    Deno.exit(2);
  }
  if (Deno.uid() !== 0) {
    console.error("hosts: making hosts needs root");
    Deno.exit(1);
  }
  const directory = logs ?? Deno.makeTempDirSync({ prefix: "penne-hosts-" });
  Deno.mkdirSync(directory, { recursive: true });
  const repository = await bundle(directory);
  const rows: string[] = [];
  let wrong = 0;
  for (const suite of SUITES.filter(({ name }) => !names.length || names.includes(name))) {
    const wanted = KINDS.map((one) => [describe(one), one] as const)
      .filter(([words]) =>
        !kinds.length || kinds.some((kind) => kind.split(" ").every((word) => words.includes(word)))
      );
    if (!wanted.length) continue;
    await using tree = await Tree.unpack(suite, flags.has("--anew"));
    for (const [words, one] of wanted) {
      const log = `${directory}/${suite.name}-${words.replaceAll(/[ ,]+/g, "-")}.log`;
      Deno.writeTextFileSync(log, "");
      console.error(`hosts: ${suite.name}, ${words}: see ${log}`);
      const seen = await tryHost(
        await Host.make(tree, one, log),
        repository,
        flags.has("--quick") ? [...QUICK, ...only] : only,
        limit,
      );
      rows.push(row(`${suite.name}, ${words}`, seen));
      console.error(`hosts: ${rows.at(-1)}`);
      for (const line of seen.tests?.lacks ?? []) console.error(`hosts: ${line}`);
      for (const fault of seen.faults) console.error(`hosts: FAULT: ${fault.slice(-2000)}`);
      if (seen.faults.length) wrong++;
    }
  }
  console.log(rows.join("\n"));
  Deno.exit(wrong ? 1 : 0);
}
