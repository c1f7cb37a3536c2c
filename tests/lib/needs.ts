// What a test may need of a machine: a name for each thing, one probe that tries it, and what provides it.

import { type Package, PACKAGES } from "./packages.ts";
import { asUser, TEST_USER } from "./user.ts";

/** Programs of the system are not in the PATH of every user. */
const PATH = [...new Set([...(Deno.env.get("PATH") ?? "").split(":"), "/usr/local/sbin", "/usr/sbin", "/sbin"])]
  .filter((directory) => directory);
Deno.env.set("PATH", PATH.join(":"));

/** What is tried: a command line that succeeds where the thing is there. */
interface Probe {
  readonly argv: readonly string[];
  /** In a test that needs the user without privileges: whether that user tries it, too or alone. */
  readonly byUser?: "too" | "alone";
  /** The command, or the way, that provides it. */
  readonly provide: string;
}

const sh = (script: string) => ["sh", "-c", script];

/**
 * Asks the kernel, which may not answer, for messages of the process connector: netlink 11, group and index 1. Events
 * that another listener has asked for come too; the answer has our number plus one, and is of no kind.
 */
const ASK_CONNECTOR = `use strict; use warnings;
  socket(my $s, 16, 2, 11) or die; bind($s, pack("SSLL", 16, 0, 0, 1)) or die;
  my $message = pack("LLLLSS L", 1, 1, 0, $$, 4, 0, 1); $message = pack("LSSLL", 16 + length $message, 3, 0, 0, 0) . $message;
  send($s, $message, 0) or die; my $end = time + 2;
  while (time < $end) {
    vec(my $ready = "", fileno $s, 1) = 1; select($ready, undef, undef, 0.5) > 0 && defined recv($s, my $got, 4096, 0) or next;
    my ($ack, $kind) = unpack("x28 L x4 L", $got); exit 0 if $ack == $$ + 1 && $kind == 0;
  }
  exit 1;`;

/** Loads "return 0" as a raw tracepoint: bpf(2), command 5. */
const LOAD_BPF = `use strict; use warnings; use Config; open(my $btf, "<", "/sys/kernel/btf/vmlinux") or die;
  my $code = pack("CCsl", 0xb7, 0, 0, 0) . pack("CCsl", 0x95, 0, 0, 0);
  my $attributes = pack("LLpp", 17, 2, $code, "GPL") . "\\0" x 104;
  exit(syscall($Config{archname} =~ /aarch64/ ? 280 : 321, 5, $attributes, length $attributes) >= 0 ? 0 : 1);`;

const PROBES = {
  /** To be root of the host, not only in a user namespace or with few capabilities. */
  "root": {
    argv: sh(`test "$(id -u)" = 0 && unshare --mount --net --uts --ipc --cgroup --pid --fork mount -t tmpfs none /tmp`),
    provide: "run the tests as root",
  },
  /** A user without privileges, as whom the test runs penne. */
  "user": { argv: asUser(["true"]), provide: `useradd --create-home ${TEST_USER}` },
  /** To make a user namespace, and others in it. */
  "user namespaces": {
    argv: sh("unshare --user --map-root-user --mount --net --uts --ipc --cgroup --pid --fork mount -t tmpfs none /tmp"),
    byUser: "too",
    provide: "sysctl user.max_user_namespaces=100000, or what docs/hosts.md says",
  },
  "tun": {
    argv: sh("test -c /dev/net/tun && exec 3<>/dev/net/tun"),
    byUser: "too",
    provide: "chmod 666 /dev/net/tun",
  },
  /** To be a file system, which a container may not. */
  "fuse": {
    argv: sh("test -c /dev/fuse && exec 3<>/dev/fuse"),
    provide: "modprobe fuse; mknod -m 666 /dev/fuse c 10 229",
  },
  /** newuidmap and newgidmap that work, and subordinate ids. */
  "newuidmap": {
    argv: ["unshare", "--user", "--map-auto", "--map-root-user", "--setgroups", "allow", "true"],
    byUser: "alone",
    provide: `apt-get install uidmap; usermod --add-subuids 200000-265535 --add-subgids 200000-265535 USER`,
  },
  /** Lines in /etc/subuid and /etc/subgid, with or without a tool. */
  "subordinate ids": {
    argv: sh(`for kind in uid gid; do grep -qE "^($(id -un)|$(id -u)):" /etc/sub$kind || exit; done`),
    byUser: "alone",
    provide: "usermod --add-subuids 200000-265535 --add-subgids 200000-265535 USER",
  },
  "initial pid namespace": {
    argv: sh(`test "$(readlink /proc/self/ns/pid)" = "pid:[4026531836]"`),
    provide: "run the tests outside of a container",
  },
  /** That the kernel answers whoever asks the process connector. */
  "process connector": {
    argv: ["perl", "-e", ASK_CONNECTOR],
    byUser: "too",
    provide: "run the tests outside of a container; as a user, Linux 6.6",
  },
  "ebpf": { argv: ["perl", "-e", LOAD_BPF], provide: "run the tests as root, on Linux 5.12 with BTF" },
  /** To make cgroups that refuse devices or count processes. */
  "devices cgroup": {
    argv: sh("d=/sys/fs/cgroup/devices/penne-probe-$$; mkdir $d && test -w $d/devices.deny; e=$?; rmdir $d; exit $e"),
    provide: "mount the devices controller of cgroups version 1",
  },
  "pids cgroup": {
    argv: sh(
      "d=/sys/fs/cgroup/pids; test -d $d || d=/sys/fs/cgroup; d=$d/penne-probe-$$; mkdir $d && test -w $d/pids.max; " +
        "e=$?; rmdir $d; exit $e",
    ),
    provide: "mount the pids controller of cgroups",
  },
  /** That a program may push input into its terminal, as on every kernel before Linux 6.2. */
  "TIOCSTI": {
    argv: sh("f=/proc/sys/dev/tty/legacy_tiocsti; test ! -e $f || test $(cat $f) = 1"),
    provide: "sysctl dev.tty.legacy_tiocsti=1",
  },
  /** The server of Debian's packages, with the oldest suite that is tried. */
  "archive of Debian": {
    argv: sh(
      `d=$(mktemp -d) && trap 'rm -rf "$d"' EXIT && timeout 30 /usr/lib/apt/apt-helper -o Acquire::http::Timeout=10 ` +
        `download-file "\${PENNE_MIRROR:-http://deb.debian.org/debian}/dists/bullseye/InRelease" "$d/InRelease"`,
    ),
    provide: "a network, or PENNE_MIRROR=URL",
  },
  /** A newer runc beside Debian's. */
  "newer runc": { argv: ["runc-newer", "--version"], provide: "packaging/newer runc" },
  /** A newer pasta beside Debian's. */
  "newer pasta": { argv: ["pasta-newer", "--version"], provide: "packaging/newer pasta" },
  /** Debian's nscd, and the modules of NSS that ask other daemons. */
  "name daemons": {
    argv: sh("test -x /usr/local/lib/penne-ci/names/nscd"),
    provide: "packaging/name-daemons",
  },
  /** The program of this name, which Debian has moved from one package to another. */
  "pivot_root": {
    argv: sh("command -v pivot_root"),
    provide: "apt-get install util-linux util-linux-extra",
  },
  /** Debian's tool for the snap layout of kept sets. */
  "snap-discard-ns": { argv: sh("command -v snap-discard-ns"), provide: "packaging/snap-tools" },
} as const satisfies Record<string, Probe>;

