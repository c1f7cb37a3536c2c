// Explains why a file cannot be opened or executed: its mode, its mount, or a security module.

import { AT_FDCWD } from "../../ffi/core/consts.ts";
import { orNull } from "../../ffi/core/errno.ts";
import { cString } from "../../ffi/core/memory.ts";
import { call, self } from "../../ffi/core/task.ts";
import { stat } from "../../ffi/sys/stat.ts";
import { mountOf } from "../host/mounts.ts";
import { filterAnswer, filterFinding } from "./filter.ts";
import type { FailedCall } from "../base/failed_call.ts";
import type { Finding } from "./finding.ts";
import { exists, mounts, setting, status } from "./host.ts";
import { DISCONNECTED, whyDenied } from "./modules.ts";
import { explainNamespaceFile } from "./process.ts";

/** Modes that faccessat2(2) asks for by the effective ids. */
const [READ, WRITE] = [4, 2];
const ACCESS_MODE = 3;

/**
 * Whether a file's mode keeps this process from opening it.
 *
 * @param path The file.
 * @param wanted Bits to be granted: 4 to read, 2 to write, 1 to execute.
 * @returns Its mode in octal if it does; null if the mode permits it, or cannot be read.
 */
export function deniedByMode(path: string, wanted: number): string | null {
  const file = orNull(() => stat(self, path));
  if (!file) return null;
  const groups = (status("Groups") ?? "").split(" ").filter(Boolean).map(Number);
  const uid = call(self, "geteuid");
  const shift = uid === file.uid ? 6 : groups.includes(file.gid) || call(self, "getegid") === file.gid ? 3 : 0;
  if ((file.mode >> shift & wanted) === wanted) return null;
  // What an access list grants shows as the mask in the place of the group's bits.
  if (self.raw("faccessat", AT_FDCWD, cString(path), wanted) === 0) return null;
  return (file.mode & 0o7777).toString(8).padStart(3, "0");
}

/**
 * Explains why a file of the host could not be opened, or a directory made.
 *
 * @param failed The call, openat(2) or mkdirat(2).
 * @returns The findings.
 */
export function explainOpen(failed: FailedCall): Finding[] {
  const makes = failed.syscall === "mkdirat";
  const [, given, flags] = failed.args;
  const path = makes ? `${given}`.replace(/\/[^/]*$/, "") || "/" : given;
  if (failed.code !== "EACCES" && failed.code !== "EPERM") return [];
  const answer = filterAnswer(failed);
  if (answer !== null) return [filterFinding(failed, answer)];
  if (typeof path !== "string" || !path.startsWith("/") || !exists(path)) return [];
  const wanted = makes ? WRITE : [READ, WRITE, READ | WRITE][Number(flags) & ACCESS_MODE] ?? READ;
  // Files of /proc have checks of their own, which say nothing about modes and modules.
  if (path.startsWith("/proc/")) return explainNamespaceFile(failed);
  if (deniedByMode(path, wanted) !== null) return [];
  return failed.code === "EACCES"
    ? whyDenied(`${given}`, `${given}${makes ? "/" : ""} ${wanted & WRITE ? "rw" : "r"},`)
    : [];
}

/**
 * Explains why an agent cannot be executed from its memfd, execveat(2).
 *
 * @param failed The call.
 * @returns The findings.
 */
export function explainMemfd(failed: FailedCall): Finding[] {
  const answer = filterAnswer({ syscall: "execveat", args: [] });
  if (answer !== null) return [filterFinding({ syscall: "execveat", args: [] }, answer)];
  const name = "vm.memfd_noexec";
  if (failed.code === "EACCES" && setting(name) === "2") {
    return [{
      cause: "sysctl",
      words: `${name} is 2 in this pid namespace, which forbids to execute a memfd`,
      fix: `as root, here and in the pid namespaces around: sysctl -w ${name}=1`,
    }];
  }
  if (failed.code !== "EACCES" && failed.code !== "EPERM") return [];
  return whyDenied("executing a memfd", DISCONNECTED);
}

/**
 * Whether a directory of the host is on a file system that is mounted with an option.
 *
 * @param path The path.
 * @param option The option.
 * @returns The mount point, or null.
 */
export function mountedWith(path: string, option: string): string | null {
  const mount = mountOf(mounts(), path);
  return mount?.options.includes(option) ? mount.path : null;
}
