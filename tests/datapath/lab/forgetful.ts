// Executes a command without something that a seccomp(2) filter refuses: SO_PEEK_OFF, which TCP sockets have since Linux 6.9,
// or pipes of another size than the kernel's.

import { exec } from "../../../ffi/agent/exec.ts";
import { E } from "../../../ffi/core/errno.ts";
import { NR } from "../../../ffi/core/syscalls.ts";
import { F } from "../../../ffi/core/consts.ts";
import { address } from "../../../ffi/core/memory.ts";
import { call, self } from "../../../ffi/core/task.ts";
import { SO, SOL_SOCKET } from "../../../ffi/net/constants.ts";

const SECCOMP_SET_MODE_FILTER = 1;
/** Offsets in `struct seccomp_data`. */
const AT = { NR: 0, SECOND: 16 + 8, THIRD: 16 + 16 };
/** bpf(4): load a word, jump if equal, return. */
const [LOAD, JUMP_EQUAL, RETURN] = [0x20, 0x15, 0x06];
const [ALLOW, ERRNO] = [0x7fff0000, 0x00050000];

type Instruction = [code: number, jumpTrue: number, jumpFalse: number, k: number];

/** What is refused. */
const FILTERS: Readonly<Record<string, readonly Instruction[]>> = {
  "peek offset": [
    [LOAD, 0, 0, AT.NR],
    [JUMP_EQUAL, 0, 5, NR.setsockopt],
    [LOAD, 0, 0, AT.SECOND],
    [JUMP_EQUAL, 0, 3, SOL_SOCKET],
    [LOAD, 0, 0, AT.THIRD],
    [JUMP_EQUAL, 0, 1, SO.PEEK_OFF],
    [RETURN, 0, 0, ERRNO | E.EOPNOTSUPP],
    [RETURN, 0, 0, ALLOW],
  ],
  "large pipes": [
    [LOAD, 0, 0, AT.NR],
    [JUMP_EQUAL, 0, 4, NR.fcntl],
    [LOAD, 0, 0, AT.SECOND],
    [JUMP_EQUAL, 1, 0, F.SETPIPE_SZ],
    [JUMP_EQUAL, 0, 1, F.GETPIPE_SZ],
    [RETURN, 0, 0, ERRNO | E.EPERM],
    [RETURN, 0, 0, ALLOW],
  ],
};

const [without, ...argv] = Deno.args;
const instructions = FILTERS[without!]!;
const filter = new Uint8Array(8 * instructions.length);
instructions.forEach(([code, jumpTrue, jumpFalse, k], i) => {
  const view = new DataView(filter.buffer, 8 * i);
  view.setUint16(0, code, true);
  view.setUint8(2, jumpTrue);
  view.setUint8(3, jumpFalse);
  view.setUint32(4, k, true);
});
const program = new Uint8Array(16);
new DataView(program.buffer).setUint16(0, instructions.length, true);
new DataView(program.buffer).setBigUint64(8, address(filter), true);
call(self, "seccomp", SECCOMP_SET_MODE_FILTER, 0, program);

const environment = Object.entries(Deno.env.toObject()).map(([name, value]) =>
  new TextEncoder().encode(`${name}=${value}`)
);
const [command] = argv;
for (const directory of command!.includes("/") ? [""] : Deno.env.get("PATH")!.split(":").map((path) => `${path}/`)) {
  exec(self, `${directory}${command}`, argv, environment);
}
throw new Error(`cannot execute ${command}`);
