// Memory of the kernel's that is mapped here: mmap(2) of a descriptor.

import { MAP, PROT } from "./consts.ts";
import { check } from "./errno.ts";
import type { Fd } from "./fd.ts";
import { self } from "./task.ts";

/** How to map something. */
export interface MappingOptions {
  /** Whether it is written to as well. */
  readonly write?: boolean;
  /** Where it begins. */
  readonly offset?: number;
  /** Whether what others write after this need not be seen. */
  readonly private?: boolean;
}

/** Part of what a descriptor stands for, mapped; unmapped at the end of a `using` block. */
export class Mapping implements Disposable {
  /** Address of its first byte. */
  readonly at: number;
  /** Bytes. */
  readonly size: number;

  /**
   * Maps it.
   *
   * @param fd The descriptor; it may be closed afterwards.
   * @param size Bytes.
   * @param options How.
   * @throws {SysError} If it cannot be mapped.
   */
  constructor(fd: Fd, size: number, options: MappingOptions = {}) {
    const protection = options.write ? PROT.READ | PROT.WRITE : PROT.READ;
    const kind = options.private ? MAP.PRIVATE : MAP.SHARED;
    this.at = check("mmap", self.raw("mmap", 0, size, protection, kind, fd, options.offset ?? 0));
    this.size = size;
  }

  /**
   * The memory itself. Nothing of it may be touched after the mapping has been closed.
   *
   * @returns The memory.
   */
  memory(): ArrayBuffer {
    const pointer = Deno.UnsafePointer.create(BigInt(this.at))!;
    return Deno.UnsafePointerView.getArrayBuffer(pointer, this.size);
  }

  /** Unmaps it. */
  [Symbol.dispose](): void {
    self.raw("munmap", this.at, this.size);
  }
}
