// Writes the id maps of a user namespace: directly where permitted, else by newuidmap and newgidmap.
//
// Theory of operation. Each map can be written once, by a process *outside*, through the /proc files of a process inside
// that is still dumpable. setgroups(2) is given up first: the kernel demands that before an unprivileged group map, and a
// map cannot be narrowed once it is written. The tools check that the caller owns the process, so all of this must happen
// before the process inside changes its ids.

import type { Agent } from "../../ffi/agent/agent.ts";
import { O } from "../../ffi/core/consts.ts";
import { orNull, SysError } from "../../ffi/core/errno.ts";
import { open, readText, write } from "../../ffi/sys/file.ts";
import { self } from "../../ffi/core/task.ts";
import { runTool } from "../agents/tool.ts";
import { attempt, PenneError } from "../base/errors.ts";
import { failedCall } from "../base/failed_call.ts";
import type { IdMap, MapPlan } from "./plan.ts";
import { mapText } from "./ranges.ts";

/** What provides the tools. */
export const INSTALL_TOOLS = "install it (Debian and Ubuntu: apt install uidmap; Fedora: dnf install shadow-utils)";

/** The finder of causes, loaded after a failure. */
const findings = () => import("../findings/mod.ts");

/**
 * Writes a file in /proc of an agent, by the pid that it has there.
 *
 * Agents are seen before their execve(2) has ended, and since Linux 7.3 they are not dumpable until then: their files are
 * root's, and with hidepid= of proc(5) they are refused or hidden. An agent that answers has been executed.
 */
function writeProc(agent: Agent, pid: number, file: string, text: string): void {
  const openIt = () => open(self, `/proc/${pid}/${file}`, O.WRONLY);
  const early = () => {
    agent.raw("getpid");
    return openIt();
  };
  using fd = orNull(openIt, "EACCES", "EPERM", "ENOENT") ?? early();
  write(fd, new TextEncoder().encode(text));
}

/** A tool was run, and has written no map. */
export class ToolError extends PenneError {
  /**
   * Says how it ended.
   *
   * @param kind Which ids.
   * @param path The tool.
   * @param map The map.
   * @param how How it ended.
   */
  constructor(kind: "uid" | "gid", readonly path: string, { ranges }: IdMap, how: string) {
    super(`map ids with new${kind}map: ${how}`, {
      explain: async () => (await findings()).mapHints(kind, ranges, path),
    });
  }
}

/** Makes a tool write a map; throws if it is missing, exits with another code than 0 or is killed. */
function writeByTool(tool: string, agent: Agent, pid: number, map: IdMap): void {
  agent.raw("getpid"); // see writeProc(); not every system gives the tools the rights of root
  const kind = tool === "newuidmap" ? "uid" : "gid";
  const ranges = map.ranges.flatMap(({ inside, outside, count }) => [inside, outside, count]);
  const result = runTool(tool, [pid, ...ranges].map(String), { errors: true });
  if (result instanceof SysError) {
    throw new PenneError(`run ${tool}, which is needed to map these ids without privilege`, {
      cause: result,
      hints: result.code === "ENOENT" ? [INSTALL_TOOLS] : [],
    });
  }
  const { path, status, output } = result;
  if (status.code === 0) {
    const file = `/proc/${pid}/${kind}_map`;
    if (readText(self, file) !== "") return;
    throw new ToolError(kind, path, map, "it exited with 0 but has written no map");
  }
  const said = output.trim().split("\n")[0];
  const how = status.signal === null ? `it exited with ${status.code}` : `it was killed by signal ${status.signal}`;
  throw new ToolError(kind, path, map, `${how}${said ? ` (${said.replace(/^newuidmap: |^newgidmap: /, "")})` : ""}`);
}

/**
 * Writes the maps of the user namespace that an agent is in.
 *
 * @param plan The maps.
 * @param agent The agent; it is dumpable once it has been executed.
 * @param pid Its pid in this process's /proc.
 * @throws {PenneError} If it fails; the namespace is of no use then.
 * @throws {AgentGoneError} If the agent has ended.
 */
export function applyMaps(plan: MapPlan, agent: Agent, pid: number): void {
  if (plan.denySetgroups) attempt("forbid setgroups", () => writeProc(agent, pid, "setgroups", "deny"));
  for (const [map, kind, tool] of [[plan.users, "uid", "newuidmap"], [plan.groups, "gid", "newgidmap"]] as const) {
    if (!map) continue;
    if (map.tool) writeByTool(tool, agent, pid, map);
    else {
      attempt(`write the map of ${kind === "uid" ? "user" : "group"} ids`, () => {
        writeProc(agent, pid, `${kind}_map`, mapText(map.ranges));
      }, async (error) => (await findings()).mapHints(kind, map.ranges, failedCall(error)));
    }
  }
}
