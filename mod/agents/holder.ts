// Turns an agent into a holder, a process that keeps namespaces alive after penne has ended.

import type { Agent } from "../../ffi/agent/agent.ts";
import { cString } from "../../ffi/core/memory.ts";

/**
 * Turns an agent into a holder with a session of its own and / as its working directory.
 *
 * @param agent The agent; its socket is closed afterwards.
 * @param label What `ps` shows after its name.
 * @throws {SysError} If it cannot be executed again.
 */
export function makeHolder(agent: Agent, label: string): void {
  agent.raw("setsid");
  agent.raw("chdir", cString("/"));
  agent.hold(label);
}
