// Resource limits: one line and what to change, wherever penne's own code meets them; V8 meets some before it.

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { asUser, netOption, penne, sh, test } from "../lib/helpers.ts";
import { becomes, NetLab } from "../lib/netlab.ts";
import { assertRefused, fixIn, hintsIn } from "./lab/hosts.ts";

/** Runs penne with limits set by a shell's builtin. */
const limited = (limits: string, args: string, user = true) =>
  sh(["bash", "-c", `${limits}; exec "$0" ${args}`, penne()], { user });

/** Open files by which a host may differ from that on which penne's need was counted. */
const FEW = 5;

test("with any limit on open files, run works or says why not in one line", ["user", "package:bash"], async () => {
  let needed = Infinity;
  for (let files = 13; files < 40; files++) {
    for (
      const args of [`run ${netOption({ user: true }).join(" ")} -- echo ran`, "run --net=none -- echo ran"]
    ) {
      const result = await limited(`ulimit -n ${files}`, args);
      if (result.code === 0) {
        assertEquals(result.stdout, "ran\n");
        assertEquals(result.stderr.includes("error"), false);
        continue;
      }
      assertEquals(result.code, 125, result.stderr);
      needed = Number(/penne needs (\d+) at least/.exec(result.stderr)?.[1] ?? needed);
      assert(files < needed + FEW, result.stderr);
      assertRefused(
        result,
        /^penne: cannot .*Too many open files \(EMFILE\)$/,
        new RegExp(
          `^the limit on open files is ${files} \\(ulimit -n\\)(, and penne needs \\d+ at least)?; (as root: )?ulimit -n 1024`,
        ),
      );
    }
  }
});

test("a soft limit on open files is raised as the hint says", ["user", "package:bash"], async () => {
  const [hint] = assertRefused(
    await limited("ulimit -Sn 20", "run --net=none -- echo ran"),
    /EMFILE/,
    "the limit on open files is 20 (ulimit -n); ulimit -Sn 1024",
  );
  const fixed = await limited(`ulimit -Sn 20; ${fixIn(hint!)}`, "run --net=none -- echo ran");
  assertEquals(fixed.stdout, "ran\n", fixed.stderr);
});

test(
  "every command says so when there are too few open files",
  ["root", "package:bash", "package:util-linux"],
  async () => {
    await using lab = new NetLab();
    const target = lab.start(["unshare", "--net", "sleep", "1000"]);
    await becomes(target, "sleep");
    const pid = target.child.pid;
    for (
      const args of [
        `attach ${pid}`,
        `enter ${pid} -- true`,
        `keep penne-test --dir /no/such --pid ${pid}`,
        "watch -- true",
      ]
    ) {
      for (const files of [14, 17, 20]) {
        const result = await limited(`ulimit -n ${files}`, args, false);
        assert(result.code === 1 || result.code === 125, args);
        assertMatch(
          result.stderr,
          /^penne: cannot [^\n]*Too many open files \(EMFILE\)\nhint: the limit on open files is/,
        );
      }
    }
  },
);

test("a limit on the size of files does not kill penne", ["user", "package:bash"], async () => {
  const [hint] = assertRefused(
    await limited("ulimit -f 0", "run --net=none -- echo ran"),
    "cannot load the shim: File too large (EFBIG)",
    /^the limit on the size of files is 0 bytes \(ulimit -f\), and penne needs \d+ at least; ulimit -f unlimited$/,
  );
  // The soft limit does not matter.
  assertEquals((await limited("ulimit -Sf 0", "run --net=none -- echo ran")).stdout, "ran\n");
  assertEquals((await limited(fixIn(hint!), "run --net=none -- echo ran")).stdout, "ran\n");
});

test("a file of penne's own that reaches the limit is an error, and the command keeps limit and signal", [
  "user",
  "package:bash",
], async () => {
  const directory = await Deno.makeTempDir();
  await Deno.chmod(directory, 0o777);
  const full = `head -c 20480 /dev/zero > ${directory}/log; ulimit -f 20`;
  // SIGXFSZ is signal 25: bit 24.
  const command = `run --net=none --log-file ${directory}/log --log-size 1000000 --log-level debug -- ` +
    `bash -c 'ulimit -f; grep SigIgn /proc/self/status'`;
  const result = await limited(full, command);
  const [size, ignored] = result.stdout.trim().split("\n");
  assertEquals([result.code, size], [0, "20"], result.stderr);
  assertEquals(BigInt(`0x${ignored!.split("\t")[1]}`) >> 24n & 1n, 0n);
  // A caller that ignores the signal passes that on.
  const kept = await limited(`trap '' XFSZ; ${full}`, "run --net=none -- grep SigIgn /proc/self/status");
  assertEquals(BigInt(`0x${kept.stdout.trim().split("\t")[1]}`) >> 24n & 1n, 1n);
  const pidFile = await limited("ulimit -Sf 0", `run --net=none --pid-file ${directory}/pid -- echo ran`);
  assertRefused(
    pidFile,
    `cannot write the pid file "${directory}/pid": File too large (EFBIG)`,
    "the limit on the size of files is 0 bytes (ulimit -f); ulimit -Sf unlimited",
  );
  await Deno.remove(directory, { recursive: true });
});

