// A bare host: a tree entered by pivot_root, as root or a user, with the device open or closed, and maybe as a container.

import { cacheDirectory, type Tree } from "./tree.ts";

/** What a host is like, beside its tree. */
export interface Kind {
  readonly who: "root" | "user";
  /** Open is mode 666; closed is mode 600 for a user, and no device for root, whom no mode keeps out. */
  readonly device: "open" | "closed";
  /** Whether it has a pid namespace and private mounts, as a container has; else mounts are shared, as systemd does. */
  readonly container: boolean;
}

/** All kinds. */
export const KINDS: readonly Kind[] = (["root", "user"] as const).flatMap((who) =>
  (["open", "closed"] as const).flatMap((device) => [false, true].map((container) => ({ who, device, container })))
);

/** A kind in words. */
export function describe({ who, device, container }: Kind): string {
  return `${who}, device ${device}${container ? ", container" : ""}`;
}

/** The user of a host. */
const USER = "someone";

/** Builds the host in a mount namespace of its own, then becomes the program inside. */
const ENTER = `set -eu
cd "$1"; who=$2 device=$3 container=$4 cache=$5; shift 5
mount --bind . .; cd "$PWD"
mount -t proc proc proc
mount --rbind /sys sys; mount --make-rslave sys
mount -t tmpfs -o mode=755 none dev
for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
  rest=\${node#*:}; mknod -m 666 "dev/\${node%%:*}" c "\${rest%:*}" "\${rest#*:}"
done
mkdir dev/pts dev/shm dev/net
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 none dev/pts
ln -s pts/ptmx dev/ptmx; ln -s /proc/self/fd dev/fd
for i in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/\${i%:*}" "dev/\${i#*:}"; done
for place in dev/shm tmp; do mount -t tmpfs -o mode=1777 none $place; done
mount -t tmpfs -o mode=755 none run
case $who-$device in
  *-open) mknod -m 666 dev/net/tun c 10 200 ;;
  user-closed) mknod -m 600 dev/net/tun c 10 200 ;;
  root-closed) rmdir dev/net ;;
esac
mkdir -p var/cache/npm; mount --bind "$cache" var/cache/npm
PATH=/usr/sbin:/usr/bin:/sbin:/bin; pivot_root . .; umount -l .; cd /
[ "$container" = true ] || mount --make-rshared /
exec "$@"`;

/** How a program in a host ended. */
export interface Ended {
  readonly code: number;
  /** Both outputs. */
  readonly output: string;
  readonly seconds: number;
  /** Seconds of a processor that it and what it has waited for took. */
  readonly processor: number;
}

/** Seconds of a processor that all children of a shell took, from the second line of its `times`: "1m2.5s 0m3.25s". */
function processorTime(times: string): number {
  const [, children = ""] = times.split("\n");
  return children.split(" ").reduce((sum, word) => {
    const [, minutes, seconds] = /^(\d+)m([\d.]+)s$/.exec(word)!;
    return sum + 60 * Number(minutes) + Number(seconds);
  }, 0);
}

/** Variables that say how this machine reaches the network; others a bare host does not have. */
function networkVariables(): string[] {
  return Object.entries(Deno.env.toObject())
    .filter(([name]) => /_proxy$|^(NODE_EXTRA_CA_CERTS|SSL_CERT_FILE|npm_config_registry)$/i.test(name))
    .map(([name, value]) => `${name}=${value}`);
}

/** A host. */
export class Host {
  #home: string;

  private constructor(readonly tree: Tree, readonly kind: Kind, readonly log: string) {
    this.#home = kind.who === "root" ? "/root" : `/home/${USER}`;
  }

  /**
   * Makes a host in a tree.
   *
   * @param log File that everything printed in it is added to.
   */
  static async make(tree: Tree, kind: Kind, log: string): Promise<Host> {
    const host = new Host(tree, kind, log);
    const { code, output } = await host.run(
      `id ${USER} >/dev/null 2>&1 || useradd --create-home ${USER}; chown -R ${
        kind.who === "root" ? 0 : USER
      } /var/cache/npm`,
      { limit: 60, who: "root" },
    );
    if (code !== 0) throw new Error(`cannot make a user in ${tree.path}: ${output}`);
    return host;
  }

  /** Puts a file of this machine into the home directory inside. */
  async put(path: string, name: string, mode = 0o644): Promise<void> {
    const inside = `${this.tree.path}${this.#home}/${name}`;
    await Deno.copyFile(path, inside);
    await Deno.chmod(inside, mode);
  }

  /** Runs a shell script in the host, in its home directory, for so many seconds at most (`limit`). */
  async run(script: string, { limit = 600, who = this.kind.who } = {}): Promise<Ended> {
    const { device, container } = this.kind;
    const cache = `${cacheDirectory()}/npm-${this.kind.who}`;
    await Deno.mkdir(cache, { recursive: true });
    const home = who === "root" ? "/root" : this.#home;
    const path = who === "root"
      ? "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
      : "/usr/local/bin:/usr/bin:/bin";
    await Deno.writeTextFile(this.log, `$ ${script}\n`, { append: true });
    const { size } = await Deno.stat(this.log);
    const begin = performance.now();
    const { code, stdout } = await new Deno.Command("sh", {
      args: [
        ...["-c", 'log=$1; shift; "$@" >>"$log" 2>&1; code=$?; times; exit $code', "sh", this.log],
        ...["timeout", "--kill-after=5", `${limit}`, "unshare", "--mount", "--propagation", "private"],
        ...container ? ["--pid", "--fork", "--kill-child"] : [],
        ...["sh", "-c", ENTER, "host", this.tree.path, who, device, `${container}`, cache],
        ...who === "root"
          ? []
          : ["setpriv", "--reuid", USER, "--regid", USER, "--init-groups", "--inh-caps=-all", "--"],
        ...["env", "-i", `HOME=${home}`, `PATH=${path}`, "npm_config_cache=/var/cache/npm", ...networkVariables()],
        ...["sh", "-c", `cd; ${script}`],
      ],
      env: { LC_ALL: "C" }, // for the numbers of times
      stdin: "null",
      stderr: "inherit",
    }).output();
    const output = (await Deno.readTextFile(this.log)).slice(size);
    const [seconds, processor] = [(performance.now() - begin) / 1000, processorTime(new TextDecoder().decode(stdout))]
      .map(Math.round) as [number, number];
    const ended = { code, output, seconds, processor };
    await Deno.writeTextFile(this.log, `[exit ${code} after ${seconds} s, ${processor} s of a processor]\n`, {
      append: true,
    });
    return ended;
  }
}
