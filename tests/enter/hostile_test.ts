// Attacks on entering processes, from inside and from outside: refused or harmless.

import { assertEquals, assertMatch } from "@std/assert";
import { command, ownAgents, penne, processes, sh, test, until } from "../lib/helpers.ts";
import { Pty } from "../lib/pty.ts";
import { enter, marker, Place } from "./places.ts";

const UNSHARE = ["package:util-linux"] as const;

test("the command has only stdin, stdout, stderr and the descriptors to keep", UNSHARE, async () => {
  await using place = await Place.all();
  const leaky =
    `for fd in $(seq 5 25); do eval "exec $fd</etc"; done; "$0" enter $1 ${place.pid} -- sh -c 'cd /proc/self/fd; echo *'`;
  const bash = (option: string) => sh(["bash", "-c", leaky, penne(), option]);
  assertEquals((await bash("")).stdout, "0 1 2 3\n");
  assertEquals((await bash("--keep-fd=7")).stdout, "0 1 2 3 7\n");
});

test("a directory that is open outside does not lead out", UNSHARE, async (t) => {
  await using place = await Place.all();
  const script =
    `for fd in $(seq 5 25); do eval "exec $fd</etc"; done; "$0" enter --chdir "$1" ${place.pid} -- pwd </etc`;
  for (let fd = 0; fd <= 26; fd++) {
    const result = await sh(["bash", "-c", script, penne(), `/proc/self/fd/${fd}`]);
    assertEquals([result.code, result.stdout], [125, ""], `${fd}`);
    assertMatch(result.stderr, /^penne: cannot change to the directory "\/proc\/self\/fd\/\d+": /);
  }
  await t.step("nor does a link in place of the working directory", async () => {
    const name = `/tmp/penne-enter-${Deno.pid}`;
    await Deno.mkdir(name);
    try {
      const prepare = `mount -t tmpfs none /tmp; ln -s /proc/self/fd/0 ${name}; exec "$@"`;
      await using trap = await Place.open([
        "unshare",
        "-Urmpf",
        "--mount-proc",
        "--kill-child",
        "sh",
        "-c",
        prepare,
        "sh",
      ]);
      const result = await sh(["sh", "-c", `cd ${name}; "$0" enter ${trap.pid} -- pwd </etc`, penne()]);
      assertEquals([result.code, result.stdout, result.stderr], [0, "/\n", ""]);
    } finally {
      await Deno.remove(name);
    }
  });
});

/** Attacks every agent it sees until it is ended, and prints what succeeded. */
const PROBE = `agent() { name=; read -r name <$p/cmdline; case $name in penne-agent*) ;; *) return 1;; esac; }
  got() { agent && echo "$1 of $p"; } # unless it is the command by now
  while :; do for p in /proc/[0-9]*; do
    agent || continue
    echo seen
    readlink $p/exe >/dev/null && got exe
    ( : >>$p/exe ) && got "writable exe"
    readlink $p/fd/* >/dev/null && got fd
    head -c 1 $p/environ >/dev/null && got environ
    head -c 1 $p/mem >/dev/null && got mem
    head -c 1 $p/maps >/dev/null && got maps
    readlink $p/root >/dev/null && got root
    readlink $p/ns/mnt >/dev/null && got ns
  done; done 2>/dev/null`;

for (
  const [what, needs, argv] of [
    ["root of the user namespace", [], ["unshare", "-Urmpf", "--mount-proc", "--kill-child"]],
    // With CAP_PERFMON, or CAP_SYS_ADMIN in its place, the kernel lets others read memory; an agent has none that is worth it.
    ["root of the host without CAP_SYS_PTRACE", ["root"], [
      "unshare",
      "-mpf",
      "--mount-proc",
      "--kill-child",
      "setpriv",
      "--bounding-set",
      "-sys_ptrace,-perfmon,-sys_admin",
      "--inh-caps",
      "-sys_ptrace,-perfmon,-sys_admin",
    ]],
  ] as const
) {
  test(
    `agents are out of reach for processes inside, as ${what}`,
    [...needs, "package:util-linux"],
    async () => {
      const probe = command([...argv, "sh", "-c", `echo up; ${PROBE}`], {}, { stdout: "piped", stderr: "null" })
        .spawn();
      let text = "";
      const reading = (async () => {
        for await (const piece of probe.stdout.pipeThrough(new TextDecoderStream())) text += piece;
      })();
      await until("the probe is up", () => text.includes("up"));
      const inside = processes().find(({ cmdline, ppid }) =>
        cmdline.join(" ").includes("writable exe") && cmdline[0] === "sh" && ppid === probe.pid
      )!;
      for (let i = 0; i < 20; i++) assertEquals((await enter([`${inside.pid}`, "--", "true"])).code, 0);
      const child = command([penne(), "enter", `${inside.pid}`, "--", "sleep", "100"]).spawn();
      await until("an agent was seen", () => text.includes("seen"));
      await new Promise((resolve) => setTimeout(resolve, 200));
      child.kill("SIGTERM");
      await child.status;
      Deno.kill(inside.pid, "SIGKILL");
      await probe.status;
      await reading;
      assertEquals([...new Set(text.trim().split("\n"))].sort(), ["seen", "up"]);
    },
  );
}

