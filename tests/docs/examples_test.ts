// Examples in doc comments that not every machine can run: `deno test --doc` ignores them, and these tests run them.

import { assertEquals } from "@std/assert";
import { type Need, ROOT, test } from "../lib/helpers.ts";

/** What the examples of a module that are marked `ignore` need. */
const NEEDS: Readonly<Record<string, readonly Need[]>> = {
  "mod/mod.ts": ["user namespaces", "tun", "package:python3"],
  "mod/attach/flows.ts": ["user namespaces", "tun"],
  "mod/attach/mod.ts": ["user namespaces", "tun"],
  "mod/datapath/server/served_ports.ts": ["user namespaces", "tun"],
  "mod/watch/ebpf/backend.ts": ["root", "ebpf"],
};

/** The examples of a module that `deno test --doc` ignores. */
function ignoredExamples(path: string): string[] {
  const blocks = Deno.readTextFileSync(`${ROOT}${path}`).matchAll(/^ *\* ```ts ignore\n([^]*?)^ *\* ```$/gm);
  return Array.from(blocks, ([, block]) => block!.replace(/^ *\* ?/gm, ""));
}

/** All modules of a directory. */
function modules(directory: string): string[] {
  return Array.from(Deno.readDirSync(`${ROOT}${directory}`)).flatMap(({ name, isDirectory }) =>
    isDirectory ? modules(`${directory}/${name}`) : name.endsWith(".ts") ? [`${directory}/${name}`] : []
  );
}

test("every example that `deno test` ignores is run here", () => {
  const paths = ["ffi", "mod"].flatMap(modules).filter((path) => ignoredExamples(path).length);
  assertEquals(paths.sort(), Object.keys(NEEDS).sort());
});

for (const [path, needs] of Object.entries(NEEDS)) {
  test(`the examples of ${path} hold`, needs, async () => {
    for (const example of ignoredExamples(path)) {
      await (/Deno\.test\(/.test(example) ? runTest : runProgram)(example, path);
    }
  });
}

/** Runs an example as a program in the directory of its module, from which it imports. */
async function runProgram(example: string, path: string): Promise<void> {
  const runtime = await Deno.makeTempDir(); // of a session, which the caller may not have
  try {
    const process = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", "--quiet", "-"],
      cwd: `${ROOT}${path.replace(/[^/]*$/, "")}`,
      env: { XDG_RUNTIME_DIR: runtime },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    await new Blob([example]).stream().pipeTo(process.stdin);
    const { code, stderr } = await process.output();
    assertEquals([code, new TextDecoder().decode(stderr)], [0, ""]);
  } finally {
    await Deno.remove(runtime, { recursive: true });
  }
}

/** Runs an example that is a test of its own; only a file can be one. */
async function runTest(example: string, path: string): Promise<void> {
  const file = await Deno.makeTempFile({ suffix: "_test.ts" });
  try {
    const base = `file://${ROOT}${path.replace(/[^/]*$/, "")}`;
    await Deno.writeTextFile(file, example.replaceAll('from "./', `from "${base}`));
    const args = ["test", "-A", "--no-check", "--quiet", `--config=${ROOT}deno.json`, file];
    const env = { NO_PROXY: "127.0.0.1" }; // an example may fetch from a server of its own
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, env }).output();
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    assertEquals([code, text(stdout).includes("1 passed")], [0, true], text(stdout) + text(stderr));
  } finally {
    await Deno.remove(file);
  }
}
