// Finds out which program has a port of the host; loaded after a failure only.

import { orNull } from "../../ffi/core/errno.ts";
import { O } from "../../ffi/core/consts.ts";
import { self } from "../../ffi/core/task.ts";
import { open, readDirectory, readLink, readText } from "../../ffi/sys/file.ts";
import type { Protocol } from "./rule.ts";

/** A program that has a port. */
export interface Holder {
  /** Its process. */
  readonly pid: number;
  /** The process's name, comm of proc(5). */
  readonly comm: string;
}

/** State of a TCP socket that listens, in proc(5). */
const LISTEN = "0A";

/** Inodes of the sockets that have a port, from /proc/net. */
function inodes(protocol: Protocol, port: number): string[] {
  const end = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  return [protocol.toLowerCase(), `${protocol.toLowerCase()}6`].flatMap((table) => {
    const text = orNull(() => readText(self, `/proc/thread-self/net/${table}`)) ?? "";
    return text.split("\n").slice(1).map((line) => line.trim().split(/\s+/)).filter(([, local, , state]) =>
      local?.endsWith(end) && (protocol === "UDP" || state === LISTEN)
    ).map((fields) => fields[9]!);
  });
}

/** The names in a directory; none if it cannot be read. */
function list(path: string): string[] {
  return orNull(() => {
    using directory = open(self, path, O.RDONLY | O.DIRECTORY);
    return readDirectory(directory);
  }) ?? [];
}

/**
 * The programs that have a port, as far as /proc shows them: a user sees the own ones only.
 *
 * @param protocol The protocol.
 * @param port The port.
 * @returns The programs, in the order of their pids.
 */
export function portHolders(protocol: Protocol, port: number): Holder[] {
  const wanted = new Set(inodes(protocol, port).map((inode) => `socket:[${inode}]`));
  if (wanted.size === 0) return [];
  const pids = list("/proc").filter((name) => /^\d+$/.test(name)).map(Number).sort((a, b) => a - b);
  return pids.filter((pid) =>
    list(`/proc/${pid}/fd`).some((fd) => wanted.has(orNull(() => readLink(self, `/proc/${pid}/fd/${fd}`)) ?? ""))
  ).map((pid) => ({ pid, comm: (orNull(() => readText(self, `/proc/${pid}/comm`)) ?? "?").trim() }));
}