test(
  "the file that agents are executed from cannot be written, not even by root",
  ["root", ...UNSHARE],
  async () => {
    await using place = await Place.all();
    const before = new Set(ownAgents().map(({ pid }) => pid));
    const child = command([penne(), "enter", `${place.pid}`, "--", "sleep", "100"]).spawn();
    const mine = () => ownAgents().filter((p) => !before.has(p.pid));
    await until("the agents are there", () => mine().length === 3);
    for (const { pid, exe } of mine()) {
      assertMatch(exe, /^\/memfd:penne-agent/);
      let written = true;
      try {
        Deno.openSync(`/proc/${pid}/exe`, { write: true }).close();
      } catch {
        written = false;
      }
      assertEquals(written, false);
    }
    child.kill("SIGTERM");
    await child.status;
  },
);

test(
  "executing the /proc/PID/exe of an agent inside gives an idle agent and nothing else (CVE-2019-5736)",
  UNSHARE,
  async () => {
    const directory = await Deno.makeTempDir();
    try {
      await Deno.symlink("/proc/self/exe", `${directory}/link`);
      await Deno.writeTextFile(`${directory}/script`, "#!/proc/self/exe\n", { mode: 0o755 });
      await using place = await Place.all();
      for (const name of ["link", "script"]) {
        const result = await enter([`${place.pid}`, "--", `${directory}/${name}`, "1"]);
        assertEquals([[0, 127].includes(result.code), result.stdout], [true, ""], `${result.code}`);
      }
      assertEquals((await enter([`${place.pid}`, "--", "true"])).code, 0);
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  },
);

test("a false /proc inside does not make an agent kill foreign processes", ["root", ...UNSHARE], async (t) => {
  for (
    const [what, prepare] of [
      [
        "files that look like it",
        `mount -t tmpfs none /proc; mkdir -p /proc/thread-self /proc/self;
        echo 1 2 3 4 5 6 7 8 9 10 >/proc/thread-self/children; printf 'NSpid:\\t1\\n' >/proc/self/status`,
      ],
      ["a part of a real one", "mount --bind /proc/1 /proc"],
      ["that of the outer pid namespace", "umount /proc"],
      ["none at all", "mount -t tmpfs none /proc"],
    ] as const
  ) {
    await t.step(what, async () => {
      const name = marker();
      // The neighbours are among the first numbers of the pid namespace.
      const script = `for i in 1 2 3 4 5 6; do sleep ${name} & done; ${prepare}; exec "$@"`;
      await using place = await Place.open([
        "unshare",
        "-mpf",
        "--mount-proc",
        "--kill-child",
        "sh",
        "-c",
        script,
        "sh",
      ]);
      const alive = () => processes().filter(({ cmdline }) => cmdline.join(" ") === `sleep ${name}`).length;
      await until("all are there", () => alive() === 6);
      const own = marker();
      const result = await enter([`${place.pid}`, "--", "sh", "-c", `setsid sleep ${own} & (sleep ${own} &); exit 3`]);
      assertEquals([result.code, result.stderr], [3, ""]);
      assertEquals(alive(), 6);
      assertEquals(processes().filter(({ cmdline }) => cmdline.join(" ") === `sleep ${own}`), []);
    });
  }
});

test("no capability is inheritable or ambient in a joined user namespace", UNSHARE, async () => {
  await using place = await Place.all();
  const { stdout } = await enter([`${place.pid}`, "--", "grep", "^Cap[IA]", "/proc/self/status"]);
  assertEquals(stdout.match(/\d{16}/g), ["0000000000000000", "0000000000000000"]);
});

test("with --new-session the command has no terminal to push input into", UNSHARE, async () => {
  await using place = await Place.all();
  const script = `sh -c ': </dev/tty' 2>/dev/null && echo has || echo none`;
  using pty = new Pty([
    "/bin/sh",
    "-c",
    `for o in --no-new-privs --new-session; do ${penne()} enter $o ${place.pid} -- sh -c "${script}"; done`,
  ]);
  await pty.expect(/has\r\nnone\r\n/);
  await pty.end();
});

test("nothing is entered where agents cannot be executed", ["root", "package:procps", ...UNSHARE], async () => {
  await using place = await Place.all();
  // The setting is that of a pid namespace.
  const enter = (before: string) => {
    const script = `echo 2 >/proc/sys/vm/memfd_noexec || exit 99; ${before} "$0" enter fd:3 -- echo ran`;
    const outer = ["unshare", "-mpf", "--mount-proc", "sh", "-c", script, penne()];
    return sh(["sh", "-c", `exec "$@" 3</proc/${place.pid}/ns/uts`, "sh", ...outer]);
  };
  const result = await enter("");
  assertEquals([result.code, result.stdout], [125, ""], result.stderr);
  assertMatch(
    result.stderr,
    /^penne: cannot enter namespaces: agents cannot be executed here, .*\(EACCES\)\nhint: vm.memfd_noexec is 2 in this pid namespace/,
  );
  const command = /as root, here and in the pid namespaces around: (.*)$/m.exec(result.stderr)![1]!;
  assertEquals((await enter(`${command} >&2;`)).stdout, "ran\n");
});
