// Error numbers, their names and texts, and the one place where a failed syscall becomes an exception.

import type { SyscallName } from "./syscalls.ts";

/**
 * The error numbers that the code asks about, errno(3); the kernel returns them negated: `result === -E.EAGAIN`.
 *
 * The same on x86_64 and aarch64 (asm-generic/errno.h).
 */
export const E = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  ENOEXEC: 8,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  ENOTDIR: 20,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  EFBIG: 27,
  ENOSPC: 28,
  EROFS: 30,
  EPIPE: 32,
  ERANGE: 34,
  ENAMETOOLONG: 36,
  ENOSYS: 38,
  ELOOP: 40,
  EUSERS: 87,
  EMSGSIZE: 90,
  EOPNOTSUPP: 95,
  EAFNOSUPPORT: 97,
  EADDRINUSE: 98,
  EADDRNOTAVAIL: 99,
  ENETDOWN: 100,
  ENETUNREACH: 101,
  ECONNABORTED: 103,
  ECONNRESET: 104,
  ENOBUFS: 105,
  EISCONN: 106,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EHOSTUNREACH: 113,
  EINPROGRESS: 115,
  ESTALE: 116,
  EDQUOT: 122,
} as const;

/** Name of an error number in {@linkcode E}. */
export type ErrorName = keyof typeof E;

// Name and text of every error number: line N has those of number N. A string costs nothing at start-up, and is searched
// only once there is an error.
const ERRNOS = `
EPERM Operation not permitted
ENOENT No such file or directory
ESRCH No such process
EINTR Interrupted system call
EIO Input/output error
ENXIO No such device or address
E2BIG Argument list too long
ENOEXEC Exec format error
EBADF Bad file descriptor
ECHILD No child processes
EAGAIN Resource temporarily unavailable
ENOMEM Cannot allocate memory
EACCES Permission denied
EFAULT Bad address
ENOTBLK Block device required
EBUSY Device or resource busy
EEXIST File exists
EXDEV Invalid cross-device link
ENODEV No such device
ENOTDIR Not a directory
EISDIR Is a directory
EINVAL Invalid argument
ENFILE Too many open files in system
EMFILE Too many open files
ENOTTY Inappropriate ioctl for device
ETXTBSY Text file busy
EFBIG File too large
ENOSPC No space left on device
ESPIPE Illegal seek
EROFS Read-only file system
EMLINK Too many links
EPIPE Broken pipe
EDOM Numerical argument out of domain
ERANGE Numerical result out of range
EDEADLK Resource deadlock avoided
ENAMETOOLONG File name too long
ENOLCK No locks available
ENOSYS Function not implemented
ENOTEMPTY Directory not empty
ELOOP Too many levels of symbolic links

ENOMSG No message of desired type
EIDRM Identifier removed
ECHRNG Channel number out of range
EL2NSYNC Level 2 not synchronized
EL3HLT Level 3 halted
EL3RST Level 3 reset
ELNRNG Link number out of range
EUNATCH Protocol driver not attached
ENOCSI No CSI structure available
EL2HLT Level 2 halted
EBADE Invalid exchange
EBADR Invalid request descriptor
EXFULL Exchange full
ENOANO No anode
EBADRQC Invalid request code
EBADSLT Invalid slot

EBFONT Bad font file format
ENOSTR Device not a stream
ENODATA No data available
ETIME Timer expired
ENOSR Out of streams resources
ENONET Machine is not on the network
ENOPKG Package not installed
EREMOTE Object is remote
ENOLINK Link has been severed
EADV Advertise error
ESRMNT Srmount error
ECOMM Communication error on send
EPROTO Protocol error
EMULTIHOP Multihop attempted
EDOTDOT RFS specific error
EBADMSG Bad message
EOVERFLOW Value too large for defined data type
ENOTUNIQ Name not unique on network
EBADFD File descriptor in bad state
EREMCHG Remote address changed
ELIBACC Can not access a needed shared library
ELIBBAD Accessing a corrupted shared library
ELIBSCN .lib section in a.out corrupted
ELIBMAX Attempting to link in too many shared libraries
ELIBEXEC Cannot exec a shared library directly
EILSEQ Invalid or incomplete multibyte or wide character
ERESTART Interrupted system call should be restarted
ESTRPIPE Streams pipe error
EUSERS Too many users
ENOTSOCK Socket operation on non-socket
EDESTADDRREQ Destination address required
EMSGSIZE Message too long
EPROTOTYPE Protocol wrong type for socket
ENOPROTOOPT Protocol not available
EPROTONOSUPPORT Protocol not supported
ESOCKTNOSUPPORT Socket type not supported
EOPNOTSUPP Operation not supported
EPFNOSUPPORT Protocol family not supported
EAFNOSUPPORT Address family not supported by protocol
EADDRINUSE Address already in use
EADDRNOTAVAIL Cannot assign requested address
ENETDOWN Network is down
ENETUNREACH Network is unreachable
ENETRESET Network dropped connection on reset
ECONNABORTED Software caused connection abort
ECONNRESET Connection reset by peer
ENOBUFS No buffer space available
EISCONN Transport endpoint is already connected
ENOTCONN Transport endpoint is not connected
ESHUTDOWN Cannot send after transport endpoint shutdown
ETOOMANYREFS Too many references: cannot splice
ETIMEDOUT Connection timed out
ECONNREFUSED Connection refused
EHOSTDOWN Host is down
EHOSTUNREACH No route to host
EALREADY Operation already in progress
EINPROGRESS Operation now in progress
ESTALE Stale file handle
EUCLEAN Structure needs cleaning
ENOTNAM Not a XENIX named type file
ENAVAIL No XENIX semaphores available
EISNAM Is a named type file
EREMOTEIO Remote I/O error
EDQUOT Disk quota exceeded
ENOMEDIUM No medium found
EMEDIUMTYPE Wrong medium type
ECANCELED Operation canceled
ENOKEY Required key not available
EKEYEXPIRED Key has expired
EKEYREVOKED Key has been revoked
EKEYREJECTED Key was rejected by service
EOWNERDEAD Owner died
ENOTRECOVERABLE State not recoverable
ERFKILL Operation not possible due to RF-kill
EHWPOISON Memory page has hardware error
`;

