// For tests of penne under the name pasta: the program, and what its clients have around it.

import { asUser, killIfAlive, penne, processes, until } from "../lib/helpers.ts";
import { type Daemon, must, type NetLab } from "../lib/netlab.ts";

/** The program under the name pasta, which is a symbolic link. */
export function pasta(): string {
  const path = penne().replace(/penne$/, "pasta");
  try {
    Deno.symlinkSync("penne", path);
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
  }
  return path;
}

/** How a program that its caller waits for has ended, as the caller sees it. */
export interface Called {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** Milliseconds from its end until nothing could write to its stdout and stderr any more. */
  readonly released: number;
}

/** Runs a program whose stdout and stderr are read to their ends, as Go's CombinedOutput does. */
export async function call(argv: readonly string[], stdin: "null" | "inherit" = "null"): Promise<Called> {
  const [program, ...args] = argv;
  const child = new Deno.Command(program!, { args, stdin, stdout: "piped", stderr: "piped", cwd: "/" }).spawn();
  const [stdout, stderr] = [new Response(child.stdout).text(), new Response(child.stderr).text()];
  const { code } = await child.status;
  const end = performance.now();
  const [out, err] = await Promise.all([stdout, stderr]);
  return { code, stdout: out, stderr: err, released: performance.now() - end };
}

/** The processes that run a command line, with or without more words in front of it. */
export function running(words: readonly string[]): number[] {
  return processes().filter(({ cmdline }) =>
    cmdline[0] === words[0] && cmdline.slice(1 - words.length).join("\0") === words.slice(1).join("\0")
  ).map(({ pid }) => pid);
}

/** A rootless engine: user and mount namespaces of the test user, where it keeps network namespaces by name. */
export class Engine {
  /** Where its names are. */
  static readonly directory = "/mnt";

  private constructor(readonly lab: NetLab, readonly pid: number) {}

  static async open(lab: NetLab): Promise<Engine> {
    const script = `mount -t tmpfs none ${Engine.directory} && echo ready && exec sleep 1000`;
    const argv = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script];
    const daemon = lab.start(lab.in(lab.host, asUser(argv)), { cwd: "/" });
    lab.defer(async () => {
      for (const { pid, cmdline } of processes()) if (cmdline[0] === pasta()) await killIfAlive(pid);
    });
    await until("the engine is there", () => daemon.output() === "ready\n");
    return new Engine(lab, daemon.child.pid);
  }

  /** A command line that runs in the engine. */
  argv(argv: readonly string[]): string[] {
    const enter = ["nsenter", `--target=${this.pid}`, "--user", "--mount", "--preserve-credentials", "--"];
    return this.lab.in(this.lab.host, asUser([...enter, ...argv]));
  }

  /** Makes a network namespace with a name; returns the path. */
  async named(name: string): Promise<string> {
    const path = `${Engine.directory}/${name}`;
    await must(this.argv(["sh", "-c", `touch ${path} && unshare --net=${path} true`]));
    return path;
  }

  /** Starts a program in a network namespace of its own. */
  async alone(argv: readonly string[]): Promise<Daemon & { pid: number }> {
    const daemon = this.lab.start(this.argv(["unshare", "--net", ...argv]), { cwd: "/" });
    const { pid } = daemon.child;
    const own = Deno.readLinkSync(`/proc/${this.pid}/ns/net`);
    await until(
      "it runs",
      () =>
        Deno.readTextFileSync(`/proc/${pid}/comm`).trim() === argv[0]!.slice(argv[0]!.lastIndexOf("/") + 1) &&
        Deno.readLinkSync(`/proc/${pid}/ns/net`) !== own,
    );
    return { ...daemon, pid };
  }

  /** A command line that runs in one of those network namespaces. */
  inside(netns: string, argv: readonly string[]): string[] {
    return this.argv(["nsenter", `--net=${netns}`, "--", ...argv]);
  }
}
