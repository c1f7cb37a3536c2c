// Makes taps: Ethernet interfaces whose frames are read and written on a descriptor.

import { O } from "../../ffi/core/consts.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { createTap, enableOffloads } from "../../ffi/net/tap.ts";
import { open } from "../../ffi/sys/file.ts";
import type { Task } from "../../ffi/core/task.ts";
import { attempt } from "../base/errors.ts";

const DEVICE = "/dev/net/tun";

/**
 * Length of the queue of a tap, packets. A burst at a small MTU would overflow the kernel's 1000, and each packet that is
 * lost there costs a retransmission.
 */
export const TXQUEUELEN = 10_000;

/**
 * Makes a tap in a task's network namespace, with a 10-byte `struct virtio_net_hdr` before each frame.
 *
 * The interface disappears with its descriptor. As long as the descriptor is open, the namespace that it was *opened* in
 * stays alive, wherever the interface is moved.
 *
 * @param task The task; it needs CAP_NET_ADMIN in the user namespace that owns the network namespace.
 * @param name Name of the interface.
 * @param adopts Whether a tap of that name that nobody has open is used.
 * @returns The descriptor, non-blocking.
 * @throws {PenneError} If the device cannot be opened, or the interface cannot be made.
 */
export function makeTap(task: Task, name: string, adopts = true): Fd {
  const tap = attempt(`open ${DEVICE}`, () => open(task, DEVICE, O.RDWR | O.NONBLOCK));
  try {
    attempt(
      `make the tap "${name}"`,
      () => createTap(task, tap, name, adopts),
      ({ code }) => code === "EBUSY" ? [`an interface "${name}" exists: --ns-ifname gives another name`] : [],
    );
    attempt(`use the tap "${name}" with offloads`, () => enableOffloads(task, tap));
    return tap;
  } catch (error) {
    tap.close();
    throw error;
  }
}
