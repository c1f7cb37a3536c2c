// A file of the host that others write, replace or remove at any time: its content as it is now.

import { O } from "../../ffi/core/consts.ts";
import { orNull, SysError } from "../../ffi/core/errno.ts";
import { open, read } from "../../ffi/sys/file.ts";
import { type Stat, stat } from "../../ffi/sys/stat.ts";
import { self } from "../../ffi/core/task.ts";

/** Bytes that are read of the file. */
const SIZE_MAX = 16 << 20;
const NOTHING = new Uint8Array();
/** Two changes within this time, in nanoseconds, may look the same: clocks of file systems are coarse. */
const COARSE = 50_000_000n;

/** What tells one version of a file from another. */
function versionOf({ device, ino, size, modified, changed }: Stat): string {
  return [device, ino, size, modified, changed].join();
}

/**
 * A file of the host, which is read again when it has changed, as the C library does with its own configuration.
 *
 * @example
 * ```ts
 * import { HostFile } from "./host_file.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const directory = Deno.makeTempDirSync();
 * const file = new HostFile(`${directory}/conf`);
 * assertEquals([file.refresh(), file.content.length, file.error?.code], [true, 0, "ENOENT"]);
 * Deno.writeTextFileSync(`${directory}/conf`, "a");
 * assertEquals([file.refresh(), file.content, file.error], [true, new Uint8Array([97]), null]);
 * Deno.removeSync(directory, { recursive: true });
 * ```
 */
export class HostFile {
  /** Its path; symbolic links are followed each time. */
  readonly path: string;
  /** Its content; empty if it cannot be read. */
  content: Uint8Array = NOTHING;
  /** Why it cannot be read; null if it can. */
  error: SysError | null = null;
  #version: string | null = null;

  /** @param path The file, which need not exist. */
  constructor(path: string) {
    this.path = path;
  }

  /**
   * Looks at the file.
   *
   * @returns Whether it has been read again: it may be another one, or have another content, than at the last look.
   */
  refresh(): boolean {
    let [version, settled] = ["missing", true];
    const found = orNull(() => stat(self, this.path));
    if (found) {
      version = versionOf(found);
      const now = BigInt(Date.now()) * 1_000_000n;
      settled = now - found.modified > COARSE && now - found.changed > COARSE;
    }
    if (version === this.#version) return false;
    this.#version = settled ? version : null;
    this.#read();
    return true;
  }

  #read(): void {
    this.content = NOTHING;
    this.error = null;
    try {
      // A fifo must not make us wait.
      using file = open(self, this.path, O.RDONLY | O.NONBLOCK);
      let [buffer, length] = [new Uint8Array(4096), 0];
      for (let n; length < SIZE_MAX && (n = read(file, buffer.subarray(length))) > 0;) {
        length += n;
        if (length < buffer.length) continue;
        const longer = new Uint8Array(2 * length);
        longer.set(buffer);
        buffer = longer;
      }
      this.content = buffer.slice(0, length);
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      this.error = error;
    }
  }
}
