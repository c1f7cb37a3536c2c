// What the command inherits from the caller, and what it does not.

import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { command, netOption, ownAgents, penne, penneRun, processes, run, sh, test, until } from "../../lib/helpers.ts";

/** Fields of /proc/self/status inside. */
async function status(argv: string[], user = false): Promise<Record<string, string>> {
  const { stdout, code, stderr } = await sh(argv, { user });
  assertEquals([code, stderr], [0, ""]);
  return Object.fromEntries(stdout.trim().split("\n").map((line) => line.split(/:\s*/) as [string, string]));
}

const STATUS = ["--", "cat", "/proc/self/status"];

test("the command has only descriptors 0 to 2 and the kept ones, although the caller leaked twenty (CVE-2024-21626)", async () => {
  const leak = Array.from({ length: 20 }, (_, i) => `exec ${i + 3}</dev/null`).join("; ");
  const list = (
    options: string,
  ) => ["bash", "-c", `${leak}; exec "$0" run ${netOption()} ${options} -- ls /proc/self/fd`, penne()];
  // The fourth is the directory that ls reads.
  assertEquals((await sh(list(""))).stdout.trim().split("\n"), ["0", "1", "2", "3"]);
  const kept = await sh(list("--keep-fd 3 --keep-fd 7 --keep-fd 22"));
  assertEquals(kept.stdout.trim().split("\n"), ["0", "1", "2", "22", "3", "4", "7"].sort());
  const all = Array.from({ length: 20 }, (_, i) => `--keep-fd ${i + 3}`).join(" ");
  assertEquals((await sh(list(all))).stdout.trim().split("\n").length, 24);
});

test("a kept descriptor refers to the caller's file", async () => {
  const script = `exec 9<<< hello; exec "$0" run ${netOption()} --keep-fd 9 $1 -- sh -c 'cat <&9'`;
  for (const options of ["", "--no-init", "--unshare user,net"]) {
    assertEquals((await sh(["bash", "-c", script.replace("$1", options), penne()])).stdout, "hello\n");
  }
});

test("the command does not get status and ready descriptors", async () => {
  const script = `exec "$0" run ${netOption()} --status-fd 5 --ready-fd 6 -- ls /proc/self/fd 5>/dev/null 6>/dev/null`;
  assertEquals((await sh(["bash", "-c", script, penne()])).stdout.trim().split("\n"), ["0", "1", "2", "3"]);
});

test(
  "the command has the caller's signal mask and ignored signals, and SIGPIPE at its default",
  ["package:util-linux"],
  async () => {
    for (const traps of ["", "trap '' HUP USR1 PIPE; "]) {
      const script = `${traps}exec "$0" "$@"`;
      const caller = await status(["bash", "-c", script, "cat", "/proc/self/status"]);
      const inside = await status(["bash", "-c", script, ...penneRun(), ...STATUS]);
      const withoutPipe = BigInt(`0x${caller.SigIgn}`) & ~0x1000n;
      assertEquals(BigInt(`0x${inside.SigIgn}`), withoutPipe);
      assertEquals([inside.SigBlk, inside.SigPnd], [caller.SigBlk, caller.SigPnd]);
      if (traps) assertEquals(withoutPipe & 0x201n, 0x201n);
    }
  },
);

for (const user of [false, true]) {
  const who = user ? "an unprivileged user" : "the caller";
  test(
    `the command has no inheritable or ambient capabilities, for ${who} (CVE-2022-29162)`,
    user ? ["user"] : [],
    async () => {
      for (const options of [[], ["--map", "self"], ["--no-init"]]) {
        const fields = await status([...penneRun([...options], { user }), ...STATUS], user);
        assertEquals([fields.CapInh, fields.CapAmb], ["0".repeat(16), "0".repeat(16)]);
        assertEquals(fields.NoNewPrivs, "0");
      }
    },
  );

  test(`--keep-caps makes all permitted capabilities ambient, for ${who}`, user ? ["user"] : [], async () => {
    for (const options of [["--map", "self"], ["--map", "root"]]) {
      const fields = await status([...penneRun(["--keep-caps", ...options], { user }), ...STATUS], user);
      assertEquals(fields.CapAmb, fields.CapPrm);
      assertEquals(fields.CapInh, fields.CapPrm);
      assertEquals(BigInt(`0x${fields.CapEff}`) > 0n, true);
    }
  });

  test(`--no-new-privs takes effect, for ${who}`, user ? ["user"] : [], async () => {
    assertEquals((await status([...penneRun(["--no-new-privs"], { user }), ...STATUS], user)).NoNewPrivs, "1");
  });
}

