// Watches the network of the host: links, addresses, routes and rules, by one socket of rtnetlink(7).
//
// What the kernel reports is not looked at: it says that something has changed, and the whole is read anew. Changes come in
// bursts, so they are awaited for a moment, during which the kernel's reports wake nobody, and readings have a distance that
// grows with what one and its changes cost.

import type { Fd } from "../../ffi/core/fd.ts";
import { Block } from "../../ffi/core/quick.ts";
import { receiveFromKernel } from "../../ffi/net/netlink.ts";
import { E } from "../../ffi/core/errno.ts";
import type { FollowLoop } from "./contract.ts";
import { openReports } from "./reports.ts";

/** Milliseconds from the first report of a burst until it is looked at, and at least between two looks. */
const SETTLE = 30;
const DISTANCE = 100;
/**
 * How many times as long as a look the pause after it is at least: a host may have all routes of the Internet. And how many
 * times as long as the changes that it leads to, between which others have their turns.
 */
const SHARE = 10;
const CHANGES_SHARE = 3;
/** Most milliseconds of a pause after one look that was slow, as on a machine that is busy, and after several. */
const PAUSE_MAX = 10_000;
const PAUSES_MAX = 300_000;

/** How many reports are taken at once. */
const REPORTS_MAX = 4096;

/** Only that a report has come matters. */
const report = new Block(64);

/**
 * How long to pause after a look.
 *
 * @param owed Milliseconds that the look and what it has led to make necessary.
 * @param before Those of the look before it.
 * @returns Milliseconds.
 */
export function pauseAfter(owed: number, before: number): number {
  return Math.max(DISTANCE - SETTLE, Math.min(PAUSE_MAX, owed), Math.min(PAUSES_MAX, owed, before));
}

/** Watches the network of the host. */
export class HostWatch implements Disposable {
  readonly #loop: FollowLoop;
  readonly #socket: Fd;
  readonly #look: () => void;
  #registration: { remove(): void } | null = null;
  #timer: { cancel(): void } | null = null;
  /** When the last look was over, and the pauses that it and the one before it make necessary, in milliseconds. */
  #looked = 0;
  #owed = 0;
  #owedBefore = 0;

  /**
   * @param loop The loop.
   * @param look Called once at the start, and then after changes.
   * @param reports The socket, owned by this from now on; by default it is opened.
   * @throws {SysError} If the socket cannot be opened.
   */
  constructor(loop: FollowLoop, look: () => void, reports: Fd = openReports()) {
    this.#loop = loop;
    this.#look = look;
    this.#socket = reports;
  }

  /** Begins to watch. */
  start(): void {
    this.#due();
  }

  /** Takes the reports that have come; returns whether there were any. */
  takeReports(): boolean {
    let [i, n] = [0, 0];
    // ENOBUFS means that reports were lost.
    for (; i < REPORTS_MAX && n !== -E.EAGAIN; i++) n = receiveFromKernel(this.#socket, report);
    return i > 1;
  }

  /** Makes a change that a look has led to: the pause after the look counts it. */
  spend(change: () => void): void {
    const start = performance.now();
    change();
    this.#owed += CHANGES_SHARE * (performance.now() - start);
  }

  /** Waits for a report of the kernel. */
  #wait(): void {
    this.#timer = null;
    this.#registration = this.#loop.watch(this.#socket.number, () => {
      this.#registration?.remove();
      this.#timer = this.#loop.after(SETTLE, () => this.#due());
    });
  }

  #due(): void {
    this.takeReports(); // before the look, so that what changes during it is reported anew
    const start = performance.now();
    this.#look();
    this.#looked = performance.now();
    [this.#owedBefore, this.#owed] = [this.#owed, SHARE * (this.#looked - start)];
    this.#pause();
  }

  /** Pauses as long as the last look makes it necessary. */
  #pause(): void {
    const left = this.#looked + pauseAfter(this.#owed, this.#owedBefore) - performance.now();
    if (left <= 0) return this.#wait();
    this.#timer = this.#loop.after(left, () => this.#pause());
  }

  /** Stops watching. */
  [Symbol.dispose](): void {
    this.#timer?.cancel();
    this.#registration?.remove();
    this.#socket.close();
  }
}
