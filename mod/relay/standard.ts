// What the standard descriptors of this process are, and pipes that stand in for them.

import { F, IOCTL, O, S, SEEK } from "../../ffi/core/consts.ts";
import { orNull } from "../../ffi/core/errno.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { call, out, self } from "../../ffi/core/task.ts";
import { pipe } from "../../ffi/sys/file.ts";
import { isTerminal } from "../../ffi/sys/pty.ts";
import { stat } from "../../ffi/sys/stat.ts";
import type { End } from "./copier.ts";

/** Device of /dev/null. */
const NULL_DEVICE = "1:3";

/** A standard descriptor. */
export interface Standard {
  /** 0 to 2. */
  readonly number: number;
  /** What it is; `null` also if it is not open, `given` if the command gets another one. */
  readonly kind: "terminal" | "null" | "stream" | "given";
  /** The device that it is, if it is a terminal. */
  readonly device: string;
  /** An output before it that is the same file, so that one pipe keeps the order of both; or null. */
  readonly sameAs: number | null;
}

/**
 * Looks at the standard descriptors of this process.
 *
 * @param given What a command gets in place of them; null for those that it does not get another one for.
 * @returns All three.
 */
export function lookAtStandard(given: readonly (Fd | null)[] = []): Standard[] {
  const files = [0, 1, 2].map((number) => given[number] ? null : orNull(() => stat(self, Fd.borrow(number)), "EBADF"));
  return files.map((file, number) => {
    if (given[number]) return { number, kind: "given", device: "", sameAs: null };
    const other = number === 2 && file && files[1] && file.ino === files[1].ino && file.device === files[1].device;
    const device = file && (file.mode & S.IFMT) === S.IFCHR ? file.special : "";
    const kind = !file || device === NULL_DEVICE
      ? "null"
      : device !== "" && isTerminal(Fd.borrow(number))
      ? "terminal"
      : "stream";
    return { number, kind, device, sameAs: other ? 1 : null };
  });
}

/**
 * Whether a descriptor is a regular file, whose calls never wait.
 *
 * @param number The descriptor.
 * @returns Whether it is.
 */
export function isRegular(number: number): boolean {
  return (stat(self, Fd.borrow(number)).mode & S.IFMT) === S.IFREG;
}

/**
 * Opens a pipe that stands in for a standard descriptor.
 *
 * @param number The descriptor; of 0 the command gets the end to read from.
 * @returns The command's end; ours, which does not block; and the descriptor of the caller.
 * @throws {SysError} EMFILE if there are too many descriptors.
 */
export function streamOf(number: number): { theirs: Fd; ours: End; caller: End } {
  const [reader, writer] = pipe();
  const [theirs, fd] = number === 0 ? [reader, writer] : [writer, reader];
  call(self, "fcntl", fd, F.SETFL, O.NONBLOCK);
  const caller = { fd: Fd.borrow(number), blocks: !isRegular(number), owned: false };
  return { theirs, ours: { fd, blocks: false, owned: true }, caller };
}

/**
 * Duplicates a descriptor of this process.
 *
 * @param fd The descriptor.
 * @returns Another one of the same open file.
 * @throws {SysError} EMFILE if there are too many descriptors.
 */
export function duplicate(fd: Fd): Fd {
  return self.open("fcntl", fd, F.DUPFD_CLOEXEC, 3);
}

/**
 * Gives back what was read from stdin and is still in a pipe, if stdin is a regular file: programs that share it, such as a
 * loop of a shell, go on behind what the command has read.
 *
 * @param held Bytes that have not been written to the pipe.
 * @param reader The end of the pipe that the command reads from.
 */
export function giveBack(held: number, reader: Fd): void {
  const left = new Int32Array(1);
  self.raw("ioctl", reader, IOCTL.FIONREAD, out(new Uint8Array(left.buffer)));
  const total = held + left[0]!;
  if (total > 0) self.raw("lseek", 0, -total, SEEK.CUR);
}
