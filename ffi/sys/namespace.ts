// Questions to an open namespace, ioctl_nsfs(2).

import { IOCTL } from "../core/consts.ts";
import { check } from "../core/errno.ts";
import type { Fd } from "../core/fd.ts";
import { out, self } from "../core/task.ts";

/**
 * The type of an open namespace.
 *
 * @param fd The namespace.
 * @returns CLONE_NEW*, or a negative error number.
 */
export function namespaceType(fd: Fd): number {
  return self.raw("ioctl", fd, IOCTL.NS_GET_NSTYPE);
}

/**
 * The id of an open namespace, which is never reused.
 *
 * @param fd The namespace.
 * @returns The id; null before Linux 6.18.
 */
export function namespaceId(fd: Fd): bigint | null {
  const id = new BigUint64Array(1);
  return self.raw("ioctl", fd, IOCTL.NS_GET_ID, out(new Uint8Array(id.buffer))) === 0 ? id[0]! : null;
}

/**
 * Opens the user namespace that owns a namespace.
 *
 * @param fd The namespace; of a user namespace, its parent is opened.
 * @returns The user namespace.
 * @throws {SysError} EPERM if it is not ours or below ours.
 */
export function openOwningUser(fd: Fd): Fd {
  return self.open("ioctl", fd, IOCTL.NS_GET_USERNS);
}

/**
 * The user that owns a user namespace.
 *
 * @param user The user namespace.
 * @returns The user id, as seen here.
 * @throws {SysError} EINVAL if it is another type of namespace.
 */
export function ownerUid(user: Fd): number {
  const uid = new Uint32Array(1);
  check("ioctl", self.raw("ioctl", user, IOCTL.NS_GET_OWNER_UID, out(new Uint8Array(uid.buffer))));
  return uid[0]!;
}
