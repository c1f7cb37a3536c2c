// The system calls that agents need once only waiting is left to them: those of a running command, and holders; pure.
//
// Such an agent waits for the end of penne, for that of its children, and for a signal. What it does
// then is in libshim.c, so the rules name its functions. It has no runtime that could make other calls, so whatever the
// rules do not permit kills it.

import type { CallRule } from "../../ffi/core/call_rule.ts";
import { IOCTL, SIGNAL } from "../../ffi/core/consts.ts";

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
} as const;
