// The events that a recording has as they were, since they do not follow from the state; checked.

import { NAMESPACE_TYPES } from "../../namespaces/types.ts";
import { FACT_KINDS } from "../facts/contract.ts";
import type { ExistingNamespace, Refusal, WatchEvent } from "../facts/watch_event.ts";
import { Members, refuse } from "./members.ts";

/** The back ends, the best one first. */
export const BACKENDS = ["ebpf", "proc", "poll"] as const;
const FIDELITIES = ["exact", "inferred", "unseen"] as const;
const KINDS = ["capabilities", "lost", "resync", "namespace", "summary"] as const;

type Sights = (WatchEvent & { event: "capabilities" })["sights"];

/** In the order of the file, so that they are written in the same one again. */
function sightsOf(members: Members): Sights {
  const named: readonly string[] = [...FACT_KINDS, "failed", "birth", "death", "name"];
  for (const name of named) members.get(name);
  const types = new Members(members.get("ns"));
  const ofTypes = Object.fromEntries(NAMESPACE_TYPES.map((type) => [type, types.word(type, FIDELITIES)]));
  const inOrder = members.names().filter((name) => named.includes(name));
  return Object.fromEntries(
    inOrder.map((name) => [name, name === "ns" ? ofTypes : members.word(name, FIDELITIES)]),
  ) as unknown as Sights;
}

function refusalOf(value: unknown): Refusal {
  const members = new Members(value);
  return {
    backend: members.word("backend", BACKENDS),
    reason: members.text("reason"),
    errno: members.orNull(members.name, "errno"),
    hints: members.list("hints", (hint) => typeof hint === "string" ? hint : refuse('"hints"')),
  };
}

function mapsOf(this: Members, name: string): NonNullable<ExistingNamespace["maps"]> {
  const maps = new Members(this.get(name));
  const range = (value: unknown) => {
    const one = new Members(value);
    return { inside: one.whole("inside"), outside: one.whole("outside"), count: one.whole("count") };
  };
  return { users: maps.list("users", range), groups: maps.list("groups", range) };
}

function existing(members: Members): ExistingNamespace {
  return {
    type: members.word("type", NAMESPACE_TYPES),
    ...members.self(),
    owner: members.orNull(members.identity, "owner"),
    parent: members.orNull(members.identity, "parent"),
    creator: members.orNull(members.whole, "creator"),
    processes: members.whole("processes"),
    threads: members.whole("threads"),
    pid: members.orNull(members.whole, "pid"),
    command: members.orNull(members.text, "command"),
    names: members.list("names", (value) => {
      const one = new Members(value);
      return { kind: one.text("kind"), name: one.text("name") };
    }),
    maps: members.orNull(mapsOf, "maps"),
  };
}

/**
 * Decodes an event.
 *
 * @param members Its members.
 * @returns The event.
 * @throws {FormatError} If it is none.
 */
export function eventOf(members: Members): WatchEvent {
  const event = members.word("event", KINDS);
  const mono = members.big("mono");
  switch (event) {
    case "capabilities": {
      const sights = sightsOf(new Members(members.get("sights")));
      const refused = members.list("refused", refusalOf);
      return {
        event,
        mono,
        backend: members.word("backend", BACKENDS),
        sights,
        refused,
        denied: members.whole("denied"),
      };
    }
    case "lost": {
      const source = members.word("source", [...BACKENDS, "fanotify", "reader"]);
      return { event, mono, count: members.whole("count"), source };
    }
    case "resync":
      return { event, mono, tasks: members.whole("tasks"), differences: members.whole("differences") };
    case "summary": {
      const alive = members.list("alive", (value) => {
        const one = new Members(value);
        return { type: one.word("type", NAMESPACE_TYPES), ...one.self(), pid: one.whole("pid") };
      });
      return { event, mono, born: members.whole("born"), alive };
    }
    case "namespace":
      return { event, mono, namespace: existing(new Members(members.get("namespace"))) };
  }
}
