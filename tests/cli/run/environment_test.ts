// The compiled binary works in any directory, in any environment and for any user, and creates no files.

import { assertEquals, assertMatch } from "@std/assert";
import { netOption, penne, penneRun, ROOT, sh, test } from "../../lib/helpers.ts";

const COMMAND = ["run", "--net=none", "--", "sh", "-c", "id -u; echo $$; cat /proc/net/dev"];

function check({ code, stdout, stderr }: { code: number; stdout: string; stderr: string }): void {
  assertEquals([code, stderr], [0, ""]);
  const [uid, pid, ...dev] = stdout.trim().split("\n");
  assertEquals([uid, pid], ["0", "2"]);
  const interfaces = dev.slice(2).map((line) => line.trim().split(":")[0]);
  // Tunnel modules add devices to every net namespace; there must be no physical or veth link.
  assertEquals(interfaces.includes("lo"), true);
  assertEquals(interfaces.some((name) => /^(eth|en|wl|veth)/.test(name!)), false);
}

for (const user of [false, true]) {
  const who = user ? "an unprivileged user" : "the caller";
  test(`the binary runs with an empty environment as ${who}`, user ? ["user"] : [], async () => {
    check(await sh([penne(), ...COMMAND], { env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" }, user }));
    const result = await sh(["env", "-i", penne(), ...COMMAND], { user });
    check(result);
  });

  test(`the binary runs through a symbolic link as ${who}`, user ? ["user"] : [], async () => {
    const directory = await Deno.makeTempDir();
    try {
      await Deno.chmod(directory, 0o755);
      await Deno.symlink(penne(), `${directory}/link`);
      check(await sh([`${directory}/link`, ...COMMAND], { user, cwd: directory }));
      check(await sh(["./link", ...COMMAND], { user, cwd: directory }));
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  });
}

test(
  "the binary runs from a read-only directory, with a read-only noexec /tmp, as any user",
  ["root", "user"],
  async () => {
    const directory = await Deno.makeTempDir({ dir: "/var/tmp" });
    try {
      await Deno.chmod(directory, 0o755);
      const script = `set -e
      mount -t tmpfs -o mode=755 none "$1"; cp "$0" "$1/penne"; mount -o remount,ro "$1"
      mount -t tmpfs -o noexec,nosuid,nodev,ro none /tmp
      cd "$1"; shift
      "$@"`;
      const outer = ["unshare", "-m", "sh", "-c", script, penne(), directory];
      check(await sh([...outer, `${directory}/penne`, ...COMMAND]));
      const asUser = ["setpriv", "--reuid", "penne-test", "--regid", "penne-test", "--init-groups", "--"];
      check(await sh([...outer, ...asUser, `${directory}/penne`, ...COMMAND]));
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  },
);

test("no file is created anywhere", ["package:strace"], async () => {
  const trace = await Deno.makeTempFile();
  try {
    await sh(["strace", "-f", "-qq", "-e", "trace=%file,%desc", "-o", trace, ...penneRun(), "--", "true"]);
    const lines = (await Deno.readTextFile(trace)).split("\n");
    assertEquals(lines.some((line) => line.includes("execveat(")), true, "the trace has the agent's start");
    const calls = /\b(creat|mkdir|mkdirat|mknod|mknodat|symlink|symlinkat|link|linkat|rename|renameat2?)\(/;
    const creating = lines.filter((line) => calls.test(line) || /\bopen(at2?)?\(.*O_(CREAT|TMPFILE)/.test(line));
    // The only exceptions are the command's own files, on a tmpfs that only the command sees.
    assertEquals(creating.filter((line) => !/"\/proc\/own-(0|empty)"/.test(line)), []);
  } finally {
    await Deno.remove(trace);
  }
});

test("the module graph has no WebAssembly", async () => {
  const graph = await sh([Deno.execPath(), "info", "--json", `${ROOT}main.ts`]);
  const { modules } = JSON.parse(graph.stdout) as { modules: { specifier: string; local?: string }[] };
  assertEquals(modules.length > 20, true);
  for (const { specifier, local } of modules) {
    assertEquals(specifier.endsWith(".wasm"), false, specifier);
    if (local) assertEquals(/\bWebAssembly\b/.test(await Deno.readTextFile(local)), false, specifier);
  }
});

test("--version and --help work", async () => {
  const { version } = JSON.parse(await Deno.readTextFile(`${ROOT}deno.json`));
  assertEquals((await sh([penne(), "--version"])).stdout, `penne ${version}\n`);
  assertEquals((await sh([penne(), "run", "--version"])).stdout, `penne ${version}\n`);
  assertMatch((await sh([penne(), "--help"])).stdout, /^Usage: penne COMMAND/);
  assertMatch((await sh([penne(), "run", "--help"])).stdout, /--die-with-parent/);
  assertEquals((await sh([penne(), "--", "run", ...netOption(), "--", "sh", "-c", "exit 3"])).code, 3);
});

test("the committed shim was built from this libshim.c", async () => {
  const { SOURCE_SHA256, SHIM_ELF } = await import("../../../ffi/core/shim_elf.ts");
  const digest = await crypto.subtle.digest("SHA-256", await Deno.readFile(`${ROOT}libshim.c`));
  assertEquals(Array.from(new Uint8Array(digest), (b) => b.toString(16).padStart(2, "0")).join(""), SOURCE_SHA256);
  assertEquals(Object.keys(SHIM_ELF).sort(), ["aarch64", "x86_64"]);
});
