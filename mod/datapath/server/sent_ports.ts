// Ports that one thread has opened and another one serves: the descriptors go by number.

import { Agent, type AgentParts } from "../../../ffi/agent/agent.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import type { Forwarding, Hold, LocalDelivery, OpenPort } from "../../forward/ports.ts";
import type { ForwardingRule } from "../../forward/rule.ts";
import type { Held } from "./reactor_server.ts";

/** An open port: its rule by its place in a list, its port, the one it leads to, and its descriptor. */
type SentPort = readonly [rule: number, port: number, to: number, fd: number];

/** The ports of a namespace, as they are sent. */
export interface SentForwarding {
  readonly rules: readonly ForwardingRule[];
  readonly open: readonly SentPort[];
  readonly followed: readonly ForwardingRule[];
  readonly outward: readonly ForwardingRule[];
  readonly opened: readonly SentPort[];
  readonly freebind: boolean;
  readonly local: LocalDelivery;
}

/** What is held in a namespace, as it is sent. */
export interface SentHeld {
  readonly agent: AgentParts;
  readonly hold: Hold;
}

/**
 * Gives ports away.
 *
 * @param forwarding The ports, whose descriptors belong to the receiver from now on.
 * @returns What is to be sent.
 */
export function sendForwarding(forwarding: Forwarding): SentForwarding {
  const { open, followed, outward = [], opened = [], freebind, local = "usual" } = forwarding;
  const rules = [...new Set([...open, ...opened].map(({ rule }) => rule))];
  const send = ({ rule, port, to, fd }: OpenPort): SentPort => [rules.indexOf(rule), port, to, fd.release()];
  return { rules, open: open.map(send), followed, outward, opened: opened.map(send), freebind, local };
}

/**
 * Takes ports over.
 *
 * @param sent What was sent.
 * @returns The ports.
 */
export function receiveForwarding({ rules, open, opened, ...rest }: SentForwarding): Forwarding {
  const receive = ([at, port, to, number]: SentPort): OpenPort => {
    const fd = new Fd(number);
    return { rule: rules[at]!, port, to, fd, [Symbol.dispose]: () => fd.close() };
  };
  return { ...rest, open: open.map(receive), opened: opened.map(receive) };
}

/**
 * Gives away what is held in a namespace.
 *
 * @param held It, whose descriptors belong to the receiver from now on.
 * @returns What is to be sent.
 */
export function sendHeld({ agent, hold }: Held): SentHeld {
  return { agent: agent.release(), hold };
}

/**
 * Takes over what is held in a namespace.
 *
 * @param sent What was sent.
 * @returns It.
 */
export function receiveHeld({ agent, hold }: SentHeld): Held {
  return { agent: Agent.adopt(agent), hold };
}
