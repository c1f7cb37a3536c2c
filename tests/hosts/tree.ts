// Root trees of Debian suites, bare but for what README asks for, made with mmdebstrap and cached as archives.

import { missingNeeds } from "../lib/needs.ts";

/** A suite of Debian. */
export interface Suite {
  readonly name: string;
  /** What is installed beside the minimal system. */
  readonly packages: readonly string[];
  /** Whether its node runs `npx deno`; else only the compiled binary is tried. */
  readonly source: boolean;
}

/** What README asks for; with npm, the suite's own node comes. */
const ASKED = ["npm", "git", "gcc", "libc6-dev", "ca-certificates"];

/** The suites: Debian 11, 12, 13 and what will be 14. */
export const SUITES: readonly Suite[] = [
  { name: "bullseye", packages: [], source: false },
  { name: "bookworm", packages: ASKED, source: true },
  { name: "trixie", packages: ASKED, source: true },
  { name: "sid", packages: ASKED, source: true },
];

/** Where trees, and what npm downloads in them, are cached. */
export function cacheDirectory(): string {
  const base = Deno.env.get("XDG_CACHE_HOME") || `${Deno.env.get("HOME") || "/var/tmp"}/.cache`;
  return `${base}/penne/hosts`;
}

/** Runs a command to its end; its output goes to stderr. @throws {Error} If it fails. */
async function must(program: string, args: string[]): Promise<void> {
  const child = new Deno.Command(program, { args, stdin: "null", stdout: "piped" }).spawn();
  const [{ success }] = await Promise.all([
    child.status,
    child.stdout.pipeTo(Deno.stderr.writable, { preventClose: true }),
  ]);
  if (!success) throw new Error(`${program} ${args.join(" ")} failed`);
}

/** The archive of a suite's tree, which is made unless it is there or is to be made anew. */
async function archive({ name, packages }: Suite, anew: boolean): Promise<string> {
  const path = `${cacheDirectory()}/${name}.tar`;
  if (!anew && await Deno.stat(path).catch(() => null)) return path;
  const [missing] = missingNeeds(["root", "package:mmdebstrap"]);
  if (missing) throw new Error(`a tree cannot be made without ${missing}`);
  await Deno.mkdir(cacheDirectory(), { recursive: true });
  const half = `${path}.${Deno.pid}.tar`;
  console.error(`hosts: making the tree of ${name}`);
  try {
    await must("mmdebstrap", [
      "--quiet",
      "--variant=minbase",
      "--aptopt=Acquire::Check-Valid-Until false", // sid's lists expire, and a mirror may be older
      "--dpkgopt=force-unsafe-io",
      "--dpkgopt=path-exclude=/usr/share/doc/*",
      "--dpkgopt=path-exclude=/usr/share/locale/*",
      "--dpkgopt=path-exclude=/usr/share/man/*",
      ...packages.length ? [`--include=${packages.join(",")}`] : [],
      name,
      half,
      Deno.env.get("PENNE_MIRROR") ?? "http://deb.debian.org/debian",
    ]);
    await Deno.rename(half, path);
  } catch (error) {
    await Deno.remove(half).catch(() => {});
    throw error;
  }
  return path;
}

/** An unpacked tree, which is removed at the end. */
export class Tree implements AsyncDisposable {
  private constructor(readonly suite: Suite, readonly path: string) {}

  /** Unpacks the tree of a suite, and gives it this machine's resolver and trusted certificates. */
  static async unpack(suite: Suite, anew = false): Promise<Tree> {
    const from = await archive(suite, anew);
    const tree = new Tree(suite, await Deno.makeTempDir({ dir: "/var/tmp", prefix: `penne-${suite.name}-` }));
    try {
      await Deno.chmod(tree.path, 0o755);
      await must("tar", ["-C", tree.path, "-xpf", from, "--exclude=./dev/*"]);
      for (const file of ["/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt"]) {
        await Deno.remove(`${tree.path}${file}`).catch(() => {});
        await Deno.copyFile(file, `${tree.path}${file}`).catch(() => {});
      }
      return tree;
    } catch (error) {
      await tree[Symbol.asyncDispose]();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await must("rm", ["-rf", "--one-file-system", this.path]);
  }
}
