// Serves taps in a Worker, for programs with an event loop of their own.
//
// The Worker shares the descriptors of the process, so a tap is handed over by number. The Worker waits in epoll(7), not
// for messages, so commands reach it through a pipe; closing the pipe ends it. Its reports are messages, for which this
// side need not wait. What has to be closed when a function returns is waited for in shared memory: a port of the host that
// is still open is not to be had for the next command.

import { Fd } from "../../../ffi/core/fd.ts";
import { F } from "../../../ffi/core/consts.ts";
import { E, SysError } from "../../../ffi/core/errno.ts";
import { keepProgramForWorker } from "../../../ffi/core/pending.ts";
import { shim } from "../../../ffi/core/shim.ts";
import { pipe, readAll, write } from "../../../ffi/sys/file.ts";
import { self } from "../../../ffi/core/task.ts";
import type { ReachRequest } from "../../network/reach.ts";
import type { TapLink } from "../../network/tap_link.ts";
import { Progress } from "./progress.ts";
import { type Command, decodeCommand, encodeCommand, type Report, type Start } from "./protocol.ts";
import { endAgents } from "../../agents/enclosure.ts";
import { PenneError } from "../../base/errors.ts";
import type { Reply, Request } from "../../control/message.ts";
import { portError } from "../../forward/open.ts";
import { type FailedPort, type Forwarding, NO_PORTS, openPorts } from "../../forward/ports.ts";
import type { NamespaceId } from "../../namespaces/id.ts";
import { makerBy } from "../splice/inside.ts";
import type { Held, KnownNamespace, ServedPlan, TapServer } from "./reactor_server.ts";
import { receiveForwarding, receiveHeld, sendForwarding, sendHeld } from "./sent_ports.ts";

/** The command to serve a namespace. */
type Serve = Extract<Command, { readonly serve: number }>;

/** The code of the Worker. */
const WORKER = new URL("./worker.ts", import.meta.url);

/** The directories of all code that it loads, and the one above both. */
const [CODE, ROOT] = [["../../", "../../../ffi/"].map(here), here("../../../")];

/** Milliseconds that the Worker gets to close what it serves, should it be busy, and an agent inside that does not answer. */
const CLOSE_TIMEOUT = 5000;

function here(path: string): URL {
  return new URL(path, import.meta.url);
}

/**
 * Has Deno ask for the permissions that a Worker takes, or refuse, before anything is made: a Worker that cannot be loaded
 * would say so when it is too late.
 *
 * @throws {Deno.errors.NotCapable} If one is missing.
 */
export function checkPermissions(): void {
  shim();
  const mayRead = (path: URL) => Deno.permissions.querySync({ name: "read", path }).state === "granted";
  if (WORKER.protocol !== "file:" || CODE.every(mayRead)) return;
  try {
    Deno.statSync(ROOT);
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
  }
}

/** The part of a plan that is sent. */
function servedPart({ outside, peerMac, families, mtu, configure }: ServedPlan): ServedPlan {
  return { outside, peerMac, families, mtu, configure };
}

/** A Worker that serves, and what leads to it. */
interface Running {
  /** The Worker. */
  readonly worker: Worker;
  /** The end of its pipe that commands are written to. */
  readonly writer: Fd;
  /** The number of the other end, which belongs to the thread that takes the commands. */
  readonly reader: number;
  /** How far it has come. */
  readonly progress: Progress;
}

/** Closes what a command names that no Worker takes. */
function discard(command: Command): void {
  if (!("serve" in command)) return;
  const { link, ports, held } = command;
  if (link) new Fd(link.tap).close();
  if (ports) {
    const { open, opened = [] } = receiveForwarding(ports);
    for (const port of [...open, ...opened]) port[Symbol.dispose]();
  }
  if (held) endAgents([receiveHeld(held).agent]);
}

/** Closes what commands name that the Worker has not taken. */
function takeBack(reader: Fd): void {
  const lines = new TextDecoder().decode(readAll(reader)).split("\n").filter((line) => line !== "");
  reader.close();
  for (const line of lines) discard(decodeCommand(line));
}

/** Namespaces that Workers of this program are about to serve, by their inode number. */
const beginning = new Map<number, PromiseWithResolvers<void>>();

