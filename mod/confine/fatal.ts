// Calls that kill a confined process of penne, since no correct one makes them; pure.

import type { Architecture } from "../../ffi/core/syscalls.ts";

/** Their numbers on x86_64 and aarch64; null where an architecture lacks a call. */
const FATAL: Readonly<Record<string, readonly [x86_64: number | null, aarch64: number | null]>> = {
  // Other programs and processes.
  execve: [59, 221],
  execveat: [322, 281],
  clone: [56, 220],
  clone3: [435, 435],
  fork: [57, null],
  vfork: [58, null],
  ptrace: [101, 117],
  process_vm_readv: [310, 270],
  process_vm_writev: [311, 271],
  process_madvise: [440, 440],
  kcmp: [312, 272],
  pidfd_getfd: [438, 438],
  // Namespaces and the root.
  setns: [308, 268],
  unshare: [272, 97],
  chroot: [161, 51],
  pivot_root: [155, 41],
  // Mounts.
  mount: [165, 40],
  umount2: [166, 39],
  open_tree: [428, 428],
  move_mount: [429, 429],
  fsopen: [430, 430],
  fsconfig: [431, 431],
  fsmount: [432, 432],
  fspick: [433, 433],
  mount_setattr: [442, 442],
  // Parts of the kernel that a loop has no use for.
  bpf: [321, 280],
  io_uring_setup: [425, 425],
  io_uring_enter: [426, 426],
  io_uring_register: [427, 427],
  keyctl: [250, 219],
  add_key: [248, 217],
  request_key: [249, 218],
  perf_event_open: [298, 241],
  userfaultfd: [323, 282],
  // The machine.
  init_module: [175, 105],
  finit_module: [313, 273],
  delete_module: [176, 106],
  kexec_load: [246, 104],
  kexec_file_load: [320, 294],
  reboot: [169, 142],
  swapon: [167, 224],
  swapoff: [168, 225],
  acct: [163, 89],
  quotactl: [179, 60],
  settimeofday: [164, 170],
  clock_settime: [227, 112],
  adjtimex: [159, 171],
  sethostname: [170, 161],
  setdomainname: [171, 162],
  iopl: [172, null],
  ioperm: [173, null],
  modify_ldt: [154, null],
  // Ids.
  setuid: [105, 146],
  setgid: [106, 144],
  setreuid: [113, 145],
  setregid: [114, 143],
  setresuid: [117, 147],
  setresgid: [119, 149],
  setfsuid: [122, 151],
  setfsgid: [123, 152],
  setgroups: [116, 159],
  capset: [126, 91],
  personality: [135, 92],
};

/**
 * The calls that are fatal unless a role needs them.
 *
 * @param arch The architecture.
 * @returns Their numbers by name.
 */
export function fatalCalls(arch: Architecture): Map<string, number> {
  return new Map(
    Object.entries(FATAL).flatMap(([name, [x86_64, aarch64]]) => {
      const number = arch === "x86_64" ? x86_64 : aarch64;
      return number === null ? [] : [[name, number]];
    }),
  );
}
