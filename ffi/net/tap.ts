// Taps: Ethernet interfaces whose frames are read and written on a descriptor, tun(4).

import type { CallRule } from "../core/call_rule.ts";
import { IOCTL } from "../core/consts.ts";
import type { Fd } from "../core/fd.ts";
import { cString } from "../core/memory.ts";
import { call, out, type Task } from "../core/task.ts";

const [TUNSETIFF, TUNSETOFFLOAD] = [0x400454ca, 0x400454d0];
const TUNGETIFF = 0x800454d2;
/** Bytes of `struct ifreq`: {char name[16], …}. */
const IFREQ = 40;
const IFNAMSIZ = 16;
const IFF = { TAP: 2, NO_PI: 0x1000, VNET_HDR: 0x4000, TUN_EXCL: 0x8000 } as const;
/** TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6. */
const OFFLOADS = 7;

/**
 * What a tap needs once it is there, beside what flows do with it.
 *
 * @param test The test that exercises it.
 * @returns The rules.
 */
export const tapRules = (test: string): CallRule[] => [
  { call: "ioctl", when: [{ argument: 1, values: [TUNGETIFF] }], why: "a tap: its name at this moment", test },
];

/**
 * Turns an open /dev/net/tun into a new tap.
 *
 * @param task The task, in whose network namespace the device was opened.
 * @param tun The device.
 * @param name Name of the interface. Before each frame there is a `struct virtio_net_hdr` of 10 bytes.
 * @param adopts Whether a tap of that name that nobody has open is used.
 * @throws {SysError} EBUSY if there is an interface of that name, EPERM without CAP_NET_ADMIN in the namespace.
 */
export function createTap(task: Task, tun: Fd, name: string, adopts = true): void {
  const request = new Uint8Array(IFREQ); // here {char name[16], u16 flags}
  request.set(cString(name));
  new DataView(request.buffer).setUint16(16, IFF.TAP | IFF.NO_PI | IFF.VNET_HDR | (adopts ? 0 : IFF.TUN_EXCL), true);
  call(task, "ioctl", tun, TUNSETIFF, request);
}

/**
 * Makes the kernel leave checksums to the reader of a tap, and hand over TCP segments of up to 64 KiB whatever the MTU.
 *
 * @param task The task that has made it.
 * @param tap The tap.
 * @throws {SysError} If that is refused.
 */
export function enableOffloads(task: Task, tap: Fd): void {
  call(task, "ioctl", tap, TUNSETOFFLOAD, OFFLOADS);
}

/**
 * Opens the network namespace that a tap is in, wherever it has been moved since it was made.
 *
 * @param task The task; it needs CAP_NET_ADMIN in the user namespace that owns the network namespace.
 * @param tap The tap.
 * @returns The namespace, which the descriptor keeps alive.
 * @throws {SysError} EBADFD if the tap is gone, EPERM without the capability.
 */
export function openTapNetns(task: Task, tap: Fd): Fd {
  return task.open("ioctl", tap, IOCTL.TUNGETDEVNETNS, 0);
}

/**
 * The name of a tap at this moment.
 *
 * @param task A task.
 * @param tap The tap.
 * @returns Its name.
 * @throws {SysError} EBADFD if the tap is gone.
 */
export function tapName(task: Task, tap: Fd): string {
  const request = new Uint8Array(IFREQ);
  call(task, "ioctl", tap, TUNGETIFF, out(request));
  const name = request.subarray(0, IFNAMSIZ);
  return new TextDecoder().decode(name.subarray(0, name.indexOf(0)));
}
