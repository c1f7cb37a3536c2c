// `penne doctor` on hosts that refuse something: what it finds, and that the fix which it prints makes the command work.

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import type { Diagnosis } from "../../mod/findings/survey/mod.ts";
import { type Need, penne, sh, test, TEST_USER } from "../lib/helpers.ts";
import { filtered, rootCommand } from "./lab/hosts.ts";

const AS_USER = `setpriv --reuid ${TEST_USER} --regid ${TEST_USER} --init-groups --inh-caps=-all`;
const RUN = "run --net=none -- echo works";

/** A host on which something is refused. */
interface Host {
  readonly name: string;
  /** Makes it, in a mount namespace of its own, as root. */
  readonly make: string;
  /** Options of unshare(1) for further namespaces. */
  readonly unshare?: readonly string[];
  /** A shell builtin that comes before penne, in its own shell: a limit, or a variable. */
  readonly before?: string;
  /** Whether the test user runs penne. */
  readonly user?: true;
  /** What is refused, and why. */
  readonly ability: string;
  readonly cause: string;
  /** The command of penne's that it concerns, and that works after the fix; without one, the survey has to do. */
  readonly command: string;
  /** What the command says as long as it does not work; without one, it works in another way. */
  readonly says?: RegExp;
  readonly needs?: readonly Need[];
}

const TUN_RUN = "run -- echo works";
const AUTO = "run --net=none --map auto -- echo works";
/** Copies of /etc and of the tools, which a scene may change. */
const TOOLS = `mount -t tmpfs -o mode=755 none /mnt; mkdir /mnt/etc /mnt/work /mnt/bin
  mount -t overlay none -o lowerdir=/etc,upperdir=/mnt/etc,workdir=/mnt/work /etc
  for tool in newuidmap newgidmap; do cp "$(command -v $tool)" /mnt/bin; chmod 4755 /mnt/bin/$tool; done
  export PATH=/mnt/bin:$PATH`;
const IDS: readonly Need[] = ["newuidmap", "package:passwd"];

const limitOf = (type: string): Host => ({
  name: `forbids ${type} namespaces by a setting`,
  make: `echo 0 >/proc/sys/user/max_${type}_namespaces`,
  unshare: ["--user", "--map-root-user"],
  ability: "make namespaces",
  cause: "sysctl",
  command: RUN,
  says: /No space left on device/,
});

