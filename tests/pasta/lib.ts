// For tests of penne under the name pasta: the program, and what its clients have around it.

import { asUser, killIfAlive, penne, processes, until } from "../lib/helpers.ts";
import { type Daemon, must, type NetLab } from "../lib/netlab.ts";

/** A program in Python that binds ports 7100 to 7109 as another program would, without SO_REUSEADDR, and then says "free". */
export const BIND = `import socket
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    for family, any in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        for port in range(7100, 7110):
            s = socket.socket(family, kind)
            if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            s.bind((any, port))
            if kind == socket.SOCK_STREAM: s.listen()
            s.close()
print("free")`;

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
  /** Those of stdout and stderr that something else still held when it had ended. */
  readonly held: readonly string[];
}

/** Runs a program, and reads its stdout and stderr at the moment when waitpid(2) returns. */
const CALL = `use Fcntl;
my @names = ("stdout", "stderr"); my (@readers, @writers);
pipe($readers[$_], $writers[$_]) for 0, 1;
my $pid = fork;
if (!$pid) {
  open(STDOUT, ">&", $writers[0]); open(STDERR, ">&", $writers[1]);
  exec { $ARGV[0] } @ARGV; exit 127;
}
close $_ for @writers;
waitpid $pid, 0;
my $code = $? & 127 ? 128 + ($? & 127) : $? >> 8;
my (@texts, @held);
for (0, 1) {
  fcntl($readers[$_], F_SETFL, O_NONBLOCK);
  my $n;
  $texts[$_] = "";
  while ($n = sysread($readers[$_], $texts[$_], 65536, length $texts[$_])) {}
  push @held, $names[$_] if !defined $n;
}
print join("\\0", $code, @texts, @held);`;

/** Runs a program, which writes little, and reads its stdout and stderr to their ends, as Go's CombinedOutput does. */
export async function call(argv: readonly string[], stdin: "null" | "inherit" = "null"): Promise<Called> {
  const child = new Deno.Command("perl", { args: ["-e", CALL, ...argv], stdin, stdout: "piped", cwd: "/" });
  const { stdout } = await child.output();
  const [code, out, err, ...held] = new TextDecoder().decode(stdout).split("\0");
  return { code: Number(code), stdout: out!, stderr: err!, held };
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