/** A thing that a test needs; `kernel:` is the least version for what an older one does not have. */
export type Need = keyof typeof PROBES | `package:${Package}` | `kernel:${number}.${number}`;

/** What the back ends of `penne watch` need. */
export const NEEDS_OF_BACKEND = {
  ebpf: ["ebpf"],
  proc: ["process connector"],
  poll: [],
} as const satisfies Record<string, readonly Need[]>;

/** Whether all runs end with success. */
function succeeds(argvs: readonly (readonly string[])[]): boolean {
  return argvs.every(([program, ...args]) => {
    try {
      return new Deno.Command(program!, { args, cwd: "/", stdin: "null", stdout: "null", stderr: "null" }).outputSync()
        .success;
    } catch {
      return false; // there is no such program
    }
  });
}

function hasProgram(name: string): boolean {
  return PATH.some((directory) => {
    try {
      const { isFile, mode } = Deno.statSync(`${directory}/${name}`);
      return isFile && (mode! & 0o111) !== 0;
    } catch {
      return false;
    }
  });
}

/** Whether the kernel is older than a version. */
function isOlder(version: string): boolean {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const [own = 0, ownMinor = 0] = Deno.osRelease().split(".").map(Number);
  return own < major || own === major && ownMinor < minor;
}

/** Results of probes are shared by all test modules of a process, each of which has its own copy of this one. */
const SHARED = `PENNE_TEST_NEEDS_${Deno.pid}`;

function tried(key: string, attempt: () => boolean): boolean {
  const known = JSON.parse(Deno.env.get(SHARED) ?? "{}");
  if (!(key in known)) Deno.env.set(SHARED, JSON.stringify({ ...known, [key]: attempt() }));
  return JSON.parse(Deno.env.get(SHARED)!)[key];
}

/** Whether a need is met, for a test that runs penne as the user without privileges, or does not. */
function isMet(need: Need, user: boolean): boolean {
  const [, kind, name = ""] = /^(?:(package|kernel):)?(.*)$/.exec(need)!;
  if (kind === "kernel") return !isOlder(name);
  if (kind === "package") return PACKAGES[name as Package].every(hasProgram);
  const { argv, byUser }: Probe = PROBES[need as keyof typeof PROBES];
  const who = user && Deno.uid() === 0 ? byUser : undefined;
  const runs = [...who === "alone" ? [] : [argv], ...who ? [asUser(argv)] : []];
  return tried(`${need} ${who ?? ""}`, () => succeeds(runs));
}

/** Those needs of a test that are not met here. */
export function missingNeeds(needs: readonly Need[]): Need[] {
  const user = needs.includes("user");
  return needs.filter((need) => !isMet(need, user));
}

/** What provides a need. */
export function provider(need: Need): string {
  if (need.startsWith("package:")) return `apt-get install ${need.slice("package:".length)}`;
  if (need.startsWith("kernel:")) return `Linux ${need.slice("kernel:".length)}`;
  return PROBES[need as keyof typeof PROBES].provide;
}
