// Writes the id maps of a user namespace: directly where permitted, else by newuidmap and newgidmap.
//
// Theory of operation. Each map can be written once, by a process *outside*, through the /proc files of a process inside
// that is still dumpable. setgroups(2) is given up first: the kernel demands that before an unprivileged group map, and a
// map cannot be narrowed once it is written. The tools check that the caller owns the process, so all of this must happen
// before the process inside changes its ids.

import { Agent } from "../../ffi/agent/agent.ts";
import { exec } from "../../ffi/agent/exec.ts";
import { O, POLL, S } from "../../ffi/core/consts.ts";
import type { SysError } from "../../ffi/core/errno.ts";
import { cString } from "../../ffi/core/memory.ts";
import { waitChild } from "../../ffi/sys/process.ts";
import { open, pipe, read, readText, write } from "../../ffi/sys/file.ts";
import { poll } from "../../ffi/sys/poll.ts";
import { stat } from "../../ffi/sys/stat.ts";
import { call, self } from "../../ffi/core/task.ts";
import { endAgents } from "../agents/enclosure.ts";
import { undoRuntime } from "../agents/inherit.ts";
import { attempt, PenneError } from "../base/errors.ts";
import { environment, searchPath, variable } from "../host/caller.ts";
import type { IdMap, MapPlan } from "./plan.ts";
import { mapText } from "./ranges.ts";

function writeProc(pid: number, file: string, text: string): void {
  using fd = open(self, `/proc/${pid}/${file}`, O.WRONLY);
  write(fd, new TextEncoder().encode(text));
}

/** Explains why a tool may have failed. */
function toolHints(tool: string, path: string): string[] {
  const hints: string[] = [];
  const setuid = (stat(self, path).mode & S.ISUID) !== 0;
  const capable = self.raw("getxattr", cString(path), cString("security.capability"), null, 0) > 0;
  if (!setuid && !capable) {
    hints.push(`${path} has neither the set-user-id bit nor file capabilities (as root: chmod u+s ${path})`);
  }
  hints.push(`see that ${tool === "newuidmap" ? "/etc/subuid" : "/etc/subgid"} grants every id of the map`);
  return hints;
}

/** Runs a tool; throws if it is missing, exits with another code than 0 or is killed. */
function runTool(tool: string, pid: number, map: IdMap): void {
  const what = `map ids with ${tool}`;
  const [reader, writer] = attempt(what, () => pipe());
  using output = reader;
  using helper = attempt(what, () => Agent.spawn());
  let error: SysError | null = null;
  let path = tool;
  {
    using end = writer;
    using nothing = open(self, "/dev/null", O.RDWR);
    call(helper, "dup3", nothing, 0, 0);
    call(helper, "dup3", end, 1, 0);
    call(helper, "dup3", end, 2, 0);
    const ranges = map.ranges.flatMap(({ inside, outside, count }) => [inside, outside, count]);
    undoRuntime(helper);
    for (path of searchPath(tool, variable(environment(), "PATH") || undefined)) {
      error = exec(helper, path, [tool, pid, ...ranges].map(String), []);
      if (error === null || !["ENOENT", "ENOTDIR", "EACCES"].includes(error.code)) break;
    }
  }
  if (error) {
    endAgents([helper]);
    throw new PenneError(`run ${tool}, which is needed to map these ids without privilege`, {
      cause: error,
      hints: error.code !== "ENOENT"
        ? []
        : ["install it (Debian and Ubuntu: apt install uidmap; Fedora: dnf install shadow-utils)"],
    });
  }
  // Wait for the tool, not for end of file: a process that it has started may hold the pipe longer.
  const status = waitChild(helper.pid);
  const buffer = new Uint8Array(4096);
  let length = 0;
  while (length < buffer.length && poll([{ fd: output, events: POLL.IN }], 0)[0]! & POLL.IN) {
    length += read(output, buffer.subarray(length));
  }
  output.close();
  if (status.code === 0) {
    const file = `/proc/${pid}/${tool === "newuidmap" ? "uid_map" : "gid_map"}`;
    if (readText(self, file) !== "") return;
    throw new PenneError(`${what}: it exited with 0 but has written no map`, { hints: toolHints(tool, path) });
  }
  const said = new TextDecoder().decode(buffer.subarray(0, length)).trim().split("\n")[0];
  const how = status.signal === null ? `it exited with ${status.code}` : `it was killed by signal ${status.signal}`;
  throw new PenneError(`${what}: ${how}${said ? ` (${said.replace(/^newuidmap: |^newgidmap: /, "")})` : ""}`, {
    hints: toolHints(tool, path),
  });
}

/**
 * Writes the maps of the user namespace that a process is in.
 *
 * @param plan The maps.
 * @param pid A dumpable process in the namespace, by its pid in this process's /proc.
 * @throws {PenneError} If it fails; the namespace is of no use then.
 */
export function applyMaps(plan: MapPlan, pid: number): void {
  if (plan.denySetgroups) attempt("forbid setgroups", () => writeProc(pid, "setgroups", "deny"));
  for (const [map, kind, tool] of [[plan.users, "uid", "newuidmap"], [plan.groups, "gid", "newgidmap"]] as const) {
    if (!map) continue;
    if (map.tool) runTool(tool, pid, map);
    else {
      attempt(`write the map of ${kind === "uid" ? "user" : "group"} ids`, () => {
        writeProc(pid, `${kind}_map`, mapText(map.ranges));
      }, () => ["all outside ids must be mapped in the caller's user namespace"]);
    }
  }
}
