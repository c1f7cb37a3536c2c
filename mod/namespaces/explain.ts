// Explains why the kernel refused to make namespaces; loaded only after a failure.

import { orNull, type SysError } from "../../ffi/core/errno.ts";
import { readText } from "../../ffi/sys/file.ts";
import { self } from "../../ffi/core/task.ts";
import { effectiveCapabilities } from "../host/caller.ts";
import type { NamespaceType } from "./types.ts";

function setting(path: string): string | null {
  return orNull(() => readText(self, `/proc/sys/${path}`).trim());
}

/** Whether this process is in a chroot(2): its root directory is not a mount point. */
function isChrooted(): boolean {
  return !readText(self, "/proc/self/mountinfo").split("\n").some((line) => line.split(" ")[4] === "/");
}

/**
 * Explains why namespaces could not be made.
 *
 * @param error The error of the kernel.
 * @param types The kinds that were to be made.
 * @returns A hint for each cause found.
 */
export function explainNamespaces(error: SysError, types: readonly NamespaceType[]): string[] {
  const hints: string[] = [];
  if (error.code === "ENOSPC" || error.code === "EUSERS") {
    for (const type of types) {
      if (setting(`user/max_${type}_namespaces`) !== "0") continue;
      const name = `user.max_${type}_namespaces`;
      hints.push(`${name} is 0, which forbids ${type} namespaces (as root: sysctl -w ${name}=10000)`);
    }
    if (!hints.length) {
      hints.push("a limit is reached: see user.max_*_namespaces; user and pid namespaces nest at most 32 deep");
    }
  }
  if (error.code === "EPERM" || error.code === "EACCES") {
    if (!types.includes("user") && effectiveCapabilities() === 0n) {
      hints.push(`without privilege these namespaces need a user namespace too: --unshare user,${types.join(",")}`);
    }
    if (types.includes("user") && isChrooted()) {
      hints.push("the kernel makes no user namespace in a chroot: use pivot_root(2) instead of chroot(2)");
    }
    if (setting("kernel/unprivileged_userns_clone") === "0") {
      hints.push("kernel.unprivileged_userns_clone is 0 (as root: sysctl -w kernel.unprivileged_userns_clone=1)");
    }
    if (setting("kernel/apparmor_restrict_unprivileged_userns") === "1") {
      hints.push(
        "AppArmor restricts user namespaces on this host (kernel.apparmor_restrict_unprivileged_userns is 1): " +
          "install a profile that allows them for penne, or as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
      );
    }
  }
  if (error.code === "EINVAL") hints.push("this kernel may lack one of these kinds of namespaces: see /proc/self/ns");
  return hints;
}
