// Reads the port specifications of pasta(1); pure.
//
//   SPEC   := "none" | [LISTEN "/"] CHUNK {"," CHUNK}
//   LISTEN := [ADDRESS | "[" ADDRESS "]" | "*"] ["%" INTERFACE]
//   CHUNK  := "all" [":" TARGET] | "auto" | "~" RANGE | RANGE | RANGE ":" RANGE | RANGE ":" TARGET ["/" [RANGE]]
//
// A specification without a range of its own means all ports that are not ephemeral, as far as they are free.

import { parseIp } from "../inet/ip.ts";
import type { ForwardingRule, Protocol } from "./rule.ts";

/** Consecutive ports, both ends included. */
export type PortRange = readonly [first: number, last: number];

/** Ports that are forwarded to others. */
export interface PortMapping {
  /** Ports that are listened on. */
  readonly ports: PortRange;
  /** Port that the first one is forwarded to. */
  readonly to: number;
  /** Address to forward to, 4 or 16 bytes; null for the usual one. */
  readonly target: Uint8Array | null;
}

/** What a specification says. */
export interface PortSpec {
  /** Whether it names what to listen on: an address, `*`, or an interface. */
  readonly listens: boolean;
  /** Address to listen on; null for all. */
  readonly address: Uint8Array | null;
  /** Interface to listen on; null for all. */
  readonly interface: string | null;
  /** Ports that are named. */
  readonly mappings: readonly PortMapping[];
  /** Target address of all ports that are free, if no port is named. */
  readonly allTarget: Uint8Array | null;
  /** Whether a port is listened on only while something listens on the other side. */
  readonly scan: boolean;
  /** Ports that are left out. */
  readonly excluded: readonly PortRange[];
}

/** A specification that has no meaning. */
export class SpecError extends Error {
  override readonly name = "SpecError";
}

const INTERFACE_MAX = 15;

/** A number as strtoul(3) reads it in front of something else: white space, a sign and zeros may come first. */
const NUMBER = String.raw`[ \t\n\v\f\r]*\+?([0-9]+)`;
const RANGE = new RegExp(`^${NUMBER}(?:-${NUMBER})?$`);

/** Reads "80" or "80-90"; null if it is not that. */
function parseRange(text: string): PortRange | null {
  const found = RANGE.exec(text);
  if (!found) return null;
  const [first, last] = [Number(found[1]), Number(found[2] ?? found[1])];
  return last <= 65535 && first <= last ? [first, last] : null;
}

/** Reads an address with or without brackets around it; null if it is none. */
function parseAddress(text: string): Uint8Array | null {
  return parseIp(/^\[(.*)\]$/s.exec(text)?.[1] ?? text);
}

/** An address to forward to; one that stands for all means the usual one. */
function parseTarget(text: string): { target: Uint8Array | null } | null {
  const address = parseAddress(text);
  return address && { target: address.some((byte) => byte !== 0) ? address : null };
}

/** Reads what follows the colon behind a range; null if it has no meaning. */
function parseMapping(ports: PortRange, text: string): PortMapping | null {
  const length = ports[1] - ports[0];
  const range = parseRange(text);
  if (range) return range[1] - range[0] === length ? { ports, to: range[0], target: null } : null;
  const slash = text.lastIndexOf("/");
  const target = parseTarget(slash < 0 ? text : text.slice(0, slash));
  if (!target) return null;
  const rest = slash < 0 ? "" : text.slice(slash + 1);
  if (!rest) return { ports, to: ports[0], ...target };
  const there = parseRange(rest);
  return there && there[1] - there[0] === length ? { ports, to: there[0], ...target } : null;
}

