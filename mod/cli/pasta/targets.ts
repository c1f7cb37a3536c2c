// Finds the namespaces that a command line of pasta(1) names.

import { O } from "../../../ffi/core/consts.ts";
import { self } from "../../../ffi/core/task.ts";
import { open } from "../../../ffi/sys/file.ts";
import { NETNS_DIRECTORY, parseTarget, type Target } from "../../netns/target.ts";
import type { PastaConfig } from "../../pasta/request.ts";
import { attemptPasta } from "./files.ts";

/** Opens a file and closes it again; the error names it as pasta does. */
function look(kind: "user" | "network", path: string): void {
  attemptPasta(`Couldn't open ${kind} namespace ${path}`, () => open(self, path, O.RDONLY)[Symbol.dispose]());
}

/**
 * Checks that the namespaces which are named are there.
 *
 * @param config What the command line asks for.
 * @throws {PastaError} If one is not.
 */
export function lookAtNamespaces({ target, userns, netnsOnly }: PastaConfig): void {
  if (userns !== null) look("user", userns);
  if (target.kind === "pid") {
    if (userns === null && !netnsOnly) look("user", `/proc/${target.pid}/ns/user`);
    look("network", `/proc/${target.pid}/ns/net`);
  } else if (target.kind === "netns") {
    look("network", target.netns.includes("/") ? target.netns : `${NETNS_DIRECTORY}/${target.netns}`);
  }
}

/**
 * The namespace to be served.
 *
 * @param config What the command line asks for.
 * @returns The namespace; null for that of a command.
 * @throws {PenneError} If it cannot be one.
 */
export function servedTarget({ target }: PastaConfig): Target | null {
  if (target.kind === "command") return null;
  if (target.kind === "pid") return parseTarget(String(Number(target.pid)));
  return parseTarget(target.netns.includes("/") ? target.netns : `netns:${target.netns}`);
}
