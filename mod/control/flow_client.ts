// Asks a running penne for the flows of a namespace, and reads what it says of them.

import { receivePacket } from "../../ffi/agent/channel.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { readAll } from "../../ffi/sys/file.ts";
import { PenneError } from "../base/errors.ts";
import type { FlowDestination, FlowList, FlowRecord } from "../flows/contract.ts";
import type { ListLine } from "../flows/stream.ts";
import type { NamespaceId } from "../namespaces/id.ts";
import { converse } from "./client.ts";
import { notServed } from "./failure.ts";
import type { FlowsRequest } from "./message.ts";

/** Bytes of a packet at most: a piece may exceed its size by a line. */
const PACKET_MAX = 256 * 1024;
/** Bytes of a pipe that comes with the last packet at most. */
const PIPE_MAX = 4 << 20;

/** A namespace, as the user calls it and as it is. */
export interface FlowTarget {
  readonly text: string;
  readonly id: NamespaceId;
  readonly owner: number | null;
}

/** What a penne says of flows. */
export class FlowReader implements Disposable {
  readonly #buffer = new Uint8Array(PACKET_MAX);
  readonly #decoder = new TextDecoder();

  private constructor(readonly socket: Fd) {}

  /**
   * Asks the penne that serves a namespace.
   *
   * @param target The namespace.
   * @param call What for.
   * @returns What reads its answer.
   * @throws {PenneError} If there is none, or it refuses.
   */
  static open({ text, id, owner }: FlowTarget, call: FlowsRequest["call"]): FlowReader {
    const found = converse(id, owner, { call });
    if (!found) throw notServed(text);
    const { reply, socket } = found;
    if (reply.ok) return new FlowReader(socket);
    socket.close();
    const { error } = reply;
    const reason = "reason" in error ? error.reason : error.kind;
    throw new PenneError(`ask for the flows of "${text}": penne refuses the request: ${reason}`);
  }

  /**
   * The next lines, decoded; it waits for them.
   *
   * @returns The lines; null at the end.
   * @throws {PenneError} If that penne says nothing for 10 seconds, or nothing that has a meaning.
   */
  next(): unknown[] | null {
    const received = receivePacket(this.socket, true, Infinity, this.#buffer);
    if (received === "ended") return null;
    if (received === "late") throw new PenneError("read flows: penne does nothing for 10 seconds: it may be stopped");
    try {
      if (received === "malformed") throw new SyntaxError();
      using pipe = received.fd;
      const text = this.#decoder.decode(pipe ? readAll(pipe, PIPE_MAX) : received.packet);
      return text.split("\n").filter((line) => line !== "").map((line) => JSON.parse(line));
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      throw new PenneError("read flows: the answer of penne has no meaning here; is it of another version?");
    }
  }

  /** Closes the connection. */
  [Symbol.dispose](): void {
    this.socket.close();
  }
}

/** Puts a list together. */
export class FlowListMaker {
  readonly #flows: FlowRecord[] = [];
  readonly #destinations: FlowDestination[] = [];

  /**
   * Takes lines.
   *
   * @param lines What {@linkcode FlowReader.next} has returned.
   * @returns The list, if it is whole now.
   * @throws {PenneError} If that penne has ended before the list was whole.
   */
  take(lines: unknown[] | null): FlowList | null {
    if (lines === null) {
      throw new PenneError("read flows: that penne has ended, or had no room, before it had told all");
    }
    for (const line of lines as ListLine[]) {
      if ("flow" in line) this.#flows.push(line.flow);
      else if ("destination" in line) this.#destinations.push(line.destination);
      else if ("end" in line) {
        return { time: line.end.time, flows: this.#flows, destinations: this.#destinations, other: line.end.other };
      }
    }
    return null;
  }
}