const HOSTS: readonly Host[] = [
  ...["user", "mnt", "pid", "ipc", "uts", "net"].map(limitOf),
  {
    name: "has no /dev/net/tun",
    make: "mount -t tmpfs none /dev/net",
    user: true,
    ability: "open /dev/net/tun",
    cause: "device",
    command: TUN_RUN,
    says: /cannot open \/dev\/net\/tun/,
  },
  {
    name: "has a /dev/net/tun of root's",
    make: "mount -t tmpfs none /dev/net; mknod -m 600 /dev/net/tun c 10 200",
    user: true,
    ability: "open /dev/net/tun",
    cause: "file",
    command: TUN_RUN,
    says: /cannot open \/dev\/net\/tun/,
  },
  {
    name: "has a /dev/net that allows no devices",
    make: "mount -t tmpfs -o nodev none /dev/net; mknod -m 666 /dev/net/tun c 10 200",
    user: true,
    ability: "open /dev/net/tun",
    cause: "device",
    command: TUN_RUN,
    says: /cannot open \/dev\/net\/tun/,
  },
  {
    name: "has another device for /dev/net/tun",
    make: "mount -t tmpfs none /dev/net; mknod -m 666 /dev/net/tun c 1 3",
    ability: "make a tap",
    cause: "device",
    command: TUN_RUN,
    says: /cannot make the tap/,
  },
  {
    name: "grants no subordinate ids",
    make: `${TOOLS}; sed -i /^${TEST_USER}:/d /etc/subuid`,
    user: true,
    ability: "map subordinate ids",
    cause: "file",
    command: AUTO,
    says: /grants no subordinate ids/,
    needs: IDS,
  },
  {
    name: "has a newgidmap without rights",
    make: `${TOOLS}; chmod u-s /mnt/bin/newgidmap`,
    user: true,
    ability: "map subordinate ids",
    cause: "file",
    command: AUTO,
    says: /newgidmap/,
    needs: IDS,
  },
  {
    name: "lets nobody have ping sockets",
    make: `sysctl -qw net.ipv4.ping_group_range="1 0"`,
    unshare: ["--net"],
    user: true,
    ability: "send pings",
    cause: "sysctl",
    command: RUN,
    needs: ["package:procps"],
  },
  {
    name: "has a low limit on open files",
    make: ":",
    before: "ulimit -Sn 18",
    ability: "start processes",
    cause: "limit",
    command: RUN,
    says: /Too many open files/,
  },
  {
    name: "has a full cgroup",
    make: `d=/sys/fs/cgroup/pids; [ -d $d ] || d=/sys/fs/cgroup; d=$d/penne-doctor-$$; mkdir $d; echo 3 >$d/pids.max
      leave() { echo $$ >$d/../cgroup.procs; for i in {1..100}; do rmdir $d 2>/dev/null && break; sleep 0.1; done; }
      trap leave EXIT
      echo $$ >$d/cgroup.procs`,
    ability: "start processes",
    cause: "limit",
    command: RUN,
    says: /Resource temporarily unavailable/,
    needs: ["pids cgroup"],
  },
  {
    name: "gives a user no place for kept sets",
    make: `mkdir -p /run/user; mount -t tmpfs -o mode=755 none /run/user; unset XDG_RUNTIME_DIR`,
    user: true,
    ability: "find a place for kept sets",
    cause: "file",
    command: "inspect",
    says: /XDG_RUNTIME_DIR is not set/,
  },
  {
    name: "hides processes",
    make: "mount -t proc -o hidepid=2 proc /proc",
    user: true,
    ability: "see the processes of others",
    cause: "proc",
    command: "ls --type user",
  },
  {
    name: "has no /sys",
    make: "mount -t tmpfs none /sys",
    ability: "watch by eBPF",
    cause: "file",
    command: "watch --backend ebpf --duration 0.01",
    says: /\/sys is not mounted here/,
    needs: ["ebpf"],
  },
];