test(
  "the command does not get inheritable capabilities of the caller",
  ["root", "package:util-linux"],
  async () => {
    for (const options of [[], ["--unshare", "net"]]) {
      const fields = await status(["setpriv", "--inh-caps=+net_admin,+chown", ...penneRun([...options]), ...STATUS]);
      assertEquals([fields.CapInh, fields.CapAmb], ["0".repeat(16), "0".repeat(16)]);
    }
  },
);

test("the command has the caller's limits and umask", async () => {
  const script =
    `ulimit -Sn 123; ulimit -Hn 456; umask 027; exec "$0" run ${netOption()} -- sh -c 'ulimit -Sn; ulimit -Hn; umask'`;
  assertEquals((await sh(["sh", "-c", script, penne()])).stdout, "123\n456\n0027\n");
});

test("the command has the caller's working directory and processors", ["package:util-linux"], async () => {
  assertEquals((await run(["--", "pwd"], { cwd: "/usr/bin" })).stdout, "/usr/bin\n");
  assertEquals((await run(["--chdir", "/usr/lib", "--", "pwd"])).stdout, "/usr/lib\n");
  const own = await sh(["taskset", "-cp", `${Deno.pid}`]);
  const inside = await run(["--", "sh", "-c", "taskset -cp $$"]);
  assertEquals(inside.stdout.split(":")[1], own.stdout.split(":")[1]);
});

test("the environment is the caller's, byte for byte, except for what options change", async () => {
  const script =
    `export ODD="$(printf '\\377\\376')"; exec "$0" run ${netOption()} --env A=1 --env B= -- sh -c 'printf %s "$ODD|$A|$B" | od -An -tx1'`;
  assertEquals((await sh(["bash", "-c", script, penne()])).stdout.trim(), "ff fe 7c 31 7c");
  const clear = await run(["--clear-env", "--env", "X=y z", "--", "/usr/bin/env"]);
  assertEquals(clear.stdout, "X=y z\n");
  assertEquals((await run(["--env", "PATH=/nowhere", "--", "true"])).code, 127);
});

test("arguments of many kinds and sizes are passed on unchanged", async () => {
  const odd = ["", " ", "a\nb", "--", "-x", "ü€😀", "x".repeat(100_000)];
  const { stdout } = await run(["--", "sh", "-c", `for a; do printf '%s\\0' "$a"; done`, "sh", ...odd]);
  assertEquals(stdout.split("\0").slice(0, -1), odd);
  const many = Array.from({ length: 20_000 }, (_, i) => `argument ${i}`);
  assertEquals(
    (await run(["--", "sh", "-c", "echo $#; eval echo \\${$#}", "sh", ...many])).stdout,
    "20000\nargument 19999\n",
  );
  const tooLong = await run([
    "--env",
    `BIG=${"x".repeat(120_000)}`,
    "--env",
    `BIG2=${"x".repeat(120_000)}`,
    "--",
    "true",
  ]);
  assertEquals(tooLong.code, 0);
});

