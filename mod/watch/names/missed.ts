// Names that were removed before their mounts could be examined, inferred from two incomplete sources; without a syscall.
//
// Of a mount that was removed only the id is known, and inotify(7) only reports that a file was created and deleted. Each
// half is kept for a second. Halves that have come and gone are paired in the order in which they came.

/** Milliseconds to wait for the other half. */
const PATIENCE = 1000;

/** A mount, by its id, or a file, by its path. */
interface Half {
  readonly key: string;
  /** Process that mounted it; 0 for a file. */
  readonly pid: number;
  /** When it was removed, in milliseconds of `performance.now()`. */
  gone: number;
}

/** A name that was missed. */
export interface MissedName {
  readonly path: string;
  /** Process that mounted it. */
  readonly pid: number;
}

/**
 * Infers which names were missed.
 *
 * @example
 * ```ts
 * import { MissedNames } from "./missed.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const missed = new MissedNames();
 * missed.created("/run/netns/a");
 * missed.attached(1n, 42);
 * assertEquals(missed.pairs(1), []); // it may still exist
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

  /** Notes a mount that was removed before it could be examined. */
  attached(id: bigint, pid: number): void {
    this.#come(this.#mounts, `${id}`, pid);
  }

  /** Notes that a mount was removed, at `now` of `performance.now()`. */
  detached(id: bigint, now: number): void {
    const mount = this.#mounts.get(`${id}`);
    if (mount) mount.gone = now;
  }

  /** Whether a mount waits for its file. */
  get waiting(): boolean {
    return this.#mounts.size > 0;
  }

  /** Notes a file that was created in a directory of names. */
  created(path: string): void {
    this.#come(this.#files, path, 0);
  }

  /** Notes that a mount on the file was examined, so that nothing was missed. */
  seen(path: string): void {
    this.#files.delete(path);
  }

  /** Notes that a file was deleted, at `now` of `performance.now()`. */
  deleted(path: string, now: number): void {
    const file = this.#files.get(path);
    if (file) file.gone = now;
  }

  /**
   * Pairs mounts with files.
   *
   * @param now Milliseconds of `performance.now()`.
   * @returns The names that were added and removed.
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
