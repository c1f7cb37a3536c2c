// Loads the shim from a memfd, so that nothing is written to disk, and binds its few symbols.

import { F, RLIMIT, SIG_IGN, SIGNAL } from "./consts.ts";
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

/** What the first module of the compiled program has at hand for the shim (packaging/code_cache.ts). */
interface Early {
  /** The ELF file. */
  readonly elf: Uint8Array;
  /** The libc's function, if it is bound. */
  readonly syscall?: LibcCall;
}

/** Where all bundles find it. */
const early = (globalThis as { [early: symbol]: Early | undefined })[Symbol.for("penne.early")];

type LibcCall = (nr: bigint, a: bigint, b: bigint, c: bigint) => bigint;

/** Has Deno ask once for what each file would be asked for, and refuses in its words. */
function askForPermission(): void {
  if (Deno.permissions.requestSync({ name: "ffi" }).state === "granted") return;
  throw new Deno.errors.NotCapable("Requires ffi access, run again with the --allow-ffi flag");
}

/** The libc that the program already has. */
function libc(): { readonly syscall: LibcCall } {
  if (early?.syscall) return { syscall: early.syscall };
  try {
    return Deno.dlopen("", LIBC).symbols; // without naming a file, which takes unscoped permission
  } catch {
    askForPermission();
    return Deno.dlopen("libc.so.6", LIBC).symbols;
  }
}

/** Functions of the shim under negative syscall numbers (`enum shim_function` of libshim.c). */
export const ShimFunction = { SPAWN: -1n, SIGNAL: -2n, FORBIDDEN: -3n } as const;

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
  /** Whether penne ignores SIGXFSZ, which its caller does not. */
  readonly ignoresFileSize: boolean;
  /** A raw syscall, or a {@linkcode ShimFunction}; the result is a value or a negative error number. */
  readonly call: (nr: bigint, a: bigint, b: bigint, c: bigint, d: bigint, e: bigint, f: bigint) => bigint;
}

let loaded: Shim | undefined;

/** The shim could not be loaded, so no system call can be made. */
export class ShimError extends Error {
  /** Always "ShimError". */
  override readonly name = "ShimError";

  /**
   * @param step What failed.
   * @param options The error of the runtime behind it.
   */
  constructor(readonly step: "memfd_create" | "write" | "dlopen" | "architecture", options?: ErrorOptions) {
    super(`Cannot load the shim: ${step} failed`, options);
  }
}

/** A value of a limit that is none, RLIM_INFINITY. */
const UNLIMITED = 2n ** 64n - 1n;

/**
 * Raises the limit on the size of files for a while: a write beyond it would kill penne, even to a memfd.
 *
 * @param syscall The libc's function.
 * @param size The size needed.
 * @returns Whether there is a limit, and what restores it.
 * @throws {ShimError} If it is too small and may not grow.
 */
function makeRoom(syscall: LibcCall, size: number): { limited: boolean; restore: () => void } {
  const limit = new BigUint64Array(2); // struct rlimit: soft, hard
  const call = (name: "getrlimit" | "setrlimit", words: BigUint64Array) =>
    Number(syscall(BigInt(NR[name]), BigInt(RLIMIT.FSIZE), address(new Uint8Array(words.buffer)), 0n));
  if (call("getrlimit", limit) < 0 || limit[0] === UNLIMITED) return { limited: false, restore() {} };
  if (limit[0]! >= size) return { limited: true, restore() {} };
  if (limit[1]! < size || call("setrlimit", new BigUint64Array([limit[1]!, limit[1]!])) < 0) {
    throw new ShimError("write");
  }
  return { limited: true, restore: () => void call("setrlimit", limit) };
}

/** The ELF file that is part of the modules. */
function decode(): Uint8Array {
  const base64 = SHIM_ELF[Deno.build.arch];
  if (!base64) throw new ShimError("architecture");
  return Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
}

/** Writes the ELF file to a memfd, made with the flags that the kernel and its settings allow. */
function createImage(elf: Uint8Array): { fd: number; executable: boolean; limited: boolean } {
  const { syscall } = libc();
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
  if (fd < 0) throw new ShimError("memfd_create");
  const { limited, restore } = makeRoom(syscall, elf.length);
  const written = syscall(BigInt(NR.write), BigInt(fd), address(elf), BigInt(elf.length));
  restore();
  if (Number(written) !== elf.length) throw new ShimError("write");
  return { fd, executable, limited };
}

/**
 * Makes penne ignore SIGXFSZ, which would kill it when a log file, say, reaches the limit on the size of files.
 *
 * @param call The shim.
 * @returns Whether the signal had its default action.
 */
function ignoreFileSize(call: Shim["call"]): boolean {
  const action = new BigUint64Array([SIG_IGN, 0n, 0n, 0n]); // struct sigaction
  const old = new BigUint64Array(4);
  const [set, get] = [action, old].map((words) => address(new Uint8Array(words.buffer)));
  call(BigInt(NR.rt_sigaction), BigInt(SIGNAL.XFSZ), 0n, get!, 8n, 0n, 0n);
  if (old[0] !== 0n) return false;
  call(BigInt(NR.rt_sigaction), BigInt(SIGNAL.XFSZ), set!, 0n, 8n, 0n, 0n);
  return true;
}

/** Loads the image. */
function load(fd: number): Deno.DynamicLibrary<typeof SHIM> {
  try {
    return Deno.dlopen(`/proc/self/fd/${fd}`, SHIM);
  } catch (cause) {
    throw new ShimError("dlopen", { cause });
  }
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
 * @throws {Deno.errors.NotCapable} If the permission is missing.
 * @throws {ShimError} If this architecture is not supported, or the shim cannot be loaded.
 */
export function shim(): Shim {
  if (loaded) return loaded;
  const elf = early?.elf ?? decode();
  const { fd, executable, limited } = createImage(elf);
  const { symbols } = load(fd);
  // A process that can open an agent's /proc/PID/exe must not be able to write to it.
  symbols.shim(BigInt(NR.fcntl), BigInt(fd), BigInt(F.ADD_SEALS), BigInt(F.SEAL_ALL), 0n, 0n, 0n);
  const ignoresFileSize = limited && ignoreFileSize(symbols.shim);
  loaded = { image: fd, executable, ignoresFileSize, call: symbols.shim };
  return loaded;
}

/** Closes the image of the shim, which works on but starts no agent any more; for the end of a Worker, which has its own. */
export function closeImage(): void {
  if (loaded) loaded.call(BigInt(NR.close), BigInt(loaded.image), 0n, 0n, 0n, 0n, 0n);
}
