// A host, its peer and a served namespace, with sockets in each that join groups, send and receive.

import { assertEquals } from "@std/assert";
import { until } from "../lib/helpers.ts";
import type { Daemon, NetLab } from "../lib/netlab.ts";
import { PATIENCE } from "../lib/patience.ts";
import { FollowLab, NEEDS as FOLLOW_NEEDS, type Served } from "../cli/follow/lab.ts";

/** Programs that these tests need. */
export const NEEDS = [...FOLLOW_NEEDS, "package:python3"] as const;

/** What was received: the text, the sender's address and port, and the time to live. */
export type Received = [string, string, number, number | null];

/** The ways to serve a namespace. */
export const WAYS: Record<string, (follow: FollowLab) => Promise<Served>> = {
  "penne run of a user": (follow) => follow.run(false),
  "penne run of root": (follow) => follow.run(true),
  "penne attach of a user": (follow) => follow.attach(false, "pid"),
  "penne attach of root": (follow) => follow.attach(true, "fd"),
  "pasta of a user": (follow) => follow.pasta(false, "command"),
  "pasta of root": (follow) => follow.pasta(true, "pid"),
};

/**
 * The families, with a group of each that is not of the link, and an address of the host and the peer. That is not the
 * gateway's, which may stand for the host's loopback.
 */
export const FAMILIES = [
  { family: 4, group: "239.77.1.2", host: "192.0.2.2", peer: "192.0.2.7" },
  { family: 6, group: "ff05::77:1", host: "2001:db8::2", peer: "2001:db8::7" },
] as const;

/** A program with sockets in a namespace. */
export class Sockets {
  #answers = 0;

  private constructor(readonly daemon: Daemon, readonly device: string) {}

  /**
   * Starts it.
   *
   * @param lab What ends it.
   * @param where A command line that runs another one in the namespace.
   * @param device Name of the interface there.
   */
  static start(lab: NetLab, where: (argv: string[]) => string[], device: string): Sockets {
    const argv = where(["python3", `${import.meta.dirname}/sockets.py`]);
    const daemon = lab.start(argv, { stdin: "piped" });
    lab.defer(() => daemon.child.stdin.close().catch(() => {})); // it has ended by then
    return new Sockets(daemon, device);
  }

  /** Has it carry out a command; returns what it says. */
  async #do(...command: unknown[]): Promise<{ is?: unknown; error?: number }> {
    const { child, output, errors } = this.daemon;
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(`${JSON.stringify(command)}\n`));
    writer.releaseLock();
    const place = this.#answers++;
    let answer: string | undefined;
    await until(
      `${command} is answered: ${errors()}`,
      () => (answer = output().split("\n").slice(0, -1)[place]) !== undefined,
    );
    return JSON.parse(answer!);
  }

  /** As {@linkcode Sockets.try}, for what must succeed. */
  async do(...command: unknown[]): Promise<unknown> {
    const { is, error } = await this.#do(...command);
    if (error !== undefined) throw new Error(`${command}: error ${error}`);
    return is;
  }

  /** Carries out a command; returns its error number, or 0. */
  async try(...command: unknown[]): Promise<number> {
    return (await this.#do(...command)).error ?? 0;
  }

  /** Opens a socket that shares its port. */
  async open(name: string, family: number, reuse: boolean = true): Promise<void> {
    await this.do("open", name, family, reuse ? 1 : 0);
  }

  /** Binds a socket to all addresses, or a given one; returns its port. */
  async bind(
    name: string,
    family: number,
    port: number,
    host: string = family === 4 ? "0.0.0.0" : "::",
  ): Promise<number> {
    return await this.do("bind", name, host, port, this.device) as number;
  }

  /** Joins a group, of one source or any. */
  async join(name: string, group: string, ...source: string[]): Promise<void> {
    await this.do("join", name, this.device, group, ...source);
  }

  /** Leaves a group. */
  async leave(name: string, group: string, ...source: string[]): Promise<void> {
    await this.do("leave", name, this.device, group, ...source);
  }

  /** Sends a text; returns the port of the socket. */
  async send(name: string, host: string, port: number, text: string, hops: number = 0): Promise<number> {
    return await this.do("send", name, host, port, this.device, text, hops) as number;
  }

  /** What a socket has received. */
  async received(name: string): Promise<Received[]> {
    return await this.do("received", name) as Received[];
  }

  /** Texts that a socket has received. */
  async texts(name: string): Promise<string[]> {
    return (await this.received(name)).map(([text]) => text);
  }

  /** Waits until a socket has received a text. */
  async untilText(name: string, text: string): Promise<void> {
    await untilAsync(`${name} gets ${text}`, async () => (await this.texts(name)).includes(text));
  }
}

