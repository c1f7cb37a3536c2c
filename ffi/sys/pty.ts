// Pseudo-terminals, pty(7), and the settings and sizes of terminals that are relayed.

import { IOCTL, O } from "../core/consts.ts";
import type { Fd } from "../core/fd.ts";
import { call, out, self } from "../core/task.ts";
import { open } from "./file.ts";
import type { TerminalSettings } from "./terminal.ts";

/** Size of a terminal's window: the kernel's `struct winsize`. */
export type WindowSize = Uint8Array;

const WINSIZE_SIZE = 8;

/** Offsets in `struct termios`, and its size. */
const TERMIOS = { inputFlags: 0, outputFlags: 4, localFlags: 12, characters: 17, size: 36 } as const;
/** Flags of input that change bytes or stop output: IGNBRK, BRKINT, PARMRK, ISTRIP, INLCR, IGNCR, ICRNL, IXON. */
const INPUT_CHANGES = 0x5eb;
/** The flag of output that lets bytes be changed. */
const OPOST = 1;
/** The local flag that makes keys send signals. */
const ISIG = 1;
/** Local flags of editing, echo and signals: ISIG, ICANON, ECHO, ECHONL, IEXTEN. */
const LOCAL_CHANGES = 0x804b;
/** Indices of control characters. */
const CHARACTER = { INTR: 0, QUIT: 1, TIME: 5, MIN: 6, SUSP: 10 } as const;

/** The two ends of a pseudo-terminal. */
export interface Pty {
  /** The end of the program that relays; it does not block. */
  readonly master: Fd;
  /** The terminal itself. */
  readonly slave: Fd;
}

/**
 * Opens a pseudo-terminal, which does not become the controlling terminal of this process.
 *
 * @example
 * ```ts
 * import { openPty } from "./pty.ts";
 * import { POLL } from "../core/consts.ts";
 * import { read, write } from "./file.ts";
 * import { poll } from "./poll.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const { master, slave } = openPty();
 * write(slave, new TextEncoder().encode("out\n"));
 * const buffer = new Uint8Array(16);
 * let length = 0;
 * while (length < 5) { // a terminal may pass on a line in pieces
 *   poll([{ fd: master, events: POLL.IN }], 1000);
 *   length += read(master, buffer.subarray(length));
 * }
 * assertEquals(new TextDecoder().decode(buffer.subarray(0, length)), "out\r\n");
 * slave.close();
 * master.close();
 * ```
 *
 * @returns Its two ends.
 * @throws {SysError} ENOENT without /dev/ptmx, ENOSPC if there are too many pseudo-terminals.
 */
export function openPty(): Pty {
  using owned = new DisposableStack();
  const master = owned.use(open(self, "/dev/ptmx", O.RDWR | O.NOCTTY | O.NONBLOCK));
  call(self, "ioctl", master, IOCTL.TIOCSPTLCK, new Uint8Array(4));
  const slave = self.open("ioctl", master, IOCTL.TIOCGPTPEER, O.RDWR | O.NOCTTY | O.CLOEXEC);
  owned.move();
  return { master, slave };
}

/**
 * Whether a descriptor is a terminal, isatty(3).
 *
 * @param fd The descriptor.
 * @returns Whether it has a terminal's settings.
 */
export function isTerminal(fd: Fd): boolean {
  return self.raw("ioctl", fd, IOCTL.TCGETS, out(new Uint8Array(TERMIOS.size))) >= 0;
}

/**
 * Reads the size of a terminal's window.
 *
 * @param tty The terminal.
 * @returns The size; all zero if that is unknown.
 */
export function getWindowSize(tty: Fd): WindowSize {
  const size = new Uint8Array(WINSIZE_SIZE);
  self.raw("ioctl", tty, IOCTL.TIOCGWINSZ, out(size));
  return size;
}

/**
 * Sets the size of a terminal's window; the kernel tells the foreground of a change by SIGWINCH.
 *
 * @param tty The terminal, or the master of a pseudo-terminal.
 * @param size The size.
 */
export function setWindowSize(tty: Fd, size: WindowSize): void {
  self.raw("ioctl", tty, IOCTL.TIOCSWINSZ, size);
}

/**
 * Settings that pass every byte of input on as it comes, as cfmakeraw(3) makes them.
 *
 * @param settings The settings to start from.
 * @param output Whether output passes unchanged too.
 * @returns The settings.
 */
export function rawSettings(settings: TerminalSettings, output: boolean): TerminalSettings {
  const raw = settings.slice();
  const view = new DataView(raw.buffer);
  const clear = (at: number, bits: number) => view.setUint32(at, view.getUint32(at, true) & ~bits, true);
  clear(TERMIOS.inputFlags, INPUT_CHANGES);
  if (output) clear(TERMIOS.outputFlags, OPOST);
  clear(TERMIOS.localFlags, LOCAL_CHANGES);
  raw[TERMIOS.characters + CHARACTER.MIN] = 1;
  raw[TERMIOS.characters + CHARACTER.TIME] = 0;
  return raw;
}

/** Keys that make a terminal send a signal. */
export interface SignalKeys {
  /** The byte that sends SIGINT; 0 for none. */
  readonly interrupt: number;
  /** The byte that sends SIGQUIT; 0 for none. */
  readonly quit: number;
  /** The byte that sends SIGTSTP; 0 for none. */
  readonly suspend: number;
}

/**
 * Reads which keys make a terminal send a signal to its foreground.
 *
 * @param settings The terminal's settings.
 * @returns The keys; null if its settings have that switched off.
 */
export function signalKeys(settings: TerminalSettings): SignalKeys | null {
  const flags = new DataView(settings.buffer, settings.byteOffset).getUint32(TERMIOS.localFlags, true);
  if (!(flags & ISIG)) return null;
  const key = (index: number) => settings[TERMIOS.characters + index]!;
  return { interrupt: key(CHARACTER.INTR), quit: key(CHARACTER.QUIT), suspend: key(CHARACTER.SUSP) };
}
