// The lab of the groups that measure networks: a host, namespaces of the test user, and servers for them.
//
// Theory of operation. Everything runs on a "host" with an uplink to a "peer", both of them network namespaces. The served
// network namespaces belong to user namespaces of the test user, because both penne and pasta can serve those without
// root. A namespace is held by a process in it, by a name that it is mounted on, or by both.

import { asUser, until } from "../lib/helpers.ts";
import { type Daemon, NetLab } from "../lib/netlab.ts";
import {
  anybody,
  type Identity,
  lastLine,
  PENNE_BINARY,
  PENNE_MISSING,
  plainEnvironment,
  runTool,
  signalChild,
  Workshop,
} from "./workshop.ts";

/** A program that can serve a namespace. */
export type Server = "penne" | "pasta";

/** The namespaces to serve. */
export type Served =
  /** The namespace of a process. */
  | { readonly by: "pid"; readonly holder: Holder }
  /** The namespaces with these names; pasta serves only one. */
  | { readonly by: "names"; readonly names: readonly Name[] }
  /** The namespace of a process, by a descriptor that the caller opens, passes on and closes. */
  | { readonly by: "fd"; readonly holder: Holder };

/** A process of the test user that holds its own user and network namespace. */
export class Holder implements AsyncDisposable {
  /** Its PID. */
  readonly pid: number;
  #daemon: Daemon;

  /** @param daemon The process. */
  constructor(daemon: Daemon) {
    this.pid = daemon.child.pid;
    this.#daemon = daemon;
  }

