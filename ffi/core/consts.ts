// Constants of system calls, grouped by the call that takes them; those that differ between architectures say so.

const ARM = Deno.build.arch === "aarch64";

/** In place of a directory: the working directory, for the *at calls. */
export const AT_FDCWD = -100;
/** Flag of linkat(2): a symbolic link is followed. */
export const AT_SYMLINK_FOLLOW = 0x400;

/** Flags of the *at calls. */
export const AT = { SYMLINK_NOFOLLOW: 0x100, SYMLINK_FOLLOW: 0x400, EMPTY_PATH: 0x1000, RECURSIVE: 0x8000 } as const;

/** Flags of openat(2); CLOEXEC and NONBLOCK also of calls that make other descriptors, such as eventfd(2). */
export const O = {
  RDONLY: 0,
  WRONLY: 1,
  RDWR: 2,
  CREAT: 0o100,
  EXCL: 0o200,
  NOCTTY: 0o400,
  TRUNC: 0o1000,
  APPEND: 0o2000,
  NONBLOCK: 0o4000,
  CLOEXEC: 0o2000000,
  /** Differs between architectures. */
  DIRECTORY: ARM ? 0o40000 : 0o200000,
  /** Differs between architectures. */
  NOFOLLOW: ARM ? 0o100000 : 0o400000,
  PATH: 0o10000000,
  /** A file without a name; includes DIRECTORY. */
  TMPFILE: 0o20000000 | (ARM ? 0o40000 : 0o200000),
} as const;

/** Restrictions on path resolution, openat2(2). */
export const RESOLVE = { NO_XDEV: 1, NO_MAGICLINKS: 2, NO_SYMLINKS: 4, BENEATH: 8, IN_ROOT: 0x10 } as const;

/** Types of files and bits of their modes, from `st_mode` of stat(2). */
export const S = {
  IFMT: 0o170000,
  IFCHR: 0o020000,
  IFDIR: 0o040000,
  IFREG: 0o100000,
  IFSOCK: 0o140000,
  IFLNK: 0o120000,
  ISUID: 0o4000,
  ISVTX: 0o1000,
} as const;

/** Modes of access(2). */
export const ACCESS = { F_OK: 0, X_OK: 1, W_OK: 2, R_OK: 4 } as const;

/** Origins of lseek(2). */
export const SEEK = { SET: 0, CUR: 1, END: 2 } as const;

/** Magic numbers of file systems, `f_type` of statfs(2). */
export const MAGIC = { PROC: 0x9fa0, NSFS: 0x6e736673, PIDFS: 0x50494446 } as const;

/** Flags of clone(2); those for namespaces also of unshare(2) and setns(2). */
export const CLONE = {
  NEWTIME: 0x80,
  PIDFD: 0x1000,
  PARENT: 0x8000,
  NEWNS: 0x20000,
  NEWCGROUP: 0x2000000,
  NEWUTS: 0x4000000,
  NEWIPC: 0x8000000,
  NEWUSER: 0x10000000,
  NEWPID: 0x20000000,
  NEWNET: 0x40000000,
} as const;

/** Flags of mount(2). */
export const MS = {
  RDONLY: 1,
  NOSUID: 2,
  NODEV: 4,
  NOEXEC: 8,
  REMOUNT: 32,
  NOATIME: 1024,
  NODIRATIME: 2048,
  BIND: 4096,
  REC: 16384,
  PRIVATE: 1 << 18,
  SLAVE: 1 << 19,
  RELATIME: 1 << 21,
  STRICTATIME: 1 << 24,
} as const;

/** Flags of umount2(2). */
export const UMOUNT = { DETACH: 2, NOFOLLOW: 8 } as const;

/** Operations of flock(2). */
export const LOCK = { SH: 1, EX: 2, NB: 4, UN: 8 } as const;

/** Protection of mappings, mmap(2). */
export const PROT = { READ: 1, WRITE: 2 } as const;

/** Flags of mappings, mmap(2). */
export const MAP = { SHARED: 1, PRIVATE: 2, ANONYMOUS: 0x20 } as const;

/** Clocks of clock_gettime(2). */
export const CLOCK = { REALTIME: 0, MONOTONIC: 1, BOOTTIME: 7 } as const;

/** Options of prctl(2). */
export const PR = {
  SET_PDEATHSIG: 1,
  SET_DUMPABLE: 4,
  SET_KEEPCAPS: 8,
  SET_NAME: 15,
  CAPBSET_DROP: 24,
  SET_CHILD_SUBREAPER: 36,
  SET_NO_NEW_PRIVS: 38,
  CAP_AMBIENT: 47,
  CAP_AMBIENT_RAISE: 2,
} as const;

