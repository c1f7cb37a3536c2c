// The protocol between a program and the Worker that serves its taps: commands as lines of JSON, reports as messages.

import type { NamespaceId } from "../../namespaces/id.ts";
import type { NetworkPlan } from "../../network/plan.ts";
import type { ReachRequest } from "../../network/reach.ts";
import type { TapLink } from "../../network/tap_link.ts";
import type { Reply, Request } from "../../control/message.ts";
import type { ServedPlan } from "./reactor_server.ts";
import type { SentForwarding, SentHeld } from "./sent_ports.ts";

/** The first message to the Worker. */
export interface Start {
  /** Descriptor of the pipe that commands come through. */
  readonly commands: number;
  /** Whether the program has the taps open too, so that closing one removes no interface, which takes some 30 ms. */
  readonly tapsStay: boolean;
  /** Memory of a {@linkcode Progress}. */
  readonly progress: SharedArrayBuffer;
  /** What the namespaces reach. */
  readonly reach: ReachRequest;
}

/** A command to the Worker. */
export type Command =
  /** Serve a namespace from now on, by the descriptor of its tap if it has one. */
  | {
    readonly serve: number;
    readonly link: Omit<TapLink, "tap"> & { readonly tap: number } | null;
    readonly plan: ServedPlan | null;
    readonly netns?: NamespaceId | undefined;
    /** What it was given, if the host is followed there. */
    readonly followed?: NetworkPlan;
    /** Ports of the namespace. */
    readonly ports?: SentForwarding;
    /** What is held there for ports. */
    readonly held?: SentHeld;
  }
  /** Carry out a request about the ports of a tap of that number, and report `answered`. */
  | { readonly ask: number; readonly of: number; readonly request: Request }
  /** Serve the tap of that number no longer. */
  | { readonly stop: number }
  /** Pass on what was sent, serve nothing any longer, and report `done`. */
  | { readonly finish: number };

/** A report of the Worker. */
export type Report =
  /** The tap of that number is gone. */
  | { readonly dead: number }
  /** The tap of that number is served from now on, and its control socket answers. */
  | { readonly serving: number }
  /** A problem that is not worth failing for. */
  | { readonly warning: string }
  /** The reply to the `ask` command of that number; null if the tap is not served any longer. */
  | { readonly answered: number; readonly reply: Reply | null }
  /** The `finish` command of that number has been carried out. */
  | { readonly done: number };

/**
 * A command as a line of JSON, in which a Uint8Array is an object `{ bytes }`.
 *
 * @example
 * ```ts
 * import { type Command, decodeCommand, encodeCommand } from "./protocol.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const mac = Uint8Array.of(2, 0, 0, 0, 0, 1);
 * const link = { tap: 7, name: "tap0", mac, mtu: 1500, ipv4: null, ipv6: null };
 * const plan = { outside: { addresses: [], index: 2 }, peerMac: mac, families: [], mtu: 1500, configure: true };
 * const command: Command = { serve: 1, link, plan };
 * assertEquals(decodeCommand(new TextDecoder().decode(encodeCommand(command))), command);
 * ```
 */
export function encodeCommand(command: Command): Uint8Array {
  const text = JSON.stringify(command, (_, value) => value instanceof Uint8Array ? { bytes: [...value] } : value);
  return new TextEncoder().encode(`${text}\n`);
}

/** The command of a line that {@linkcode encodeCommand} has made. */
export function decodeCommand(line: string): Command {
  return JSON.parse(line, (_, value) => Array.isArray(value?.bytes) ? Uint8Array.from(value.bytes) : value);
}
