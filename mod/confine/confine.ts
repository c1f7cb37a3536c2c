// Confines this process: it gives up, for good, what it has no use for once everything is set up.
//
// Theory of operation. What an attacker who takes penne over could do is what penne can do, so a process that only waits
// and answers gives the rest up. The order matters:
//  1. All that will ever be needed is open and loaded: descriptors first, and code that comes from elsewhere than memory.
//  2. The bounding set of capabilities is emptied while CAP_SETPCAP is there; then the other sets, but for what the role
//     keeps. execve(2) brings nothing back (no_new_privs), and nobody with fewer rights may trace the process
//     (non-dumpable).
//  3. Calls that the filter traps are reported: the handler is there before the filter.
//  4. The filter permits the calls of the role. Nothing can be taken back or added after it.
// Only the compiled program, which has one thread, is filtered. A filter holds for all threads, and Deno's other threads
// need more calls than penne.

import type { CallRule } from "../../ffi/core/call_rule.ts";
import { PR } from "../../ffi/core/consts.ts";
import { E, SysError } from "../../ffi/core/errno.ts";
import { call, self } from "../../ffi/core/task.ts";
import type { CapabilitySet } from "../../ffi/sys/capability.ts";
import { filterCalls, reportForbidden } from "../../ffi/core/confined.ts";
import { giveUpCapabilities } from "../agents/credentials.ts";
import { makeFilter } from "./filter.ts";
import { permittedCalls } from "./permitted.ts";
import { runtimeRules } from "./runtime.ts";

/** What a process does from now on. */
export interface Role {
  /** Its name, in the log. */
  readonly name: string;
  /** The capabilities that it keeps. */
  readonly keep: CapabilitySet;
  /** The calls that it makes, beside those of the runtime. */
  readonly rules: readonly CallRule[];
  /** The descriptor that a forbidden call is reported to. */
  readonly log: number;
}

/** How a process is confined. */
export interface Confinement {
  /** The calls that are permitted, with an asterisk if arguments are checked; null without a filter. */
  readonly calls: readonly string[] | null;
  /** Why there is no filter of calls, or null. */
  readonly reason: string | null;
}

/** Empties the bounding set, if this process may. */
function emptyBoundingSet(): void {
  for (let capability = 0; capability < 64; capability++) {
    const result = self.raw("prctl", PR.CAPBSET_DROP, capability, 0, 0, 0);
    if (result === -E.EINVAL || result === -E.EPERM) return;
  }
}

/**
 * Confines this process, as far as the kernel and filters of others let it.
 *
 * @param role What it does from now on.
 * @returns How it is confined.
 */
export function confine(role: Role): Confinement {
  const { arch, standalone } = Deno.build;
  const rules = [...role.rules, ...runtimeRules(call(self, "getpid"))];
  try {
    emptyBoundingSet();
    giveUpCapabilities(self, role.keep);
    call(self, "prctl", PR.SET_DUMPABLE, 0, 0, 0, 0);
    if (!standalone) return { calls: null, reason: "Deno runs it from source, with several threads" };
    reportForbidden(role.log);
    filterCalls(makeFilter(rules, arch));
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    return { calls: null, reason: `${error.syscall}(2) is refused (${error.code})` };
  }
  return { calls: permittedCalls(rules), reason: null };
}
