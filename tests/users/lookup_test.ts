// Users and subordinate ids are looked up where newuidmap does, beside real modules of NSS and of shadow.

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { SysError } from "../../ffi/core/errno.ts";
import { runTool } from "../../mod/agents/tool.ts";
import { parseSubIds } from "../../mod/users/subid.ts";
import { penne, type Result, ROOT, sh, test, TEST_USER } from "../lib/helpers.ts";

const NEEDS = ["root", "user", "package:gcc", "newuidmap", "package:uidmap", "package:libc-bin"] as const;

/** A host with files of its own in /etc, and with a directory service. */
class Host implements Disposable {
  readonly directory = Deno.makeTempDirSync({ prefix: "penne-users-" });
  #files: string[] = [];

  constructor() {
    Deno.chmodSync(this.directory, 0o755);
  }

  /** Puts a file over the one of that name in /etc. */
  etc(name: string, text: string): this {
    Deno.writeTextFileSync(`${this.directory}/${name}`, text, { mode: 0o644 });
    this.#files.push(`mount --bind ${this.directory}/${name} /etc/${name}`);
    return this;
  }

  /** Makes the service `pennetest` known to the C library and to shadow. */
  async service(): Promise<this> {
    const also = (await sh(["id", "-u", TEST_USER])).stdout.trim();
    const [source, D] = [`${ROOT}tests/users/directory.c`, this.directory];
    const built = await sh(["gcc", "-shared", "-fPIC", `-DALSO=${also}`, "-o", `${D}/directory.so`, source]);
    assertEquals(built.code, 0, built.stderr);
    this.#files.push(
      `L=$(dirname "$(readlink -f /proc/$$/map_files/* 2>/dev/null | grep -m1 'libc.so.6')"); mkdir -p ${D}/o`,
      `mount -t tmpfs none ${D}/o; mkdir ${D}/o/u ${D}/o/w`,
      `mount -t overlay none -o lowerdir=$L,upperdir=${D}/o/u,workdir=${D}/o/w $L`,
      `cp ${D}/directory.so $L/libnss_pennetest.so.2; cp ${D}/directory.so $L/libsubid_pennetest.so`,
    );
    return this;
  }

  /** Runs a command line on it, as a user. */
  run(uid: number | string, argv: string[], { env = {} }: { env?: Record<string, string> } = {}): Promise<Result> {
    const words = Object.entries({ PATH: "/usr/sbin:/usr/bin:/sbin:/bin", ...env }).map(([k, v]) => `${k}=${v}`);
    const as = ["setpriv", `--reuid=${uid}`, `--regid=${uid}`, "--clear-groups", "--inh-caps=-all", "--"];
    const script = ["set -e", ...this.#files, 'exec "$@"'].join("\n");
    const line = [...uid === 0 ? [] : as, "/usr/bin/env", "-i", ...words, ...argv];
    return sh(["unshare", "-m", "--propagation", "private", "bash", "-c", script, "bash", ...line], { cwd: "/" });
  }

  /** The map of user ids that `--map auto` makes for a user, or what it says instead. */
  async auto(uid: number | string, env: Record<string, string> = {}): Promise<string[]> {
    const show = ["run", "--net=none", "--map", "auto", "--", "/bin/cat", "/proc/self/uid_map"];
    const { code, stdout, stderr } = await this.run(uid, [penne(), ...show], { env });
    const lines = (code === 0 ? stdout : stderr).trim().split("\n");
    return code === 0 ? lines.map((line) => line.trim().replace(/\s+/g, " ")) : lines;
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.directory, { recursive: true });
  }
}

const NSS = "passwd: files pennetest\ngroup: files pennetest\n";
const own = async () => Number((await sh(["id", "-u", TEST_USER])).stdout);

/** Text of /etc/subuid; U stands for the user's name, N for the id. */
const LINES = [
  "U:100000:65536",
  "N:100000:65536",
  "U:0x186a0:0X10",
  "U:0303240:010",
  "U: 100000: +10",
  "U:100000:65536:",
  "U:100000:65536:more",
  "U:100000:10\nU:200000:20",
  "U:200000:20\nN:100000:10\nother:1:1",
  "U:4294901760:65536",
  "U:100000:4294967296",
  " U:100000:65536",
  "U :100000:65536",
  "U:100000:65536 ",
  "U:100000:65536\r",
  "U:100000:",
  "U::10",
  "U:100000:-1",
  "U:1e5:10",
  "U:100000:0x",
  "U:09:10",
  "0N:100000:65536",
  "#U:100000:65536",
  "other:100000:65536",
  "",
];

