// Asks open namespaces for their ids, owners and parents, ioctl_nsfs(2), and follows these up to the top.
//
// Each namespace is open for an instant only. What is found on the way up, and has no task, is a namespace that only those
// below it hold.

import { AT_FDCWD, IOCTL, MAGIC, O } from "../../ffi/core/consts.ts";
import { E } from "../../ffi/core/errno.ts";
import { cString } from "../../ffi/core/memory.ts";
import { Block, quick } from "../../ffi/core/quick.ts";
import { NR } from "../../ffi/core/syscalls.ts";
import { Handles } from "../../ffi/sys/namespace.ts";
import { NAMESPACE_TYPES, namespaceFlag, type NamespaceType } from "../namespaces/types.ts";
import type { Found, Namespaces } from "./found.ts";

const BASIC = 0x7ff;
const EMPTY_PATH = 0x1000;
/** Results for a file that led to a namespace, and is not there any more, or is another one: -EINVAL if it is a plain file. */
const GONE: ReadonlySet<number> = new Set([-E.ENOENT, -E.ESRCH, -E.EINVAL]);

function close(fd: number): void {
  quick(NR.close, fd, 0, 0, 0, 0, 0);
}

/** Describes namespaces. */
export class Describer {
  #namespaces: Namespaces;
  #block = new Block(256);
  #path = new Block(4352);
  #empty = new Block(8);
  #handles = new Handles();
  #withHolders: boolean;

  /**
   * @param namespaces Where to note what is found.
   * @param withHolders Whether to note that a namespace holds the one above it.
   */
  constructor(namespaces: Namespaces, withHolders: boolean) {
    this.#namespaces = namespaces;
    this.#withHolders = withHolders;
    this.#handles.read(cString("/proc/self/ns/user")); // without which none can be opened
  }

