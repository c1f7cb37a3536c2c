// Mapped memory: mmap(2) of a descriptor.

import { MAP, PROT } from "./consts.ts";
import { check } from "./errno.ts";
import type { Fd } from "./fd.ts";
import { self } from "./task.ts";

/** How to map a descriptor. */
export interface MappingOptions {
  /** Whether the memory may be written to. */
  readonly write?: boolean;
  /** Offset of the first byte; by default 0. */
  readonly offset?: number;
  /** Whether later changes by others need not be seen. */
  readonly private?: boolean;
}

/** A mapped part of a file, or of a kernel object; unmapped at the end of a `using` block. */
export class Mapping implements Disposable {
  /** Address of the first byte. */
  readonly at: number;
  /** Bytes. */
  readonly size: number;

  /**
   * Maps a descriptor.
   *
   * @param fd The descriptor; it may be closed afterwards.
   * @param size Bytes.
   * @param options How to map it.
   * @throws {SysError} If mmap(2) fails.
   */
  constructor(fd: Fd, size: number, options: MappingOptions = {}) {
    const protection = options.write ? PROT.READ | PROT.WRITE : PROT.READ;
    const kind = options.private ? MAP.PRIVATE : MAP.SHARED;
    this.at = check("mmap", self.raw("mmap", 0, size, protection, kind, fd, options.offset ?? 0));
    this.size = size;
  }

  /**
   * The memory, which must not be used after the mapping is closed.
   *
   * @returns The memory; it is not copied.
   */
  memory(): ArrayBuffer {
    const pointer = Deno.UnsafePointer.create(BigInt(this.at))!;
    return Deno.UnsafePointerView.getArrayBuffer(pointer, this.size);
  }

  /** Unmaps the memory. */
  [Symbol.dispose](): void {
    self.raw("munmap", this.at, this.size);
  }
}
