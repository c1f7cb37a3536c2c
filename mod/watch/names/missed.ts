// Names of mounts that have come and gone before anybody could look, concluded from two incomplete sources; without a
// syscall.
//
// A mount that has gone tells nothing but that it was there, and inotify nothing but that a file was. Each is kept for a
// second; in the order of their coming, one of each that both have come and gone make one name.

/** Milliseconds for which the other half is waited for. */
const PATIENCE = 1000;

interface Half {
  readonly key: string;
  readonly pid: number;
  gone: number;
}

/** A mount and a name that belong together. */
export interface MissedName {
  readonly path: string;
  /** Process that has mounted it. */
  readonly pid: number;
}

/**
 * Finds out which names were missed.
 *
 * @example
 * ```ts
 * import { MissedNames } from "./missed.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const missed = new MissedNames();
 * missed.created("/run/netns/a");
 * missed.attached(1n, 42);
 * assertEquals(missed.pairs(1), []); // it may be there still
 * missed.detached(1n, 2);
 * missed.deleted("/run/netns/a", 3);
 * assertEquals(missed.pairs(3), [{ path: "/run/netns/a", pid: 42 }]);
 * ```
 */
export class MissedNames {
  #mounts = new Map<string, Half>();
  #files = new Map<string, Half>();

  #come(halves: Map<string, Half>, key: string, pid: number): void {
    halves.delete(key);
    halves.set(key, { key, pid, gone: Infinity });
  }

  /** A mount has come, and had gone when it was asked what it is. */
  attached(id: bigint, pid: number): void {
    this.#come(this.#mounts, `${id}`, pid);
  }

  /** A mount has gone. */
  detached(id: bigint, now: number): void {
    const mount = this.#mounts.get(`${id}`);
    if (mount) mount.gone = now;
  }

  /** Whether there is a mount of which the name has not been found yet. */
  get waiting(): boolean {
    return this.#mounts.size > 0;
  }

  /** A file has come to a directory of names. */
  created(path: string): void {
    this.#come(this.#files, path, 0);
  }

  /** A mount was seen there, so nothing was missed. */
  seen(path: string): void {
    this.#files.delete(path);
  }

  /** A file has gone from a directory of names. */
  deleted(path: string, now: number): void {
    const file = this.#files.get(path);
    if (file) file.gone = now;
  }

  /**
   * Brings together what belongs together.
   *
   * @param now Milliseconds of `performance.now()`.
   * @returns Names that were there, and have gone.
   */
  pairs(now: number): MissedName[] {
    const found: MissedName[] = [];
    for (const halves of [this.#mounts, this.#files]) {
      for (const { key, gone } of halves.values()) if (gone + PATIENCE < now) halves.delete(key);
    }
    const files = [...this.#files.values()].filter(({ gone }) => gone !== Infinity);
    for (const mount of [...this.#mounts.values()].filter(({ gone }) => gone !== Infinity)) {
      const file = files.shift();
      if (!file) break;
      this.#mounts.delete(mount.key);
      this.#files.delete(file.key);
      found.push({ path: file.key, pid: mount.pid });
    }
    return found;
  }
}