  #ioctl(fd: number, request: number, at = 0): number {
    return quick(NR.ioctl, fd, request, at, 0, 0, 0);
  }

  #inum(fd: number): number {
    const n = quick(NR.statx, fd, this.#empty.at, EMPTY_PATH, BASIC, this.#block.at, 0);
    return n < 0 ? n : Number(this.#block.view.getBigUint64(32, true));
  }

  #type(fd: number): NamespaceType | undefined {
    const flag = this.#ioctl(fd, IOCTL.NS_GET_NSTYPE);
    return NAMESPACE_TYPES.find((type) => namespaceFlag(type) === flag);
  }

  #isNamespace(fd: number): boolean {
    return quick(NR.fstatfs, fd, this.#block.at, 0, 0, 0, 0) === 0 &&
      Number(this.#block.view.getBigInt64(0, true)) === MAGIC.NSFS;
  }

  #open(path: string, flags: number): number {
    const bytes = cString(path);
    if (bytes.length > this.#path.bytes.length) return -E.ENAMETOOLONG;
    this.#path.bytes.set(bytes);
    return quick(NR.openat, AT_FDCWD, this.#path.at, flags | O.CLOEXEC, 0, 0, 0);
  }

  /**
   * Opens a namespace by its file. What is at the path by now may be anything, so it is looked at before it is opened.
   *
   * @param path The path.
   * @returns A descriptor, or a negative error number; -EINVAL if it is not a namespace.
   */
  openFile(path: string): number {
    if (/^\/proc\/\d+\/(task\/\d+\/)?ns\//.test(path)) return this.#open(path, O.RDONLY);
    const place = this.#open(path, O.PATH);
    if (place < 0) return place;
    const fd = this.#isNamespace(place) ? this.#open(`/proc/self/fd/${place}`, O.RDONLY) : -E.EINVAL;
    close(place);
    return fd;
  }

  /**
   * Identifies an open namespace.
   *
   * @param fd The descriptor.
   * @returns The namespace, which is added if it is new; null if it is not one of a known kind.
   */
  identify(fd: number): Found | null {
    const type = this.#type(fd);
    const inum = type ? this.#inum(fd) : -1;
    return inum < 0 ? null : this.#namespaces.get(type!, inum);
  }

  /**
   * Identifies and describes an open namespace, and closes it.
   *
   * @param fd The descriptor.
   * @returns The namespace, which is added if it is new; null if it is not one of a known kind.
   */
  take(fd: number): Found | null {
    const found = this.identify(fd);
    if (found) this.ask(found, fd);
    close(fd);
    return found;
  }

  /**
   * Opens a namespace that was found.
   *
   * @param found The namespace.
   * @returns A descriptor, or a negative error number: -ESTALE if it has ended meanwhile.
   */
  openFound(found: Found): number {
    // The task by which it was found may have ended, or be elsewhere, while another one is there.
    const other = found.lastPid ? `/proc/${found.lastPid}/ns/${found.type}` : null;
    let fd: number = -E.ESTALE;
    for (const path of [found.path, other]) {
      if (path === null) continue;
      fd = this.openFile(path);
      if (fd >= 0 && this.#inum(fd) === found.inum) return fd;
      if (fd >= 0) close(fd);
      if (fd >= 0 || GONE.has(fd)) fd = -E.ESTALE;
    }
    return found.id === null ? fd : this.#handles.open(found.id, namespaceFlag(found.type), found.inum);
  }

  /**
   * Opens a namespace by its id alone, since Linux 6.19.
   *
   * @param id The id.
   * @returns A descriptor, or a negative error number: -ESTALE if it has ended, or may not be opened.
   */
  openId(id: bigint): number {
    return this.#handles.open(id, 0, 0);
  }

  /** Asks a namespace that was found, and those above it. */
  describe(found: Found): void {
    if (found.owner !== undefined) return;
    const fd = this.openFound(found);
    if (fd < 0) {
      found.owner = null;
      found.refused = true;
      found.lost = fd === -E.ESTALE;
      return;
    }
    this.#ask(found, fd);
    close(fd);
  }

  /**
   * Asks an open namespace, and those above it.
   *
   * @param found What it is.
   * @param fd Its descriptor.
   */
  ask(found: Found, fd: number): void {
    if (found.owner === undefined || found.refused) this.#ask(found, fd);
  }

  #ask(found: Found, fd: number): void {
    const { view, at } = this.#block;
    if (this.#ioctl(fd, IOCTL.NS_GET_ID, at) === 0) found.id = view.getBigUint64(0, true);
    if (found.type === "user" && this.#ioctl(fd, IOCTL.NS_GET_OWNER_UID, at) === 0) {
      found.creator = view.getUint32(0, true);
    }
    found.owner = null;
    found.lost = false;
    const owner = this.#above(fd, IOCTL.NS_GET_USERNS);
    found.refused = owner === -E.EPERM;
    if (typeof owner === "object") {
      found.owner = owner;
      if (found.type !== "user") found.creator = owner.creator;
      if (this.#withHolders) {
        owner.holders.push({
          kind: found.type === "user" ? "child" : "owned",
          pid: null,
          namespace: { type: found.type, inum: found.inum },
        });
      }
    }
    if (found.type === "user") found.parent = found.owner;
    if (found.type !== "pid") return;
    const parent = this.#above(fd, IOCTL.NS_GET_PARENT);
    // One that does not tell its owner is asked each time that it is met.
    if (typeof parent === "number" || parent === found.parent) return;
    found.parent = parent;
    if (this.#withHolders) {
      parent.holders.push({ kind: "child", pid: null, namespace: { type: found.type, inum: found.inum } });
    }
  }

  /** The namespace above one, described too; a negative error number if the kernel refuses. */
  #above(fd: number, request: number): Found | number {
    const above = this.#ioctl(fd, request);
    if (above < 0) return above;
    return this.take(above) ?? -E.EINVAL;
  }

  /**
   * Finds the network namespace of a socket.
   *
   * @param socket A descriptor of it.
   * @returns Inode number; null if the kernel refuses.
   */
  socket(socket: number): number | null {
    const fd = this.#ioctl(socket, IOCTL.SIOCGSKNS);
    return fd < 0 ? null : this.take(fd)?.inum ?? null;
  }
}
