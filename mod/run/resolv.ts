// The command's own /etc/resolv.conf: a file in memory, mounted over the host's in its mount namespace.

import type { Agent } from "../../ffi/agent/agent.ts";
import { MS, O, SEEK, UMOUNT } from "../../ffi/core/consts.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { cString } from "../../ffi/core/memory.ts";
import { open, write } from "../../ffi/sys/file.ts";
import { call, self } from "../../ffi/core/task.ts";
import { mount } from "../../ffi/sys/mount.ts";
import { attempt } from "../base/errors.ts";
import { RESOLV_CONF } from "../host/resolver.ts";
import { formatResolvConf, type ResolvConf } from "../host/resolv_conf.ts";

/** Where the file is made: a directory that always exists and on which another file system is mounted later. */
const WORKPLACE = "/proc";

/**
 * Mounts a resolv.conf. Mounts must be private already, and /proc not mounted yet.
 *
 * @param agent An agent in the mount namespace.
 * @param conf Its content.
 * @returns The file, for later changes.
 * @throws {PenneError} If it cannot be mounted, for example where there is no /etc/resolv.conf.
 */
export function mountResolvConf(agent: Agent, conf: ResolvConf): Fd {
  return attempt(`mount ${RESOLV_CONF}`, () => {
    const options = cString("size=64k,nr_inodes=2,mode=755");
    call(
      agent,
      "mount",
      cString("tmpfs"),
      cString(WORKPLACE),
      cString("tmpfs"),
      MS.NOSUID | MS.NODEV | MS.NOEXEC,
      options,
    );
    try {
      const file = open(agent, `${WORKPLACE}/resolv.conf`, O.WRONLY | O.CREAT, 0o644);
      try {
        call(agent, "fchmod", file, 0o644); // independent of the umask; the agent owns the file
        rewriteResolvConf(file, conf);
        mount(agent, `${WORKPLACE}/resolv.conf`, RESOLV_CONF, null, MS.BIND);
        return file;
      } catch (error) {
        file.close();
        throw error;
      }
    } finally {
      call(agent, "umount2", cString(WORKPLACE), UMOUNT.DETACH);
    }
  });
}

/**
 * Rewrites a mounted resolv.conf.
 *
 * @param file The file.
 * @param conf Its new content.
 * @throws {SysError} If it cannot be written.
 */
export function rewriteResolvConf(file: Fd, conf: ResolvConf): void {
  const bytes = new TextEncoder().encode(formatResolvConf(conf));
  call(self, "lseek", file, 0, SEEK.SET);
  // Written first, then truncated: a reader in between sees whole lines at least.
  write(file, bytes);
  call(self, "ftruncate", file, bytes.length);
}