test("a limit on processes is named, and the fix works", ["root", "user", "package:bash"], async () => {
  const result = await limited("ulimit -Su 1", "run --net=none -- echo ran");
  const [hint] = assertRefused(
    result,
    /^penne: cannot .*Resource temporarily unavailable \(EAGAIN\)$/,
    /^user \d+ has \d+ processes( in this pid namespace alone)?, and may have 1 \(ulimit -u\); ulimit -Su (\d+|unlimited)$/,
  );
  const fixed = await limited(fixIn(hint!), "run --net=none -- echo ran");
  assertEquals(fixed.stdout, "ran\n", fixed.stderr);
});

test("a limit on processes is named at each number, also when those that penne had are gone", [
  "root",
  "package:util-linux",
], async () => {
  // An init that waits for the dead, since they count; and a user of nobody's, whose processes are all there are.
  const inside = ["unshare", "-mpf", "--mount-proc", "sh", "-c", `"$@"; exit $?`, "sh"];
  const user = ["setpriv", "--reuid", "54322", "--regid", "54322", "--clear-groups", "--inh-caps=-all", "--"];
  for (const options of [["--unshare", "user,mnt"], ["--net=none"]]) {
    const ran: boolean[] = [];
    for (let most = 1; most <= 8; most++) {
      const command = ["prlimit", `--nproc=${most}`, "--", penne(), "run", ...options, "--", "echo", "ran"];
      const result = await sh([...inside, ...user, ...command], { cwd: "/" });
      ran.push(result.code === 0);
      if (result.code === 0) continue;
      assertRefused(
        result,
        /EAGAIN/,
        new RegExp(`^user 54322 has \\d+ processes in this pid namespace alone, and may have ${most} \\(ulimit -u\\)`),
      );
    }
    assertEquals([ran[0], ran.at(-1)], [false, true]);
  }
});

test("a cgroup's limit on processes is named, and the fix works", ["root", "user", "pids cgroup"], async () => {
  const version1 = "/sys/fs/cgroup/pids";
  const hierarchy = await Deno.stat(version1).then(() => version1, () => "/sys/fs/cgroup");
  const group = `${hierarchy}/penne-test-${Deno.pid}`;
  await Deno.mkdir(group);
  const run = asUser([penne(), "run", "--net=none", "--", "echo", "ran"]);
  const inside = (before: string) => {
    const script = `echo 1 > ${group}/pids.max; ${before} echo $$ > ${group}/cgroup.procs; exec "$@"`;
    return sh(["sh", "-c", script, "sh", ...run]);
  };
  try {
    const [hint] = assertRefused(
      await inside(""),
      /EAGAIN/,
      `the cgroup ${group} allows 1 processes (pids.max), and has refused more; as root: echo max > ${group}/pids.max`,
    );
    const fixed = await inside(`${fixIn(hint!).replace("as root: ", "")};`);
    assertEquals(fixed.stdout, "ran\n", fixed.stderr);
  } finally {
    await Deno.remove(group);
  }
});

test(
  "the limits that end the runtime before penne's code are those that the documents name",
  ["package:bash"],
  async () => {
    const died = async (limit: string) => {
      const result = await limited(limit, "run --net=none -- echo ran", false);
      return result.code === 0 ? "ran" : hintsIn(result.stderr).length ? "hint" : "died";
    };
    const documented = await Deno.readTextFile(new URL("../../docs/hosts.md", import.meta.url));
    for (
      const [enough, little, words] of [
        ["ulimit -v 100000000", "ulimit -v 30000000", "`ulimit -v`"],
        ["ulimit -d 1000000", "ulimit -d 300000", "`ulimit -d`"],
        ["ulimit -s 256", "ulimit -s 64", "`ulimit -s`"],
      ] as const
    ) {
      assertEquals([await died(enough), await died(little)], ["ran", "died"], words);
      assertStringIncludes(documented, words);
    }
  },
);
