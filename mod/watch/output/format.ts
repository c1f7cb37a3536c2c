// Events as text, one fact a line in the form that was proposed for the process connector in 2016; or as JSON lines.

import { errnoName } from "../../../ffi/core/errno.ts";
import { toJson } from "../../base/visible.ts";
import type { NamespaceId } from "../../namespaces/id.ts";
import { NAMESPACE_TYPES } from "../../namespaces/types.ts";
import type { WallClock } from "../facts/clock.ts";
import type {
  CapabilitiesEvent,
  NamespaceEventBase,
  SourcedEventBase,
  TaskEventBase,
  WatchEvent,
} from "../facts/watch_event.ts";

/** Converts a value to JSON. */
function json(value: unknown): string {
  return value === null ? "null" : toJson(value); // null is frequent
}

/** Quotes a value, as JSON, unless it is a single word. */
function word(value: string): string {
  return /^[^\s"=\\\p{C}]+$/u.test(value) ? value : json(value);
}

function threadText({ pid, tid }: TaskEventBase): string {
  return tid === pid ? `pid=${pid}` : `pid=${pid} tid=${tid}`;
}

function namespaceText({ type, inum, id }: NamespaceEventBase): string {
  return `type=${type} inum=${inum}${id === null ? "" : ` id=${id}`}`;
}

function capabilitiesText({ backend, sights, refused, denied }: CapabilitiesEvent): string {
  const { ns, ...others } = sights;
  const fidelities = new Set(Object.values(ns));
  const parts = Object.entries(others).map(([name, fidelity]) => `${name}=${fidelity}`);
  if (fidelities.size === 1) parts.push(`ns=${[...fidelities][0]}`);
  else for (const type of NAMESPACE_TYPES) parts.push(`${type}=${ns[type]}`);
  parts.push(`denied=${denied}`);
  for (const refusal of refused) parts.push(`refused=${refusal.backend}(${refusal.errno ?? "unavailable"})`);
  return `capabilities: backend=${backend} ${parts.join(" ")}`;
}

/** Converts an event to text, but for `exact` and the line end. */
function lineOf(event: WatchEvent): string {
  switch (event.event) {
    case "fork":
      return `fork: ppid=${event.ppid} ${threadText(event)}`;
    case "exec":
      return `exec: ${threadText(event)}`;
    case "exit":
      return `exit: ${event.last ? `pid=${event.pid}` : threadText(event)}`;
    case "ns": {
      const { type, reason, old, new: to, errno } = event;
      let line = `ns: ${threadText(event)} type=${type} reason=${reason}`;
      if (old) line += ` old_inum=${old.inum}`;
      if (to) line += ` inum=${to.inum}`;
      if (errno) line += ` errno=${errnoName(errno)}`;
      return line;
    }
    case "birth":
      return `birth: ${namespaceText(event)} ${threadText(event)}`;
    case "death":
      return `death: ${namespaceText(event)} cause=${event.cause}`;
    case "name": {
      const { path, type, inum, state } = event;
      return `name: path=${word(path)} type=${type}${inum === null ? "" : ` inum=${inum}`} state=${state}`;
    }
    case "namespace": {
      const { creator, processes, pid, names, command } = event.namespace;
      const parts = [
        ...creator === null ? [] : [`uid=${creator}`],
        `processes=${processes}`,
        ...pid === null ? [] : [`pid=${pid}`],
        ...names.map(({ kind, name }) => `name=${word(kind === "path" ? name : `${kind}:${name}`)}`),
        ...command === null ? [] : [`command=${word(command)}`],
      ];
      return `namespace: ${namespaceText(event.namespace)} ${parts.join(" ")}`;
    }
    case "lost":
      return `lost: count=${event.count} source=${event.source}`;
    case "resync":
      return `resync: tasks=${event.tasks} differences=${event.differences}`;
    case "capabilities":
      return capabilitiesText(event);
    case "summary": {
      const alive = event.alive.map((namespace) => `\nalive: ${namespaceText(namespace)} pid=${namespace.pid}`);
      return `summary: born=${event.born} alive=${alive.length}${alive.join("")}`;
    }
  }
}

/**
 * Converts an event to text.
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
 * @param event The event.
 * @returns Its line; several for a summary.
 */
export function formatText(event: WatchEvent): string {
  return `${lineOf(event)}${"exact" in event && !event.exact ? " exact=false" : ""}\n`;
}

function idJson(id: string | null): string {
  return id === null ? "null" : `"${id}"`;
}

function identityJson(id: NamespaceId | null): string {
  return id ? `{"inum":${id.inum},"id":${idJson(id.id)}}` : "null";
}

function namespaceJson(
  { type, inum, id }: Omit<NamespaceEventBase, "inum"> & { readonly inum: number | null },
): string {
  return `"type":"${type}","inum":${inum},"id":${idJson(id)}`;
}

function taskJson(event: TaskEventBase): string {
  return `"pid":${event.pid},"tid":${event.tid},"comm":${json(event.comm)},"uid":${event.uid},` +
    `"cgroup":${json(event.cgroup)},"container":${json(event.container)}`;
}

function endJson({ exact, source }: SourcedEventBase): string {
  return `"exact":${exact},"source":"${source}"}\n`;
}

/**
 * Converts an event to JSON; ids of namespaces are strings.
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
 * @param event The event.
 * @param clock Converts its time.
 * @returns Its line.
 */
export function formatJson(event: WatchEvent, clock: WallClock): string {
  const head = `{"time":"${clock.text(event.mono)}","mono_ns":${event.mono},"event":"${event.event}",`;
  // Frequent events are written out, which is much faster.
  switch (event.event) {
    case "fork":
      return `${head}${taskJson(event)},"ppid":${event.ppid},"ptid":${event.ptid},${endJson(event)}`;
    case "exec":
      return `${head}${taskJson(event)},${endJson(event)}`;
    case "exit":
      return `${head}${taskJson(event)},"last":${event.last},"status":${event.status},${endJson(event)}`;
    case "ns": {
      const { type, reason, errno } = event;
      return `${head}${taskJson(event)},"type":"${type}","reason":"${reason}","old":${identityJson(event.old)},` +
        `"new":${identityJson(event.new)},"errno":${errno === 0 ? "null" : `"${errnoName(errno)}"`},${endJson(event)}`;
    }
    case "birth":
      return `${head}${taskJson(event)},${namespaceJson(event)},${endJson(event)}`;
    case "death":
      return `${head}${namespaceJson(event)},"cause":"${event.cause}",${endJson(event)}`;
    case "name":
      return `${head}"path":${json(event.path)},${namespaceJson(event)},"state":"${event.state}",${endJson(event)}`;
    case "namespace":
      return `${head}${json(event.namespace).slice(1)}\n`;
    default: {
      const { event: _event, mono: _mono, ...rest } = event;
      return `${head}${json(rest).slice(1)}\n`;
    }
  }
}
