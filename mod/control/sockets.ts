// The control sockets of the namespaces that one penne serves.

import { orNull, SysError } from "../../ffi/core/errno.ts";
import { PenneError } from "../base/errors.ts";
import type { Ledger } from "../flows/ledger.ts";
import type { NamespaceRules } from "../forward/rule_table.ts";
import type { NamespaceId } from "../namespaces/id.ts";
import type { Reactor } from "../reactor/reactor.ts";
import { loadStreams } from "../flows/late.ts";
import { answer, flowsCall } from "./message.ts";
import { ControlPlace, ownPlaces, socketName } from "./place.ts";
import { type ControlAnswers, ControlServer } from "./server.ts";

/** Opens a directory if it can be used; its absence is no problem of a command that is to run. */
function usable(path: string): ControlPlace | null {
  try {
    return ControlPlace.open(path, true);
  } catch (error) {
    if (error instanceof PenneError || error instanceof SysError) return null;
    throw error;
  }
}

/** What answers requests about a namespace. */
function answersFor(tables: NamespaceRules, ledger: Ledger): ControlAnswers {
  return {
    answer: (request) => answer(request, tables),
    stream(request, onMore) {
      const call = flowsCall(request);
      if (!call) return null;
      const follows = call === "flows.follow";
      return {
        follows,
        async open() {
          const { followFlows, listFlows } = await loadStreams();
          return follows ? followFlows(ledger, onMore) : listFlows(ledger);
        },
      };
    },
  };
}

/** Listens for the namespaces of one process. */
export class ControlSockets implements Disposable {
  #place: ControlPlace | null | undefined;
  readonly #servers = new Set<ControlServer>();

  /** @param reactor The loop. */
  constructor(readonly reactor: Reactor) {}

  /**
   * Listens for requests about a namespace, if there is a place for sockets and nobody else does.
   *
   * @param netns The namespace.
   * @param tables Its rules.
   * @param ledger What counts its flows.
   * @returns A function that stops.
   */
  open(netns: NamespaceId, tables: NamespaceRules, ledger: Ledger): () => void {
    if (this.#place === undefined) {
      this.#place = null;
      for (const path of ownPlaces()) this.#place ??= usable(path);
    }
    const place = this.#place;
    if (!place) return () => {};
    const server = orNull(() => new ControlServer(this.reactor, place, socketName(netns), answersFor(tables, ledger)));
    if (!server) return () => {};
    this.#servers.add(server);
    return () => {
      if (this.#servers.delete(server)) server[Symbol.dispose]();
    };
  }

  /** Removes all sockets. */
  [Symbol.dispose](): void {
    for (const server of this.#servers) server[Symbol.dispose]();
    this.#servers.clear();
    this.#place?.[Symbol.dispose]();
    this.#place = null;
  }
}
