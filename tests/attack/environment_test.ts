// What the environment and the arguments of a hostile process can do to root: neither run code nor fill memory.

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { asUser, command, penne, sh, test, until } from "../lib/helpers.ts";
import { enter, Place as Somewhere } from "../enter/places.ts";
import { Place } from "../kept/place.ts";

const NEEDS = ["root", "user", "user namespaces", "package:util-linux", "package:python3"] as const;
const OWN = { PATH: Deno.env.get("PATH")!, HOME: "/root", SHELL: "/bin/sh" };

/** A directory of the test user with a program of each of some names, which leaves a mark. */
function trap(...names: string[]): { directory: string; mark: string } & Disposable {
  const directory = Deno.makeTempDirSync({ prefix: "penne-trap-" });
  const mark = `${directory}/mark`;
  for (const name of names) {
    Deno.writeTextFileSync(`${directory}/${name}`, `#!/bin/sh\nid -u >>${mark}\n`);
    Deno.chmodSync(`${directory}/${name}`, 0o755);
  }
  Deno.chmodSync(directory, 0o755);
  return { directory, mark, [Symbol.dispose]: () => Deno.removeSync(directory, { recursive: true }) };
}

function assertUntrapped(mark: string): void {
  let ran = "";
  try {
    ran = Deno.readTextFileSync(mark);
  } catch {
    // It did not run.
  }
  assertEquals(ran, "", "code of another user ran as this user");
}

test(
  "--target-env takes no code of the target along where the target's files and users are not joined",
  NEEDS,
  async (t) => {
    using evil = trap("true", "shell", "bashenv", ".bashrc", ".profile");
    const { directory, mark } = evil;
    const env = {
      PATH: `${directory}:${OWN.PATH}`,
      HOME: directory,
      SHELL: `${directory}/shell`,
      BASH_ENV: `${directory}/bashenv`,
      ENV: `${directory}/bashenv`,
      LD_PRELOAD: `${directory}/evil.so`,
      LD_AUDIT: `${directory}/evil.so`,
      GCONV_PATH: directory,
      GETCONF_DIR: directory,
      GLIBC_TUNABLES: "glibc.malloc.check=3",
      HOSTALIASES: `${directory}/x`,
      LOCALDOMAIN: "x",
      LOCPATH: directory,
      MALLOC_TRACE: `${directory}/x`,
      NIS_PATH: directory,
      NLSPATH: directory,
      RESOLV_HOST_CONF: "/etc/shadow",
      RES_OPTIONS: "debug",
      TMPDIR: directory,
      TZDIR: directory,
      PYTHONPATH: directory,
      PERL5LIB: directory,
      "BASH_FUNC_env%%": `() { id -u >>${mark}; }`,
      HARMLESS: "yes",
    };
    await using place = await Somewhere.open(
      asUser(["env", "-i", ...Object.entries(env).map(([k, v]) => `${k}=${v}`), "unshare", "-Urnm"]),
    );
    const target = `${place.pid}`;
    for (const type of ["net", "net,user", "net,mnt"]) {
      await t.step(`--type ${type}`, async () => {
        for (const argv of [["true"], ["bash", "-c", "true"], ["bash", "-ic", "true"], []]) {
          const { stderr } = await enter([
            "--type",
            type,
            "--target-env",
            target,
            ...argv.length ? ["--", ...argv] : [],
          ], { env: OWN });
          assertUntrapped(mark);
          assertStringIncludes(stderr, "LD_PRELOAD");
        }
        const { stdout, stderr } = await enter(["--type", type, "--target-env", target, "--", "env"], { env: OWN });
        const seen = new Map(stdout.split("\n").map((line) => line.split("=", 2) as [string, string]));
        assertEquals(seen.get("HARMLESS"), "yes");
        for (const [name, value] of Object.entries(OWN)) assertEquals(seen.get(name), value);
        for (const name of Object.keys(env)) {
          if (name === "HARMLESS") continue;
          assert(seen.get(name) !== env[name as keyof typeof env], name);
          assertStringIncludes(stderr, name);
        }
        assertMatch(stderr, /^penne: warning: .* are not used: its mount and user namespaces are not both joined\n$/);
      });
    }
    await t.step("--env sets any of them", async () => {
      const { stdout } = await enter(["--type", "net", "--target-env", "--env", "TMPDIR=/x", target, "--", "env"], {
        env: OWN,
      });
      assertMatch(stdout, /^TMPDIR=\/x$/m);
    });
    await t.step("with both joined, the environment is the target's", async () => {
      const { stdout, stderr } = await enter(["--target-env", target, "--", "/usr/bin/env"], { env: OWN });
      for (const [name, value] of Object.entries(env)) assertStringIncludes(stdout, `${name}=${value}\n`);
      assert(!stderr.includes("penne: warning"), stderr);
    });
  },
);

