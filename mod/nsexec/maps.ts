// Writes the id maps of the user namespace that a bootstrap makes, directly or by newuidmap and newgidmap.

import { Agent } from "../../ffi/agent/agent.ts";
import { exec } from "../../ffi/agent/exec.ts";
import { POLL, PR, SIGNAL } from "../../ffi/core/consts.ts";
import { SysError } from "../../ffi/core/errno.ts";
import { waitChild } from "../../ffi/sys/process.ts";
import { poll } from "../../ffi/sys/poll.ts";
import { call, self } from "../../ffi/core/task.ts";
import { undoRuntime } from "../agents/inherit.ts";
import { type FailedCall, failedCall } from "../base/failed_call.ts";
import { byteString, fromByteString } from "./log.ts";
import type { BootstrapRequest } from "./request.ts";
import { type Explain, Failure, type Party, type Stage, writeStageFile } from "./stage.ts";

/** Runs a program that writes a map; its arguments are the process and the numbers of the map. */
function runMappingTool(stage0: Party, stage1: Stage, path: Uint8Array, map: string): boolean {
  using helper = Agent.spawn();
  call(helper, "prctl", PR.SET_PDEATHSIG, SIGNAL.KILL, 0, 0, 0);
  undoRuntime(helper);
  const error = exec(helper, path, [
    path,
    `${stage1.agent.pid}`,
    ...map.split(/[ \n]+/).filter(Boolean).map(fromByteString),
  ], []);
  if (error) {
    stage0.complain("failed to execv", error);
    helper.socket.close();
  }
  const [stage1Gone] = poll([{ fd: stage1.agent.pidfd, events: POLL.IN }, { fd: helper.pidfd, events: POLL.IN }]);
  if (stage1Gone) self.raw("pidfd_send_signal", helper.pidfd, SIGNAL.KILL, null, 0);
  const { code } = waitChild(helper.pid);
  if (stage1Gone) throw new Failure(1);
  return code === 0 && !error; // a program killed by a signal has failed
}

/** The ids outside in the text of a map. */
function rangesOf(text: string): { outside: number; count: number }[] {
  const lines = text.split("\n").map((line) => line.trim().split(/\s+/).map(Number));
  return lines.flatMap(([, outside, count]) =>
    outside === undefined || count === undefined ? [] : [{ outside, count }]
  );
}

/** Finds out why ids could not be mapped. */
function whyNotMapped(
  kind: "uid" | "gid",
  ranges: readonly { outside: number; count: number }[],
  failed: FailedCall | string,
): Explain {
  return async () => (await import("../findings/mod.ts")).mapHints(kind, ranges, failed, { alternatives: false });
}

/** Writes a map of stage 1's user namespace; if that is not permitted, runs the tool. */
function writeMap(
  stage0: Party,
  stage1: Stage,
  kind: "uid" | "gid",
  map: Uint8Array | null,
  tool: Uint8Array | null,
): void {
  const { pid } = stage1.agent;
  if (map === null || map.length === 0) return;
  const text = byteString(map);
  const file = `/proc/${pid}/${kind}_map`;
  stage0.say(`update ${file} to '${text}'`);
  try {
    writeStageFile(stage1, `${kind}_map`, map);
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    if (error.code !== "EPERM") stage0.bail(`failed to update ${file}`, error);
    stage0.say(`update ${file} got -EPERM (trying ${tool?.length ? byteString(tool) : "(null)"})`);
    const ranges = rangesOf(text);
    if (!tool?.length) stage0.bail("mapping tool not present", error, whyNotMapped(kind, ranges, failedCall(error)));
    const done = stage0.attempt(
      `failed to use new${kind} map on ${pid}`,
      () => runMappingTool(stage0, stage1, tool, text),
    );
    const path = byteString(tool);
    if (!done) stage0.bail(`failed to use new${kind} map on ${pid}`, undefined, whyNotMapped(kind, ranges, path));
  }
}

/**
 * Maps the ids of the user namespace that stage 1 is in.
 *
 * @param stage0 Stage 0.
 * @param stage1 Stage 1; it is dumpable.
 * @param request The request.
 * @throws {Failure} If it fails.
 */
export function mapIds(stage0: Party, stage1: Stage, request: BootstrapRequest): void {
  stage0.say("stage-1 requested userns mappings");
  if (request.rootless && !request.setgroup) {
    const file = `/proc/${stage1.agent.pid}/setgroups`;
    try {
      writeStageFile(stage1, "setgroups", new TextEncoder().encode("deny"));
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      // Linux before 3.19 lacks this file.
      if (error.code !== "ENOENT") stage0.bail(`failed to write 'deny' to ${file}`, error);
    }
  }
  writeMap(stage0, stage1, "uid", request.uidMap, request.uidMapPath);
  writeMap(stage0, stage1, "gid", request.gidMap, request.gidMapPath);
}
