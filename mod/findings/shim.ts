// Explains why the shim could not be loaded, by the libc alone: without the shim there is no other way to make system calls.

import { RLIMIT } from "../../ffi/core/consts.ts";
import { E, errnoName, errnoText } from "../../ffi/core/errno.ts";
import { address, cString, text } from "../../ffi/core/memory.ts";
import { SHIM_ELF } from "../../ffi/core/shim_elf.ts";
import { NR } from "../../ffi/core/syscalls.ts";

const LIBC = {
  syscall: { parameters: ["i64", "i64", "i64", "i64"], result: "i64" },
  __errno_location: { parameters: [], result: "pointer" },
} as const satisfies Deno.ForeignLibraryInterface;

/** Descriptors that `penne run` needs. */
const FILES = 31;

/** Makes a system call; a negative result is the error number. */
type Call = (name: keyof typeof NR, ...args: (bigint | Uint8Array)[]) => number;

function open(): Call {
  let library;
  try {
    library = Deno.dlopen("", LIBC);
  } catch {
    library = Deno.dlopen("libc.so.6", LIBC);
  }
  const { syscall, __errno_location: location } = library.symbols;
  return (name, ...args) => {
    const [a = 0n, b = 0n, c = 0n] = args.map((arg) => typeof arg === "bigint" ? arg : address(arg));
    const result = Number(syscall(BigInt(NR[name]), a, b, c));
    // Nothing of the runtime runs in between that could change it.
    return result < 0 ? -new Deno.UnsafePointerView(location()!).getInt32() : result;
  };
}

function limit(call: Call, resource: number): number {
  const words = new BigUint64Array(2);
  return call("getrlimit", BigInt(resource), new Uint8Array(words.buffer)) < 0 ? Infinity : Number(words[0]);
}

/** Reads a small file; empty if it cannot be read. */
function readOwn(call: Call, path: string): string {
  const fd = call("openat", BigInt(-100), cString(path), 0n);
  const bytes = new Uint8Array(8192);
  if (fd < 0 || call("read", BigInt(fd), bytes, BigInt(bytes.length)) <= 0) return "";
  return text(bytes).trim();
}

/** Why the shim could not be loaded. */
export interface ShimFailure {
  /** The reason. */
  readonly reason: string;
  /** What was found out, and what removes it. */
  readonly hints: readonly string[];
}

const reasonOf = (errno: number) => `${errnoText(errno)} (${errnoName(errno)})`;

function tooFewFiles(call: Call): ShimFailure {
  const files = limit(call, RLIMIT.NOFILE);
  const hint = `the limit on open files is ${files} (ulimit -n), and penne needs ${FILES} at least; ulimit -n 1024`;
  return { reason: reasonOf(E.EMFILE), hints: [hint] };
}

/** Explains why no memfd can be made. */
function explainMemfd(call: Call, errno: number): ShimFailure {
  if (errno === E.EMFILE) return tooFewFiles(call);
  const filtered = /^Seccomp:\s*2$/m.test(readOwn(call, "/proc/self/status"));
  const hint = "a system call filter (seccomp) refuses memfd_create(2), which every kernel has that penne works with";
  return { reason: `memfd_create(2) failed: ${reasonOf(errno)}`, hints: filtered ? [hint] : [] };
}

/**
 * Explains why the shim could not be loaded.
 *
 * @param step What has failed.
 * @param cause The error of the runtime behind it, if there is one.
 * @returns The reason, and hints.
 */
export function explainShim(step: string, cause: unknown): ShimFailure {
  if (step === "architecture") return { reason: `${Deno.build.arch} is not supported`, hints: [] };
  const call = open();
  if (step === "write") {
    const size = atob(SHIM_ELF[Deno.build.arch] ?? "").length;
    const most = limit(call, RLIMIT.FSIZE);
    const hint = `the limit on the size of files is ${most} bytes (ulimit -f), and penne needs ${size} at least`;
    return { reason: reasonOf(E.EFBIG), hints: most < size ? [`${hint}; ulimit -f unlimited`] : [] };
  }
  const memfd = call("memfd_create", cString("penne-agent"), 1n);
  if (memfd < 0) return explainMemfd(call, -memfd);
  if (step === "memfd_create") return { reason: "memfd_create(2) failed, and works now", hints: [] };
  const reason = (cause instanceof Error ? cause.message : `${cause}`).replace(/^Could not open library: /, "");
  if (readOwn(call, "/proc/self/status") === "") {
    return { reason, hints: ["/proc is not mounted here, and penne needs it; as root: mount -t proc proc /proc"] };
  }
  const label = readOwn(call, "/proc/self/attr/current");
  const confined = label !== "" && label !== "unconfined" && /not permitted|denied/i.test(reason);
  return {
    reason,
    hints: confined ? [`a security module confines penne (${label}), and denies it to map a memfd`] : [],
  };
}