test("the agent is PID 1, is not dumpable, and has no environment", async () => {
  const child = command([...penneRun(), "--", "sh", "-c", "exec 2>&-; readlink /proc/1/exe; sleep 100"], {}, {
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  try {
    await until("the agent exists", () => ownAgents().some((p) => p.ppid === child.pid));
    const agent = ownAgents().find((p) => p.ppid === child.pid)!;
    // The owner of its user namespace, who is not root, may look into it all the same, and owns its files.
    if (Deno.uid() === 0) {
      await until("it is non-dumpable", () => Deno.statSync(`/proc/${agent.pid}/status`).uid === 0);
    }
    assertEquals(Deno.readTextFileSync(`/proc/${agent.pid}/environ`), "");
    assertMatch(Deno.readLinkSync(`/proc/${agent.pid}/exe`), /^\/memfd:penne-agent/);
    assertStringIncludes(Deno.readTextFileSync(`/proc/${agent.pid}/status`), "Threads:\t1\n");
  } finally {
    child.kill("SIGKILL");
    await child.status;
    await child.stdout.cancel();
    await child.stderr.cancel();
  }
});

test("an unprivileged command cannot look into or trace the agent (CVE-2016-9962)", ["user"], async () => {
  const script = "cat /proc/1/environ >/dev/null; echo $?; ls /proc/1/fd; echo $?; readlink /proc/1/exe; echo $?";
  const { stdout } = await run(["--map", "self", "--", "sh", "-c", script], { user: true });
  assertEquals(stdout.split("\n").filter((line) => line === "0"), []);
});

test(
  "inside, the command is PID 2 and has the host name, loopback, private mounts and a /proc of its own",
  ["package:hostname", "package:util-linux"],
  async () => {
    const script = `echo $$; hostname; cat /sys/class/net/lo/flags 2>/dev/null | head -1; ls -d /proc/[0-9]* | wc -l
    grep -c 'shared:\\|master:' /proc/self/mountinfo; cat /proc/sys/net/ipv4/ping_group_range`;
    const { stdout } = await run(["--hostname", "box", "--", "sh", "-c", script]);
    const [pid, hostname, , count, shared, ping] = stdout.trim().split("\n");
    assertEquals([pid, hostname, shared, ping], ["2", "box", "0", "0\t0"]);
    assertEquals(Number(count) <= 5, true);
    // On a loopback that is down, the error would be "Network is unreachable" instead.
    const connect = ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/1"];
    assertStringIncludes((await run(["--", ...connect])).stderr, "Connection refused");
    assertStringIncludes((await sh(["unshare", "-Urn", ...connect])).stderr, "Network is unreachable");
  },
);

test("--no-init makes the command PID 1", async () => {
  assertEquals((await run(["--no-init", "--", "sh", "-c", "echo $$; exit 9"])).stdout, "1\n");
  assertEquals((await run(["--no-init", "--", "sh", "-c", "exit 9"])).code, 9);
});

test("the init reaps orphans", ["package:procps"], async () => {
  const script = `for i in 1 2 3 4 5; do (sleep 0.05 &) ; done; i=0
    while ps -eo stat=,comm= | grep -qE '^Z|sleep' && [ $((i += 1)) -lt 300 ]; do sleep 0.1; done
    ps -eo stat= | grep -c Z`;
  assertEquals((await run(["--", "sh", "-c", script])).stdout, "0\n");
});

test("clocks have their offsets in a time namespace", async () => {
  const host = Number((await Deno.readTextFile("/proc/uptime")).split(" ")[0]);
  const inside = await run(["--boottime", "86400", "--", "cut", "-d.", "-f1", "/proc/uptime"]);
  assertEquals(Math.abs(Number(inside.stdout) - host - 86400) < 60, true, inside.stdout);
  const monotonic = await run(["--monotonic", "1000", "--no-init", "--", "readlink", "/proc/self/ns/time"]);
  assertEquals(monotonic.stdout.trim() === Deno.readLinkSync("/proc/self/ns/time"), false);
  const below = await run(["--monotonic", "-1000000000", "--", "true"]);
  assertEquals(below.code, 125);
  assertStringIncludes(below.stderr, "hint: no clock may go below zero");
});

test("--unshare all makes all eight types, and --net=host keeps the host's net namespace", async () => {
  const script =
    "readlink /proc/self/ns/user /proc/self/ns/mnt /proc/self/ns/pid /proc/self/ns/ipc /proc/self/ns/uts " +
    "/proc/self/ns/net /proc/self/ns/cgroup /proc/self/ns/time";
  const ours = (await sh(["sh", "-c", script])).stdout.trim().split("\n");
  const all = (await run(["--unshare", "all", "--", "sh", "-c", script])).stdout.trim().split("\n");
  assertEquals(all.length, 8);
  assertEquals(all.filter((link) => ours.includes(link)), []);
  const host = (await run(["--net=host", "--", "sh", "-c", script])).stdout.trim().split("\n");
  assertEquals(host.filter((link) => ours.includes(link)).map((link) => link.split(":")[0]), ["net", "cgroup", "time"]);
});

test("--status-fd reports the start, readiness and the end, with the right namespace ids", async () => {
  const script =
    `exec 5>"$1"; exec "$0" run ${netOption()} --status-fd 5 --ready-fd 6 -- sh -c 'readlink /proc/self/ns/net; exit 3' 6>"$2"`;
  const [file, ready] = [await Deno.makeTempFile(), await Deno.makeTempFile()];
  try {
    const { stdout, code } = await sh(["bash", "-c", script, penne(), file, ready]);
    assertEquals(code, 3);
    const events = (await Deno.readTextFile(file)).trim().split("\n").map((line) => JSON.parse(line));
    assertEquals(events.map(({ event }) => event), ["started", "ready", "exit"]);
    assertEquals(stdout.trim(), `net:[${events[0].namespaces.net.inum}]`);
    assertEquals(Object.keys(events[0].namespaces), ["user", "mnt", "pid", "ipc", "uts", "net"]);
    assertEquals(events[2], { event: "exit", code: 3, signal: null });
    assertEquals(await Deno.readTextFile(ready), "ready\n");
  } finally {
    await Deno.remove(file);
    await Deno.remove(ready);
  }
});

test("--die-with-parent ends the command when the caller ends", ["package:procps"], async () => {
  const marker = `1000.${Math.floor(Math.random() * 1e9)}`;
  const script =
    `"$0" run ${netOption()} --die-with-parent -- sleep ${marker} & while ! pgrep -f "^sleep ${marker}"; do sleep 0.02; done`;
  const directory = await Deno.makeTempDir();
  await sh(["sh", "-c", script.replace("--die-with-parent", `--pid-file ${directory}/pid --die-with-parent`), penne()]);
  await until("the pid file is gone", () => Array.from(Deno.readDirSync(directory)).length === 0);
  await Deno.remove(directory);
  await until("the command has ended", () => !processes().some((p) => p.cmdline.includes(marker)));
});

test("--die-with-parent=PID ends a penne whose parent has ended before any code of penne ran", async () => {
  const directory = await Deno.makeTempDir();
  const run = `"$1" run ${netOption()} --log-file "$2/log" --die-with-parent=$$ -- touch "$2/started" &`;
  // The parent ends at once, or a moment later; what it starts says when it has ended.
  for (const moment of ["", "read -t 0.01 <>/dev/zero", "read -t 0.03 <>/dev/zero"]) {
    const script = `exec 3>&1; ${run} ${moment}; exec kill -9 $$`;
    const { stdout } = await sh([
      "bash",
      "-c",
      script.replace("-- touch", "-- sh -c 'sleep 0.5; touch \"$0\"'"),
      "sh",
      penne(),
      directory,
    ]);
    assertEquals(stdout, "");
  }
  const log = await Deno.readTextFile(`${directory}/log`);
  assertMatch(log, /cannot stay: the process \d+ is not the parent of penne, or has ended/);
  assertEquals(Array.from(Deno.readDirSync(directory), ({ name }) => name), ["log"]);
  await Deno.remove(directory, { recursive: true });
});

test("--die-with-parent=PID names the parent, which stays as long as it is there", async () => {
  const script = (pid: string) => `"$0" run ${netOption()} --die-with-parent=${pid} -- echo ran; echo $?`;
  assertEquals((await sh(["sh", "-c", script("$$"), penne()])).stdout, "ran\n0\n");
  const { stdout, stderr } = await sh(["sh", "-c", script("$PPID"), penne()]);
  assertEquals(stdout, "125\n");
  assertMatch(
    stderr,
    /is not the parent of penne, or has ended\nhint: the process \d+ has started penne, or has adopted it/,
  );
  for (const pid of ["", "0", "-1", "x", "4194305", "1 "]) {
    const { code, stderr } = await sh([penne(), "run", `--die-with-parent=${pid}`, "--", "true"]);
    assertEquals(code, 2);
    assertMatch(stderr, /cannot use --die-with-parent/);
  }
});

test("penne runs in penne", async () => {
  assertEquals((await run(["--", ...penneRun(), "--", "sh", "-c", "id -u; exit 4"])).stdout, "0\n");
  assertEquals((await run(["--", ...penneRun(), "--", "sh", "-c", "exit 4"])).code, 4);
});
