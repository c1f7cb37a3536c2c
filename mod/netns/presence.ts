// Tells whether a namespace that has no name still exists, without keeping it alive.
//
// Theory of operation. A handle says it since Linux 6.18, to those who may open it: root, and up to some later version the
// owner of its user namespace. For network namespaces there is another way on every kernel and for every caller with a
// descriptor of it: a network namespace can number others, and a number goes with the namespace that has it. An agent
// makes such a numbering namespace and ends; it lives as long as penne's netlink socket in it.

import type { CallRule } from "../../ffi/core/call_rule.ts";
import { Agent } from "../../ffi/agent/agent.ts";
import { CLONE } from "../../ffi/core/consts.ts";
import { orNull, SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { HANDLE_RULES, isAlive, namespaceHandle } from "../../ffi/sys/namespace.ts";
import { endAgents } from "../agents/enclosure.ts";
import { getNsid, setNsid } from "../netlink/nsid.ts";
import { NetlinkSocket } from "../netlink/socket.ts";

/** The number in a namespace that numbers no other one. */
const NSID = 1;

/** What asking a {@linkcode Presence} needs. */
export const PRESENCE_RULES: readonly CallRule[] = [
  ...HANDLE_RULES,
  { call: "sendto", why: "rtnetlink: the number of a namespace", test: "tests/cli/wait_test.ts" },
  { call: "recvfrom", why: "rtnetlink: the answer", test: "tests/cli/wait_test.ts" },
];

/** Whether a namespace exists. */
export interface Presence extends Disposable {
  /** Whether it does now. */
  isThere(): boolean;
}

/** By its handle; null if the kernel has none, or this caller may not open it. */
function byHandle(namespace: Fd): Presence | null {
  const handle = orNull(() => namespaceHandle(namespace));
  return handle && isAlive(handle) ? { isThere: () => isAlive(handle), [Symbol.dispose]: () => {} } : null;
}

/** An agent in a new network namespace, in a new user namespace too where only that allows it. */
function spawnNumbering(): Agent {
  try {
    return Agent.spawn(CLONE.NEWNET);
  } catch (error) {
    if (!(error instanceof SysError) || error.code !== "EPERM") throw error;
    return Agent.spawn(CLONE.NEWUSER | CLONE.NEWNET);
  }
}

/** By a number; only for a network namespace. @throws {SysError} If no numbering namespace can be made. */
function byNumber(netns: Fd): Presence {
  using owned = new DisposableStack();
  const agent = owned.adopt(spawnNumbering(), (agent) => endAgents([agent])); // a zombie would hold its user namespace
  const socket = new NetlinkSocket(agent);
  try {
    socket.request(setNsid(netns.number, NSID));
  } catch (error) {
    socket[Symbol.dispose]();
    throw error;
  }
  return {
    isThere: () => orNull(() => socket.get(getNsid(NSID)), "ENOENT") !== null,
    [Symbol.dispose]: () => socket[Symbol.dispose](),
  };
}

/**
 * Finds a way to tell whether a namespace exists.
 *
 * @param namespace The namespace; the result does not need the descriptor.
 * @param type CLONE_NEW* of its type.
 * @returns The way; null if there is none for this type, on this kernel or for this caller.
 * @throws {SysError} If a network namespace of penne's own, which would tell it, cannot be made.
 */
export function presenceOf(namespace: Fd, type: number): Presence | null {
  return byHandle(namespace) ?? (type === CLONE.NEWNET ? byNumber(namespace) : null);
}
