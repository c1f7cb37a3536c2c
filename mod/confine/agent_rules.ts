// The system calls that agents need once only waiting is left to them, or only one kind of work: those of a running command
// and of a data path, and holders; pure.
//
// Such an agent waits for the end of penne, for that of its children, and for a signal. What it does
// then is in libshim.c, so the rules name its functions. It has no runtime that could make other calls, so whatever the
// rules do not permit kills it.

import type { CallRule } from "../../ffi/core/call_rule.ts";
import { CLONE, IOCTL, PR, SIGNAL } from "../../ffi/core/consts.ts";
import { AF, NETLINK, SOCK } from "../../ffi/net/constants.ts";

const TEST = "tests/confine/agents_test.ts";

/** What every agent needs that waits. */
const WAITING: readonly CallRule[] = [
  { call: "ppoll", why: "agent(): waits for requests, for the end of penne and of children", test: TEST },
  { call: "recvmsg", why: "receive(): a request, or the end of penne", test: TEST },
  { call: "sendmsg", why: "send_packet(): an answer, or the end of the command", test: TEST },
  { call: "read", why: "reap(): a child has changed its state", test: TEST },
  { call: "wait4", why: "reap() and kill_listed(): how it has, and orphans", test: TEST },
  { call: "close", why: "serve_one() and kill_listed(): descriptors", test: TEST },
  { call: "exit_group", why: "finish()", test: TEST },
];

/** What one needs that kills what it looks after. */
const KILLING: readonly CallRule[] = [
  { call: "pread64", why: "read_list(): children", test: TEST },
  { call: "pidfd_open", why: "kill_listed(): one of them", test: TEST },
  {
    call: "pidfd_send_signal",
    when: [{ argument: 1, values: [SIGNAL.KILL] }],
    why: "kill_listed(): its end",
    test: TEST,
  },
];

/** What one needs that gives the terminal back. */
const TERMINAL: readonly CallRule[] = [
  {
    call: "ioctl",
    when: [{ argument: 1, values: [IOCTL.TIOCGPGRP, IOCTL.TIOCSPGRP, IOCTL.TCGETS, IOCTL.TCSETS] }],
    why: "foreground() and restore_settings(); penne moves the foreground of a pseudo-terminal by it",
    test: TEST,
  },
  {
    call: "kill",
    when: [{ argument: 1, values: [0] }],
    why: "finish(): whether anybody is left in a process group",
    test: TEST,
  },
];

/** The calls that a holder needs. */
export const HOLDER_RULES: readonly CallRule[] = [
  { call: "rt_sigtimedwait", why: "hold(): a signal that ends it", test: TEST },
  {
    call: "kill",
    when: [{ argument: 0, values: [-1] }, { argument: 1, values: [0] }],
    why: "hold(): whether another process is left",
    test: TEST,
  },
  { call: "exit_group", why: "hold()", test: TEST },
];

/** What an agent needs that makes calls for penne, and has no children of its own. */
const SERVING: readonly CallRule[] = [
  { call: "recvmsg", why: "receive(): a request, or the end of penne", test: TEST },
  { call: "sendmsg", why: "send_packet(): an answer", test: TEST },
  { call: "close", why: "serve_one(): descriptors", test: TEST },
  { call: "exit_group", why: "finish()", test: TEST },
];

const FOLLOWED = "tests/cli/follow/host_test.ts";
const INSIDE = "tests/cli/ports/ports_test.ts";

/** What the agent needs that has penne's former rights: it clones itself, and the clone enters a namespace. */
const FOLLOW_RULES: readonly CallRule[] = [
  ...SERVING,
  {
    call: "clone",
    when: [{ argument: 0, values: [CLONE.PARENT | CLONE.PIDFD | SIGNAL.CHLD], wide: true }],
    why: "clone_agent(): the one that enters a namespace, for a moment",
    test: FOLLOWED,
  },
  { call: "prctl", when: [{ argument: 0, values: [PR.SET_NAME] }], why: "that one: its name", test: FOLLOWED },
  {
    call: "prctl",
    when: [{ argument: 0, values: [PR.SET_DUMPABLE] }, { argument: 1, values: [0], wide: true }],
    why: "that one: nobody may trace it",
    test: FOLLOWED,
  },
  {
    call: "ioctl",
    when: [{ argument: 1, values: [IOCTL.TUNGETDEVNETNS, IOCTL.NS_GET_USERNS] }],
    why: "that one: the namespace of a tap, and its owner",
    test: FOLLOWED,
  },
  {
    call: "setns",
    when: [{ argument: 1, values: [CLONE.NEWUSER, CLONE.NEWNET] }],
    why: "that one: it enters",
    test: FOLLOWED,
  },
  {
    call: "socket",
    when: [
      { argument: 0, values: [AF.NETLINK] },
      { argument: 1, values: [SOCK.RAW | SOCK.CLOEXEC] },
      { argument: 2, values: [NETLINK.ROUTE, NETLINK.SOCK_DIAG] },
    ],
    why: "that one: by which the network there is changed, or its sockets are listed",
    test: FOLLOWED,
  },
  { call: "sendto", why: "that one: a change, or a question", test: FOLLOWED },
];

/** What the agent needs that opens sockets in a namespace. */
const PORTS_RULES: readonly CallRule[] = [
  ...SERVING,
  {
    call: "socket",
    when: [
      { argument: 0, values: [AF.INET, AF.INET6] },
      { argument: 1, values: [SOCK.STREAM, SOCK.DGRAM].map((type) => type | SOCK.NONBLOCK | SOCK.CLOEXEC) },
      { argument: 2, values: [0] },
    ],
    why: "a socket inside",
    test: INSIDE,
  },
  { call: "bind", why: "a socket inside: its port", test: INSIDE },
];

/** What an agent of a running command has to do at its end. */
export interface Duties {
  /** Whether it kills processes; the kernel does that for PID 1. */
  readonly kills: boolean;
  /** Whether it gives a terminal back; only one does that kills. */
  readonly terminal: boolean;
}

/**
 * The calls that an agent of a running command needs.
 *
 * @param duties What it has to do at its end.
 * @returns The rules.
 */
export function waitingRules({ kills, terminal }: Duties): CallRule[] {
  return [...WAITING, ...kills ? KILLING : [], ...terminal ? TERMINAL : []];
}

/** The rules of all roles for which a filter is kept at hand. */
export const AGENT_ROLES = {
  init: waitingRules({ kills: false, terminal: false }),
  killer: waitingRules({ kills: true, terminal: false }),
  terminal: waitingRules({ kills: true, terminal: true }),
  holder: HOLDER_RULES,
  follow: FOLLOW_RULES,
  ports: PORTS_RULES,
} as const;
