// Talks to a running pasta: reads the tables of its control socket, and writes new ones.

import { E, SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { SOCK } from "../../ffi/net/constants.ts";
import { connectUnix, receive, send } from "../../ffi/net/unix.ts";
import { decodeState, encodeUpdate, PestoError, type Side, STATE_MAX, type Table } from "./wire.ts";

/** Milliseconds that each call waits at most: pasta talks to one client after the other. */
const PATIENCE = 10_000;

/** A connection to a running pasta. */
export class PestoClient implements Disposable {
  readonly #socket: Fd;

  /**
   * Connects.
   *
   * @param path The control socket.
   * @throws {SysError} If nobody listens there, or accepts in time.
   */
  constructor(path: string) {
    this.#socket = connectUnix(SOCK.STREAM, path, PATIENCE);
  }

  /**
   * Reads the tables.
   *
   * @returns The sides and their rules.
   * @throws {SysError} If they do not come in time.
   * @throws {PestoError} If the other end speaks another protocol.
   */
  read(): Side[] {
    const bytes = new Uint8Array(STATE_MAX);
    let length = 0;
    for (;;) {
      const n = receive(this.#socket, bytes.subarray(length));
      if (n === -E.EINTR) continue;
      if (n < 0) throw new SysError("recvfrom", -n);
      if (n === 0) throw new PestoError(length === 0 ? "it lets nobody in" : "it ends in the middle");
      length += n;
      const state = decodeState(bytes.subarray(0, length));
      if (state) return state;
    }
  }

  /**
   * Writes new tables, which take the place of all that there are.
   *
   * @param tables The tables.
   * @throws {SysError} If they are not taken.
   */
  write(tables: readonly Table[]): void {
    const bytes = encodeUpdate(tables);
    for (let at = 0; at < bytes.length;) {
      const n = send(this.#socket, bytes.subarray(at));
      if (n === -E.EINTR) continue;
      if (n < 0) throw new SysError("sendto", -n);
      at += n;
    }
  }

  /** Disconnects. */
  [Symbol.dispose](): void {
    this.#socket.close();
  }
}
