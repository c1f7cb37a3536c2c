// A host of a test's own: a mount namespace in which its /sys, /dev and /etc are as on a host that runs systemd.

import { asUser, penne, type Result, ROOT, sh } from "../lib/helpers.ts";

/** What the host mounts below /sys. */
export const SUBMOUNTS = [
  "/sys/fs/bpf",
  "/sys/fs/cgroup",
  "/sys/fs/pstore",
  "/sys/kernel/debug",
  "/sys/kernel/security",
  "/sys/kernel/tracing",
] as const;

/** Makes the host. It has a message queue, and what is in memory only: /dev, /etc and /run. */
const MAKE = `set -e
  mount --make-rshared /; mount -t tmpfs -o mode=755 none /mnt; mkdir /mnt/dev /mnt/u /mnt/w
  mount -t tmpfs -o mode=755 none /mnt/dev
  (cd /mnt/dev; mkdir net pts shm mqueue; ln -s /proc/self/fd fd; ln -s pts/ptmx ptmx
    for f in null zero full random urandom tty net/tun; do : > $f; mount --bind /dev/$f $f; done)
  mount --rbind /dev/pts /mnt/dev/pts; mount -t tmpfs -o mode=1777 none /mnt/dev/shm
  mount --rbind /mnt/dev /dev; mount -t mqueue none /dev/mqueue
  mount -t overlay none -o lowerdir=/etc,upperdir=/mnt/u,workdir=/mnt/w /etc
  mount -t tmpfs -o mode=755 none /run
  umount -l /sys; mount -t sysfs -o nosuid,nodev,noexec none /sys
  mount -t cgroup2 -o nosuid,nodev,noexec none /sys/fs/cgroup
  mkdir /mnt/cgroup; mount -t cgroup2 none /mnt/cgroup; mkdir /mnt/cgroup/$CGROUP
  echo 0 > /mnt/cgroup/$CGROUP/cgroup.procs
  mount -t bpf none /sys/fs/bpf; mount -t pstore none /sys/fs/pstore; mount -t debugfs none /sys/kernel/debug
  mount -t securityfs none /sys/kernel/security; mount -t tracefs none /sys/kernel/tracing
  python3 -c 'import ctypes, os; l = ctypes.CDLL(None); l.mq_open(b"/of-the-host", os.O_CREAT, 0o600, None)'
mounts() { awk '$5 ~ "^/(etc|mnt|proc|sys|dev)?(/|$)"' /proc/self/mountinfo; }
`;

/** A mount, by its line in mountinfo. */
export interface Mount {
  root: string;
  options: string;
  /** Its propagation. */
  spread: string[];
  type: string;
}

/** What a command sees; in place of what cannot be looked at, the reason. */
export interface Seen {
  interfaces: string[] | string;
  queues: string[] | string;
  cgroup: Mount | string;
  sys: Mount | string;
  name: string;
  processes: number[];
  mounts: Record<string, Mount | string>;
  mnt: string;
}

/** How a host is, and what happens there. */
export interface Scene {
  /** Shell commands that change the host first. */
  readonly prepare?: string;
  /** Shell commands that run there: \`as\` runs a command as the caller, $PENNE and $DENO are programs, $SEE
   * prints what is seen. */
  readonly script: string;
  /** Whether the host has a network of its own: loopback alone. */
  readonly net?: boolean;
  /** Whether the caller is the user without privileges. */
  readonly user?: boolean;
}

const quoted = (words: readonly string[]) => words.map((word) => `'${word}'`).join(" ");

/** The command line that prints what is seen, see `lab/see.py`. */
export const SEE = ["python3", "-S", "/mnt/see.py", ...SUBMOUNTS];

/**
 * Runs shell commands on a host of their own, as root.
 *
 * Its mounts are compared before and after the script.
 */
export async function onHost({ prepare = "", script, user = false, net = false }: Scene): Promise<Result> {
  const as = user ? quoted(asUser(["env", "HOME=/"])) : "";
  const whole = `${MAKE}
    cp ${ROOT}tests/views/lab/see.py /mnt/see.py; PENNE=${penne()}; SEE='${SEE.join(" ")}'
    as() { ${as} "$@"; }
    ${net ? "ip link set lo up" : ""}
    mkdir /mnt/penne; mount --rbind ${ROOT} /mnt/penne
    DENO=/mnt/deno; : > $DENO; mount --bind ${Deno.execPath()} $DENO
    ${prepare}
    mounts > /mnt/before
    ${script}
    mounts | diff /mnt/before - || { echo "the mounts of the host have changed" >&2; exit 99; }`;
  const cgroup = `penne-test-${crypto.randomUUID()}`;
  // Nothing survives PID 1, and no test hangs.
  const host = ["unshare", net ? "-mn" : "-m", "--pid", "--fork", "--kill-child", "--mount-proc"];
  const shell = ["--propagation", "private", "bash", "-c", `CGROUP=${cgroup}; ${whole}`];
  try {
    return await sh(["timeout", "-k1", "300", ...host, ...shell], { cwd: "/" });
  } finally {
    const remove =
      `mount -t cgroup2 none /mnt; cd /mnt; until [ ! -d "$0" ] || rmdir "$0" 2>/dev/null; do sleep 0.05; done`;
    await sh(["timeout", "60", "unshare", "-m", "sh", "-c", remove, cgroup]);
  }
}
