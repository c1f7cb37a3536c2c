// Words for a failed system call that nobody has said anything else about.

import type { FailedCall } from "../base/failed_call.ts";

/** What penne does by each call, to be read after "cannot"; `%` stands for the path or number in the arguments. */
const WORDS: Readonly<Record<string, string>> = {
  bind: "bind a socket",
  capget: "read capabilities",
  capset: "set capabilities",
  clone: "start a process",
  connect: "connect a socket",
  dup3: "duplicate a descriptor",
  epoll_create1: "make an event loop",
  epoll_ctl: "watch a descriptor",
  eventfd2: "make a descriptor for events",
  execveat: "execute an agent",
  fcntl: "duplicate a descriptor",
  flock: "take a lock",
  getdents64: "read a directory",
  inotify_init1: "follow changes of files",
  inotify_add_watch: "follow changes of files",
  ioctl: "control a device",
  memfd_create: "make a file in memory",
  mmap: "map memory",
  mount: "mount %",
  open_by_handle_at: "open a namespace by its handle",
  openat: "open %",
  openat2: "open %",
  pidfd_open: "open process %",
  pidfd_send_signal: "send a signal",
  pipe2: "make a pipe",
  ppoll: "wait for descriptors",
  prctl: "set an attribute of a process",
  prlimit64: "set a resource limit",
  read: "read a file",
  readlinkat: "read the link %",
  recvmsg: "receive a message from an agent",
  sendmsg: "send a message to an agent",
  sendto: "send a message",
  renameat2: "rename a file",
  setgroups: "drop supplementary groups",
  setns: "join a namespace",
  setpgid: "make a process group",
  setresgid: "change to another group",
  setresuid: "change to another user",
  setsid: "make a session",
  signalfd4: "receive signals",
  socket: "make a socket",
  socketpair: "make a pair of sockets",
  statx: "look at %",
  timerfd_create: "make a timer",
  uname: "read the version of the kernel",
  unshare: "make namespaces",
  wait4: "wait for a process",
  write: "write to a file",
};

/**
 * Says what could not be done.
 *
 * @example
 * ```ts
 * import { wordsFor } from "./words.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(wordsFor({ syscall: "openat", code: "EACCES", args: [-100, "/dev/null", 0] }), "open /dev/null");
 * assertEquals(wordsFor({ syscall: "statx", code: "ENOSYS", args: [] }), "look at a file");
 * assertEquals(wordsFor({ syscall: "getcpu", code: "ENOSYS", args: [] }), "go on: getcpu(2) failed");
 * ```
 *
 * @param call The call.
 * @returns What it was to do, to be read after "cannot".
 */
export function wordsFor({ syscall, args }: FailedCall): string {
  const words = WORDS[syscall];
  if (words === undefined) return `go on: ${syscall}(2) failed`;
  const path = args.find((arg) => typeof arg === "string" && arg !== "");
  const subject = path ?? (syscall === "pidfd_open" ? args[0] : "a file");
  return words.replace("%", () => `${subject}`);
}
