// The lines of a recording: a header, then one step each, as JSON. What decodes is checked, since files may be of anyone.
//
// docs/recording.md describes the format. Whole numbers that may not fit into a JSON number are strings.

import { toJson } from "../../base/visible.ts";
import type { NamespaceId } from "../../namespaces/id.ts";
import { NAMESPACE_TYPES } from "../../namespaces/types.ts";
import { EVENT_KINDS, type Fact, FACT_KINDS, type Filter, type Slot, SLOTS, type Task } from "../facts/contract.ts";
import { BACKENDS, eventOf } from "./event.ts";
import { Members, refuse } from "./members.ts";
import type { Header, Step } from "./step.ts";

/** What a file begins with that is a recording. */
const MARK = "watch";
const REASONS = ["clone", "unshare", "setns", "exec"] as const;
const SOURCES = [...BACKENDS, "resync", "mountinfo", "fanotify", "handle", "search"] as const;
const STATES = ["mounted", "gone"] as const;

type Json = Readonly<Record<string, unknown>>;

function slotsJson(slots: ReadonlyMap<Slot, NamespaceId>): Json {
  return Object.fromEntries(Array.from(slots, ([slot, { inum, id }]) => [slot, { inum, id }]));
}

function taskJson({ pid, tid, ppid, comm, uid, cgroup, start, slots }: Task): Json {
  return {
    pid,
    tid,
    ppid,
    comm,
    uid,
    cgroup: cgroup === null ? null : `${cgroup}`,
    start: `${start}`,
    slots: slotsJson(slots),
  };
}

function taskOf(members: Members): Task {
  return {
    pid: members.whole("pid"),
    tid: members.whole("tid"),
    ppid: members.whole("ppid"),
    comm: members.text("comm"),
    uid: members.orNull(members.whole, "uid"),
    cgroup: members.orNull(members.big, "cgroup"),
    start: members.big("start"),
    slots: members.slots("slots"),
  };
}

function factJson(fact: Fact): Json {
  // Property by property: a back end may decode each at its access.
  const { kind, mono, pid, tid, comm, uid, cgroup, exact } = fact;
  const common = { kind, mono: `${mono}`, pid, tid, comm, uid, cgroup: cgroup === null ? null : `${cgroup}`, exact };
  switch (fact.kind) {
    case "fork": {
      const { ppid, ptid, slots } = fact;
      return { ...common, ppid, ptid, ...slots && { slots: slotsJson(slots) } };
    }
    case "exec":
      return common;
    case "exit":
      return { ...common, last: fact.last, status: fact.status };
    case "ns": {
      const { slot, reason, old, new: to, errno, made } = fact;
      return { ...common, slot, reason, old, new: to, errno, ...made !== undefined && { made } };
    }
  }
}

function factOf(members: Members): Fact {
  const common = {
    mono: members.big("mono"),
    pid: members.whole("pid"),
    tid: members.whole("tid"),
    comm: members.orNull(members.text, "comm"),
    uid: members.orNull(members.whole, "uid"),
    cgroup: members.orNull(members.big, "cgroup"),
    exact: members.flag("exact"),
  };
  const kind = members.word("kind", FACT_KINDS);
  switch (kind) {
    case "fork": {
      const [ppid, ptid] = [members.whole("ppid"), members.whole("ptid")];
      return { kind, ...common, ppid, ptid, ...members.has("slots") && { slots: members.slots("slots") } };
    }
    case "exec":
      return { kind, ...common };
    case "exit":
      return { kind, ...common, last: members.flag("last"), status: members.orNull(members.whole, "status") };
    case "ns":
      return {
        kind,
        ...common,
        slot: members.word("slot", SLOTS),
        reason: members.word("reason", REASONS),
        old: members.orNull(members.identity, "old"),
        new: members.orNull(members.identity, "new"),
        errno: members.whole("errno"),
        ...members.has("made") && { made: members.flag("made") },
      };
  }
}

function filterJson(filter: Filter): Json {
  const { types, pids, trees, comms, uids, cgroups, inums, failed } = filter;
  const lists = { types, pids, trees, comms, uids, inums, cgroups: cgroups && [...cgroups].map(String) };
  const given = Object.entries(lists).filter(([, list]) => list !== undefined);
  return { ...Object.fromEntries(given.map(([name, list]) => [name, [...list!]])), failed: failed ?? false };
}

function filterOf(members: Members): Filter {
  const set = <T>(name: string, check: (value: unknown) => T): ReadonlySet<T> | undefined =>
    members.has(name) ? new Set(members.list(name, check)) : undefined;
  const whole = (value: unknown) => Number.isSafeInteger(value) ? value as number : refuse("a filter");
  const text = (value: unknown) => typeof value === "string" ? value : refuse("a filter");
  return {
    types: set("types", (value) => NAMESPACE_TYPES.find((type) => type === value) ?? refuse("a filter")),
    pids: set("pids", whole),
    trees: set("trees", whole),
    comms: set("comms", text),
    uids: set("uids", whole),
    cgroups: set("cgroups", (value) => /^\d{1,20}$/.test(text(value)) ? BigInt(text(value)) : refuse("a filter")),
    inums: set("inums", whole),
    failed: members.flag("failed"),
  };
}

