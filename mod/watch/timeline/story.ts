// What happened to each process and namespace of a recording, as lanes of a picture; pure.

import { errnoName } from "../../../ffi/core/errno.ts";
import type { NamespaceId } from "../../namespaces/id.ts";
import type { NamespaceType } from "../../namespaces/types.ts";
import { slotType } from "../facts/contract.ts";
import type { DeathCause, NameEvent, NsEvent, TaskEventBase, WatchEvent } from "../facts/watch_event.ts";

/** Something that happened in a lane. */
export interface Mark {
  /** Nanoseconds of CLOCK_MONOTONIC. */
  readonly mono: bigint;
  readonly kind: "made" | "joined" | "left" | "named" | "unnamed" | "exec" | "failed";
  /** What happened, in words. */
  readonly text: string;
  /** Type of the namespace that it concerns. */
  readonly type?: NamespaceType;
}

/** The life of a process. */
export interface ProcessLane {
  readonly pid: number;
  readonly ppid: number | null;
  /** Names, in the order in which it had them. */
  readonly names: string[];
  /** When it began and ended; null if it did so before or after the recording. */
  readonly start: bigint | null;
  end: bigint | null;
  /** How it ended, in words. */
  ending: string;
  readonly marks: Mark[];
  readonly children: ProcessLane[];
}

/** The life of a namespace. */
export interface NamespaceLane {
  readonly type: NamespaceType;
  readonly inum: number;
  readonly id: string | null;
  /** The process that made it, in words; null if it was made before the recording. */
  maker: string | null;
  start: bigint | null;
  end: bigint | null;
  cause: DeathCause | null;
  readonly marks: Mark[];
}

/** A note about the recording itself. */
export interface Note {
  readonly mono: bigint;
  readonly text: string;
}

/** All that a picture shows. */
export interface Story {
  readonly from: bigint;
  readonly to: bigint;
  /** Processes that began before the recording, or whose parent is not in it; the others are below them. */
  readonly roots: readonly ProcessLane[];
  readonly namespaces: readonly NamespaceLane[];
  readonly notes: readonly Note[];
}

/** Describes how a process ended, from its status as in wait(2). */
export function endingOf(status: number | null): string {
  if (status === null) return "ended";
  const signal = status & 0x7f;
  return signal ? `killed by signal ${signal}` : `exit ${status >> 8 & 0xff}`;
}

/** Collects the events of a recording. */
export class Narrator {
  #from: bigint | null = null;
  #to = 0n;
  #roots: ProcessLane[] = [];
  #living = new Map<number, ProcessLane>();
  #namespaces: NamespaceLane[] = [];
  #known = new Map<string, NamespaceLane>();
  #notes: Note[] = [];

  /** Takes an event. */
  take(event: WatchEvent): void {
    const { mono } = event;
    // What happened during the first snapshot comes after the capabilities, but is older.
    if (this.#from === null || mono < this.#from) this.#from = mono;
    if (mono > this.#to) this.#to = mono;
    switch (event.event) {
      case "fork":
        if (event.pid === event.tid) this.#begin(event, event.ppid);
        return;
      case "exec":
        return this.#exec(event);
      case "exit":
        if (event.last) this.#exit(event, event.status);
        return;
      case "ns":
        return this.#change(event);
      case "birth": {
        const lane = this.#namespace(event.type, event);
        lane.start = mono;
        lane.maker = nameOf(event);
        return;
      }
      case "death":
        return this.#death(this.#namespace(event.type, event), mono, event.cause);
      case "name":
        return this.#name(event);
      case "lost":
        this.#notes.push({ mono, text: `${event.count} events lost by ${event.source}` });
        return;
      case "resync":
        this.#notes.push({ mono, text: `${event.differences} differences found` });
    }
  }

  #begin(event: TaskEventBase, ppid: number | null): ProcessLane {
    const { pid, comm, mono } = event;
    const parent = ppid === null ? undefined : this.#living.get(ppid);
    const start = ppid === null ? null : mono;
    const lane: ProcessLane = {
      pid,
      ppid,
      names: comm === null ? [] : [comm],
      start,
      end: null,
      ending: "",
      marks: [],
      children: [],
    };
    (parent?.children ?? this.#roots).push(lane);
    this.#living.set(pid, lane);
    return lane;
  }

  /** The lane of the process of an event. */
  #process(event: TaskEventBase): ProcessLane {
    return this.#living.get(event.pid) ?? this.#begin(event, null);
  }

  #exec(event: TaskEventBase): void {
    const { comm, mono } = event;
    const lane = this.#process(event);
    lane.marks.push({ mono, kind: "exec", text: `executes ${comm ?? "a program"}` });
    if (comm !== null && lane.names.at(-1) !== comm) lane.names.push(comm);
  }

  #exit(event: TaskEventBase, status: number | null): void {
    const lane = this.#process(event);
    lane.end = event.mono;
    lane.ending = endingOf(status);
    this.#living.delete(event.pid);
  }

  #change(event: NsEvent): void {
    const { mono, reason, old, new: to, errno } = event;
    const type = slotType(event.type);
    const lane = this.#process(event);
    const slot = event.type === type ? type : `${type} of its children`;
    if (errno !== 0 || !to) {
      const text = errno ? `${reason} ${slot} fails: ${errnoName(errno)}` : `${reason} ${slot}`;
      lane.marks.push({ mono, kind: "failed", text, type });
      return;
    }
    const isNew = reason !== "setns" && !this.#known.has(keyOf(type, to));
    const kind = isNew || reason === "unshare" ? "made" : "joined";
    lane.marks.push({ mono, kind, text: `${reason} ${slot} ${to.inum}`, type });
    const who = nameOf(event);
    const entered = this.#namespace(type, to);
    if (kind === "joined") entered.marks.push({ mono, kind, text: `${who} joins (${reason})` });
    const before = old && this.#known.get(keyOf(type, old));
    // Most leave the namespaces of the host, which have no lane for that alone.
    if (before) before.marks.push({ mono, kind: "left", text: `${who} leaves` });
  }

  #namespace(type: NamespaceType, { inum, id }: NamespaceId): NamespaceLane {
    const key = keyOf(type, { inum, id });
    const known = this.#known.get(key);
    if (known) return known;
    const lane: NamespaceLane = { type, inum, id, maker: null, start: null, end: null, cause: null, marks: [] };
    this.#known.set(key, lane);
    this.#namespaces.push(lane);
    return lane;
  }

  #death(lane: NamespaceLane, mono: bigint, cause: DeathCause): void {
    lane.end = mono;
    lane.cause = cause;
    this.#known.delete(keyOf(lane.type, lane));
  }

  #name({ mono, path, type, inum, id, state }: NameEvent): void {
    if (inum === null) {
      this.#notes.push({ mono, text: `${path} ${state}` });
      return;
    }
    const kind = state === "mounted" ? "named" : "unnamed";
    const text = state === "mounted" ? `named ${path}` : `${path} is gone`;
    this.#namespace(type, { inum, id }).marks.push({ mono, kind, text });
  }

  /** Returns the story so far. */
  story(): Story {
    const from = this.#from ?? 0n;
    return { from, to: this.#to, roots: this.#roots, namespaces: this.#namespaces, notes: this.#notes };
  }
}

function keyOf(type: NamespaceType, { inum, id }: NamespaceId): string {
  return id ?? `${type} ${inum}`;
}

function nameOf({ pid, comm }: TaskEventBase): string {
  return comm === null ? `${pid}` : `${comm} ${pid}`;
}
