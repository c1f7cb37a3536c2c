// Tells which ports programs in a network namespace listen on, from the tables of proc(5): for kernels without sock_diag(7).
//
// The tables are opened by an agent in the namespace, once, and read again and again from here. As long as they are open,
// they keep the namespace alive. The kernel goes through all places of its table of connections for each reading of TCP's,
// which takes milliseconds of processor time where memory is large.

import { AT_FDCWD, O, SEEK } from "../../ffi/core/consts.ts";
import { orNull } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { cString } from "../../ffi/core/memory.ts";
import { call, self, type Task } from "../../ffi/core/task.ts";
import { read } from "../../ffi/sys/file.ts";
import type { Protocol } from "./rule.ts";

/** Which listeners count: those that can be reached from elsewhere, by loopback, or in either way. */
export type Reach = "elsewhere" | "loopback" | "any";

/** Ports that are listened on, of each protocol. */
export type ListeningPorts = { readonly [P in Protocol]: ReadonlySet<number> };

/** State of a TCP socket that listens. */
const LISTEN = "0A";
/** Addresses as the tables have them: in 127.0.0.0/8, or ::1; 127.0.0.1 or ::1; all addresses. */
const LOOPBACK = /^(?:(?:0{16}F{4}0{4})?.{6}7F|0{24}01000000)$/;
const FIRST_LOOPBACK = /^(?:(?:0{16}F{4}0{4})?0100007F|0{24}01000000)$/;
const ANY = /^0+$/;

function counts(address: string, reach: Reach): boolean {
  const elsewhere = !LOOPBACK.test(address);
  if (reach === "elsewhere" || elsewhere && reach === "any") return elsewhere;
  return ANY.test(address) || FIRST_LOOPBACK.test(address);
}

const CHUNK = 64 * 1024;

/** What lines of a table say. */
export interface Parsed {
  /** Ports that are listened on. */
  readonly ports: readonly number[];
  /** Whether later lines may have such ports: in the table of TCP they come first. */
  readonly more: boolean;
}

/**
 * Takes the ports that are listened on out of lines of /proc/net/tcp and its like.
 *
 * @example
 * ```ts
 * import { parseListeners } from "./listener_files.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const lines = ["  sl  local_address", "   0: 00000000:0050 00000000:0000 0A 0", "   1: 0100007F:0051 00000000:0000 0A 0"];
 * assertEquals(parseListeners("TCP", lines), { ports: [80], more: true });
 * ```
 *
 * @param protocol The protocol of the table.
 * @param lines Whole lines.
 * @param reach Which listeners count.
 * @returns The ports.
 */
export function parseListeners(protocol: Protocol, lines: readonly string[], reach: Reach = "elsewhere"): Parsed {
  const ports: number[] = [];
  for (const line of lines) {
    const found = /^ *\d+: ([0-9A-F]+):([0-9A-F]{4}) [0-9A-F]+:([0-9A-F]{4}) ([0-9A-F]{2}) /.exec(line);
    if (!found) continue;
    const [, address, port, peer, state] = found;
    if (protocol === "TCP" && state !== LISTEN) return { ports, more: false };
    // A connected UDP socket hears its peer only.
    if (peer === "0000" && counts(address!, reach)) ports.push(parseInt(port!, 16));
  }
  return { ports, more: true };
}

const TABLES = [["tcp", "TCP"], ["tcp6", "TCP"], ["udp", "UDP"], ["udp6", "UDP"]] as const;

/** The tables of one namespace. */
export class ListenerFiles implements Disposable {
  readonly #tables: { readonly fd: Fd; readonly protocol: Protocol }[] = [];
  readonly #buffer = new Uint8Array(CHUNK);

  /**
   * @param task A task in the namespace.
   * @param reach Which listeners count.
   * @throws {SysError} If a table cannot be opened; a kernel without IPv6 has two.
   */
  constructor(task: Task, readonly reach: Reach = "elsewhere") {
    for (const [name, protocol] of TABLES) {
      const open = () =>
        task.open("openat", AT_FDCWD, cString(`/proc/thread-self/net/${name}`), O.RDONLY | O.CLOEXEC, 0);
      const fd = name.endsWith("6") ? orNull(open, "ENOENT") : open();
      if (fd) this.#tables.push({ fd, protocol });
    }
  }

  /** Reads one table as far as it is of interest. */
  #read(fd: Fd, protocol: Protocol, into: Set<number>): void {
    call(self, "lseek", fd, 0, SEEK.SET);
    const decoder = new TextDecoder();
    let rest = "";
    for (;;) {
      const n = read(fd, this.#buffer);
      if (n === 0) return;
      const lines = (rest + decoder.decode(this.#buffer.subarray(0, n))).split("\n");
      rest = lines.pop()!;
      const { ports, more } = parseListeners(protocol, lines, this.reach);
      for (const port of ports) into.add(port);
      if (!more) return;
    }
  }

  /**
   * Reads the tables.
   *
   * @returns The ports that are listened on, of each protocol.
   * @throws {SysError} If a table cannot be read.
   */
  ports(): ListeningPorts {
    const found = { TCP: new Set<number>(), UDP: new Set<number>() };
    for (const { fd, protocol } of this.#tables) this.#read(fd, protocol, found[protocol]);
    return found;
  }

  /** Closes the tables. */
  [Symbol.dispose](): void {
    for (const { fd } of this.#tables) fd.close();
    this.#tables.length = 0;
  }
}
