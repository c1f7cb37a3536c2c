// The socket by which pesto(1) changes the ports of a running pasta: one client after the other, as they read the tables,
// change them, and write them back. A client that does not answer in time is disconnected.

import { E, SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { AT_FDCWD, S } from "../../ffi/core/consts.ts";
import { cString } from "../../ffi/core/memory.ts";
import { call, self } from "../../ffi/core/task.ts";
import { SOCK } from "../../ffi/net/constants.ts";
import { acceptUnix, connectUnix, listenUnix, peerOf, receive, send } from "../../ffi/net/unix.ts";
import { readLink } from "../../ffi/sys/file.ts";
import { EPOLL } from "../../ffi/sys/epoll.ts";
import { lstat } from "../../ffi/sys/stat.ts";
import { formatRule } from "../forward/rule.ts";
import type { ChangeFailure, RuleTable } from "../forward/rule_table.ts";
import type { Reactor, Registration, Timer } from "../reactor/reactor.ts";
import { decodeUpdate, encodeState, PestoError, SIDE, type Side, type Table, UPDATE_MAX } from "./wire.ts";

/** Milliseconds that a client has to send its tables. */
const PATIENCE = 5000;
/** Milliseconds until connections are accepted again after there was no descriptor. */
const PAUSE = 100;
/** Milliseconds that a probe waits for somebody who listens. */
const PROBE = 200;

/** The tables of each side; null for one that has none. */
export interface PestoTables {
  /** Ports of the host that lead inside. */
  readonly host: RuleTable;
  /** Ports inside that lead to the host. */
  readonly inside: RuleTable | null;
}

/** Removes a socket that nobody listens on; returns whether it did. */
function removeStale(path: string): boolean {
  const file = lstat(path);
  if (!file || (file.mode & S.IFMT) !== S.IFSOCK) return false;
  try {
    connectUnix(SOCK.STREAM, path, PROBE).close();
    return false;
  } catch (error) {
    if (!(error instanceof SysError) || error.code !== "ECONNREFUSED") return false;
    return self.raw("unlinkat", AT_FDCWD, cString(path), 0) === 0;
  }
}

/** A control socket. */
export class PestoSocket implements Disposable {
  /** Where pesto connects to. */
  readonly fd: Fd;
  readonly #path: string;
  readonly #inode: bigint | undefined;

  /**
   * Listens on a path. A socket that nobody listens on is replaced. Only the user of this process may connect.
   *
   * @param path The path.
   * @throws {SysError} EADDRINUSE if another process listens on it, or it is no socket.
   */
  constructor(path: string) {
    try {
      this.fd = listenUnix(SOCK.STREAM, path);
    } catch (error) {
      if (!(error instanceof SysError) || error.code !== "EADDRINUSE" || !removeStale(path)) throw error;
      this.fd = listenUnix(SOCK.STREAM, path);
    }
    // A process in the background changes its directory.
    this.#path = path.startsWith("/") ? path : `${readLink(self, "/proc/self/cwd")}/${path}`;
    this.#inode = lstat(this.#path)?.ino;
  }

  /**
   * Serves pesto from now on.
   *
   * @param reactor The loop.
   * @param tables The rules.
   * @param onProblem Called with what could not be done, a line or more.
   * @returns The server, to be disposed of before this.
   * @throws {SysError} If the socket cannot be watched.
   */
  serve(reactor: Reactor, tables: PestoTables, onProblem: (message: string) => void): Disposable {
    return new PestoServer(reactor, this, tables, onProblem);
  }

  /** Closes it and removes its file, unless that has been replaced. */
  [Symbol.dispose](): void {
    if (lstat(this.#path)?.ino === this.#inode) self.raw("unlinkat", AT_FDCWD, cString(this.#path), 0);
    this.fd.close();
  }
}

/** Why rules are not in force, in pasta's words. */
function describe(failure: ChangeFailure): string {
  switch (failure.kind) {
    case "rule":
      return failure.pasta;
    case "port": {
      const { rule, port, errno } = failure.failed;
      return `Listen failed for ${formatRule(rule).trimEnd()}, port ${port}: ${new SysError("bind", errno).reason}`;
    }
    default:
      return `Unable to add rule ${formatRule(failure.rule)}`;
  }
}

interface Client {
  readonly fd: Fd;
  readonly registration: Registration;
  readonly timer: Timer;
  /** What it has sent so far. */
  readonly bytes: Uint8Array;
  length: number;
}

/** Serves pesto. */
class PestoServer implements Disposable {
  readonly #registration: Registration;
  #client: Client | null = null;
  #resume: Timer | null = null;

  /**
   * @param reactor The loop.
   * @param socket The control socket.
   * @param tables The rules.
   * @param onProblem Called with what could not be done, a line or more.
   * @throws {SysError} If the socket cannot be watched.
   */
  constructor(
    readonly reactor: Reactor,
    readonly socket: PestoSocket,
    readonly tables: PestoTables,
    readonly onProblem: (message: string) => void,
  ) {
    this.#registration = reactor.watch(socket.fd, EPOLL.IN, () => this.#accept(), "control socket");
  }

  #side(id: number, name: string, table: RuleTable | null): Side {
    const { limits } = table ?? this.tables.host;
    const rules = table ? table.served.map(({ rule }) => rule) : [];
    return { id, name, limits, follows: table?.follows ?? false, rules };
  }

  #accept(): void {
    const fd = acceptUnix(this.socket.fd);
    if (typeof fd === "number") {
      if (fd === -E.EMFILE || fd === -E.ENFILE || fd === -E.ENOMEM) this.#pause();
      return;
    }
    const { uid } = peerOf(fd);
    const { host, inside } = this.tables;
    const state = encodeState([this.#side(SIDE.HOST, "HOST", host), this.#side(SIDE.SPLICE, "SPLICE", inside)]);
    if (uid !== 0 && uid !== call(self, "geteuid") || send(fd, state) !== state.length) return fd.close();
    // The next one is to see what this one changes.
    this.#registration.change(0);
    this.#client = {
      fd,
      registration: this.reactor.watch(fd, EPOLL.IN, () => this.#read(), "control socket"),
      timer: this.reactor.after(PATIENCE, () => this.#finish()),
      bytes: new Uint8Array(UPDATE_MAX),
      length: 0,
    };
  }

  #pause(): void {
    this.#registration.change(0);
    this.#resume = this.reactor.after(PAUSE, () => {
      this.#resume = null;
      this.#registration.change(EPOLL.IN);
    });
  }

  #read(): void {
    const client = this.#client!;
    const n = receive(client.fd, client.bytes.subarray(client.length));
    if (n === -E.EAGAIN || n === -E.EINTR) return;
    if (n <= 0) return this.#finish(); // it has looked only, or is too long
    client.length += n;
    try {
      const update = decodeUpdate(client.bytes.subarray(0, client.length));
      if (!update) return;
      this.#apply(update);
    } catch (error) {
      if (!(error instanceof PestoError)) throw error;
      this.onProblem(`The client of the control socket sends what has no meaning: ${error.message}`);
    }
    this.#finish();
  }

  #apply(update: readonly Table[]): void {
    const { host, inside } = this.tables;
    const of = (id: number) => id === SIDE.HOST ? host : id === SIDE.SPLICE ? inside : undefined;
    if (update.some(({ id }) => of(id) === undefined)) throw new PestoError("there is no such table");
    for (const { id, rules } of update) {
      const table = of(id);
      if (!table && rules.length > 0) this.onProblem("No port inside leads to the host");
      for (const failure of table?.replace(rules) ?? []) this.onProblem(describe(failure));
    }
  }

  /** Disconnects the client, and lets the next one in. */
  #finish(): void {
    const client = this.#client;
    if (!client) return;
    this.#client = null;
    client.timer.cancel();
    client.registration.remove();
    client.fd.close();
    this.#registration.change(EPOLL.IN);
  }

  /** Disconnects the client, and lets nobody in any more; the socket stays open. */
  [Symbol.dispose](): void {
    this.#resume?.cancel();
    const client = this.#client;
    this.#client = null;
    client?.timer.cancel();
    client?.registration.remove();
    client?.fd.close();
    this.#registration.remove();
  }
}
