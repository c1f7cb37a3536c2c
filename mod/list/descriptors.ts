// Finds the namespaces that open descriptors and sockets hold.
//
// mod/namespaces/descriptors.ts recognizes a descriptor of a namespace. A socket holds the network namespace that it was
// made in, and so does an open /dev/net/tun; the kernel tells it to whoever has a descriptor of the socket and
// CAP_NET_ADMIN there. So penne duplicates the descriptor, pidfd_getfd(2), asks, and closes it.

import { E } from "../../ffi/core/errno.ts";
import { quick } from "../../ffi/core/quick.ts";
import { NR } from "../../ffi/core/syscalls.ts";
import { DescriptorFiles } from "../namespaces/descriptors.ts";
import { parseNamespaceRoot } from "../netns/mountinfo.ts";
import type { Describer } from "./describe.ts";
import type { Namespaces } from "./found.ts";

const TUN = "/dev/net/tun";

/** Reads descriptors. */
export class DescriptorReader extends DescriptorFiles {
  /** Processes whose descriptors may not be read. */
  denied = 0;
  #namespaces: Namespaces;
  #describer: Describer;
  /** The network namespace of each socket by its link, which many descriptors may share. */
  #sockets = new Map<string, number>();
  /** Sockets whose namespace may not be asked for, as far as that was tried. */
  #refused = new Set<string>();

  /**
   * @param namespaces Where to note what is found.
   * @param describer Asks sockets.
   */
  constructor(namespaces: Namespaces, describer: Describer) {
    super();
    this.#namespaces = namespaces;
    this.#describer = describer;
  }

  /** How many sockets there are whose namespace may not be asked for. */
  get refused(): number {
    return this.#refused.size;
  }

  /**
   * Reads the descriptors of processes, but not those of penne itself.
   *
   * @param pids The processes.
   */
  readAll(pids: readonly number[]): void {
    for (const pid of pids) if (pid !== Deno.pid) this.#process(pid);
  }

  #process(pid: number): void {
    const directory = `/proc/${pid}/fd`;
    const fds = this.numbers(directory);
    if (fds.length === 0) {
      // A kernel thread, or a process without descriptors, has an empty directory.
      this.setPath(`${directory}/0`);
      const n = this.readTarget();
      if (n === -E.EACCES || n === -E.EPERM) this.denied++;
      return;
    }
    let pidfd = -1;
    let denied = false;
    for (const fd of fds) {
      const link = this.link(`${directory}/${fd}`);
      if (link === null && !denied) {
        // Whoever may read the directory need not be allowed to read the links in it.
        const n = this.readTarget();
        denied = n === -E.EACCES || n === -E.EPERM;
      }
      if (link === null || link.startsWith("anon_inode:") || link.startsWith("pipe:")) continue;
      if (link === TUN || link.startsWith("socket:[")) {
        if (pidfd < 0) pidfd = quick(NR.pidfd_open, pid, 0, 0, 0, 0, 0);
        this.#socket(link, pidfd, pid, fd);
      } else if (this.inumOf(`${directory}/${fd}`, link) !== null) this.#namespace(`${directory}/${fd}`, link, pid, fd);
    }
    if (denied) this.denied++;
    if (pidfd >= 0) quick(NR.close, pidfd, 0, 0, 0, 0, 0);
  }

  #namespace(path: string, link: string, pid: number, number: number): void {
    const named = parseNamespaceRoot(link);
    const opened = named ? -1 : this.#describer.openFile(path);
    const found = named
      ? this.#namespaces.get(named.type, named.inum)
      : opened < 0
      ? null
      : this.#describer.take(opened);
    if (!found) return; // closed meanwhile
    found.path ??= path;
    found.addDescriptor("descriptor", pid, number);
  }

  #socket(link: string, pidfd: number, pid: number, number: number): void {
    let inum = link === TUN ? undefined : this.#sockets.get(link);
    if (inum === undefined) {
      const fd = pidfd < 0 ? pidfd : quick(NR.pidfd_getfd, pidfd, number, 0, 0, 0, 0);
      if (fd === -E.EBADF || fd === -E.ESRCH) return; // closed, or ended, meanwhile
      const found = fd < 0 ? null : this.#describer.socket(fd);
      if (fd >= 0) quick(NR.close, fd, 0, 0, 0, 0, 0);
      // Another process that has it may be one that may be asked.
      const key = link === TUN ? `${pid} ${number}` : link;
      if (found === null) {
        this.#refused.add(key);
        return;
      }
      this.#refused.delete(key);
      if (link !== TUN) this.#sockets.set(link, found);
      inum = found;
    }
    this.#namespaces.find("net", inum)?.addDescriptor("socket", pid, number);
  }
}