  /** Ends it. */
  async [Symbol.asyncDispose](): Promise<void> {
    signalChild(this.#daemon.child, "SIGKILL");
    await this.#daemon.ended;
  }
}

/** A network namespace mounted on a file, and its owning user namespace mounted on another. */
export interface Name {
  /** The network namespace. */
  readonly path: string;
  /** The user namespace, which pasta must be given. */
  readonly owner: string;
}

/**
 * Options that reduce pasta to what is compared. It forwards no ports, and it is quiet because it would otherwise spend
 * its time on messages to a system log that does not exist.
 */
const PASTA = ["pasta", "--config-net", "--quiet", "-t", "none", "-u", "none", "-T", "none", "-U", "none"];

/** Opens fd 3, passes it on and closes it at once; prints the PID of the receiver. */
const PASS_ON = 'exec 3<"/proc/$0/ns/net" && { "$@" & } && echo $! && exec 3<&- && wait $!';

/** The host and everything on it. */
export class Ground implements AsyncDisposable {
  /** Programs and files. */
  readonly workshop: Workshop;
  /** The user that runs the contestants on the host. */
  readonly identity: Identity;
  #lab: NetLab;
  #penne: string | null;
  #names = `${Deno.pid}`;
  #counter = 0;
  #mounted = new Set<string>();
  #running = new Set<Daemon>();
  #tidy = () => {
    for (const { child } of this.#running) signalChild(child, "SIGKILL");
    for (const path of [...this.#mounted]) this.#unmount(path);
    for (const name of [this.#lab.host, this.#lab.peer]) {
      new Deno.Command("ip", { args: ["netns", "del", name], stderr: "null" }).outputSync();
    }
  };

  private constructor(workshop: Workshop, lab: NetLab, identity: Identity, penne: string | null) {
    this.workshop = workshop;
    this.#lab = lab;
    this.#penne = penne;
    this.identity = { ...identity, as: (argv) => lab.in(lab.host, identity.as(argv)) };
    for (const directory of ["names", "pids"]) Deno.mkdirSync(`${workshop.directory}/${directory}`);
    Deno.chmodSync(`${workshop.directory}/pids`, 0o777);
    workshop.defer(this.#tidy);
  }

  /**
   * Sets it up.
   *
   * @returns The ground.
   * @throws {Error} If it cannot be set up.
   */
  static async open(): Promise<Ground> {
    if (Deno.uid() !== 0) throw new Error("making the network namespaces of this group needs root");
    const workshop = new Workshop();
    try {
      const built = await Deno.stat(PENNE_BINARY).then(() => true, () => false);
      const penne = built ? workshop.install(PENNE_BINARY, "penne") : null;
      const lab = await NetLab.open();
      try {
        await lab.usual();
        return new Ground(workshop, lab, await anybody(), penne);
      } catch (error) {
        await lab[Symbol.asyncDispose]();
        throw error;
      }
    } catch (error) {
      workshop[Symbol.dispose]();
      throw error;
    }
  }

  /** The first words of penne's command lines; throws if the binary is missing. */
  get penne(): readonly string[] {
    if (!this.#penne) throw new Error(PENNE_MISSING);
    return [this.#penne];
  }

  /** The first words of pasta's command lines. */
  get pasta(): readonly string[] {
    return PASTA;
  }

  #start(argv: string[], stdin: "piped" | "null" = "null"): Daemon {
    const env = plainEnvironment(this.identity);
    const daemon = this.#lab.start(argv, { cwd: "/", env, clearEnv: true, stdin });
    this.#running.add(daemon);
    daemon.ended.then(() => this.#running.delete(daemon));
    return daemon;
  }

  /** Waits for a condition; if the process ends first, fails with its last output. */
  async #await(daemon: Daemon, what: string, condition: () => boolean): Promise<void> {
    let over = false;
    daemon.ended.then(() => over = true);
    await until(what, () => over || condition(), 30);
    if (!over) return;
    const said = lastLine(daemon.errors());
    throw new Error(
      said.replace(/^.*failed to execute (\S+): No such file or directory$/, "$1 is not installed") || "it ended",
    );
  }

  /** Starts a program that echoes its input, which shows that it has started; it ends with the bench. */
  async #hold(argv: readonly string[], script = ""): Promise<Daemon> {
    const daemon = this.#start([...argv, "sh", "-c", `${script}exec cat`], "piped");
    const writer = daemon.child.stdin.getWriter();
    await writer.write(new TextEncoder().encode("?\n"));
    await this.#await(daemon, "a process is in its namespaces", () => daemon.output() !== "");
    return daemon;
  }

  /**
   * Starts a process in its own namespaces.
   *
   * @returns The process.
   */
  async holder(): Promise<Holder> {
    return new Holder(await this.#hold(asUser(["unshare", "--user", "--map-root-user", "--net"])));
  }

  /**
   * Starts a process in a mount namespace in which a path is not a mount point.
   *
   * @param path The path.
   * @returns The process.
   */
  async elsewhere(path: string): Promise<Holder> {
    const unshare = ["unshare", "--mount", "--propagation", "private"];
    return new Holder(await this.#hold(unshare, `umount ${path} && `));
  }

  #mount(source: string, path: string): string {
    Deno.writeTextFileSync(path, "");
    this.#mounted.add(path);
    const { success, stderr } = new Deno.Command("mount", { args: ["--bind", source, path] }).outputSync();
    if (!success) throw new Error(lastLine(stderr));
    return path;
  }

  #unmount(path: string): void {
    this.#mounted.delete(path);
    for (const place of [path, `${path}.moved`]) {
      new Deno.Command("umount", { args: ["--lazy", place], stderr: "null" }).outputSync();
      try {
        Deno.removeSync(place);
      } catch {
        // It was removed, or never existed.
      }
    }
  }

  /**
   * Gives a new namespace a name that is its only holder.
   *
   * @param directory Where.
   * @returns The name.
   */
  async name(directory = `${this.workshop.directory}/names`): Promise<Name> {
    const label = `penne-bench-${this.#names}-${++this.#counter}`;
    await using holder = await this.holder();
    return {
      path: this.#mount(`/proc/${holder.pid}/ns/net`, `${directory}/${label}`),
      owner: this.#mount(`/proc/${holder.pid}/ns/user`, `${this.workshop.directory}/names/${label}.user`),
    };
  }

  /**
   * Removes the remains of a name.
   *
   * @param name The name.
   */
  forget({ path, owner }: Name): void {
    for (const mounted of [path, owner]) this.#unmount(mounted);
  }

  /**
   * Starts a server in the foreground, and waits until the network is usable.
   *
   * @param server The server.
   * @param served The namespaces to serve.
   * @returns The process.
   * @throws {Error} If it is not installed or does not work.
   */
  async serve(server: Server, served: Served): Promise<Serving> {
    const pidFile = `${this.workshop.directory}/pids/${++this.#counter}`;
    const own = server === "penne"
      ? [...this.penne, "attach", "--ready-fd", "1", ...penneTargets(served)]
      : [...this.pasta, "--foreground", "--pid", pidFile, ...pastaTarget(served)];
    const argv = served.by === "fd" ? ["sh", "-c", PASS_ON, `${served.holder.pid}`, ...own] : own;
    const daemon = this.#start(this.identity.as(argv));
    const caller = served.by === "fd" ? /^\d+\n/ : /^/; // what the caller says before
    const ready = server === "penne"
      ? () => caller.test(daemon.output()) && daemon.output().replace(caller, "") !== ""
      : () => existsFilled(pidFile);
    try {
      await this.#await(daemon, `${server} is ready`, ready);
      const pid = served.by === "fd" ? parseInt(daemon.output()) : daemon.child.pid;
      return new Serving(pid, daemon);
    } catch (error) {
      signalChild(daemon.child, "SIGKILL");
      await daemon.ended;
      throw error;
    } finally {
      await Deno.remove(pidFile).catch(() => {});
    }
  }

  /**
   * Runs a program of the bench to its end, as the current user.
   *
   * @param argv The program and its arguments.
   * @returns Its output.
   */
  async run(argv: readonly string[]): Promise<string> {
    return new TextDecoder().decode(await runTool(argv));
  }

  /** Removes everything. */
  async [Symbol.asyncDispose](): Promise<void> {
    const ended = [...this.#running].map(({ ended }) => ended);
    this.#tidy();
    await Promise.all(ended);
    await this.#lab[Symbol.asyncDispose]();
    this.workshop[Symbol.dispose]();
  }
}

/** A server that is ready. */
export class Serving implements AsyncDisposable {
  /** Its PID. */
  readonly pid: number;
  #daemon: Daemon;
  #over = false;

  /**
   * @param pid Its PID.
   * @param daemon The server, or its parent, which ends with it and with the same exit code.
   */
  constructor(pid: number, daemon: Daemon) {
    this.pid = pid;
    this.#daemon = daemon;
    daemon.ended.then(() => this.#over = true);
  }

  /** Resolves to its exit code when it ends. */
  get ended(): Promise<number> {
    return this.#daemon.ended.then(({ code }) => code);
  }

  /** Ends it if it is still running. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.pid === this.#daemon.child.pid) signalChild(this.#daemon.child, "SIGKILL");
    else if (!this.#over) {
      try {
        Deno.kill(this.pid, "SIGKILL"); // its parent still exists, so this PID cannot have been reused
      } catch {
        // It has ended.
      }
    }
    await this.#daemon.ended;
  }
}

function penneTargets(served: Served): string[] {
  if (served.by === "pid") return [`${served.holder.pid}`];
  return served.by === "fd" ? ["fd:3"] : served.names.map(({ path }) => path);
}

function pastaTarget(served: Served): string[] {
  if (served.by === "pid") return [`${served.holder.pid}`];
  if (served.by === "fd") return ["--userns", `/proc/${served.holder.pid}/ns/user`, "--netns", "/proc/self/fd/3"];
  const [{ path, owner } = { path: "", owner: "" }] = served.names;
  return ["--userns", owner, "--netns", path];
}

function existsFilled(path: string): boolean {
  try {
    return Deno.statSync(path).size > 0;
  } catch {
    return false;
  }
}
