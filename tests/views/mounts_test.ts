// The root directory and mounts that a command asks for: what can be reached by them, what cannot, and what is left.

import { assert, assertEquals, assertMatch } from "@std/assert";
import { Command } from "../../mod/mod.ts";
import { filtered } from "../findings/lab/hosts.ts";
import { asUser, command, penne, processes, type Result, sh, test, until } from "../lib/helpers.ts";

/** Makes a host: a tree with the programs of the real one, and sources for mounts, one with another mount below it. */
const MAKE = `set -e; umask 022
mount -t tmpfs -o mode=755 none "$1"; cd "$1"; shift
mkdir -p tree/usr tree/proc tree/dev tree/tmp tree/etc tree/mnt tree/opt/real src/sub src/dir other 'a:b'
for name in bin lib lib32 lib64 libx32 sbin; do
  if [ -L /$name ]; then cp -a /$name tree/$name; elif [ -d /$name ]; then mkdir tree/$name; fi
done
echo tree >tree/etc/issue; echo servers >tree/etc/resolv.conf
ln -s /mnt tree/absolute; ln -s ../../../../../../mnt tree/etc/dots; ln -s /opt/real tree/opt/link
echo source >src/file; echo other >other/file; echo colon >'a:b/file'
ln -s / src/out; ln -s ../../../../../.. src/dir/up; ln -s /dir src/inner; ln -s /nowhere src/broken
mount -t tmpfs -o mode=777 none src/sub; echo deep >src/sub/file; chmod 777 src src/file src/sub/file
mkdir src/sub/deeper; mount -t tmpfs -o mode=777,nosuid none src/sub/deeper
`;

function lstat(path: string): Deno.FileInfo | null {
  try {
    return Deno.lstatSync(path);
  } catch {
    return null;
  }
}

/** Options for the programs of the real host. */
const BINDS = ["bin", "lib", "lib32", "lib64", "libx32", "sbin", "usr"].flatMap((name) =>
  lstat(`/${name}`)?.isDirectory ? ["--bind", `/${name}`] : []
);

/** A host of its own, which ends with its script. */
class Host implements AsyncDisposable {
  private constructor(readonly path: string) {}

  static async make(): Promise<Host> {
    const path = await Deno.makeTempDir({ prefix: "penne-mounts-" });
    await Deno.chmod(path, 0o755);
    return new Host(path);
  }

  /** A command line on the host, in its directory. */
  argv(argv: string[], user: boolean): string[] {
    const script = `${MAKE} exec "$@"`;
    return ["unshare", "--mount", "sh", "-c", script, "sh", this.path, ...user ? asUser(argv) : argv];
  }

  /** The entries of the tree, as ls(1) lists them. */
  top(): string {
    const linked = ["bin", "lib", "lib32", "lib64", "libx32", "sbin"].filter((name) => lstat(`/${name}`));
    return [...linked, "absolute", "dev", "etc", "mnt", "opt", "proc", "tmp", "usr"].sort().map((name) => `${name}\n`)
      .join("");
  }

  run(options: string[], user: boolean): Promise<Result> {
    return sh(this.argv([penne(), "run", ...options], user));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.path, { recursive: true });
  }
}

const NEEDS = ["root", "user", "user namespaces", "package:util-linux"] as const;
const INSIDE = ["--net=none", "--root", "tree", ...BINDS];

/** Prints what each way of writing to a file comes to. */
const WRITE = `for file in "$@"; do
  if (: >>"$file") 2>/dev/null; then echo "$file: written"; else echo "$file: refused"; fi
done`;