/** Encodes the header, as a line. */
export function encodeHeader({ version, backend, offset, filter, events, threads }: Header): string {
  const json = { penne: MARK, version, backend, offset: `${offset}`, filter: filterJson(filter), events, threads };
  return `${toJson(json)}\n`;
}

/**
 * Reads the version of the format from the first line of a file.
 *
 * @param line The line.
 * @returns The version; null if the file is no recording.
 */
export function versionOf(line: string): number | null {
  try {
    const members = new Members(JSON.parse(line));
    return members.text("penne") === MARK ? members.whole("version") : null;
  } catch {
    return null;
  }
}

/** Decodes a line of JSON. */
function parse(line: string): Members {
  try {
    return new Members(JSON.parse(line));
  } catch (error) {
    if (error instanceof SyntaxError) refuse("the line");
    throw error;
  }
}

/** Decodes the header. @throws {FormatError} If it is none. */
export function decodeHeader(line: string): Header {
  const members = parse(line);
  const kind = (value: unknown) => EVENT_KINDS.find((known) => known === value) ?? refuse('"events"');
  return {
    version: members.whole("version"),
    backend: members.word("backend", BACKENDS),
    offset: members.big("offset"),
    filter: filterOf(new Members(members.get("filter"))),
    events: members.get("events") === null ? null : members.list("events", kind),
    threads: members.flag("threads"),
  };
}

/** Encodes a step, as a line. */
export function encodeStep(step: Step): string {
  return `${toJson(stepJson(step))}\n`;
}

function stepJson(step: Step): Json {
  switch (step.step) {
    case "task":
      return { step: step.step, ...taskJson(step.task) };
    case "early":
    case "fact":
      return { step: step.step, ...factJson(step.fact) };
    case "named":
      return { step: step.step, ...step.name };
    case "renamed": {
      const { path, type, inum, id, pid, state } = step.change;
      const { mono, source } = step.sighting;
      return { step: step.step, mono: `${mono}`, source, path, type, inum, id, pid, state };
    }
    case "event": {
      const { mono, ...event } = step.event;
      return { step: step.step, mono: `${mono}`, ...event };
    }
    case "listed":
      return { step: step.step, type: step.type, ...step.namespace };
    case "ended": {
      const { step: name, type, namespace, unseen, mono, exact, source } = step;
      return { step: name, mono: `${mono}`, type, ...namespace, unseen, exact, source };
    }
    case "resync":
      return { step: step.step, mono: `${step.mono}` };
    case "clock":
      return { step: step.step, offset: `${step.offset}` };
    case "cgroup":
      return { step: step.step, cgroup: `${step.cgroup}`, path: step.path };
    default:
      return { ...step };
  }
}

/**
 * Decodes a step.
 *
 * @param line The line, without its end.
 * @returns The step.
 * @throws {FormatError} If it is none.
 */
export function decodeStep(line: string): Step {
  const members = parse(line);
  const step = members.text("step") as Step["step"];
  const identity = () => members.self();
  const type = () => members.word("type", NAMESPACE_TYPES);
  switch (step) {
    case "task":
      return { step, task: taskOf(members) };
    case "early":
    case "fact":
      return { step, fact: factOf(members) };
    case "load":
    case "merge":
      return { step };
    case "resync":
      return { step, mono: members.big("mono") };
    case "listed":
      return { step, type: type(), namespace: identity() };
    case "named":
      return { step, name: { path: members.text("path"), type: type(), ...identity() } };
    case "renamed": {
      const sighting = { mono: members.big("mono"), source: members.word("source", SOURCES) };
      const change = {
        path: members.text("path"),
        type: type(),
        inum: members.orNull(members.whole, "inum"),
        id: members.orNull(members.digits, "id"),
        pid: members.orNull(members.whole, "pid"),
        state: members.word("state", STATES),
      };
      return { step, change, sighting };
    }
    case "ended":
      return {
        step,
        type: type(),
        namespace: identity(),
        unseen: members.flag("unseen"),
        mono: members.big("mono"),
        exact: members.flag("exact"),
        source: members.word("source", SOURCES),
      };
    case "forgotten":
      return { step, tid: members.whole("tid") };
    case "where":
      return {
        step,
        pid: members.whole("pid"),
        path: members.text("path"),
        container: members.orNull(members.text, "container"),
      };
    case "cgroup":
      return { step, cgroup: members.big("cgroup"), path: members.text("path") };
    case "clock":
      return { step, offset: members.big("offset") };
    case "event":
      return { step, event: eventOf(members) };
    case "end":
      return { step, lines: members.whole("lines") };
    default:
      step satisfies never;
      refuse(`"step"`);
  }
}
