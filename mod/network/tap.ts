// Makes taps: Ethernet interfaces whose frames are read and written on a descriptor.

import { O } from "../../ffi/core/consts.ts";
import type { SysError } from "../../ffi/core/errno.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { createTap, enableOffloads } from "../../ffi/net/tap.ts";
import { open } from "../../ffi/sys/file.ts";
import type { Task } from "../../ffi/core/task.ts";
import { attempt } from "../base/errors.ts";

const DEVICE = "/dev/net/tun";

/**
 * Packets that may wait to be read from a tap. With the kernel's 1000 a burst at a small MTU overflows it, and what is
 * lost there costs a retransmission each.
 */
export const TXQUEUELEN = 10_000;

const NO_NETWORK = "penne run --net=none does without it";

/** What to do about a device that cannot be opened. */
function explainDevice({ code }: SysError): string[] {
  if (code === "ENOENT") {
    return [
      `as root: modprobe tun; mkdir -p /dev/net; mknod -m 666 ${DEVICE} c 10 200`,
      `in a container: pass the device on (podman, docker: --device ${DEVICE})`,
      NO_NETWORK,
    ];
  }
  if (code === "EACCES" || code === "EPERM") {
    return [
      `it is to be readable and writable for everybody, and safely so (as root: chmod 666 ${DEVICE})`,
      NO_NETWORK,
    ];
  }
  return code === "ENODEV" || code === "ENXIO" ? ["the kernel's tun driver is not there (as root: modprobe tun)"] : [];
}

/**
 * Makes a tap in a task's network namespace, with a 10-byte `struct virtio_net_hdr` before each frame.
 *
 * The interface goes with its descriptor; as long as the descriptor is open, the namespace that it was *opened* in lives,
 * wherever the interface is moved.
 *
 * @param task Who opens it; needs CAP_NET_ADMIN in the namespace's owner.
 * @param name Name of the interface.
 * @returns The descriptor, non-blocking.
 * @throws {PenneError} If the device cannot be opened, or the interface not be made.
 */
export function makeTap(task: Task, name: string): Fd {
  const tap = attempt(`open ${DEVICE}`, () => open(task, DEVICE, O.RDWR | O.NONBLOCK), explainDevice);
  try {
    attempt(`make the tap "${name}"`, () => createTap(task, tap, name), ({ code }) => {
      if (code === "ENOTTY") return [`${DEVICE} is not what it should be: character device 10, 200`];
      if (code === "EBUSY") return [`there is an interface "${name}" already: --ns-ifname gives another name`];
      return code === "EPERM" ? ["that needs CAP_NET_ADMIN in the namespace"] : [];
    });
    attempt(`use the tap "${name}" with offloads`, () => enableOffloads(task, tap));
    return tap;
  } catch (error) {
    tap.close();
    throw error;
  }
}