/**
 * Waits until a Worker of this program that is about to serve a namespace does so.
 *
 * @param netns The namespace.
 */
export async function served({ inum }: NamespaceId): Promise<void> {
  await beginning.get(inum)?.promise;
}

/** Lets those go on who wait for a namespace to be served, or not. */
function settle(inum: number): void {
  beginning.get(inum)?.resolve();
  beginning.delete(inum);
}

/** Serves taps in a Worker, which is started with the first tap. */
export class WorkerServer implements TapServer {
  #reach: ReachRequest;
  readonly #tapsStay: boolean;
  #onWarning: (message: string) => void;
  #running: Running | null = null;
  /** Commands that were sent. */
  #sent = 0;
  #keeps = true;
  #next = 1;
  #onDead = new Map<number, () => void>();
  #waiting = new Map<number, () => void>();
  readonly #asked = new Map<number, (reply: Reply | null) => void>();
  /** What namespaces are called in commands, by their inode number. */
  readonly #ids = new Map<number, number>();
  /** Ports for the first namespace. */
  #ports: Forwarding;

  /**
   * @param reach What the namespaces reach.
   * @param onWarning Called with problems that are not worth failing for.
   * @param ports Ports of the first namespace that is served; closed with it, or with this.
   * @param tapsStay Whether the caller closes its taps after this has stopped serving them, which removes the interfaces. If it
   * has closed them by then, interfaces are removed when nobody waits any more.
   */
  constructor(
    reach: ReachRequest,
    onWarning: (message: string) => void = () => {},
    ports: Forwarding = NO_PORTS,
    tapsStay = false,
  ) {
    this.#tapsStay = tapsStay;
    this.#reach = reach;
    this.#onWarning = onWarning;
    this.#ports = ports;
  }

