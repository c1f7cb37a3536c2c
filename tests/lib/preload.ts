// Opens what stays open for the rest of the process before any test, as the leak checks count what a test opens.

import { quick } from "../../ffi/core/quick.ts";
import { call, self } from "../../ffi/core/task.ts";
import { shim, waitingSyscall } from "../../ffi/core/shim.ts";
import { NR } from "../../ffi/core/syscalls.ts";
import { pipe } from "../../ffi/sys/file.ts";
import { waitReadable } from "../../mod/reactor/waiter.ts";

shim();
quick(NR.getpid, 0, 0, 0, 0, 0, 0);
await waitingSyscall(BigInt(NR.getpid), 0n, 0n, 0n, 0n, 0n, 0n);
const [reader, writer] = pipe();
const { readable } = waitReadable([reader]);
// Not cancelled: a pool thread might still be on its way out of the shim when Deno unloads that, and would crash. In a
// file whose tests are all skipped that is at once.
call(self, "write", writer, new Uint8Array(1), 1);
await readable;
reader.close();
writer.close();
