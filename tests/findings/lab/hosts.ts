// Hosts on which something is refused, made on this machine, and the fixes that penne prints for them.

import { assertEquals, assertMatch } from "@std/assert";
import { penne, type Result, ROOT, sh } from "../../lib/helpers.ts";

let filter: Promise<string> | undefined;

/** The program that puts others under a system call filter, compiled once. */
function filterProgram(): Promise<string> {
  return filter ??= (async () => {
    const directory = await Deno.makeTempDir({ prefix: "penne-filter-" });
    globalThis.addEventListener("unload", () => Deno.removeSync(directory, { recursive: true }));
    await Deno.chmod(directory, 0o755);
    const compiler = Deno.env.get("CC") ?? "cc";
    const source = `${ROOT}tests/findings/lab/filter.c`;
    const { code, stderr } = await sh([compiler, "-O1", "-Wall", "-Wextra", "-o", `${directory}/filter`, source]);
    assertEquals([code, stderr], [0, ""]);
    return `${directory}/filter`;
  })();
}

/** CLONE_NEW* but for time: what docker's and podman's profiles look for in the flags of clone(2). */
const NAMESPACES = "0x7e020000";

/** What docker's default profile refuses to a container without CAP_SYS_ADMIN, as far as penne needs it. */
export const DOCKER = [
  `clone[0&${NAMESPACES}]=1`,
  "clone3=38",
  ...[
    "unshare",
    "setns",
    "mount",
    "umount2",
    "sethostname",
    "bpf",
    "fsopen",
    "move_mount",
    "pivot_root",
    "open_by_handle_at",
  ]
    .map((name) => `${name}=1`),
];

/** Puts a command line under a filter. */
export async function filtered(rules: readonly string[], argv: readonly string[]): Promise<string[]> {
  return [await filterProgram(), ...rules, "--", ...argv];
}

/** The hints in what penne has printed. */
export function hintsIn(stderr: string): string[] {
  return Array.from(stderr.matchAll(/^hint: (.*)$/gm), ([, text]) => text!);
}

/** The fix in a hint: what follows the cause. */
export function fixIn(hint: string): string {
  const [, fix] = /^.*?; (.*)$/.exec(hint) ?? [];
  if (fix === undefined) throw new Error(`there is no fix in "${hint}"`);
  return fix;
}

/** The command in a fix for root. */
export function rootCommand(fix: string): string {
  const [, command] = /as root[^:]*: ([^;]*(?:; (?:mkdir|mknod|apparmor_parser) [^;]*)*)/.exec(fix) ?? [];
  if (command === undefined) throw new Error(`there is no command for root in "${fix}"`);
  return command;
}

/** The option of penne's in a fix. */
export function optionIn(fix: string): string[] {
  const [, option] = /(--[a-z][a-z-]*(?:[= ][\w,:]+)?)/.exec(fix) ?? [];
  if (option === undefined) throw new Error(`there is no option in "${fix}"`);
  return option.split(" ");
}

/** Checks that penne has failed with one message and with hints that match. */
export function assertRefused(result: Result, message: string | RegExp, ...hints: (string | RegExp)[]): string[] {
  assertEquals(result.stdout, "");
  const first = result.stderr.split("\n").find((line) => !line.startsWith("penne: warning: ")) ?? "";
  if (typeof message === "string") assertEquals(first, `penne: ${message}`);
  else assertMatch(first, message);
  const found = hintsIn(result.stderr);
  assertEquals(found.length, hints.length, result.stderr);
  for (const [i, hint] of hints.entries()) {
    if (typeof hint === "string") assertEquals(found[i], hint);
    else assertMatch(found[i]!, hint);
  }
  return found;
}

/** A root directory with the programs of this machine, penne and a /proc. */
export interface Tree {
  /** Runs a script in a mount namespace in which the directory is ready; `$1` is the directory, `$2` penne. */
  run(script: string, how?: { readonly user?: boolean; readonly unshare?: readonly string[] }): Promise<Result>;
}

/** Makes such a directory; everything in it is mounted for each script anew. */
export async function withTree(body: (tree: Tree) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ dir: "/var/tmp", prefix: "penne-tree-" });
  const fill = `set -e; mount --make-rprivate /; mount -t tmpfs -o mode=755 none "$1"; cd "$1"
    for name in /*; do
      if [ -L "$name" ]; then cp -P "$name" ".$name"
      elif [ -d "$name" ] && [ "$name" != /var ]; then mkdir ".$name"; mount --rbind "$name" ".$name"; fi
    done; mkdir -p var/tmp old; chmod 1777 var/tmp; set +e`;
  try {
    await body({
      run(script, { unshare = [] } = {}) {
        return sh(["unshare", "-m", ...unshare, "sh", "-c", `${fill}\n${script}`, "sh", directory, penne()]);
      },
    });
  } finally {
    await Deno.remove(directory);
  }
}