test("Lines of /etc/subuid are read as shadow reads them", NEEDS, async (t) => {
  const uid = await own();
  for (const line of LINES) {
    const text = `${line.replaceAll("U", TEST_USER).replaceAll("N", `${uid}`)}\n`;
    await t.step(JSON.stringify(line), async () => {
      using host = new Host().etc("subuid", text).etc("subgid", text);
      const { stdout } = await host.run(0, ["getsubids", TEST_USER]);
      const theirs = stdout.trim().split("\n").filter(Boolean).map((found) => found.split(" ").slice(2).map(Number));
      const ours = parseSubIds(text, [TEST_USER, `${uid}`]);
      // getsubids lists what no id can be; newuidmap refuses it.
      const possible = theirs.filter(([, count]) => count! > 0 && count! < 2 ** 63);
      assertEquals(ours, possible.map(([start, count]) => ({ start, count: Math.min(count!, 2 ** 32 - 1 - start!) })));
      const map = await host.auto(uid);
      if (ours.length === 0) assertMatch(map[0]!, /grants no subordinate ids to penne-test$/);
      else assertEquals(map.length, 1 + ours.length, map.join("\n"));
    });
  }
});

test(
  "A subordinate range that contains the own id, or overlaps another one, is mapped as far as it can be",
  [...NEEDS],
  async () => {
    const uid = await own();
    for (const owner of [TEST_USER, `${uid}`]) {
      const text = `${owner}:1000:65536\n${owner}:1500:65537\n`;
      using host = new Host().etc("subuid", text).etc("subgid", text);
      assertEquals(await host.auto(uid), [
        `0 ${uid} 1`,
        `1 1000 ${uid - 1000}`,
        `${uid - 999} ${uid + 1} ${66535 - uid}`,
        "65536 66536 501",
      ]);
    }
    const text = `${TEST_USER}:${uid}:1\n`;
    using alone = new Host().etc("subuid", text).etc("subgid", text);
    assertStringIncludes((await alone.auto(uid))[0]!, "/etc/subuid grants no subordinate ids besides its own to");
  },
);

test("A user that only NSS knows has subordinate ids, a login shell and a name", NEEDS, async (t) => {
  const text = "ldapuser:400000:1000\n";
  using host = await new Host().etc("subuid", text).etc("subgid", text).etc("nsswitch.conf", NSS).service();
  await t.step("the service works", async () => {
    const { stdout, stderr } = await host.run(70001, ["id", "-un"]);
    assertEquals([stdout, stderr], ["ldapuser\n", ""]);
  });
  await t.step("--map auto", async () => assertEquals(await host.auto(70001), ["0 70001 1", "1 400000 1000"]));
  await t.step("the login shell", async () => {
    const script = `echo 'echo $0' | ${penne()} run --net=none`;
    assertEquals((await host.run(70001, ["sh", "-c", script])).stdout, "-bash\n");
    const enter = `echo 'echo $0' | ${penne()} enter $$`;
    assertEquals((await host.run(70001, ["sh", "-c", enter])).stdout, "-bash\n");
  });
  await t.step("--user, and the name that inspect shows", async () => {
    const place = `--dir ${host.directory}/sets`;
    const script = `mkdir ${host.directory}/sets; "$0" keep box ${place} --user ldapuser --net=none -- true &&
      "$0" inspect ${place} --user 70001 box; "$0" drop ${place} --user ldapuser box; umount ${host.directory}/sets/ns`;
    const { stdout, stderr } = await host.run(0, ["sh", "-c", script, penne()]);
    assertMatch(stdout, /for +ldapuser\n/, stderr);
  });
  await t.step("watch --uid", async () => {
    const script = 'out=$("$0" watch --uid ldapuser --event exec -- /bin/true) && echo ok';
    assertEquals((await host.run(0, ["sh", "-c", script, penne()])).stdout, "ok\n");
  });
  await t.step("a user that nobody knows: the error says who was asked", async () => {
    assertEquals(
      (await host.auto(70002))[0],
      [
        "penne: cannot map user ids: /etc/subuid grants no subordinate ids to user 70002, who has no name",
        "in /etc/passwd and NSS (pennetest)",
      ].join(" "),
    );
    const { stderr } = await host.run(0, [penne(), "watch", "--uid", "nobody-at-all"]);
    assertStringIncludes(stderr, '/etc/passwd and NSS (pennetest) has no user "nobody-at-all"');
    const kept = await host.run(0, [penne(), "keep", "box", "--user", "70002", "--net=none", "--", "true"]);
    assertStringIncludes(kept.stderr, "/etc/passwd and NSS (pennetest) has no such user");
  });
  await t.step("without getent the error says that NSS was not asked", async () => {
    const [line] = await host.auto(70001, { PATH: host.directory });
    assertStringIncludes(line!, "who has no name in /etc/passwd; NSS (pennetest) was not asked: there is no getent");
    Deno.writeTextFileSync(`${host.directory}/getent`, "#!/bin/sh\nexit 3\n", { mode: 0o755 });
    const [other] = await host.auto(70001, { PATH: host.directory });
    assertStringIncludes(other!, "NSS (pennetest) was not asked: getent exited with 3");
  });
});