/** Requests of ioctl(2). */
export const IOCTL = {
  TCGETS: 0x5401,
  TCSETS: 0x5402,
  TCSETSW: 0x5403,
  TIOCSCTTY: 0x540e,
  TIOCGPGRP: 0x540f,
  TIOCSPGRP: 0x5410,
  TIOCGWINSZ: 0x5413,
  TIOCSWINSZ: 0x5414,
  FIONREAD: 0x541b,
  /** socket(7): the network namespace of a socket. */
  SIOCGSKNS: 0x894c,
  TIOCGPTPEER: 0x5441,
  /** The network namespace of a tap. */
  TUNGETDEVNETNS: 0x54e3,
  TIOCSPTLCK: 0x40045431,
  /** ioctl_nsfs(2): the user namespace that owns one. */
  NS_GET_USERNS: 0xb701,
  /** The namespace above a user or pid namespace. */
  NS_GET_PARENT: 0xb702,
  /** Type of a namespace, CLONE_NEW*. */
  NS_GET_NSTYPE: 0xb703,
  /** Owner of a user namespace. */
  NS_GET_OWNER_UID: 0xb704,
  /** Linux 6.11: the pid here of the process that has a certain pid in a pid namespace. */
  NS_GET_PID_FROM_PIDNS: 0x8004b706,
  /** Linux 6.18: the 64-bit id of a namespace. */
  NS_GET_ID: 0x8008b70d,
} as const;

/** Requests of ioctl(2) on a pidfd, ioctl_pidfd(2); Linux 6.11. */
export const PIDFD_GET = {
  info: 0xc040ff0b,
  cgroup: 0xff01,
  ipc: 0xff02,
  mnt: 0xff03,
  net: 0xff04,
  pid: 0xff05,
  time: 0xff07,
  timeForChildren: 0xff08,
  user: 0xff09,
  uts: 0xff0a,
} as const;

/** Commands of fcntl(2), and their arguments. */
export const F = {
  DUPFD: 0,
  GETFD: 1,
  SETFD: 2,
  SETFL: 4,
  DUPFD_CLOEXEC: 1030,
  SETPIPE_SZ: 1031,
  GETPIPE_SZ: 1032,
  ADD_SEALS: 1033,
  GET_SEALS: 1034,
  FD_CLOEXEC: 1,
  /** SEAL, SHRINK, GROW and WRITE. */
  SEAL_ALL: 0xf,
  SEAL_EXEC: 0x20,
} as const;

/** Operations of keyctl(2). */
export const KEYCTL = { JOIN_SESSION_KEYRING: 1 } as const;

/** Events of poll(2). */
export const POLL = { IN: 1, PRI: 2, OUT: 4, ERR: 8, HUP: 16, NVAL: 32 } as const;

/** Numbers of capabilities(7). */
export const CAP = {
  DAC_OVERRIDE: 1,
  DAC_READ_SEARCH: 2,
  KILL: 5,
  SETGID: 6,
  SETUID: 7,
  SETPCAP: 8,
  NET_BIND_SERVICE: 10,
  NET_ADMIN: 12,
  NET_RAW: 13,
  SYS_CHROOT: 18,
  SYS_PTRACE: 19,
  SYS_ADMIN: 21,
  PERFMON: 38,
  BPF: 39,
} as const;

/** Resources of prlimit(2). */
export const RLIMIT = { FSIZE: 1, NPROC: 6, NOFILE: 7 } as const;

/** Operations of sigprocmask(2). */
export const SIG = { BLOCK: 0, SETMASK: 2 } as const;

/** Handler of sigaction(2) that ignores the signal. */
export const SIG_IGN = 1n;

/** Numbers of signal(7), by name without SIG. */
export const SIGNAL = {
  HUP: 1,
  INT: 2,
  QUIT: 3,
  ILL: 4,
  TRAP: 5,
  ABRT: 6,
  BUS: 7,
  FPE: 8,
  KILL: 9,
  USR1: 10,
  SEGV: 11,
  USR2: 12,
  PIPE: 13,
  ALRM: 14,
  TERM: 15,
  STKFLT: 16,
  CHLD: 17,
  CONT: 18,
  STOP: 19,
  TSTP: 20,
  TTIN: 21,
  TTOU: 22,
  URG: 23,
  XCPU: 24,
  XFSZ: 25,
  VTALRM: 26,
  PROF: 27,
  WINCH: 28,
  IO: 29,
  PWR: 30,
  SYS: 31,
} as const;

/** Name of a signal, without SIG. */
export type SignalName = keyof typeof SIGNAL;
