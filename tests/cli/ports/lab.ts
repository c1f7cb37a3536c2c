// A penne that serves a namespace, with a runtime directory of its own, and programs that use its ports and its socket.

import { asUser, penne, type Result, ROOT, until } from "../../lib/helpers.ts";
import { type Daemon, must, NetLab } from "../../lib/netlab.ts";
import { userIds } from "../../lib/user.ts";

/** Programs of the tests, see the head of the file. */
export const CLIENT = `${ROOT}tests/cli/ports/client.py`;

/** What every test of ports needs. */
export const NEEDS = [
  ...["root", "user", "tun", "package:iproute2", "package:procps"] as const,
  ...["package:python3", "package:util-linux"] as const,
];

/** A running penne. */
export interface Served extends Daemon {
  /** What `penne ports` calls its namespace. */
  readonly target: string;
  /** Id of the namespace, or else its inode number: the name of its socket. */
  readonly id: string;
}

/** A host with penne on it. */
export class PortsLab implements AsyncDisposable {
  readonly #lab: NetLab;
  /** The runtime directory of the user. */
  readonly runtime: string;

  private constructor(lab: NetLab, readonly user: boolean) {
    this.#lab = lab;
    this.runtime = Deno.makeTempDirSync({ prefix: "penne-run-" });
    lab.defer(() => Deno.remove(this.runtime, { recursive: true }));
    Deno.chmodSync(this.runtime, 0o700);
    const { uid, gid } = userIds();
    if (user) Deno.chownSync(this.runtime, uid, gid);
  }

  /** Makes the host; `user` runs penne without privileges. */
  static async open(user = true): Promise<PortsLab> {
    const lab = await NetLab.open();
    await lab.usual();
    return new PortsLab(lab, user);
  }

  /** The directory of the sockets. */
  get place(): string {
    return this.user ? `${this.runtime}/penne/ctl` : "/run/penne/ctl";
  }

  /** Name of the host's namespace, and of its peer's. */
  get host(): string {
    return this.#lab.host;
  }

  get peer(): string {
    return this.#lab.peer;
  }

  /** A command line on the host, as the user of penne unless `root` is given. */
  on(argv: string[], root = !this.user): string[] {
    const known = ["env", `XDG_RUNTIME_DIR=${this.runtime}`, ...argv];
    return this.#lab.in(this.host, root ? known : asUser(known));
  }

  /** Starts `penne run` with a command inside, `sleep` by default. */
  async run(options: string[] = [], inside = ["sleep", "1000"]): Promise<Served> {
    const argv = [penne(), "run", "--status-fd", "1", "--uid", "0", ...options, "--", ...inside];
    const daemon = this.#lab.start(this.on(argv), { cwd: "/" });
    let over = false;
    daemon.ended.then(() => over = true);
    await until("penne is ready", () => over || daemon.output().includes('"event":"ready"'));
    if (over) throw new Error(`penne has ended: ${daemon.errors()}`);
    const { child, namespaces: { net } } = JSON.parse(daemon.output().split("\n")[0]!);
    return { ...daemon, target: `${child}`, id: net.id ?? `${net.inum}` };
  }

  /** Runs `penne ports`. */
  async ports(args: string[], root?: boolean): Promise<Result> {
    return await this.sh(this.on([penne(), "ports", ...args], root));
  }

  /** Runs `penne ports`, which must succeed; returns what it prints. */
  async must(...args: string[]): Promise<string> {
    return await must(this.on([penne(), "ports", ...args]));
  }

  async sh([program, ...args]: string[]): Promise<Result> {
    const { code, signal, stdout, stderr } = await new Deno.Command(program!, { args, stdin: "null", cwd: "/" })
      .output();
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    return { code, signal, stdout: text(stdout), stderr: text(stderr) };
  }

  /** Starts something that ends with the test. */
  start(argv: string[], options: Deno.CommandOptions = {}): Daemon {
    return this.#lab.start(argv, options);
  }

  /** Runs a program of {@linkcode CLIENT} in a namespace. */
  async client(netns: string, ...args: string[]): Promise<string> {
    return (await must(this.#lab.in(netns, ["python3", CLIENT, ...args]))).trim();
  }

  /** Starts a program of {@linkcode CLIENT} in a namespace, and waits for its first line. */
  async begin(netns: string, ...args: string[]): Promise<Daemon> {
    const daemon = this.start(this.#lab.in(netns, ["python3", CLIENT, ...args]), { stdin: "piped" });
    // It stays open until it is closed, or collected at some time.
    this.defer(() => daemon.child.stdin.close().catch(() => {}));
    await until(`${args[0]} has begun`, () => daemon.output().includes("\n"));
    return daemon;
  }

  /** Starts the server of {@linkcode CLIENT} in the namespace of a penne. */
  async serve({ target }: Served, port: number): Promise<Daemon> {
    const daemon = this.start(["nsenter", `--net=/proc/${target}/ns/net`, "python3", CLIENT, "serve", `${port}`]);
    await until("the server listens", () => daemon.output().includes("\n"));
    return daemon;
  }

  /** Ports that are open on the host, as `tcp 80`. */
  async open(): Promise<string[]> {
    const lines = (await must(this.#lab.in(this.host, ["ss", "-Htuln"]))).split("\n").filter(Boolean);
    return lines.map((line) => line.split(/\s+/)).map(([kind, , , , local]) => `${kind} ${local!.split(":").at(-1)}`)
      .sort();
  }

  /** Registers a function to call at the end. */
  defer(cleanup: () => void | Promise<void>): void {
    this.#lab.defer(cleanup);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#lab[Symbol.asyncDispose]();
  }
}