test(
  "Where /etc/passwd or nsswitch.conf cannot be read, other services count, and a shell needs none",
  NEEDS,
  async (t) => {
    const text = "ldapuser:400000:10\n";
    using host = await new Host().etc("subuid", text).etc("subgid", text).etc("nsswitch.conf", NSS).service();
    host.etc("passwd", Deno.readTextFileSync("/etc/passwd"));
    Deno.chmodSync(`${host.directory}/passwd`, 0o600);
    await t.step("--map auto of a user of a service", async () => {
      assertEquals(await host.auto(70001), ["0 70001 1", "1 400000 10"]);
    });
    await t.step("--map auto of a user that only the file knows", async () => {
      assertEquals((await host.auto(70002))[0], "penne: cannot read /etc/passwd: Permission denied (EACCES)");
    });
    const shell = async (uid: number, command: string) =>
      (await host.run(uid, ["sh", "-c", `echo 'echo $0' | ${penne()} ${command}`])).stdout;
    await t.step("the login shell", async () => {
      assertEquals([await shell(70001, "run --net=none"), await shell(70001, "enter $$")], ["-bash\n", "-bash\n"]);
      assertEquals([await shell(70002, "run --net=none"), await shell(70002, "enter $$")], ["-sh\n", "-sh\n"]);
      Deno.chmodSync(`${host.directory}/nsswitch.conf`, 0o600);
      assertEquals([await shell(70001, "run --net=none"), await shell(70001, "enter $$")], ["-sh\n", "-sh\n"]);
    });
  },
);

test("Where nsswitch.conf asks NSS before the file, its name for the user counts", NEEDS, async () => {
  const uid = await own();
  const text = `also:400000:10\n${TEST_USER}:500000:10\n`;
  const first = NSS.replace("files pennetest", "pennetest files");
  using host = await new Host().etc("subuid", text).etc("subgid", text).etc("nsswitch.conf", first).service();
  assertEquals(await host.auto(uid), [`0 ${uid} 1`, "1 400000 10"]);
});

test("Ranges of another name of the user count if there are no others, as with newuidmap", NEEDS, async () => {
  const uid = await own();
  const passwd = Deno.readTextFileSync("/etc/passwd");
  const other = `second:x:${uid}:${uid}::/:/bin/sh\nthird:x:${uid + 1}:1::/:/bin/sh\n`;
  for (const owner of ["second", "also"]) {
    const text = `third:600000:10\n${owner}:400000:10\n`;
    using host = new Host().etc("passwd", passwd + other).etc("subuid", text).etc("subgid", text);
    await host.etc("nsswitch.conf", NSS).service();
    assertEquals(await host.auto(uid), [`0 ${uid} 1`, "1 400000 10"], owner);
  }
});

test("Subordinate ids that a service of NSS grants are used, and no others", NEEDS, async (t) => {
  const text = "ldapuser:400000:1000\nroot:500000:10\n";
  const conf = `${NSS}subid: pennetest\n`;
  using host = await new Host().etc("subuid", text).etc("subgid", text).etc("nsswitch.conf", conf).service();
  await t.step("those of the service", async () => {
    assertEquals(await host.auto(70001), ["0 70001 1", "1 300000 100"]);
  });
  await t.step("none: the error names the service", async () => {
    assertEquals(
      (await host.auto(0))[0],
      [
        "penne: cannot map user ids: /etc/subuid or its replacement in NSS (pennetest) grants no subordinate ids to root",
      ].join(),
    );
  });
  await t.step("without getsubids the error says that it was not asked", async () => {
    Deno.symlinkSync("/usr/bin/getent", `${host.directory}/getent`);
    const [line] = await host.auto(70001, { PATH: host.directory });
    assertEquals(
      line,
      [
        "penne: cannot map user ids: /etc/subuid grants no subordinate ids to ldapuser;",
        "NSS (pennetest) was not asked: there is no getsubids",
      ].join(" "),
    );
  });
});

test("A tool that does not end in time is killed", () => {
  const start = performance.now();
  const result = runTool("sleep", ["100"], { timeout: 200 });
  if (result instanceof SysError) throw result;
  assertEquals([result.late, result.status.signal], [true, 9]);
  assert(performance.now() - start < 60_000);
});