/** Makes a host, and runs command lines of penne's on it one after another. */
async function on(host: Pick<Host, "make" | "unshare" | "before" | "user">, fix: string, commands: readonly string[]) {
  const lines = commands.map((line, i) => {
    // The shell of the user has the limits and variables; penne takes its place, as a limit may allow no child.
    const script = [host.before, ...fix.startsWith("user: ") ? [fix.slice(6)] : [], `exec "$0" ${line}`]
      .filter((part) => part).join("; ");
    const quoted = `bash -c '${script.replaceAll("'", `'\\''`)}' "$0"`;
    return `${host.user ? `${AS_USER} ` : ""}${quoted} >$out/${i} 2>&1; echo $? >$out/code.${i}`;
  });
  // A cgroup with a name of its own in each shell: one may be there a moment longer than its processes.
  const root = fix.startsWith("root: ") ? fix.slice(6).replaceAll(/penne-doctor-\d+/g, () => "penne-doctor-$$") : ":";
  const directory = await Deno.makeTempDir({ prefix: "penne-doctor-" });
  try {
    const script = `set -e; out="$1"; ${host.make}; { ${root}; } >&2; set +e; ${lines.join("; ")}; exit 0`;
    const { code, stderr } = await sh(
      ["unshare", "--mount", ...host.unshare ?? [], "bash", "-c", script, penne(), directory],
      { cwd: "/" },
    );
    assertEquals(code, 0, stderr);
    return commands.map((_, i) => ({
      code: Number(Deno.readTextFileSync(`${directory}/code.${i}`)),
      output: Deno.readTextFileSync(`${directory}/${i}`),
    }));
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** What a person would do who reads a fix. */
function apply(fix: string): string {
  if (!/as root/.test(fix)) return `user: ${fix}`;
  const variable = /; (export [^ ]+)$/.exec(fix)?.[1];
  return `root: ${rootCommand(fix).replace(/ \(.*|\)$/, "")}${variable ? `; ${variable}` : ""}`;
}

for (const host of HOSTS) {
  const { name, ability, cause, command, says, needs = [] } = host;
  const all: Need[] = ["root", "user", "tun", "package:util-linux", "package:bash", ...needs];
  test(`On a host that ${name}, it finds the cause, and its fix makes the command work`, all, async () => {
    const word = command.split(" ")[0]!;
    const doctor = `doctor --json ${word === "inspect" ? "keep" : word}`;
    const [before, refused] = await on(host, "", [doctor, command]);
    const found: Diagnosis = JSON.parse(before!.output);
    const failed = found.abilities.find((one) => one.name === ability)!;
    assertEquals([failed.possible, failed.findings[0]?.cause], [false, cause], before!.output);
    const limited = failed.instead !== null;
    assertEquals([before!.code, found.works], limited ? [before!.code, before!.code === 0] : [1, false]);
    if (says) assertMatch(refused!.output, says);
    assertEquals(refused!.code !== 0, says !== undefined, refused!.output);

    const fix = apply(failed.findings[0]!.fix!);
    const [after, works] = await on(host, fix, [doctor, command]);
    const healed: Diagnosis = JSON.parse(after!.output);
    assert(healed.abilities.find((one) => one.name === ability)!.possible, `${fix}\n${after!.output}`);
    assertEquals(works!.code, 0, `${fix}\n${works!.output}`);
    if (command.includes("echo works")) assertStringIncludes(works!.output, "works\n");
  });
}

test(
  "Each command that makes namespaces is refused where there can be none",
  ["root", "user", "tun", "package:util-linux", "package:bash"],
  async () => {
    const usual = ["run -- true", `keep penne-${Deno.pid}-none -- true`, "pasta --config-net -- true"];
    for (const made of ["user", "net"]) {
      const doctors = ["run", "keep", "pasta", "nsexec"].map((name) => `doctor ${name}`);
      const results = await on(limitOf(made), "", [...doctors, ...usual]);
      assertEquals(results.slice(0, 4).map(({ code }) => code), [1, 1, 1, 1]);
      for (const { code, output } of results.slice(4)) assert(code !== 0, output);
      for (const { output } of results.slice(0, 4)) assertMatch(output, /^refused {2}make namespaces .*: ENOSPC$/m);
    }
  },
);

/** Places for a user's kept sets: what makes each, as root, who is `$u`; the second word is whether penne keeps sets there. */
const PLACES: readonly (readonly [what: string, works: boolean, make: string])[] = [
  ["the usual one", true, "export XDG_RUNTIME_DIR=/run/user/$u"],
  ["one that can be made", true, "export XDG_RUNTIME_DIR=/run/user/$u/a"],
  ["an empty name", false, "export XDG_RUNTIME_DIR="],
  ["a relative one", false, "export XDG_RUNTIME_DIR=run/user/$u"],
  ["one that anybody may write to", false, "chmod 777 /run/user/$u; export XDG_RUNTIME_DIR=/run/user/$u"],
  ["one behind a link", false, "ln -s $u /run/user/link; export XDG_RUNTIME_DIR=/run/user/link"],
  ["one that is missing", false, 'rmdir /run/user/$u; export XDG_RUNTIME_DIR="/run/user/not there"'],
  ["one of another user", false, "mkdir -m 700 /run/user/0; chown 1 /run/user/0; export XDG_RUNTIME_DIR=/run/user/0"],
  ["one of root", false, "mkdir /run/user/0; export XDG_RUNTIME_DIR=/run/user/0"],
];

test(
  "A place for kept sets is found where penne keep finds one, and the fix makes or names one",
  ["root", "user", "user namespaces", "package:util-linux", "package:bash"],
  async () => {
    const usual = `u=$(id -u ${TEST_USER}); mkdir -p /run/user; mount -t tmpfs -o mode=755 none /run/user
      install -d -m 700 -o ${TEST_USER} /run/user/$u`;
    const name = `penne-${Deno.pid}-place`;
    const commands = ["doctor --json keep", `keep ${name} -- true`, `drop ${name}`];
    for (const [what, works, make] of PLACES) {
      const host: Pick<Host, "make" | "user"> = { make: `${usual}; ${make}`, user: true };
      const [before, kept] = await on(host, "", commands);
      const placeOf = (output: string) =>
        (JSON.parse(output) as Diagnosis).abilities.find((one) => one.name === "find a place for kept sets")!;
      const { possible, findings } = placeOf(before!.output);
      assertEquals([possible, kept!.code === 0], [works, works], `${what}: ${before!.output}${kept!.output}`);
      if (works) continue;
      const fix = apply(findings[0]!.fix!);
      const [after, again, dropped] = await on(host, fix, commands);
      assert(placeOf(after!.output).possible, `${what}: ${fix}: ${after!.output}`);
      assertEquals([again!.code, dropped!.code], [0, 0], `${what}: ${fix}: ${again!.output}${dropped!.output}`);
    }
  },
);

test(
  "A filter around penne, and a pid namespace that forbids memfds, are named",
  ["root", "package:gcc", "kernel:6.3"],
  async () => {
    const filter = await sh(await filtered(["unshare=1", "setns=1"], [penne(), "doctor", "enter"]));
    assertMatch(filter.stdout, /^filter {6}system calls are filtered \(seccomp\)$/m);
    assertMatch(filter.stdout, /^limited {2}join namespaces of the host .*: EPERM\n {9}because: .*seccomp/m);
    assertEquals(filter.code, 0);
    const script = 'echo 2 >/proc/sys/vm/memfd_noexec; exec "$0" doctor enter';
    const memfd = await sh(["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", script, penne()]);
    assertMatch(memfd.stdout, /^refused {2}execute agents from memory .*: EACCES\n {9}because: vm.memfd_noexec is 2/m);
    assertEquals(memfd.code, 1);
  },
);

test(
  "It says what it tried, for people and programs, and refuses a word that is no command",
  ["root", "user", "tun"],
  async () => {
    const { stdout, code } = await sh([penne(), "doctor", "run"]);
    assertEquals(code, 0, stdout);
    assertMatch(stdout, /^kernel {6}\d+\.\d+.*\n(.*\n)*\nok {7}/);
    assert(!stdout.includes("watch by eBPF"), "that is not what run needs");
    const { abilities, features, host }: Diagnosis = JSON.parse((await sh([penne(), "doctor", "--json"])).stdout);
    assert(abilities.length > 10);
    assertEquals(host.kernel, Deno.osRelease());
    const [major, minor] = host.kernel.split(".").map(Number);
    for (const { name, since, present } of features) {
      const [x, y] = since.split(".").map(Number);
      if (present) {
        assert(
          major! > x! || major === x && minor! >= y!,
          `${name} in ${host.kernel}, but first in ${since}`,
        );
      }
    }
    // What this kernel has is not said to be lacking only because a user may not try it.
    const forUser = (await sh([penne(), "doctor"], { user: true })).stdout;
    for (const [, since] of forUser.matchAll(/^lacks .*, of Linux ([\d.]+)/gm)) {
      const [x, y] = since!.split(".").map(Number);
      assert(major! < x! || major === x && minor! < y!, `a user is told that ${since} has more than ${host.kernel}`);
    }
    const wrong = await sh([penne(), "doctor", "rum"]);
    assertEquals([wrong.code, wrong.stdout], [2, ""]);
    assertStringIncludes(wrong.stderr, "hint: did you mean run?");
  },
);
