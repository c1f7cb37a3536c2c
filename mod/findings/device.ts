// Explains why the device of taps, /dev/net/tun, cannot be opened or used.

import { O } from "../../ffi/core/consts.ts";
import { orNull, SysError } from "../../ffi/core/errno.ts";
import { self } from "../../ffi/core/task.ts";
import { open } from "../../ffi/sys/file.ts";
import { stat } from "../../ffi/sys/stat.ts";
import { mountOf } from "../host/mounts.ts";
import { filterAnswer, filterFinding } from "./filter.ts";
import type { FailedCall } from "../base/failed_call.ts";
import type { Finding } from "./finding.ts";
import { deniedByMode } from "./files.ts";
import { fixHere, mounts, read } from "./host.ts";
import { whyDenied, whyNotCapable } from "./modules.ts";

/** The device of taps. */
export const TUN = "/dev/net/tun";
/** Its number, linux/miscdevice.h. */
const [NUMBER, MINOR] = ["10:200", 200];
const TUNSETIFF = 0x400454ca;

const WITHOUT = "--net=none does without it";

/** How to pass the device on to where penne runs. */
function passOn(otherwise: string): string {
  return fixHere({
    docker: `docker run --device ${TUN}`,
    podman: `podman run --device ${TUN}`,
    kubernetes: `a device plugin that provides ${TUN}, or a privileged pod`,
    unit: `PrivateDevices=no and DeviceAllow=${TUN} rw`,
    none: otherwise,
  });
}

/** Whether the driver is there: it registers its number. */
function hasDriver(): boolean {
  return new RegExp(`^\\s*${MINOR}\\s`, "m").test(read("/proc/misc") ?? `${MINOR} `);
}

function explainAbsence(): Finding {
  const load = hasDriver() ? "" : "modprobe tun; ";
  const make = `as root: ${load}mkdir -p /dev/net; mknod -m 666 ${TUN} c 10 200`;
  return { cause: "device", words: `there is no ${TUN} here`, fix: passOn(make), without: WITHOUT };
}

/** Explains EACCES and EPERM. */
function explainRefusal(failed: FailedCall): Finding[] {
  const answer = filterAnswer(failed);
  if (answer !== null) return [filterFinding(failed, answer)];
  const mode = deniedByMode(TUN, 6);
  if (mode !== null) {
    return [{
      cause: "file",
      words: `${TUN} has the mode ${mode}, which does not let you read and write it`,
      fix: `as root: chmod 666 ${TUN} (that is safe: it takes CAP_NET_ADMIN to use it)`,
      without: WITHOUT,
    }];
  }
  const mount = mountOf(mounts(), TUN);
  if (mount?.options.includes("nodev")) {
    return [{
      cause: "device",
      words: `${mount.path} is mounted with nodev, so no device in it can be opened`,
      fix: `as root: mount -o remount,bind,dev ${mount.path}`,
      without: WITHOUT,
    }];
  }
  if (failed.code === "EACCES") return whyDenied(TUN, `${TUN} rw,`, true);
  // The mode permits it, and no security module answers EPERM when a file is opened.
  return [{
    cause: "device",
    words: `the device cgroup that penne is in forbids ${TUN}`,
    fix: passOn(`allow the device 10:200 in that cgroup`),
    without: WITHOUT,
  }];
}

/**
 * Explains why the device cannot be opened.
 *
 * @param failed The call.
 * @returns The findings.
 */
export function explainDevice(failed: FailedCall): Finding[] {
  switch (failed.code) {
    case "ENOENT":
      return [explainAbsence()];
    case "ENODEV":
    case "ENXIO": {
      const special = orNull(() => stat(self, TUN).special);
      if (special !== null && special !== NUMBER) return [wrongDevice(special)];
      return hasDriver()
        ? []
        : [{ cause: "kernel", words: "the tun driver is not loaded", fix: "as root: modprobe tun", without: WITHOUT }];
    }
    case "EACCES":
    case "EPERM":
      return explainRefusal(failed);
    default:
      return [];
  }
}

function wrongDevice(special: string): Finding {
  const fix = `as root: rm ${TUN}; mknod -m 666 ${TUN} c 10 200`;
  return { cause: "device", words: `${TUN} is not the character device 10:200 but ${special}`, fix };
}

/**
 * Explains why a tap cannot be made with the open device, TUNSETIFF of ioctl(2).
 *
 * @param failed The call.
 * @returns The findings.
 */
export function explainTapRequest(failed: FailedCall): Finding[] {
  if (failed.args[1] !== TUNSETIFF) return [];
  const special = orNull(() => stat(self, TUN).special);
  if (failed.code === "ENOTTY" && special !== null && special !== NUMBER) return [wrongDevice(special)];
  if (failed.code !== "EPERM" && failed.code !== "EACCES") return [];
  const answer = filterAnswer(failed);
  if (answer !== null) return [filterFinding(failed, answer)];
  // The namespace is one in which penne's agent has every capability.
  return failed.code === "EPERM" ? whyNotCapable(true, "NET_ADMIN") : whyDenied("taps", "network,", true);
}

/**
 * Explains why this process could not open the device, without a failure.
 *
 * @returns The findings; none if it can be opened.
 */
export function explainTap(): Finding[] {
  try {
    open(self, TUN, O.RDWR | O.NONBLOCK).close();
    return [];
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    return explainDevice({ syscall: "openat", code: error.code, args: [null, TUN] });
  }
}
