// Loads the shim from a memfd, so that nothing is written to disk, and binds its few symbols.

import { SHIM_ELF } from "./shim_elf.ts";

// Each symbol bound costs some 70 to 250 µs of start-up, so there are as few as possible, and those that are needed only
// to get at the shim itself come from whatever libc the program already has.
const LIBC = {
  memfd_create: {
    parameters: [
      "buffer", // const char *name
      "u32", // unsigned int flags
    ],
    result: "i32", // fd, or -1
  },
  write: {
    parameters: [
      "i32", // int fd
      "buffer", // const void *buf
      "usize", // size_t count
    ],
    result: "isize",
  },
} as const satisfies Deno.ForeignLibraryInterface;

const SHIM = {
  shim_syscall: {
    parameters: [
      "i64", // i64 nr
      "i64", // i64 a
      "i64", // i64 b
      "i64", // i64 c
      "i64", // i64 d
      "i64", // i64 e
      "i64", // i64 f
    ],
    result: "i64", // value or -errno
  },
  shim_spawn: {
    parameters: [
      "i64", // struct spawn *
    ],
    result: "i64", // pid or -errno
  },
  shim_signal: {
    parameters: [
      "i32", // i32 signo
      "i32", // i32 pipe
      "i32", // i32 unless_ignored
    ],
    result: "i64", // 0, 1 or -errno
  },
} as const satisfies Deno.ForeignLibraryInterface;

const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const MFD_NOEXEC_SEAL = 8;
const MFD_EXEC = 16;

// The same call on one of Deno's pool threads: for waiting only, since nothing of a process may be changed from there.
const WAITING = {
  shim_syscall: { ...SHIM.shim_syscall, nonblocking: true },
} as const satisfies Deno.ForeignLibraryInterface;

/** The loaded shim. */
export interface Shim {
  /** memfd that holds the ELF: what an agent is executed from. */
  readonly image: number;
  /** Whether the image may be executed; not so with `vm.memfd_noexec=2`. */
  readonly executable: boolean;
  /** A raw syscall; the result is a value or a negative error number. */
  readonly syscall: (nr: bigint, a: bigint, b: bigint, c: bigint, d: bigint, e: bigint, f: bigint) => bigint;
  /** Starts an agent, see `struct spawn` in libshim.c. */
  readonly spawn: (spawn: bigint) => bigint;
  /** Sets what a signal does, see `shim_signal` in libshim.c. */
  readonly signal: (signo: number, pipe: number, unlessIgnored: number) => bigint;
}

let loaded: Shim | undefined;

/** Puts the ELF file into a memfd with whichever flags the kernel and its settings allow. */
function createImage(elf: Uint8Array<ArrayBuffer>): { fd: number; executable: boolean } {
  let libc;
  try {
    libc = Deno.dlopen("", LIBC); // the program's own libc, without naming a file
  } catch {
    libc = Deno.dlopen("libc.so.6", LIBC);
  }
  const name = new TextEncoder().encode("penne-agent\0");
  const create = (flags: number) => libc.symbols.memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);
  let executable = true;
  let fd = create(MFD_EXEC); // Linux 6.3
  if (fd < 0) fd = create(0);
  if (fd < 0) {
    executable = false;
    fd = create(MFD_NOEXEC_SEAL); // vm.memfd_noexec=2 refuses the others
  }
  if (fd < 0) throw new Error("Cannot load the shim: memfd_create failed");
  if (Number(libc.symbols.write(fd, elf, BigInt(elf.length))) !== elf.length) {
    throw new Error("Cannot load the shim: write to the memfd failed");
  }
  return { fd, executable };
}

/** Number and six arguments of a syscall. */
export type SyscallArgs = [bigint, bigint, bigint, bigint, bigint, bigint, bigint];

let waiting: ((...args: SyscallArgs) => Promise<bigint>) | undefined;

/**
 * A raw syscall that waits, off the main thread; bound at the first call.
 *
 * @param args Number and six arguments; memory they point to must stay referenced until the promise is settled.
 * @returns A value or a negative error number.
 */
export function waitingSyscall(...args: SyscallArgs): Promise<bigint> {
  waiting ??= Deno.dlopen(`/proc/self/fd/${shim().image}`, WAITING).symbols
    .shim_syscall;
  return waiting(...args);
}

/**
 * The shim, loaded at the first call.
 *
 * Needs unscoped `--allow-ffi`, and /proc at the first call.
 *
 * @returns The shim; the same one every time.
 * @throws {Error} If there is no shim for this architecture, or it cannot be loaded.
 */
export function shim(): Shim {
  if (loaded) return loaded;
  const base64 = SHIM_ELF[Deno.build.arch];
  if (!base64) throw new Error(`Cannot load the shim: there is none for ${Deno.build.arch}`);
  const binary = atob(base64);
  const elf = new Uint8Array(binary.length);
  for (let i = 0; i < elf.length; i++) elf[i] = binary.charCodeAt(i);
  const { fd, executable } = createImage(elf);
  const { symbols } = Deno.dlopen(`/proc/self/fd/${fd}`, SHIM);
  loaded = {
    image: fd,
    executable,
    syscall: symbols.shim_syscall,
    spawn: symbols.shim_spawn,
    signal: symbols.shim_signal,
  };
  return loaded;
}
