// Terminals: the controlling one, its settings and its foreground process group, ioctl_tty(2).

import { AT_FDCWD, IOCTL, O } from "../core/consts.ts";
import { Fd } from "../core/fd.ts";
import { cString } from "../core/memory.ts";
import { out, self } from "../core/task.ts";

/** Settings of a terminal: the kernel's `struct termios`. */
export type TerminalSettings = Uint8Array;

/** Bytes of {@linkcode TerminalSettings}. */
const TERMIOS_SIZE = 36;

/**
 * Opens the controlling terminal of this process.
 *
 * @returns The terminal; null if this process has no controlling terminal.
 */
export function openControllingTerminal(): Fd | null {
  const number = self.raw("openat", AT_FDCWD, cString("/dev/tty"), O.RDWR | O.NOCTTY | O.CLOEXEC, 0);
  return number < 0 ? null : new Fd(number);
}

/**
 * The foreground process group of a terminal.
 *
 * @param tty The terminal, or its number.
 * @returns The group; 0 if it is in another pid namespace; negative if this is not the controlling terminal.
 */
export function foregroundGroup(tty: Fd | number): number {
  const group = new Int32Array(1);
  const result = self.raw("ioctl", tty, IOCTL.TIOCGPGRP, out(new Uint8Array(group.buffer)));
  return result < 0 ? result : group[0]!;
}

/**
 * Makes a process group the foreground of a terminal; does nothing if that is refused.
 *
 * @param tty The terminal.
 * @param group The group.
 */
export function setForegroundGroup(tty: Fd, group: number): void {
  self.raw("ioctl", tty, IOCTL.TIOCSPGRP, new Uint8Array(new Int32Array([group]).buffer));
}

/**
 * Reads a terminal's settings.
 *
 * @param tty The terminal.
 * @returns The settings.
 */
export function getSettings(tty: Fd): TerminalSettings {
  const settings = new Uint8Array(TERMIOS_SIZE);
  self.raw("ioctl", tty, IOCTL.TCGETS, out(settings));
  return settings;
}

/**
 * Changes a terminal's settings; does nothing if that is refused.
 *
 * @param tty The terminal.
 * @param settings The settings.
 * @param drain Whether output that was written before is printed first, with the old settings.
 */
export function setSettings(tty: Fd, settings: TerminalSettings, drain = false): void {
  self.raw("ioctl", tty, drain ? IOCTL.TCSETSW : IOCTL.TCSETS, settings);
}
