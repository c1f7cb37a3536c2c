// Records as text: one fact a line, after the proposal for the process connector of 2016; or JSON, one object a line.

import { errnoName } from "../../../ffi/core/errno.ts";
import type { NamespaceId } from "../../namespaces/id.ts";
import { NAMESPACE_TYPES } from "../../namespaces/types.ts";
import type { WallClock } from "../facts/clock.ts";
import type { CapabilitiesEvent, TaskEventBase, WatchEvent } from "../facts/watch_event.ts";

/** A JSON string without what a terminal obeys, or a reader takes for the end of a line. */
function quote(value: string): string {
  const escape = (char: string) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return JSON.stringify(value).replace(/[\x7f-\x9f\u2028-\u202e\u2066-\u2069]/g, escape);
}

/** Values that would not be one word are written as JSON strings. */
function word(value: string): string {
  return /^[^\s"=\\\p{C}]+$/u.test(value) ? value : quote(value);
}

function threadOf({ pid, tid }: TaskEventBase): string {
  return tid === pid ? `pid=${pid}` : `pid=${pid} tid=${tid}`;
}

function capabilitiesText({ backend, sights, refused, denied }: CapabilitiesEvent): string {
  const { ns, ...others } = sights;
  const kinds = new Set(Object.values(ns));
  const parts = Object.entries(others).map(([name, sight]) => `${name}=${sight}`);
  if (kinds.size === 1) parts.push(`ns=${[...kinds][0]}`);
  else for (const type of NAMESPACE_TYPES) parts.push(`${type}=${ns[type]}`);
  parts.push(`denied=${denied}`);
  for (const refusal of refused) parts.push(`refused=${refusal.backend}(${refusal.errno ?? "unavailable"})`);
  return `capabilities: backend=${backend} ${parts.join(" ")}`;
}

/**
 * Writes a record as text.
 *
 * @example
 * ```ts
 * import { formatText } from "./format.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const common = { mono: 0n, pid: 858, tid: 858, comm: "unshare", uid: 0, cgroup: null, container: null } as const;
 * const id = (inum: number) => ({ inum, id: null });
 * assertEquals(
 *   formatText({
 *     event: "ns",
 *     ...common,
 *     exact: true,
 *     source: "ebpf",
 *     type: "net",
 *     reason: "unshare",
 *     old: id(4026531957),
 *     new: id(4026532142),
 *     errno: 0,
 *   }),
 *   "ns: pid=858 type=net reason=unshare old_inum=4026531957 inum=4026532142\n",
 * );
 * ```
 *
 * @param event The record.
 * @returns The line; a summary is several.
 */
export function formatText(event: WatchEvent): string {
  switch (event.event) {
    case "fork": {
      const { pid, tid, ppid } = event;
      const line = tid === pid ? `fork: ppid=${ppid} pid=${pid}` : `fork: ppid=${ppid} pid=${pid} tid=${tid}`;
      return event.exact ? `${line}\n` : `${line} exact=false\n`;
    }
    case "exec":
    case "exit": {
      const line = event.event === "exit" && event.last
        ? `exit: pid=${event.pid}`
        : `${event.event}: ${threadOf(event)}`;
      return event.exact ? `${line}\n` : `${line} exact=false\n`;
    }
    case "ns": {
      const { type, reason, old, new: to, errno } = event;
      let line = `ns: ${threadOf(event)} type=${type} reason=${reason}`;
      if (old) line += ` old_inum=${old.inum}`;
      if (to) line += ` inum=${to.inum}`;
      if (errno) line += ` errno=${errnoName(errno)}`;
      return event.exact ? `${line}\n` : `${line} exact=false\n`;
    }
    case "birth": {
      const { type, inum, id, exact } = event;
      const line = `birth: type=${type} inum=${inum}${id === null ? "" : ` id=${id}`} ${threadOf(event)}`;
      return exact ? `${line}\n` : `${line} exact=false\n`;
    }
    case "death": {
      const { type, inum, id, cause, exact } = event;
      const line = `death: type=${type} inum=${inum}${id === null ? "" : ` id=${id}`} cause=${cause}`;
      return exact ? `${line}\n` : `${line} exact=false\n`;
    }
    case "name": {
      const { path, type, inum, state, exact } = event;
      const line = `name: path=${word(path)} type=${type}${inum === null ? "" : ` inum=${inum}`} state=${state}`;
      return exact ? `${line}\n` : `${line} exact=false\n`;
    }
    case "lost":
      return `lost: count=${event.count} source=${event.source}\n`;
    case "resync":
      return `resync: tasks=${event.tasks} differences=${event.differences}\n`;
    case "capabilities":
      return `${capabilitiesText(event)}\n`;
    case "summary": {
      const { born, alive } = event;
      return `summary: born=${born} alive=${alive.length}\n` +
        alive.map(({ type, inum, id, pid }) =>
          `alive: type=${type} inum=${inum}${id === null ? "" : ` id=${id}`} pid=${pid}\n`
        ).join("");
    }
  }
}

function identity(id: NamespaceId | null): string {
  return id ? `{"inum":${id.inum},"id":${id.id === null ? "null" : `"${id.id}"`}}` : "null";
}

function string(text: string | null): string {
  return text === null ? "null" : quote(text);
}

function task(event: TaskEventBase): string {
  return `"pid":${event.pid},"tid":${event.tid},"comm":${string(event.comm)},"uid":${event.uid},` +
    `"cgroup":${string(event.cgroup)},"container":${string(event.container)}`;
}

/**
 * Writes a record as JSON; ids of namespaces are strings.
 *
 * @example
 * ```ts
 * import { formatJson } from "./format.ts";
 * import { WallClock } from "../facts/clock.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const event = { event: "lost", mono: 7n, count: 3, source: "proc" } as const;
 * assertEquals(
 *   formatJson(event, new WallClock(0n)),
 *   `{"time":"1970-01-01T00:00:00.000000007Z","mono_ns":7,"event":"lost","count":3,"source":"proc"}\n`,
 * );
 * ```
 *
 * @param event The record.
 * @param clock Writes its time.
 * @returns The line.
 */
export function formatJson(event: WatchEvent, clock: WallClock): string {
  const head = `{"time":"${clock.text(event.mono)}","mono_ns":${event.mono},"event":"${event.event}",`;
  switch (event.event) {
    case "fork":
      return `${head}${task(event)},"ppid":${event.ppid},"ptid":${event.ptid},${end(event)}`;
    case "exec":
      return `${head}${task(event)},${end(event)}`;
    case "exit":
      return `${head}${task(event)},"last":${event.last},"status":${event.status},${end(event)}`;
    case "ns": {
      const { type, reason, errno } = event;
      return `${head}${task(event)},"type":"${type}","reason":"${reason}","old":${identity(event.old)},` +
        `"new":${identity(event.new)},"errno":${errno === 0 ? "null" : `"${errnoName(errno)}"`},${end(event)}`;
    }
    case "birth":
      return `${head}${task(event)},"type":"${event.type}","inum":${event.inum},"id":${
        event.id === null ? "null" : `"${event.id}"`
      },${end(event)}`;
    case "death":
      return `${head}"type":"${event.type}","inum":${event.inum},"id":${
        event.id === null ? "null" : `"${event.id}"`
      },"cause":"${event.cause}",${end(event)}`;
    case "name":
      return `${head}"path":${string(event.path)},"type":"${event.type}","inum":${event.inum},"id":${
        event.id === null ? "null" : `"${event.id}"`
      },"state":"${event.state}",${end(event)}`;
    default: {
      const { event: _event, mono: _mono, ...rest } = event;
      return `${head}${JSON.stringify(rest).slice(1)}\n`;
    }
  }
}

function end({ exact, source }: { readonly exact: boolean; readonly source: string }): string {
  return `"exact":${exact},"source":"${source}"}\n`;
}
