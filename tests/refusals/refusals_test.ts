// What penne says on hosts whose security module or kernel refuses something, and that the fix which it prints works.

import { fail } from "@std/assert";
import { type Need, test } from "../lib/helpers.ts";
import { DEBIAN } from "./guests.ts";
import { tryHosts } from "./host.ts";

/** Seconds for the guest. It needs some 60 of a processor, and 280 of one that is four times slower. */
const LIMIT = 600;
/** Tools that make and run a guest. */
const GUEST: readonly Need[] = [
  ...["root", "archive of Debian", "package:mmdebstrap", "package:e2fsprogs", "package:kmod"] as const,
  ...["package:cpio", "package:xz-utils", "package:zstd", "package:util-linux", "package:qemu-system-x86"] as const,
];

test("AppArmor and settings of other kernels are named, and the fixes work", GUEST, async () => {
  const { faults } = await tryHosts(DEBIAN, LIMIT);
  if (faults.length) fail(`${faults.length} of ${DEBIAN.hosts.length} hosts:\n${faults.join("\n")}`);
});