for (const user of [false, true]) {
  const who = user ? "a user" : "root";
  test(`a command of ${who} gets its root directory, mounts, devices and processes`, NEEDS, async (t) => {
    await using host = await Host.make();
    const run = (options: string[]) => host.run([...INSIDE, ...options], user);
    await t.step("nothing of the host, but what is bound", async () => {
      const script = "pwd; cat /etc/issue /mnt/file; ls /; cat /proc/self/comm";
      const { code, stdout, stderr } = await run(["--proc", "--bind", "src:/mnt", "--", "sh", "-c", script]);
      assertEquals([code, stdout, stderr], [0, `/\ntree\nsource\n${host.top()}cat\n`, ""]);
    });
    await t.step("only its own mounts are in its table", async () => {
      const script = "cut -d' ' -f5 /proc/self/mountinfo; ls -d /proc/[0-9]* | wc -l";
      const { stdout } = await run(["--proc", "--tmpfs", "/tmp", "--", "sh", "-c", script]);
      const lines = stdout.trim().split("\n");
      assert(lines.every((line) => /^\/(|bin|lib\w*|sbin|usr|proc|tmp)(\/|$)|^\d$/.test(line)), stdout);
      assert(lines.includes("/") && lines.includes("/proc") && lines.includes("/tmp"), stdout);
      assert(Number(lines.at(-1)) < 6, stdout);
    });
    await t.step("devices, a terminal of its own, shared memory", async () => {
      const script = `echo x >/dev/null; head -c 2 /dev/zero | od -An -tx1; head -c 9 /dev/urandom | wc -c
        (: >/dev/full) && cat /dev/full | head -c 1 | wc -c; readlink /dev/fd /dev/stdin; stat -c %a /dev/shm
        echo y >/dev/shm/file && cat /dev/shm/file; script -qec tty /dev/null`;
      const { stdout, stderr } = await run(["--proc", "--dev", "--", "sh", "-c", script]);
      const lines = stdout.replaceAll("\r", "").trim().split("\n");
      assertEquals([lines, stderr], [
        ["00 00", "9", "1", "/proc/self/fd", "/proc/self/fd/0", "1777", "y", "/dev/pts/0"],
        "",
      ]);
    });
    await t.step("without /proc, without a pid namespace, and with a command that is PID 1", async () => {
      const status = ["--status-fd", "2", "--", "sh", "-c", "echo $$"];
      for (const options of [[], ["--no-init"], ["--unshare", "user,mnt"]]) {
        const { code, stdout, stderr } = await run([...options, ...status]);
        assertEquals(code, 0, stderr);
        assertMatch(stdout, options[0] === "--no-init" ? /^1\n$/ : /^\d+\n$/);
        assertMatch(stderr, /^\{"event":"started".*"mnt":\{"inum":\d+/);
      }
    });
    await t.step("a relative source and a colon; the working directory is at the same path, or /", async () => {
      const one = await host.run(
        ["--net=none", "--bind", "a\\:b:/mnt", "--chdir", "/mnt", "--", "sh", "-c", "pwd; cat file"],
        user,
      );
      assertEquals([one.code, one.stdout, one.stderr], [0, "/mnt\ncolon\n", ""]);
      const two = await host.run(["--net=none", "--bind", `other:${host.path}/src`, "--", "cat", "src/file"], user);
      assertEquals([two.code, two.stdout], [0, "other\n"], two.stderr);
    });
    await t.step("the shell without a command is that of the tree", async () => {
      const argv = [penne(), "run", ...INSIDE];
      const { code, stderr } = await sh(host.argv(["env", "SHELL=/no/such/shell", ...argv], user));
      assertEquals([code, stderr], [0, ""]); // standard input is empty
    });
  });

  for (const old of [false, true]) {
    const kernel = old ? ", as before Linux 5.12" : "";
    test(`a read-only mount is read-only for ${who}, with all mounts below it${kernel}`, [
      ...NEEDS,
      ...old ? ["package:gcc"] as const : [],
    ], async () => {
      await using host = await Host.make();
      const files = ["/mnt/file", "/mnt/new", "/mnt/sub/file", "/mnt/sub/new", "/mnt/sub/deeper/new"];
      const refused = [...files, "/opt/file"]; // a file as the source, below a directory that can be written
      const command = ["sh", "-c", `${WRITE}; cat /mnt/sub/file; grep -c ' ro' /proc/self/mountinfo`, "sh", ...refused];
      const binds = ["--bind", "src:/mnt:ro", "--bind", "src:/opt", "--bind", "other/file:/opt/file:ro"];
      const options = ["--net=none", ...binds, "--", ...command];
      const argv = [penne(), "run", ...options];
      const { code, stdout, stderr } = await sh(
        host.argv(old ? await filtered(["mount_setattr=38"], argv) : argv, user),
      );
      assertEquals([code, stderr], [0, ""]);
      const [count, ...lines] = stdout.trim().split("\n").reverse();
      assertEquals(lines.reverse(), [...refused.map((file) => `${file}: refused`), "deep"]);
      assert(Number(count) >= 3);
      // The same without "ro", and the options of what is mounted below stay.
      const writable = ["sh", "-c", `${WRITE}; grep deeper /proc/self/mountinfo`, "sh", ...files];
      const other = await host.run(["--net=none", "--bind", "src:/mnt", "--", ...writable], user);
      assertEquals(other.stdout.trim().split("\n").slice(0, files.length), files.map((file) => `${file}: written`));
      assertMatch(other.stdout, /\/mnt\/sub\/deeper rw,nosuid/);
    });
  }

  test(
    `symbolic links do not lead ${who} out of the root directory or a source (CVE-2021-30465, CVE-2025-31133)`,
    NEEDS,
    async (t) => {
      await using host = await Host.make();
      const seen = async (options: string[], script: string) => {
        const { code, stdout, stderr } = await host.run([...options, "--", "sh", "-c", script], user);
        assertEquals([code, stderr], [0, ""]);
        return stdout;
      };
      await t.step("a target behind links is in the tree", async () => {
        for (const target of ["/absolute", "/etc/dots"]) {
          assertEquals(await seen([...INSIDE, "--bind", `src:${target}`], "cat /mnt/file"), "source\n");
        }
        assertEquals(await seen([...INSIDE, "--bind", "src:/opt/link"], "cat /opt/real/file"), "source\n");
      });
      await t.step("links of a source lead to what the command sees", async () => {
        const script = "cat /mnt/out/etc/issue /mnt/dir/up/etc/issue";
        assertEquals(await seen([...INSIDE, "--bind", "src:/mnt"], script), "tree\ntree\n");
      });
      await t.step("a target below a source stays in it, with a root directory and without", async () => {
        // Whoever owns the source cannot have the second mount cover /etc, or anything else outside.
        for (const options of [INSIDE, ["--net=none"]]) {
          const two = [...options, "--bind", "src:/mnt", "--bind"];
          assertEquals(await seen([...two, "other:/mnt/inner"], "cat /mnt/dir/file"), "other\n");
          assertEquals(await seen([...two, "other:/mnt/dir/up/dir"], "cat /mnt/dir/file"), "other\n");
          for (const [target, missing] of [["/mnt/out/etc", "out/etc"], ["/mnt/broken", "broken"]]) {
            const result = await host.run([...two, `other:${target}`, "--", "true"], user);
            assertEquals([result.code, result.stderr], [
              125,
              `penne: cannot bind "${host.path}/other" to "${target}": there is no "${target}" in "${host.path}/src"\n` +
              `hint: make it first: mkdir -p ${host.path}/src/${missing}\n`,
            ]);
          }
        }
      });
    },
  );
}

test("what cannot be mounted is a clear error, and nothing is made", NEEDS, async (t) => {
  await using host = await Host.make();
  const { path } = host;
  const tree = ["--net=none", "--root", "tree"];
  const colon = "hint: a colon within a path is written \\:\n";
  const cases: readonly [string[], number, string][] = [
    [
      [...tree, "--bind", "src:/no/such"],
      125,
      `bind "${path}/src" to "/no/such": there is no "/no/such" in "${path}/tree"\nhint: make it first: mkdir -p ${path}/tree/no/such\n`,
    ],
    [
      [...tree, "--bind", "src/file:/etc/no"],
      125,
      `bind "${path}/src/file" to "/etc/no": there is no "/etc/no" in "${path}/tree"\nhint: make it first: touch ${path}/tree/etc/no\n`,
    ],
    [
      ["--net=none", "--bind", "src:/no/such"],
      125,
      `bind "${path}/src" to "/no/such": there is no "/no/such" in the host\nhint: make it first: mkdir -p /no/such\n`,
    ],
    [
      [...tree, "--tmpfs", "/mnt", "--bind", "src:/mnt/x"],
      125,
      `bind "${path}/src" to "/mnt/x": there is no "/mnt/x" in an empty tmpfs\n`,
    ],
    [
      [...tree, "--bind", "/no/such:/mnt"],
      125,
      `bind "/no/such" to "/mnt": No such file or directory (ENOENT)\nhint: the host has no /no/such\n`,
    ],
    [
      [...tree, "--bind", "src/file:/mnt"],
      125,
      `bind "${path}/src/file" to "/mnt": only one of the two is a directory\n`,
    ],
    [
      [...tree, "--bind", "src:/etc/issue"],
      125,
      `bind "${path}/src" to "/etc/issue": only one of the two is a directory\n`,
    ],
    [[...tree, "--bind", "src:/etc/issue/x"], 125, `bind "${path}/src" to "/etc/issue/x": Not a directory (ENOTDIR)\n`],
    [["--net=none", "--root", "no"], 125, `make "${path}/no" the root directory: No such file or directory (ENOENT)\n`],
    [["--net=none", "--root", "src/file"], 125, `make "${path}/src/file" the root directory: it is not a directory\n`],
    [["--root", ""], 2, "use the root directory: the path is empty\n"],
    [["--bind", "src:mnt"], 2, `use --bind "src:mnt": the target "mnt" is not an absolute path\n${colon}`],
    [
      ["--bind", "src:ro"],
      2,
      `use --bind "src:ro": the target "ro" is not an absolute path\nhint: SRC:DST:ro names the target too\n`,
    ],
    [["--bind", "src:/mnt:rw"], 2, `use --bind "src:/mnt:rw": "rw" is not ro\n${colon}`],
    [["--bind", "a:/b:ro:d"], 2, `use --bind "a:/b:ro:d": it has more than three fields\n${colon}`],
    [["--bind", ":/mnt"], 2, "bind a path: the path is empty\n"],
    [["--bind", "src:/a/../b"], 2, `bind "src": "/a/../b" has ".." inside\nhint: SRC:DST names another target\n`],
    [["--bind", "src:/"], 2, `bind "src": that is the root directory\nhint: --root gives the command another one\n`],
    [["--bind", "src:/mnt", "--tmpfs", "//mnt/."], 2, `mount "/mnt": something else is to be mounted there too\n`],
    [
      ["--unshare", "user", "--proc"],
      2,
      "mount anything: that needs a mnt namespace of its own\nhint: add mnt to --unshare\n",
    ],
  ];
  for (const [options, code, message] of cases) {
    await t.step(options.join(" "), async () => {
      // The tree is listed after penne has ended, in the same mount namespace.
      const argv = ["sh", "-c", `"$@"; code=$?; find . | wc -l; exit $code`, "sh", penne(), "run", ...options, "true"];
      const result = await sh(host.argv(argv, false));
      assertEquals([result.code, result.stderr], [code, `penne: cannot ${message}`]);
      files ??= result.stdout;
      assertEquals(result.stdout, files);
    });
  }
});
let files: string | undefined;

test("nothing of mounts and processes is left after SIGKILL", NEEDS, async () => {
  await using host = await Host.make();
  const rounds = Number(Deno.env.get("PENNE_KILLS") ?? 4);
  for (let round = 0; round < rounds; round++) {
    const options = [...INSIDE, "--proc", "--dev", "--tmpfs", "/tmp", "--bind", "src:/mnt:ro"];
    const argv = host.argv([penne(), "run", ...options, "--", "sh", "-c", "echo started; sleep 1000"], round % 2 === 1);
    const child = command(argv, {}, { stdin: "null", stdout: "piped", stderr: "null" }).spawn();
    if (round % 4 < 2) { // while the command runs; else at a moment of the set-up
      const reader = child.stdout.getReader();
      await reader.read();
      reader.releaseLock();
    } else {
      await until("penne runs", () => Deno.readLinkSync(`/proc/${child.pid}/exe`).endsWith("/penne"));
      await new Promise((resolve) => setTimeout(resolve, 60 * Math.random()));
    }
    child.kill("SIGKILL");
    await child.stdout.cancel();
    await child.status;
    await until("all processes have ended", () => ![...processes()].some(({ cmdline }) => cmdline.includes(host.path)));
  }
  const holders = Array.from(Deno.readDirSync("/proc"), ({ name }) => name).filter((name) => {
    try {
      return /^\d+$/.test(name) && Deno.readTextFileSync(`/proc/${name}/mountinfo`).includes(host.path);
    } catch {
      return false; // it has ended
    }
  });
  assertEquals(holders, []);
});

test("the library has the same options", ["user namespaces"], async () => {
  const tree = await Deno.makeTempDir();
  try {
    for (const name of ["usr", "bin", "lib", "lib64", "proc", "dev", "mnt", "etc"]) await Deno.mkdir(`${tree}/${name}`);
    await Deno.writeTextFile(`${tree}/etc/issue`, "of the tree\n");
    const exists = (path: string) => Deno.statSync(path).isDirectory;
    const options = {
      net: "none",
      rootDirectory: tree,
      mounts: [
        ...["/usr", "/bin", "/lib", "/lib64"].filter(exists).map((bind) => ({ bind, readOnly: true })),
        "proc",
        "dev",
        { tmpfs: "/mnt" },
      ],
    } as const;
    const script = "cat /etc/issue; echo >/mnt/file && ls /mnt; touch /usr/file 2>/dev/null || echo refused; echo $$";
    const { success, stdout } = await new Command("sh", { ...options, args: ["-c", script] }).output();
    assert(success);
    assertEquals(new TextDecoder().decode(stdout), "of the tree\nfile\nrefused\n2\n");
  } finally {
    await Deno.remove(tree, { recursive: true });
  }
});

test("names are resolved by penne in the tree, too", [...NEEDS, "tun"], async () => {
  await using host = await Host.make();
  for (const user of [false, true]) {
    const options = ["--root", "tree", ...BINDS, "--dns", "192.0.2.53", "--", "cat", "/etc/resolv.conf"];
    const { code, stdout, stderr } = await host.run(options, user);
    assertEquals([code, stderr], [0, ""]);
    assertMatch(stdout, /^nameserver 192\.0\.2\.53$/m);
  }
});