test("a warning about variables of the target names some of them, escaped", NEEDS, async () => {
  const many = Array.from({ length: 50 }, (_, i) => `LD_X${i}=1`);
  await using place = await Somewhere.open([
    "env",
    "-i",
    "LD_\x1b[31m\nhint: rm=1",
    ...many,
    "/usr/bin/unshare",
    "-Urn",
  ]);
  const { code, stderr } = await enter(["--type", "net", "--target-env", `${place.pid}`, "--", "/bin/true"]);
  assertEquals(code, 0);
  assertStringIncludes(stderr, "LD_\\u001b[31m\\nhint: rm, LD_X0");
  assertMatch(stderr, /and 11 more of process \d+ are not used/);
  assertEquals(stderr.split("\n").length, 2);
});

/** A program that makes its arguments or its environment look a number of GiB large, PR_SET_MM_MAP(2const). */
const LARGE = `
import ctypes, mmap, os, struct, sys, time
which, gib = sys.argv[1], int(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.sbrk.restype = ctypes.c_void_p
length = gib << 30
# PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_NORESERVE
at = libc.mmap(None, ctypes.c_size_t(length), 3, 0x4022, -1, ctypes.c_long(0))
stat = open("/proc/self/stat").read().rsplit(")", 1)[1].split()
field = lambda n: int(stat[n - 3])
values = dict(arg=(field(48), field(49)), env=(field(50), field(51)))
values[which] = (at, at + length)
# struct prctl_mm_map
data = struct.pack("12QIi", field(26), field(27), field(45), field(46), field(47), libc.sbrk(0), field(28),
                   *values["arg"], *values["env"], 0, 0, -1)
buffer = ctypes.create_string_buffer(data)
if libc.prctl(35, 14, buffer, len(data), 0): sys.exit("prctl: " + os.strerror(ctypes.get_errno()))
print("ready", flush=True)
time.sleep(1000)
`;

/** Starts that program as the test user, in namespaces of its own. */
async function large(which: "arg" | "env", gib: number): Promise<Deno.ChildProcess> {
  const argv = asUser(["unshare", "-Urn", "python3", "-c", LARGE, which, `${gib}`]);
  const child = command(argv, { cwd: "/" }, { stdin: "null", stdout: "piped" }).spawn();
  const reader = child.stdout.getReader();
  let text = "";
  for (let part; !text.includes("\n") && !(part = await reader.read()).done;) {
    text += new TextDecoder().decode(part.value);
  }
  await reader.cancel();
  assertEquals(text, "ready\n");
  return child;
}

/** Runs a command line, and returns its exit code, stderr and the most memory that it has had, kB. */
async function measure(argv: string[]): Promise<{ code: number; memory: number; stderr: string }> {
  const script = `
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=300)
sys.stderr.buffer.write(done.stderr)
print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
`;
  const { stdout, stderr } = await sh(["python3", "-c", script, ...argv], { cwd: "/" });
  const [code, memory] = stdout.split(" ").map(Number);
  return { code: code!, memory: memory!, stderr };
}

test("an environment or arguments of gigabytes fill no memory", NEEDS, async (t) => {
  const plain = await measure([penne(), "run", "--net=none", "--", "true"]);
  const most = plain.memory + 500_000; // of three gigabytes
  await t.step("enter --target-env", async () => {
    const child = await large("env", 3);
    try {
      const { code, memory, stderr } = await measure([penne(), "enter", "--target-env", `${child.pid}`, "--", "true"]);
      assertEquals(code, 125);
      assertStringIncludes(stderr, `cannot read the environment of process ${child.pid}: File too large (EFBIG)`);
      assert(memory < most, `${memory} kB`);
    } finally {
      child.kill("SIGKILL");
      await child.status;
    }
  });
  await t.step("drop and inspect of a set without an info file, beside such a process", async () => {
    using place = new Place();
    await place.must("keep", "x", "--unshare", "uts,pid", "--", "true");
    const holder = (await place.inspect("x"))!.holder!.pid;
    const child = await large("arg", 3);
    try {
      Deno.removeSync(`${place.ns}/x.info`);
      const seen = await measure(place.argv("inspect", "x"));
      assertEquals(seen.code, 1);
      assert(seen.memory < most, `${seen.memory} kB`);
      const { code, memory, stderr } = await measure(place.argv("drop", "x"));
      assertEquals(code, 0, stderr);
      assert(memory < most, `${memory} kB`);
      await until("its holder has ended", () => {
        try {
          return Deno.readTextFileSync(`/proc/${holder}/comm`) !== "penne-holder\n";
        } catch {
          return true;
        }
      });
    } finally {
      child.kill("SIGKILL");
      await child.status;
    }
  });
});