  #start(): Running {
    const [theirs, writer] = pipe();
    // The Worker keeps the program alive until it has ended, unless it is told otherwise.
    const worker = new Worker(WORKER, { type: "module" });
    if (!this.#keeps) keepProgramForWorker(worker, false);
    const reader = theirs.release();
    const running: Running = { worker, writer, reader, progress: new Progress() };
    worker.onmessage = ({ data }: MessageEvent<Report>) => {
      if ("dead" in data) this.#onDead.get(data.dead)?.();
      else if ("done" in data) this.#waiting.get(data.done)?.();
      else if ("serving" in data) this.#settle(data.serving);
      else if ("answered" in data) this.#asked.get(data.answered)?.(data.reply);
      else this.#onWarning(data.warning);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      this.#onWarning(`the network has failed: ${event.message}`);
      // Nobody reads commands any more, so who asks later must not wait, and a stop must not start another Worker.
      if (this.#running === running) {
        this.#onDead.clear();
        this.#end();
      }
      this.#giveUp();
    };
    const { memory } = running.progress;
    const start: Start = { commands: reader, reach: this.#reach, tapsStay: this.#tapsStay, progress: memory };
    worker.postMessage(start);
    return this.#running = running;
  }

  /** Ends the Worker, and closes what it serves. */
  #end(): void {
    const running = this.#running;
    if (!running) return;
    this.#running = null;
    const { writer, reader, progress } = running;
    const serves = this.#onDead.size > 0;
    this.#onDead.clear();
    for (const inum of this.#ids.keys()) settle(inum);
    this.#ids.clear();
    writer.close();
    if (progress.take()) takeBack(new Fd(reader));
    else if (serves) progress.waitForEnd(CLOSE_TIMEOUT);
  }

  /**
   * Says whether the program is not to exit while the Worker serves.
   *
   * @param keeps Whether it is kept; it is by default.
   */
  keepProgram(keeps: boolean): void {
    this.#keeps = keeps;
    if (this.#running) keepProgramForWorker(this.#running.worker, keeps);
  }

  #send(command: Command): Running {
    const running = this.#running ?? this.#start();
    try {
      write(running.writer, encodeCommand(command));
    } catch (error) {
      // The Worker has failed, which its `error` event is about to say.
      if (!(error instanceof SysError && error.errno === E.EPIPE)) throw error;
      discard(command);
    }
    this.#sent++;
    return running;
  }

  serve(
    link: TapLink | null,
    plan: ServedPlan | null,
    onDead: () => void,
    { netns, held, followed }: KnownNamespace = {},
  ): () => void {
    const ports = this.#openInside(held ?? null);
    const id = this.#next++;
    this.#onDead.set(id, onDead);
    let command: Serve = {
      ...{ serve: id, link: null, netns },
      plan: plan && servedPart(plan),
      ...followed && followed.request.follow !== false && { followed },
      ...ports !== NO_PORTS && { ports: sendForwarding(ports) },
      ...held && { held: sendHeld(held) },
    };
    try {
      if (link) {
        // A duplicate, which the Worker closes when it gets to it.
        const tap = self.open("fcntl", link.tap, F.DUPFD_CLOEXEC, 3).release();
        command = { ...command, link: { ...link, tap } };
      }
      this.#send(command);
    } catch (error) {
      discard(command);
      this.#onDead.delete(id);
      throw error;
    }
    // Not before: who waits for a namespace whose command could not be sent would wait for ever.
    if (netns) {
      this.#ids.set(netns.inum, id);
      if (!beginning.has(netns.inum)) beginning.set(netns.inum, Promise.withResolvers());
    }
    return () => {
      this.#forget(id, netns);
      if (this.#onDead.delete(id)) this.#send({ stop: id }).progress.wait(this.#sent, CLOSE_TIMEOUT);
    };
  }

  /** Notes that a namespace is not served, or no longer. */
  #forget(id: number, netns: NamespaceId | undefined): void {
    if (!netns || this.#ids.get(netns.inum) !== id) return;
    settle(netns.inum);
    this.#ids.delete(netns.inum);
  }

  /** Notes that the namespace of a number is served. */
  #settle(id: number): void {
    for (const [inum, of] of this.#ids) if (of === id) settle(inum);
  }

  /** Takes the ports of the first namespace, with those inside opened, so that it is known at once whether they can be. */
  #openInside(held: Held | null): Forwarding {
    const ports = this.#ports;
    const { outward = [] } = ports;
    const wanted = outward.filter(({ scan }) => !scan);
    let failed: FailedPort | null = null;
    const maker = held && makerBy(held.agent);
    const opened = maker && openPorts(wanted, false, (port) => void (failed = port), ports.open.length, maker);
    if (maker && !opened) {
      endAgents([held.agent]);
      throw portError(failed!, true);
    }
    this.#ports = NO_PORTS;
    return opened?.length ? { ...ports, outward: outward.filter(({ scan }) => scan), opened } : ports;
  }

  /**
   * Has a request about the ports of a namespace carried out.
   *
   * @param netns The namespace.
   * @param request The request.
   * @returns The reply.
   * @throws {PenneError} If it is not served any longer.
   */
  async ask({ inum }: NamespaceId, request: Request): Promise<Reply> {
    const of = this.#ids.get(inum);
    const id = this.#next++;
    const { promise, resolve } = Promise.withResolvers<Reply | null>();
    this.#asked.set(id, resolve);
    if (of !== undefined && this.#running) this.#send({ ask: id, of, request });
    else resolve(null);
    const reply = await promise;
    this.#asked.delete(id);
    if (!reply) throw new PenneError("ask about ports: the namespace is not served any longer");
    return reply;
  }

  /** Lets those go on who wait for the Worker. */
  #giveUp(): void {
    for (const done of this.#waiting.values()) done();
    for (const answer of this.#asked.values()) answer(null);
  }

  /** Passes on what was sent before the last process ended, and serves nothing any longer; resolves when that is done. */
  async finish(): Promise<void> {
    if (!this.#running) return;
    const id = this.#next++;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.set(id, resolve);
    this.#send({ finish: id });
    await promise;
    this.#waiting.delete(id);
    this.#onDead.clear();
    this.#ids.clear();
  }

  /** Ends the Worker, and waits until it has closed its taps and ports. */
  [Symbol.dispose](): void {
    this.#end();
    this.#giveUp();
    for (const port of this.#ports.open) port[Symbol.dispose]();
    this.#ports = NO_PORTS;
  }
}
