// The disk, kernel and initrd of a guest, made from packages of Debian with mmdebstrap, which verifies them, and cached.

import { fromFileUrl } from "../lib/paths.ts";
import { TEST_USER } from "../lib/user.ts";
import type { Kernel } from "./kernels.ts";

/** What a guest boots. */
export interface Machine {
  readonly kernel: Kernel;
  /** Its root directory, an ext4 file system. */
  readonly disk: string;
  readonly vmlinuz: string;
  readonly initrd: string;
  /** What uname(2) says of the kernel. */
  readonly release: string;
}

/** The archive of Debian. */
const MIRROR = Deno.env.get("PENNE_MIRROR") ?? "http://deb.debian.org/debian";
/** Seconds for all downloads of a machine. */
const LIMIT = 240;
/** Words of apt when a mirror cannot be reached, does not answer, or has nothing. */
const UNREACHABLE =
  /Could not resolve|Temporary failure|Could not connect|Unable to connect|Connection timed out|connection failed|Failed to fetch|50[234] /i;

/** What the checks use; "extract" unpacks packages and runs nothing of them, so the architecture does not matter. */
const PACKAGES = [
  ...[
    "base-files",
    "bash",
    "busybox-static",
    "coreutils",
    "diffutils",
    "findutils",
    "grep",
    "hostname",
    "iproute2",
    "kmod",
  ],
  ...["libc-bin", "libcap2-bin", "mount", "perl-base", "procps", "sed", "socat", "tar", "uidmap", "util-linux"],
];
/** What the project's own tests use beside that; they are run where the compiled program cannot be. */
const TESTS = ["runc"];
/** Modules that the initrd loads to find the disk. */
const DISK_MODULES = ["virtio_pci", "virtio_mmio", "virtio_blk", "virtio-rng", "ext4"];

/** The archive of Debian cannot be reached, or is too slow. */
export class Unreachable extends Error {}

/** Where machines are cached. */
export function cacheDirectory(): string {
  const base = Deno.env.get("XDG_CACHE_HOME") || `${Deno.env.get("HOME") || "/var/tmp"}/.cache`;
  return `${base}/penne/kernels`;
}

/** Runs a command to its end. @returns Its stdout. @throws {Error} If it fails; it has both outputs. */
export async function must(program: string, args: readonly string[], cwd = "/"): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(program, { args: [...args], cwd, stdin: "null" }).output();
  const [out, error] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  if (code !== 0) throw new Error(`${program} ${args.join(" ")} ended with ${code}: ${error}${out}`);
  return out!;
}

/** Unpacks the packages of a machine into a directory. @throws {Unreachable} */
async function unpack(kernel: Kernel, tree: string): Promise<void> {
  const { suite, backports } = kernel;
  const sources = [suite, ...backports ? [backports] : []].map((name) => `deb ${MIRROR} ${name} main`);
  try {
    await must("timeout", [
      "--kill-after=5",
      `${LIMIT}`,
      "mmdebstrap",
      "--quiet",
      "--variant=extract",
      `--architectures=${kernel.architecture === "x86_64" ? "amd64" : "arm64"}`,
      "--aptopt=Acquire::Check-Valid-Until false", // a mirror may be older than the lists say
      "--aptopt=Acquire::Retries 3",
      "--aptopt=Acquire::http::Timeout 20",
      `--include=${
        [
          ...PACKAGES,
          ...kernel.architecture === "aarch64" ? TESTS : [],
          ...kernel.packages ?? [],
          backports ? `${kernel.package}/${backports}` : kernel.package,
        ].join(",")
      }`,
      suite,
      tree,
      ...sources,
    ]);
  } catch (error) {
    const { message } = error as Error;
    if (!/ended with 1(24|37):/.test(message) && !UNREACHABLE.test(message)) throw error;
    throw new Unreachable(`${MIRROR} cannot be reached, or is too slow: ${message.slice(-500)}`);
  }
}

/** The first of these paths that exists. */
function firstOf(paths: readonly string[]): string {
  for (const path of paths) {
    try {
      Deno.statSync(path);
      return path;
    } catch {
      // the next one
    }
  }
  throw new Error(`none of ${paths.join(", ")}`);
}

/** Writes what installing the packages would have written, and the program that becomes PID 1. */
async function configure(tree: string): Promise<void> {
  // Suites before trixie unpack to directories at the top; the links of a merged /usr are then missing.
  const bash = firstOf([`${tree}/usr/bin/bash`, `${tree}/bin/bash`]);
  await Deno.symlink("bash", bash.replace(/bash$/, "sh")).catch(() => {});
  const users = [
    "root:x:0:0::/root:/bin/bash",
    "nobody:x:65534:65534::/:/bin/false",
    `${TEST_USER}:x:1000:1000::/home/user:/bin/bash`,
  ];
  const groups = ["root:x:0:", "tty:x:5:", "nogroup:x:65534:", `${TEST_USER}:x:1000:`];
  for (
    const [name, lines] of [
      ["passwd", users],
      ["group", groups],
      ["subuid", [`${TEST_USER}:200000:65536`]],
      ["subgid", [`${TEST_USER}:200000:65536`]],
      ["hostname", ["guest"]],
      ["hosts", ["127.0.0.1 localhost guest", "::1 localhost"]],
      ["resolv.conf", ["nameserver 192.0.2.1"]],
    ] as const
  ) await Deno.writeTextFile(`${tree}/etc/${name}`, lines.map((line) => `${line}\n`).join(""));
  for (const name of ["newuidmap", "newgidmap"]) await Deno.chmod(`${tree}/usr/bin/${name}`, 0o4755);
  for (const name of ["home/user", "job", "mnt", "root"]) await Deno.mkdir(`${tree}/${name}`, { recursive: true });
  await Deno.chown(`${tree}/home/user`, 1000, 1000);
  await Deno.copyFile(fromFileUrl(new URL("init.sh", import.meta.url)), `${tree}/init`);
  await Deno.chmod(`${tree}/init`, 0o755);
}