/** Splits "127.0.0.1%lo/80" into what is before and behind the slash; null if what is before is not to listen on. */
function splitListen(text: string): Pick<PortSpec, "listens" | "address" | "interface"> & { rest: string } | null {
  // The slash of a target comes after a colon that an address to listen on has no part in: try the first slash alone.
  const slash = text.indexOf("/");
  const none = { listens: false, address: null, interface: null, rest: text };
  if (slash < 0) return none;
  const listen = text.slice(0, slash);
  const percent = listen.indexOf("%");
  const [host, name] = percent < 0 ? [listen, null] : [listen.slice(0, percent), listen.slice(percent + 1)];
  const address = host === "" || host === "*" ? null : parseAddress(host);
  const valid = (address || host === "" || host === "*") &&
    (name === null || name !== "" && new TextEncoder().encode(name).length <= INTERFACE_MAX);
  if (valid) return { listens: true, address, interface: name, rest: text.slice(slash + 1) };
  return listen.includes(":") ? none : null;
}

/**
 * Reads a port specification.
 *
 * @example
 * ```ts
 * import { parsePortSpec } from "./spec.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const spec = parsePortSpec("127.0.0.1%lo/8080-8081:80-81,~8081")!;
 * assertEquals(spec.mappings, [{ ports: [8080, 8081], to: 80, target: null }]);
 * assertEquals(spec.excluded, [[8081, 8081]]);
 * assertEquals(parsePortSpec("none"), null);
 * ```
 *
 * @param text The specification.
 * @returns What it says; null for "none".
 * @throws {SpecError} If it is none, in pasta's words.
 */
export function parsePortSpec(text: string): PortSpec | null {
  if (text === "none") return null;
  const listen = splitListen(text);
  if (!listen) throw new SpecError(`Invalid port specifier '${text}'`);
  const { rest, ...where } = listen;
  const invalid = () => new SpecError(`Invalid port specifier '${rest}'`);
  const mappings: PortMapping[] = [];
  const excluded: PortRange[] = [];
  let [allTarget, scan]: [Uint8Array | null, boolean] = [null, false];
  for (const chunk of rest.split(",")) {
    if (chunk === "auto") scan = true;
    else if (chunk.startsWith("~")) {
      const range = parseRange(chunk.slice(1));
      if (!range) throw invalid();
      excluded.push(range);
    } else if (chunk === "all" || chunk.startsWith("all:")) {
      if (chunk === "all") continue;
      const target = parseTarget(chunk.slice(4));
      if (!target) throw invalid();
      allTarget = target.target;
    } else {
      const colon = chunk.indexOf(":");
      const ports = parseRange(colon < 0 ? chunk : chunk.slice(0, colon));
      if (!ports) throw invalid();
      const mapping = colon < 0 ? { ports, to: ports[0], target: null } : parseMapping(ports, chunk.slice(colon + 1));
      if (!mapping) throw invalid();
      mappings.push(mapping);
    }
  }
  return { ...where, mappings, allTarget, scan, excluded };
}

/** The parts of a range that no other range covers. */
function without([first, last]: PortRange, excluded: readonly PortRange[]): PortRange[] {
  const parts: PortRange[] = [];
  let start = first;
  for (const [from, to] of excluded.toSorted((a, b) => a[0] - b[0])) {
    if (to < start || from > last) continue;
    if (from > start) parts.push([start, from - 1]);
    start = Math.max(start, to + 1);
  }
  if (start <= last) parts.push([start, last]);
  return parts;
}

/**
 * The rules that a specification stands for.
 *
 * @param spec The specification.
 * @param protocol The protocol.
 * @param ephemeral The range of ports that the kernel gives away by itself, net.ipv4.ip_local_port_range.
 * @returns The rules, in the order of the specification.
 */
export function rulesOf(spec: PortSpec, protocol: Protocol, ephemeral: PortRange): ForwardingRule[] {
  const { address, interface: name, mappings, allTarget, scan, excluded } = spec;
  const all = mappings.length === 0;
  const wanted = all ? [{ ports: [1, 65535] as const, to: 1, target: allTarget }] : mappings;
  return wanted.flatMap(({ ports, to, target }) =>
    without(ports, all ? [...excluded, ephemeral] : excluded).map(([first, last]) => ({
      protocol,
      address,
      interface: name,
      first,
      last,
      to: to + first - ports[0],
      target,
      bestEffort: all,
      scan,
    }))
  );
}
