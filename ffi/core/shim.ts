// Loads the shim from a memfd, so that nothing is written to disk, and binds its few symbols.

import { F } from "./consts.ts";
import { address, cString } from "./memory.ts";
import { SHIM_ELF } from "./shim_elf.ts";
import { NR } from "./syscalls.ts";

// Binding a symbol costs 70 to 250 µs at start-up, more with a buffer among its parameters. So there is one for the shim,
// and one of the libc that the program already has, to load the shim with.
const LIBC = {
  syscall: {
    parameters: [
      "i64", // long number
      "i64", // first argument
      "i64", // second argument
      "i64", // third argument
    ],
    result: "i64", // value, or -1
  },
} as const satisfies Deno.ForeignLibraryInterface;

const SHIM = {
  shim: {
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
} as const satisfies Deno.ForeignLibraryInterface;

/** Functions of the shim under negative syscall numbers (`enum shim_function` of libshim.c). */
export const ShimFunction = { SPAWN: -1n, SIGNAL: -2n } as const;

/** Flags of memfd_create(2). */
const MFD = { CLOEXEC: 1, ALLOW_SEALING: 2, NOEXEC_SEAL: 8, EXEC: 16 } as const;

// The same on one of Deno's pool threads: only for waiting, since state that belongs to a thread would change there alone.
const WAITING = { shim: { ...SHIM.shim, nonblocking: true } } as const satisfies Deno.ForeignLibraryInterface;

/** The loaded shim. */
export interface Shim {
  /** memfd of the ELF, which agents are executed from. */
  readonly image: number;
  /** Whether the image may be executed, which `vm.memfd_noexec=2` forbids. */
  readonly executable: boolean;
  /** A raw syscall, or a {@linkcode ShimFunction}; the result is a value or a negative error number. */
  readonly call: (nr: bigint, a: bigint, b: bigint, c: bigint, d: bigint, e: bigint, f: bigint) => bigint;
}

let loaded: Shim | undefined;

/** Writes the ELF file to a memfd, made with the flags that the kernel and its settings allow. */
function createImage(elf: Uint8Array): { fd: number; executable: boolean } {
  let libc;
  try {
    libc = Deno.dlopen("", LIBC); // the program's own libc, without naming a file
  } catch {
    libc = Deno.dlopen("libc.so.6", LIBC);
  }
  const { syscall } = libc.symbols;
  const name = cString("penne-agent");
  const create = (flags: number): number => {
    const nr = BigInt(NR.memfd_create);
    return Number(syscall(nr, address(name), BigInt(MFD.CLOEXEC | MFD.ALLOW_SEALING | flags), 0n));
  };
  let fd = create(MFD.EXEC); // Linux 6.3
  const asked = fd >= 0;
  if (!asked) fd = create(0);
  if (fd < 0) fd = create(MFD.NOEXEC_SEAL);
  // With vm.memfd_noexec=2 the memfd is sealed against execution, whatever the flags.
  const seals = asked ? 0n : syscall(BigInt(NR.fcntl), BigInt(fd), BigInt(F.GET_SEALS), 0n);
  const executable = (Number(seals) & F.SEAL_EXEC) === 0;
  if (fd < 0) throw new Error("Cannot load the shim: memfd_create failed");
  const written = syscall(BigInt(NR.write), BigInt(fd), address(elf), BigInt(elf.length));
  if (Number(written) !== elf.length) throw new Error("Cannot load the shim: write to the memfd failed");
  return { fd, executable };
}

/** Number and six arguments of a syscall. */
export type SyscallArgs = [bigint, bigint, bigint, bigint, bigint, bigint, bigint];

let waiting: ((...args: SyscallArgs) => Promise<bigint>) | undefined;

/**
 * Makes a raw syscall off the main thread, so that it may wait; the first call binds the symbol.
 *
 * @param args Number and six arguments; memory they point to must stay referenced until the promise is settled.
 * @returns A value or a negative error number.
 */
export function waitingSyscall(...args: SyscallArgs): Promise<bigint> {
  waiting ??= Deno.dlopen(`/proc/self/fd/${shim().image}`, WAITING).symbols.shim;
  return waiting(...args);
}

/**
 * Returns the shim; the first call loads it, which takes unscoped `--allow-ffi`, and /proc.
 *
 * @returns The shim; the same one every time.
 * @throws {Error} If this architecture is not supported, or the shim cannot be loaded.
 */
export function shim(): Shim {
  if (loaded) return loaded;
  const base64 = SHIM_ELF[Deno.build.arch];
  if (!base64) throw new Error(`Cannot load the shim: ${Deno.build.arch} is not supported`);
  const binary = atob(base64);
  const elf = new Uint8Array(binary.length);
  for (let i = 0; i < elf.length; i++) elf[i] = binary.charCodeAt(i);
  const { fd, executable } = createImage(elf);
  const { symbols } = Deno.dlopen(`/proc/self/fd/${fd}`, SHIM);
  // A process that can open an agent's /proc/PID/exe must not be able to write to it.
  symbols.shim(BigInt(NR.fcntl), BigInt(fd), BigInt(F.ADD_SEALS), BigInt(F.SEAL_ALL), 0n, 0n, 0n);
  loaded = { image: fd, executable, call: symbols.shim };
  return loaded;
}
