// Network namespaces for tests: a "host" joined by a veth pair to a "peer", and namespaces to attach to.

import { asUser, type How, penne, type Result, sh, until } from "./helpers.ts";

let counter = 0;

/** Runs a command line to its end, and fails the test if that fails. */
export async function must(argv: string[], how: How = {}): Promise<string> {
  const { code, stdout, stderr } = await sh(argv, how);
  if (code !== 0) throw new Error(`${argv.join(" ")}: exit ${code}: ${stderr}`);
  return stdout;
}

/** A background process that ends with the test. */
export interface Daemon {
  readonly child: Deno.ChildProcess;
  /** Its stdout so far. */
  readonly output: () => string;
  /** Its stderr so far. */
  readonly errors: () => string;
  /** Resolves when it ends. */
  readonly ended: Promise<Deno.CommandStatus>;
}

/** Waits until a command line that other programs execute, unshare(1) and setpriv(1), has become its program. */
export async function becomes({ child }: Daemon, program: string): Promise<void> {
  await until(`it is ${program}`, () => Deno.readTextFileSync(`/proc/${child.pid}/comm`) === `${program}\n`);
}

/** Waits until something in the network namespace of a process has a port: listens on one of TCP, or has bound one of UDP. */
export async function hasPort({ child }: Daemon, protocol: "tcp" | "tcp6" | "udp", port: number): Promise<void> {
  const pattern = new RegExp(`:${port.toString(16).toUpperCase().padStart(4, "0")} \\S+:0000 0[A7] `);
  await until(
    `${protocol} port ${port} is there`,
    () => pattern.test(Deno.readTextFileSync(`/proc/${child.pid}/net/${protocol}`)),
  );
}

/** Namespaces, and processes in them, that are removed at the end of a test. */
export class NetLab implements AsyncDisposable {
  #names: string[] = [];
  /** The processes, in order of their start. */
  readonly daemons: Daemon[] = [];
  #readers: ReadableStreamDefaultReader<Uint8Array>[] = [];
  #cleanups: (() => void | Promise<void>)[] = [];
  /** Name of the namespace that plays the host. */
  host = "";
  /** Name of the namespace at the other end of the host's first uplink. */
  peer = "";

  /** A host and a peer, joined by `up0` and `down0`; loopback is up in both. */
  static async open(): Promise<NetLab> {
    const lab = new NetLab();
    try {
      lab.host = await lab.netns("host");
      lab.peer = await lab.netns("peer");
      await lab.ip(lab.host, "link", "add", "up0", "type", "veth", "peer", "name", "down0", "netns", lab.peer);
      for (const [netns, device] of [[lab.host, "up0"], [lab.peer, "down0"]] as const) {
        await lab.ip(netns, "link", "set", "lo", "up");
        await lab.ip(netns, "link", "set", device, "up");
      }
      return lab;
    } catch (error) {
      await lab[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Makes a network namespace and returns its full name. */
  async netns(label: string): Promise<string> {
    const name = `penne-${Deno.pid}-${++counter}-${label}`;
    await must(["ip", "netns", "add", name]);
    this.#names.push(name);
    return name;
  }

  /** Runs `ip` in a namespace. */
  async ip(netns: string, ...args: string[]): Promise<string> {
    return await must(["ip", "-n", netns, ...args]);
  }

  /** What `ip -j` says in a namespace. */
  // deno-lint-ignore no-explicit-any -- as iproute2 has it
  async json(netns: string, ...args: string[]): Promise<any[]> {
    const text = await must(["ip", "-n", netns, "-j", ...args]);
    return text.trim() ? JSON.parse(text) : [];
  }

  /** Gives the host an address of each family, and default routes through the peer. */
  async usual(): Promise<void> {
    const { host, peer } = this;
    for (const [netns, device, last] of [[host, "up0", 2], [peer, "down0", 1]] as const) {
      await this.ip(netns, "addr", "add", `192.0.2.${last}/24`, "dev", device);
      await this.ip(netns, "addr", "add", `2001:db8::${last}/64`, "dev", device, "nodad");
    }
    await this.ip(host, "route", "add", "default", "via", "192.0.2.1");
    await this.ip(host, "route", "add", "default", "via", "2001:db8::1");
  }

  /** A command line that runs in a network namespace and the caller's mount namespace. */
  in(netns: string, argv: string[]): string[] {
    return ["nsenter", `--net=/run/netns/${netns}`, "--", ...argv];
  }

  /** Runs a command line in a namespace to its end. */
  async run(netns: string, argv: string[], how: How = {}): Promise<Result> {
    return await sh(this.in(netns, how.user ? asUser(argv) : argv), { ...how, user: false });
  }

  /** Starts a command line in the background. */
  start(argv: string[], options: Deno.CommandOptions = {}): Daemon {
    const [program, ...args] = argv;
    const child = new Deno.Command(program!, { args, stdin: "null", stdout: "piped", stderr: "piped", ...options })
      .spawn();
    const read = (stream: "stdout" | "stderr") => {
      if (options[stream] && options[stream] !== "piped") return { text: "", done: Promise.resolve() };
      const state = { text: "", done: Promise.resolve() };
      const reader = child[stream].getReader();
      this.#readers.push(reader);
      state.done = (async () => {
        const decoder = new TextDecoder();
        for (let part; !(part = await reader.read()).done;) state.text += decoder.decode(part.value, { stream: true });
      })();
      return state;
    };
    const [out, err] = [read("stdout"), read("stderr")];
    const ended = (async () => {
      const status = await child.status;
      await Promise.all([out.done, err.done]);
      return status;
    })();
    const daemon = { child, output: () => out.text, errors: () => err.text, ended };
    this.daemons.push(daemon);
    return daemon;
  }

  /** Starts `penne attach` on the host, and waits until it is ready. */
  async attach(args: string[], { user = false, netns = this.host } = {}): Promise<Daemon> {
    const argv = [penne(), "attach", "--status-fd", "1", ...args];
    const daemon = this.start(this.in(netns, user ? asUser(argv) : argv), { cwd: "/" });
    let over = false;
    daemon.ended.then(() => over = true);
    await until("penne is ready", () => over || daemon.output().includes('"event":"ready"'));
    if (over) throw new Error(`penne ${args.join(" ")} ended: ${daemon.errors()}`);
    return daemon;
  }

  /** Registers a function to call at the end. */
  defer(cleanup: () => void | Promise<void>): void {
    this.#cleanups.push(cleanup);
  }

  /** Ends the processes, then removes the namespaces. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const { child } of this.daemons) {
      try {
        child.kill("SIGKILL");
      } catch {
        // It has ended.
      }
    }
    await Promise.all(this.daemons.map(({ child }) => child.status));
    // Their descendants may still be alive and hold their pipes.
    await Promise.all(this.#readers.map((reader) => reader.cancel()));
    for (const cleanup of this.#cleanups.reverse()) await cleanup();
    for (const name of this.#names) {
      await sh(["ip", "netns", "del", name]);
      await Deno.remove(`/run/netns/${name}`).catch(() => {});
    }
  }
}