/** The namespaces. */
export class GroupLab implements AsyncDisposable {
  #serial = 0;

  private constructor(
    readonly follow: FollowLab,
    readonly served: Served,
    readonly inside: Sockets,
    readonly host: Sockets,
    readonly peer: Sockets,
  ) {}

  /** Makes them, served in some way. */
  static async open(serve: (follow: FollowLab) => Promise<Served>): Promise<GroupLab> {
    const follow = await FollowLab.open();
    try {
      const { lab } = follow;
      for (const { family, peer } of FAMILIES) {
        const [length, ...rest] = family === 4 ? [24] : [64, "nodad"];
        await lab.ip(lab.peer, "addr", "add", `${peer}/${length}`, "dev", "down0", ...rest as string[]);
      }
      const served = await serve(follow);
      const host = Sockets.start(lab, (argv) => lab.in(lab.host, argv), "up0");
      const peer = Sockets.start(lab, (argv) => lab.in(lab.peer, argv), "down0");
      return new GroupLab(follow, served, await socketsIn(follow, served), host, peer);
    } catch (error) {
      await follow[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** The groups of an interface. */
  async groups(netns: string, device: string): Promise<string> {
    return await this.follow.lab.ip(netns, "maddr", "show", "dev", device);
  }

  /** Waits until the host is a member of a group, or is none any more. */
  async untilMember(group: string, isMember: boolean = true): Promise<void> {
    await untilAsync(
      `the host ${isMember ? "joins" : "leaves"} ${group}`,
      async () => (await this.groups(this.follow.lab.host, "up0")).includes(` ${group}\n`) === isMember,
    );
  }

  /** Sends texts from the peer until one has come in: what was joined a moment ago may miss the first. */
  async reach(
    family: number,
    group: string,
    port: number,
    name: string,
    inside: Sockets = this.inside,
  ): Promise<Received> {
    const sender = `sender${family}`;
    await this.#sender(sender, family);
    let found: Received | undefined;
    await untilAsync(`${group} at ${port} comes in: ${this.served.daemon.errors()}`, async () => {
      const text = `reach ${this.#serial++}`;
      await this.peer.send(sender, group, port, text);
      found = (await inside.received(name)).find(([one]) => one.startsWith("reach"));
      return found !== undefined;
    });
    return found!;
  }

  readonly #senders = new Set<string>();

  async #sender(name: string, family: number): Promise<void> {
    if (this.#senders.has(name)) return;
    this.#senders.add(name);
    await this.peer.open(name, family);
    await this.peer.bind(name, family, 0, FAMILIES.find((one) => one.family === family)!.peer);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.follow[Symbol.asyncDispose]();
  }
}

/** Sockets in a served namespace. */
export async function socketsIn(follow: FollowLab, served: Served): Promise<Sockets> {
  const name = await follow.name(served);
  return Sockets.start(follow.lab, (argv) => follow.inside(served, argv), name);
}

/** As `until`, for a condition that takes time. */
export async function untilAsync(what: string, condition: () => Promise<boolean>): Promise<void> {
  const end = Date.now() + 120_000 * PATIENCE;
  while (!await condition()) {
    if (Date.now() > end) throw new Error(`still not: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Fails if a text was not received exactly once. */
export async function assertOnce(sockets: Sockets, name: string, text: string): Promise<void> {
  const texts = await sockets.texts(name);
  assertEquals(texts.filter((one) => one === text).length, 1, `${name} got ${texts}`);
}
