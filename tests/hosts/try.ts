// Tries penne in a host as README has it: the first command, all tests or a few, and the compiled binary.

import { ROOT } from "../lib/helpers.ts";
import { must } from "../lib/netlab.ts";
import type { Ended, Host } from "./host.ts";

/** What was seen in a host. */
export interface Seen {
  /** What is wrong; nothing if the host is right. */
  readonly faults: string[];
  /** README's first command, or the binary's where node is too old: works, or the line that says why it cannot. */
  readonly first: string;
  /** The tests: the runner's last line, and the table of what the host lacks; null where node is too old. */
  readonly tests: Pick<Ended, "seconds" | "processor"> & { readonly summary: string; readonly lacks: string[] } | null;
}

const DENO = "npx -y deno@2.9.6";
/** What README's first command has penne do. */
const RUN = "run -- sh -c 'id -u; echo $$; hostname; cat /proc/net/dev'";
/** Seconds for README's second command, with the downloads. */
export const LIMIT = 480;

/** Files with a few quick tests of every kind: what is tested in quick mode. */
export const QUICK: readonly string[] = [
  ...["tests/cli/self_test_test.ts", "tests/lib/needs_test.ts", "tests/run", "tests/cli/run/map_test.ts"],
  ...["tests/findings/exec_test.ts", "tests/enter/library_test.ts", "ffi/sys/namespace.ts"],
];

/** What the compiled binary has to do in every host, in a shell. */
const BINARY =
  `mkdir -p bin && cp penne-binary bin/penne && cd bin && ./penne --version && ./penne __self-test && ./penne __self-test >file 2>&1 && [ ! -s file ] &&
  [ -z "$(./penne __self-test 2>&1 | cat)" ] && ./penne run --net=none --hostname box -- sh -c 'echo "$(id -u) $$ $(hostname)"'`;

/** Writes the files of this checkout, as they are now, as a repository in one file, to clone from. */
export async function bundle(directory: string): Promise<string> {
  const script = `set -e; cd "$1"; git init --quiet --initial-branch main "$2/repository"
    git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d "" f; do [ ! -e "$f" ] || printf '%s\\0' "$f"; done |
      tar --null -T - -cf - | tar -C "$2/repository" -xf -
    cd "$2/repository"; git add --all; git -c user.name=penne -c user.email=penne@localhost commit --quiet -m "The files of a checkout"
    git bundle create --quiet "$2/penne.bundle" HEAD main; rm -rf "$2/repository"`;
  await must(["bash", "-c", script, "bash", ROOT, directory]);
  return `${directory}/penne.bundle`;
}

/** README's first command: what it did, or the line that says why it could not. */
async function tryFirst(host: Host, penne: string, faults: string[]): Promise<string> {
  const { code, output } = await host.run(`${penne} ${RUN}`);
  if (code === 0) {
    if (!/^0\n\d\n[^\n]*\n(.*\n)*.*eth0:/m.test(output)) faults.push(`the first command printed: ${output}`);
    return "works";
  }
  const [line, ...others] = output.split("\n").filter((line) => line.startsWith("penne: "));
  if (!line || others.length || !/^hint: /m.test(output)) faults.push(`the first command said: ${output}`);
  return line ?? `exit ${code}`;
}

/** The title and place of each test that failed, as the runner lists them. */
function failures(lines: readonly string[]): string[] {
  const at = lines.lastIndexOf(" FAILURES ");
  return at < 0 ? [] : lines.slice(at + 2, lines.indexOf("", at + 2));
}

async function tryTests(
  host: Host,
  files: readonly string[],
  limit: number,
  faults: string[],
): Promise<Seen["tests"]> {
  const { code, output, seconds, processor } = await host.run(
    `cd penne && NO_COLOR=1 ${DENO} task test ${files.join(" ")}`,
    { limit: limit + 120 },
  );
  const lines = output.split("\n");
  const summary = lines.findLast((line) => /^(ok|FAILED) \| \d+ passed/.test(line)) ?? "no summary";
  if (code !== 0 || !summary.startsWith("ok")) faults.push(["the tests: " + summary, ...failures(lines)].join("\n  "));
  if (seconds > limit) faults.push(`the tests took ${seconds} s`);
  const table = lines.findIndex((line) => /^\d+ tests? (was|were) skipped, as this machine lacks:$/.test(line));
  const lacks = table < 0 ? [] : lines.slice(table + 2).filter((line) => line.startsWith("  "));
  return { summary, lacks, seconds, processor };
}

/**
 * Tries everything in a host.
 *
 * @param files Files and folders with tests; none are all tests. With some, the binary is not compiled anew.
 * @param limit Seconds for the tests.
 */
export async function tryHost(
  host: Host,
  bundle: string,
  files: readonly string[] = [],
  limit = LIMIT,
): Promise<Seen> {
  const faults: string[] = [];
  await host.put(`${ROOT}dist/penne`, "penne-binary", 0o755);
  const binary = await host.run(BINARY);
  if (binary.code !== 0 || !binary.output.includes("\n0 2 box\n")) faults.push(`the binary: ${binary.output}`);
  if (!host.tree.suite.source) return { faults, first: await tryFirst(host, "bin/penne", faults), tests: null };
  await host.put(bundle, "penne.bundle");
  const clone = await host.run("rm -rf penne && git clone --quiet penne.bundle penne");
  if (clone.code !== 0) throw new Error(`cannot clone: ${clone.output}`);
  if (files.length) await host.run("mkdir penne/dist && cp penne-binary penne/dist/penne");
  const first = await tryFirst(host, `cd penne && ${DENO} task penne`, faults);
  return { faults, first, tests: await tryTests(host, files, limit, faults) };
}
