// Explains why something cannot be mounted, mount(2).

import { MS } from "../../ffi/core/consts.ts";
import { filterAnswer, filterFinding } from "./filter.ts";
import type { Context, FailedCall } from "../base/failed_call.ts";
import type { Finding } from "./finding.ts";
import { fixHere, mounts } from "./host.ts";
import { lacking, whyDenied, whyNotCapable } from "./modules.ts";

/** Parts of /proc that are named. */
const NAMED = 3;

/**
 * Explains why the kernel refuses a new /proc in a user namespace: it would show what the present one hides, by mounts over
 * a part of it.
 *
 * @returns The finding; none if nothing is hidden.
 */
export function hiddenProc(): Finding[] {
  const hidden = [...new Set(mounts().map(({ path }) => path))].filter((path) =>
    path.startsWith("/proc/") && !path.startsWith("/proc/sys/fs/binfmt_misc")
  );
  if (!hidden.length) return [];
  const names = hidden.slice(0, NAMED).join(", ") + (hidden.length > NAMED ? " and more" : "");
  const without = "leave pid out: --unshare user,mnt,ipc,uts,net";
  return [{
    cause: "proc",
    words: `parts of /proc are hidden here (${names}), so the kernel refuses a new one`,
    fix: fixHere({
      docker: "docker run --security-opt systempaths=unconfined",
      podman: "podman run --security-opt unmask=ALL",
      kubernetes: "in the securityContext: procMount: Unmasked",
      unit: "ProtectKernelTunables=no and ProtectKernelLogs=no",
      none: null,
    }),
    without,
  }];
}

/**
 * Explains why mount(2) has failed.
 *
 * @param failed The call.
 * @param context What it was a part of.
 * @returns The findings.
 */
export function explainMount(failed: FailedCall, { ownRights = false }: Context): Finding[] {
  const { code, args } = failed;
  const [, target, type, flags] = args;
  if (code === "EINVAL" && target === "/" && (Number(flags) & MS.PRIVATE)) {
    if (mounts().some(({ path }) => path === "/")) return [];
    return [{
      cause: "chroot",
      words: "penne runs in a chroot whose root directory is not a mount point, so its mounts cannot be made private",
      fix: "mount the directory on itself before chroot(2): mount --bind DIR DIR; or leave mnt out of --unshare",
    }];
  }
  if (code !== "EPERM" && code !== "EACCES" && code !== "ENOSYS") return [];
  const answer = filterAnswer(failed);
  if (answer !== null) return [filterFinding(failed, answer)];
  if (code === "EPERM" && type === "proc") {
    const found = hiddenProc();
    if (found.length) return found;
  }
  if (code === "EACCES") return whyDenied("mounting", "mount, umount,", !ownRights);
  if (code !== "EPERM") return [];
  const lacks = ownRights ? lacking("SYS_ADMIN", "mounting") : [];
  return lacks.length ? lacks : whyNotCapable(!ownRights);
}