/** An error number that is the kernel's own, and leaves it in bpf(2): without its JIT compiler it lacks some instructions. */
const ENOTSUPP = 524;

/** Name and text of an error number. */
function find(errno: number): { name: string; text: string } | undefined {
  if (errno === ENOTSUPP) return { name: "ENOTSUPP", text: "Operation is not supported" };
  const match = /^(\w+) (.+)$/.exec(ERRNOS.split("\n")[errno] ?? "");
  return match ? { name: match[1]!, text: match[2]! } : undefined;
}

/**
 * The name of an error number, as errno(3) has it.
 *
 * @example
 * ```ts
 * import { errnoName } from "./errno.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(errnoName(2), "ENOENT");
 * ```
 *
 * @param errno The positive number.
 * @returns The name; `E<number>` for a number that has none.
 */
export function errnoName(errno: number): string {
  return find(errno)?.name ?? `E${errno}`;
}

/**
 * The text of an error number, as strerror(3) has it in the C locale.
 *
 * @example
 * ```ts
 * import { errnoText } from "./errno.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(errnoText(13), "Permission denied");
 * ```
 *
 * @param errno The positive number.
 * @returns The text.
 */
export function errnoText(errno: number): string {
  return find(errno)?.text ?? `Unknown error ${errno}`;
}

/**
 * A syscall that failed.
 *
 * @example
 * ```ts
 * import { SysError } from "./errno.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const error = new SysError("openat", 2);
 * assertEquals(error.code, "ENOENT");
 * assertEquals(error.message, "openat: No such file or directory (ENOENT)");
 * ```
 */
export class SysError extends Error {
  /** Always "SysError". */
  override readonly name = "SysError";
  /** The kernel's name of the call. */
  readonly syscall: string;
  /** The positive error number. */
  readonly errno: number;
  /** The error's name, such as `EPERM`. */
  readonly code: string;
  /** The error's text, such as `Operation not permitted`. */
  readonly reason: string;
  /** The arguments of the call, as far as they are known. */
  readonly args: readonly unknown[];

  /**
   * Names the call and its error.
   *
   * @param syscall The kernel's name of the call, or of the request.
   * @param errno The positive error number.
   * @param detail What the kernel has added.
   * @param args The arguments of the call.
   */
  constructor(syscall: string, errno: number, detail?: string, args?: readonly unknown[]) {
    const reason = detail ? `${errnoText(errno)}: ${detail}` : errnoText(errno);
    super(`${syscall}: ${reason} (${errnoName(errno)})`);
    this.syscall = syscall;
    this.errno = errno;
    this.code = errnoName(errno);
    this.reason = reason;
    this.args = args ?? [];
  }
}

/**
 * Does something, and turns expected failures of syscalls into null.
 *
 * @example
 * ```ts
 * import { orNull, SysError } from "./errno.ts";
 * import { assertEquals, assertThrows } from "@std/assert";
 *
 * const open = () => {
 *   throw new SysError("openat", 2);
 * };
 * assertEquals(orNull(open, "ENOENT"), null);
 * assertThrows(() => orNull(open, "EPERM"), SysError);
 * ```
 *
 * @param body What to do.
 * @param codes The errors to expect; by default all.
 * @returns What `body` returns; null if a syscall fails with one of the errors.
 */
export function orNull<T>(body: () => T, ...codes: ErrorName[]): T | null {
  try {
    return body();
  } catch (error) {
    if (error instanceof SysError && (codes.length === 0 || codes.some((code) => code === error.code))) return null;
    throw error;
  }
}

/**
 * Whether a system call failed because something has run out; that says nothing about what the call was for.
 *
 * @param error The error.
 * @returns Whether it is EMFILE, ENFILE or ENOMEM.
 */
export function isShortage({ code }: SysError): boolean {
  return code === "EMFILE" || code === "ENFILE" || code === "ENOMEM";
}

/**
 * Passes a syscall's result through, or throws.
 *
 * @example
 * ```ts
 * import { check, SysError } from "./errno.ts";
 * import { assertEquals, assertThrows } from "@std/assert";
 *
 * assertEquals(check("read", 5), 5);
 * assertThrows(() => check("read", -9), SysError, "Bad file descriptor");
 * ```
 *
 * @param syscall The kernel's name of the call.
 * @param result A value, or a negative error number (-4095 to -1).
 * @param args The arguments of the call, for the error.
 * @returns The value.
 * @throws {SysError} If the result is an error.
 */
export function check(syscall: SyscallName, result: number, args?: readonly unknown[]): number {
  if (result < 0 && result >= -4095) throw new SysError(syscall, -result, undefined, args);
  return result;
}