/** Packs an initrd that loads the modules of the disk, mounts it, and goes on there. */
async function packInitrd(tree: string, release: string, work: string, path: string): Promise<void> {
  for (const name of ["bin", "dev", "proc", "sys", "new", "mod"]) {
    await Deno.mkdir(`${work}/${name}`, { recursive: true });
  }
  await Deno.copyFile(firstOf([`${tree}/usr/bin/busybox`, `${tree}/bin/busybox`]), `${work}/bin/busybox`);
  await Deno.symlink("busybox", `${work}/bin/sh`);
  const loads: string[] = [];
  for (const module of DISK_MODULES) {
    // A driver that is built in, or is of another architecture, has no file.
    const list = await must("modprobe", ["-d", tree, "-S", release, "--show-depends", module]).catch(() => "");
    for (const [, file] of list.matchAll(/^insmod (\S+)/gm)) {
      const name = file!.replace(/^.*\//, "").replace(/\.(xz|zst)$/, "");
      if (loads.includes(`insmod /mod/${name}`)) continue;
      const unpacker = file!.endsWith(".xz") ? "xz -dc" : file!.endsWith(".zst") ? "zstd -qdc" : "cat";
      await must("sh", ["-c", `${unpacker} "$1" >"$2"`, "sh", file!, `${work}/mod/${name}`]);
      loads.push(`insmod /mod/${name}`);
    }
  }
  const script = [
    "#!/bin/sh",
    "/bin/busybox --install -s /bin",
    "mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev",
    ...loads,
    "i=0; while [ ! -e /dev/vda ] && [ $i -lt 100 ]; do sleep 0.1; i=$((i+1)); done",
    "mount -t ext4 /dev/vda /new || { echo NO DISK; poweroff -f; }",
    "for m in dev proc sys; do mount --move /$m /new/$m; done",
    "exec switch_root /new /init",
  ];
  await Deno.writeTextFile(`${work}/init`, `${script.join("\n")}\n`, { mode: 0o755 });
  await must("sh", ["-c", 'find . | cpio --quiet -o -H newc | gzip -1 >"$1"', "sh", path], work);
}

/** Makes an ext4 file system with the contents of a directory, and so many bytes of room. */
export async function makeDisk(tree: string, path: string, room: number): Promise<void> {
  const kilobytes = Number((await must("du", ["-sk", tree])).split("\t")[0]);
  await Deno.writeFile(path, new Uint8Array(0));
  await Deno.truncate(path, kilobytes * 1024 * 1.1 + room);
  await must("mke2fs", ["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", tree, path]);
}

/** Makes a machine in a directory. */
async function build(kernel: Kernel, directory: string): Promise<void> {
  const tree = `${directory}/tree`;
  await unpack(kernel, tree);
  const modules = firstOf([`${tree}/usr/lib/modules`, `${tree}/lib/modules`]);
  const release = [...Deno.readDirSync(modules)][0]!.name;
  const image = firstOf([`${tree}/boot/vmlinuz-${release}`, `${modules}/${release}/vmlinuz`]);
  await Deno.rename(image, `${directory}/vmlinuz`);
  await must("depmod", ["-b", tree, release]);
  await configure(tree);
  await packInitrd(tree, release, `${directory}/initrd.tree`, `${directory}/initrd`);
  await makeDisk(tree, `${directory}/disk`, 256 << 20);
  await must("rm", ["-rf", tree, `${directory}/initrd.tree`]);
  await Deno.writeTextFile(`${directory}/release`, release);
}

/** A machine, which is made unless it is in the cache. @throws {Unreachable} If the archive of Debian is. */
export async function machine(kernel: Kernel): Promise<Machine> {
  const sources = ["disk.ts", "init.sh"].map((name) => Deno.readTextFileSync(new URL(name, import.meta.url))).join("");
  const bytes = new TextEncoder().encode(sources + JSON.stringify({ ...kernel, options: undefined }));
  const first = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).slice(0, 4);
  const digest = Array.from(first, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const place = `${cacheDirectory()}/${kernel.name}-${digest}`;
  if (!await Deno.stat(place).catch(() => null)) {
    await Deno.mkdir(cacheDirectory(), { recursive: true });
    const half = await Deno.makeTempDir({ dir: cacheDirectory(), prefix: "half-" });
    try {
      await build(kernel, half);
      await Deno.rename(half, place);
    } catch (error) {
      await must("rm", ["-rf", half]);
      if (!await Deno.stat(place).catch(() => null)) throw error; // another process has made it meanwhile
    }
  }
  const release = await Deno.readTextFile(`${place}/release`);
  return { kernel, disk: `${place}/disk`, vmlinuz: `${place}/vmlinuz`, initrd: `${place}/initrd`, release };
}
