// The BTF of the running kernel.

import { O, SEEK } from "../../ffi/core/consts.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { Mapping } from "../../ffi/core/mapping.ts";
import { open, readAll } from "../../ffi/sys/file.ts";
import { self } from "../../ffi/core/task.ts";
import { Btf } from "./btf.ts";

/** The path of the running kernel's BTF. */
export const KERNEL_BTF = "/sys/kernel/btf/vmlinux";

/** Most bytes: that of a kernel with all options has less than ten million. */
const SIZE_MAX = 64 << 20;

/** Maps the file; returns null where it can only be read (before Linux 6.16). */
function map(fd: Fd): Mapping | null {
  const size = self.raw("lseek", fd, 0, SEEK.END);
  self.raw("lseek", fd, 0, SEEK.SET); // from where it is read otherwise
  if (size <= 0 || size > SIZE_MAX) return null;
  try {
    return new Mapping(fd, size, { private: true });
  } catch {
    return null;
  }
}

/**
 * Opens the running kernel's BTF.
 *
 * @example
 * ```ts
 * import { withKernelBtf } from "./kernel_btf.ts";
 * import { BTF_KIND } from "./btf.ts";
 *
 * const offset = withKernelBtf((btf) => btf.field(btf.find("task_struct", BTF_KIND.STRUCT), "comm")?.offset);
 * ```
 *
 * @param use Called with the BTF, which is unmapped afterwards.
 * @param path The path of the BTF.
 * @returns The result of `use`.
 * @throws {SysError} ENOENT if the kernel was built without BTF, or /sys is not mounted.
 * @throws {RangeError} If the file is not BTF.
 */
export function withKernelBtf<T>(use: (btf: Btf) => T, path = KERNEL_BTF): T {
  using fd = open(self, path, O.RDONLY | O.NONBLOCK); // whatever is there where /sys is not the kernel's
  using mapping = map(fd); // takes half a millisecond; reading takes seven
  return use(new Btf(mapping ? new Uint8Array(mapping.memory()) : readAll(fd, SIZE_MAX)));
}
