// Opens what stays open for the rest of the process before any test, as the leak checks count what a test opens.

import { quick } from "../../ffi/core/quick.ts";
import { shim, waitingSyscall } from "../../ffi/core/shim.ts";
import { NR } from "../../ffi/core/syscalls.ts";
import { pipe } from "../../ffi/sys/file.ts";
import { waitReadable } from "../../mod/reactor/waiter.ts";

shim();
quick(NR.getpid, 0, 0, 0, 0, 0, 0);
await waitingSyscall(BigInt(NR.getpid), 0n, 0n, 0n, 0n, 0n, 0n);
const [reader, writer] = pipe();
const { readable, cancel } = waitReadable([reader]);
cancel();
await readable;
reader.close();
writer.close();
