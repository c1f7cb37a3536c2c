// Recognizes descriptors of namespaces in /proc/PID/fd.
//
// One that was opened in /proc/PID/ns shows as `net:[4026532189]`. One that was opened by a file on which the namespace is
// mounted shows as the path of that file, and as "/" when the mount is gone; the device of the file tells them from others.

import { AT_FDCWD } from "../../ffi/core/consts.ts";
import { Block, quick } from "../../ffi/core/quick.ts";
import { NR } from "../../ffi/core/syscalls.ts";
import { QuickFiles } from "../../ffi/sys/quick_file.ts";

/** AT_STATX_DONT_SYNC: what is known of a file will do, so that no server of a file system has to answer. */
const DONT_SYNC = 0x4000;
const STATX_INO = 0x100;
const LINK = /^[a-z]+:\[(\d+)\]$/;

/**
 * Looks at descriptors of other processes.
 *
 * @example
 * ```ts
 * import { DescriptorFiles } from "./descriptors.ts";
 * import { open } from "../../ffi/sys/file.ts";
 * import { self } from "../../ffi/core/task.ts";
 * import { assertEquals } from "@std/assert";
 *
 * using fd = open(self, "/proc/self/ns/net", 0);
 * const files = new DescriptorFiles();
 * const path = `/proc/self/fd/${fd.number}`;
 * assertEquals(`net:[${files.inumOf(path, files.link(path)!)}]`, Deno.readLinkSync("/proc/self/ns/net"));
 * assertEquals(files.inumOf("/proc/self/root", "/"), null);
 * ```
 */
export class DescriptorFiles extends QuickFiles {
  #status = new Block(256);
  /** The device of namespaces: {u32 major, u32 minor} as one number; 0 as long as it is not known. */
  #device = 0;

  /** Device of a file in the status, as one number. */
  #deviceOf(path: string): number {
    this.setPath(path);
    if (quick(NR.statx, AT_FDCWD, this.path.at, DONT_SYNC, STATX_INO, this.#status.at, 0) < 0) return -1;
    return this.#status.view.getUint32(136, true) * 2 ** 20 + this.#status.view.getUint32(140, true);
  }

  /**
   * Finds the namespace that a descriptor is of.
   *
   * @param path The descriptor, `/proc/PID/fd/N`.
   * @param link What that links to.
   * @returns Inode number; null if the descriptor is of something else.
   */
  inumOf(path: string, link: string): number | null {
    if (!link.startsWith("/")) return Number(LINK.exec(link)?.[1] ?? 0) || null;
    if (link === "/dev/null") return null; // the most frequent one
    this.#device ||= this.#deviceOf("/proc/self/ns/user");
    const device = this.#deviceOf(path);
    return device === this.#device ? Number(this.#status.view.getBigUint64(32, true)) : null;
  }
}
