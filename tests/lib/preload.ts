// Loads the shim before any test: where the runner looks for leaks (Deno 2.4) a library loaded inside one counts as such.

import { quick } from "../../ffi/core/quick.ts";
import { shim, waitingSyscall } from "../../ffi/core/shim.ts";
import { NR } from "../../ffi/core/syscalls.ts";

shim();
quick(NR.getpid, 0, 0, 0, 0, 0, 0);
await waitingSyscall(BigInt(NR.getpid), 0n, 0n, 0n, 0n, 0n, 0n);
