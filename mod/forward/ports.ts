// Opens the ports of the host that rules name, all of them or none.

import { E } from "../../ffi/core/errno.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { SOCK } from "../../ffi/net/constants.ts";
import { openListener, type SocketMaker } from "../../ffi/net/listener.ts";
import { openFilesLimit, raiseOpenFilesLimit } from "../../ffi/sys/process.ts";
import { wordsOf } from "../inet/ip_words.ts";
import type { ForwardingRule } from "./rule.ts";

/** A port of the host that is listened on. */
export interface OpenPort extends Disposable {
  /** The rule that it is from. */
  readonly rule: ForwardingRule;
  /** The port. */
  readonly port: number;
  /** The port that it is forwarded to. */
  readonly to: number;
  /** The socket: listening, or for datagrams. */
  readonly fd: Fd;
}

/** The ports that lead into one namespace. */
export interface Forwarding {
  /** Ports that are open. */
  readonly open: readonly OpenPort[];
  /** Rules whose ports are open while something listens inside. */
  readonly followed: readonly ForwardingRule[];
  /** Rules of ports inside that lead to the host; none by default. */
  readonly outward?: readonly ForwardingRule[];
  /** Ports inside that lead to the host and are open already; their rules are not in `outward`. */
  readonly opened?: readonly OpenPort[];
  /** Whether addresses need not be the host's. */
  readonly freebind: boolean;
  /** How what comes from the host's loopback is passed on; `usual` if it is not said. */
  readonly local?: LocalDelivery;
  /** Whether rules may be added later to those of ports inside too; they may be to the others in any case. */
  readonly changing?: boolean;
}

/**
 * How what comes from the host's loopback is passed on: by sockets of both sides, to the address inside (`usual`) or to the
 * loopback inside (`loopback`); or by the interface, like everything else (`interface`).
 */
export type LocalDelivery = "usual" | "loopback" | "interface";

/**
 * What ports need to be held in a namespace: sockets are opened there, and listeners are looked at, or even those that only
 * loopback reaches.
 */
export type Hold = "sockets" | "listeners" | "all listeners";

/** What decides about {@linkcode Hold}. */
export interface HoldRequest {
  /** Rules of ports that lead inside. */
  readonly rules: readonly ForwardingRule[];
  /** Rules of ports that lead out. */
  readonly outward: readonly ForwardingRule[];
  /** How what comes from the host's loopback is passed on. */
  readonly local: LocalDelivery;
  /** Whether the namespace has no interface. */
  readonly localOnly: boolean;
}

/** What rules need to be held in the namespace; null if there are none. */
export function holdFor({ rules, outward, local, localOnly }: HoldRequest): Hold | null {
  if (rules.some(({ scan }) => scan)) return local === "loopback" || localOnly ? "all listeners" : "listeners";
  return rules.length > 0 || outward.length > 0 || localOnly ? "sockets" : null;
}

/** No ports. */
export const NO_PORTS: Forwarding = { open: [], followed: [], freebind: false };

/** A port that cannot be listened on. */
export interface FailedPort {
  /** The rule that it is from. */
  readonly rule: ForwardingRule;
  /** The port. */
  readonly port: number;
  /** Error number of the kernel. */
  readonly errno: number;
}

const ANY6 = new Uint8Array(16);
const ANY4 = new Uint8Array(4);

/**
 * Opens one port.
 *
 * @param rule The rule that it is from.
 * @param port The port.
 * @param freebind Whether an address need not be the host's, or not yet.
 * @param maker Opens and binds sockets; this process by default.
 * @returns The port, which the caller owns; an error number if that fails.
 */
export function openPort(
  rule: ForwardingRule,
  port: number,
  freebind: boolean,
  maker?: SocketMaker,
): OpenPort | number {
  const type = rule.protocol === "TCP" ? SOCK.STREAM : SOCK.DGRAM;
  const binding = { port, interface: rule.interface, freebind };
  const open = (address: Uint8Array, dual: boolean) =>
    openListener(type, { ...binding, address: wordsOf(address), dual }, maker);
  let s = rule.address ? open(rule.address, false) : open(ANY6, true);
  // A kernel without IPv6 has IPv4 all the same.
  if (s === -E.EAFNOSUPPORT && !rule.address) s = open(ANY4, false);
  if (s < 0) return -s;
  const fd = new Fd(s);
  return { rule, port, to: rule.to + port - rule.first, fd, [Symbol.dispose]: () => fd.close() };
}

/** Descriptors that are not for ports: penne's own, and some for what comes in. */
const RESERVE = 128;

/** What rules have in common that differ in the ports alone: "all but 22" is two, one of which may be for root only. */
function place({ protocol, address, interface: name }: ForwardingRule): string {
  return [protocol, address, name].join();
}

/**
 * Opens the ports of rules, for which it raises the limit on open files. Those of a rule that is looked after later ("auto")
 * are left out. Of rules that open what they can, one port of all that listen on the same must be had.
 *
 * @param rules The rules.
 * @param freebind Whether an address need not be the host's, or not yet.
 * @param onFailure Called for each port that cannot be opened, before it is decided whether that is an error; the last one is
 * the error, if there is one.
 * @param others Number of ports that are open already.
 * @param maker Opens and binds sockets; this process by default.
 * @returns The open ports; null if one that must be open is not, and all are closed then.
 */
export function openPorts(
  rules: readonly ForwardingRule[],
  freebind: boolean,
  onFailure: (failed: FailedPort) => void,
  others = 0,
  maker?: SocketMaker,
): OpenPort[] | null {
  const open: OpenPort[] = [];
  /** The last failures of rules that open what they can, and have opened nothing. */
  const empty: FailedPort[] = [];
  let error: FailedPort | undefined;
  if (rules.length > 0) raiseOpenFilesLimit();
  const room = rules.length > 0 ? Number(openFilesLimit().soft) - RESERVE - others : 0;
  for (const rule of rules) {
    if (rule.scan) continue;
    const before = open.length;
    let failed: FailedPort | undefined;
    for (let port = rule.first; port <= rule.last && !error; port++) {
      const made = open.length < room ? openPort(rule, port, freebind, maker) : E.EMFILE;
      if (typeof made !== "number") {
        open.push(made);
        continue;
      }
      onFailure(failed = { rule, port, errno: made });
      // Whoever asks for all ports does not ask for the first thousand.
      if (!rule.bestEffort || made === E.EMFILE || made === E.ENFILE) error = failed;
    }
    if (error) break;
    if (failed && open.length === before) empty.push(failed);
  }
  if (!error) {
    const served = new Set(open.filter(({ rule }) => rule.bestEffort).map(({ rule }) => place(rule)));
    error = empty.find(({ rule }) => !served.has(place(rule)));
    if (!error) return open;
    onFailure(error);
  }
  for (const port of open) port[Symbol.dispose]();
  return null;
}
