// The files that a network namespace of ip-netns(8) has in place of the host's: those in /etc/netns/NAME.

import { O } from "../../ffi/core/consts.ts";
import { orNull } from "../../ffi/core/errno.ts";
import { self } from "../../ffi/core/task.ts";
import { open, readDirectory } from "../../ffi/sys/file.ts";
import { lstat, stat } from "../../ffi/sys/stat.ts";
import type { OwnFile } from "./own_files.ts";

/** Files that decide where a name leads: a daemon of the host has read others. */
const OF_NAMES = ["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf"];

/**
 * The name that ip-netns(8) knows a network namespace by.
 *
 * @example
 * ```ts
 * import { netnsName } from "./netns_files.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(["/run/netns/blue", "/var/run/netns/blue", "/proc/1/ns/net"].map(netnsName), ["blue", "blue", null]);
 * ```
 *
 * @param path The path of the namespace.
 * @returns Its name; null if it has none.
 */
export function netnsName(path: string): string | null {
  return /^(?:\/var)?\/run\/netns\/+(?!\.\.?$)([^/]+)$/.exec(path)?.[1] ?? null;
}

/**
 * Lists the files of a network namespace: those whose names are also in /etc.
 *
 * @param name Its name.
 * @returns The files.
 * @throws {SysError} If the directory cannot be read; not if it is missing.
 */
export function netnsFiles(name: string): OwnFile[] {
  using directory = orNull(() => open(self, `/etc/netns/${name}`, O.RDONLY | O.DIRECTORY), "ENOENT", "ENOTDIR");
  if (!directory) return [];
  return readDirectory(directory).sort().flatMap((entry) => {
    const [path, bind] = [`/etc/${entry}`, `/etc/netns/${name}/${entry}`];
    const there = lstat(path) && orNull(() => stat(self, bind));
    return there ? [{ path, content: { bind } }] : [];
  });
}

/**
 * Whether files change where names lead.
 *
 * @param files The files.
 * @returns Whether one of them does.
 */
export function changeNames(files: readonly OwnFile[]): boolean {
  return files.some(({ path }) => OF_NAMES.includes(path));
}
