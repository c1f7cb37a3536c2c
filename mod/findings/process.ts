// Explains why the files of another process cannot be opened: the check of ptrace(2), PTRACE_MODE_READ.

import { O } from "../../ffi/core/consts.ts";
import { orNull } from "../../ffi/core/errno.ts";
import { call, self } from "../../ffi/core/task.ts";
import { open } from "../../ffi/sys/file.ts";
import { stat } from "../../ffi/sys/stat.ts";
import type { FailedCall } from "../base/failed_call.ts";
import { effectiveCapabilities } from "../host/caller.ts";
import { filterAnswer, filterFinding } from "./filter.ts";
import type { Finding } from "./finding.ts";
import { confinement, fixHere, has, isInitial, mounts, read } from "./host.ts";
import { DISCONNECTED, lacking, moduleFinding } from "./modules.ts";

/**
 * Explains why the file of a namespace cannot be opened or looked at although its process may be.
 *
 * @param failed The call.
 * @returns The findings.
 */
export function explainNamespaceFile({ syscall, code, args }: FailedCall): Finding[] {
  const own = confinement();
  if (code !== "EACCES" || !own?.enforced) return [];
  // Later kernels open them by a pidfd, ioctl_pidfd(2).
  if (syscall !== "ioctl" && !/\/ns\/\w+$/.test(`${args[1]}`)) return [];
  // Nobody but a module denies a process its own namespaces: their files are in no mount.
  if (orNull(() => open(self, "/proc/self/ns/uts", O.RDONLY).close()) === undefined) return [];
  return [moduleFinding(own, "opening the files of namespaces", DISCONNECTED)];
}

const AS_ROOT = "run penne as that user, or as root";
const OUTSIDE = "run penne outside of its user namespace";

/** A field of a process's status. */
function field(text: string, name: string): string[] {
  return new RegExp(`^${name}:\\s*(.*)$`, "m").exec(text)?.[1]?.split(/\s+/) ?? [];
}

/** Explains ENOENT and ESRCH: there is no such process, or it is not shown. */
function explainAbsence(pid: number): Finding[] {
  const hiding = mounts().findLast(({ path, type }) => path === "/proc" && type === "proc");
  const hidden = hiding?.superOptions.some((option) => /^hidepid=(2|4|invisible|ptraceable)$/.test(option)) ?? false;
  if (hidden && !has("SYS_PTRACE")) {
    return [{
      cause: "proc",
      words: `/proc hides the processes of other users here (hidepid), so process ${pid} cannot be seen if it is one`,
      fix: fixHere({ docker: AS_ROOT, unit: "ProtectProc=default", none: AS_ROOT }),
    }];
  }
  return [];
}

/**
 * Explains why a file of a process could not be opened, or the process itself.
 *
 * @param failed The call.
 * @param pid The process.
 * @returns The findings.
 */
export function explainProcess(failed: FailedCall, pid: number): Finding[] {
  if (failed.code === "ENOENT" || failed.code === "ESRCH") return explainAbsence(pid);
  if (failed.code !== "EACCES" && failed.code !== "EPERM") return [];
  const answer = filterAnswer(failed);
  if (answer !== null) return [filterFinding(failed, answer)];
  const own = confinement();
  const files = explainNamespaceFile(failed);
  if (files.length) return files;
  const status = read(`/proc/${pid}/status`);
  if (status === null) return explainAbsence(pid);
  const uid = call(self, "geteuid");
  const root = uid === 0;
  const ids = [...new Set(field(status, "Uid").slice(0, 3).map(Number))];
  const denied = () => own?.enforced ? [moduleFinding(own, `looking at process ${pid}`, "ptrace,")] : [];
  if (has("SYS_PTRACE")) {
    const found = denied();
    return found.length || isInitial("user") ? found : [{
      cause: "user namespace",
      words: `process ${pid} is not in the user namespace that penne runs in, nor in one below it`,
      fix: fixHere({ docker: OUTSIDE, unit: "PrivateUsers=no", none: OUTSIDE }),
    }];
  }
  if (root) return lacking("SYS_PTRACE", `looking at process ${pid}`);
  if (ids.some((id) => id !== uid)) {
    const other = ids.find((id) => id !== uid)!;
    return [{
      cause: "capability",
      words: `process ${pid} belongs to user ${other}`,
      fix: "run penne as that user, or as root",
    }];
  }
  // In a user namespace of their own, the user who made it has all capabilities over it.
  if (read(`/proc/${pid}/uid_map`) !== read("/proc/self/uid_map")) return denied();
  const permitted = BigInt(`0x${field(status, "CapPrm")[0] ?? "0"}`);
  if (permitted & ~effectiveCapabilities()) {
    return [{ cause: "capability", words: `process ${pid} has capabilities that you lack`, fix: "run penne as root" }];
  }
  // The directory itself always belongs to the process's user, unlike what is in it.
  if (orNull(() => stat(self, `/proc/${pid}/status`).uid) !== uid) {
    const words = `process ${pid} has made itself undumpable, so that only root may look at it`;
    return [{ cause: "capability", words, fix: "run penne as root" }];
  }
  return denied();
}
