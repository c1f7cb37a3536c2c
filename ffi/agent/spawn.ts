// Starts the process of an agent: executed from the shim's memfd or, where that is not allowed, forked.

import { CLONE, SIGNAL } from "../core/consts.ts";
import { check, E, SysError } from "../core/errno.ts";
import { Fd } from "../core/fd.ts";
import { address, cString, keepAlive } from "../core/memory.ts";
import { shim, ShimFunction } from "../core/shim.ts";
import { retry, self } from "../core/task.ts";
import { isIgnored, resetSignal } from "../sys/signal.ts";

/** How to get the process (`enum spawn_how` of libshim.c); INHERIT is EXEC without closing any descriptor. */
const METHOD = { EXEC: 0, FORK: 1, INHERIT: 2 } as const;

/** How to start an agent. */
export interface SpawnOptions {
  /** Whether it gets all descriptors that this program's caller has passed on, under the same numbers. */
  readonly inherit?: boolean;
}

/** Fields of `struct spawn` in libshim.c. */
const SPAWN = {
  size: 64,
  flags: 0,
  stack: 8,
  stackSize: 16,
  argv: 24,
  socket: 32,
  image: 36,
  how: 40,
  pidfd: 44,
  error: 48,
};

const STACK = 16384;

// An exec of the memfd that was refused once is always refused.
let refusal: SysError | undefined;

/**
 * Why agents are forked rather than executed.
 *
 * @returns The error of execveat(2); undefined as long as it has not failed.
 */
export function execRefused(): SysError | undefined {
  return refusal;
}

let childrenIgnored: boolean | undefined;

/**
 * Gives SIGCHLD its default action, without which children cannot be waited for; a caller that ignores it passes that on.
 *
 * @returns Whether SIGCHLD was ignored.
 */
export function waitForChildren(): boolean {
  if (childrenIgnored === undefined) {
    childrenIgnored = isIgnored(SIGNAL.CHLD);
    if (childrenIgnored) resetSignal(self, SIGNAL.CHLD);
  }
  return childrenIgnored;
}

/**
 * Starts the process of an agent as a child of this process.
 *
 * @param socket The agent's end of its socket, which it gets under the same number.
 * @param flags CLONE_NEW* and CLONE_PARENT, see clone(2).
 * @param inherit Whether it gets every descriptor that does not close on exec.
 * @returns Its pid, and a pidfd.
 * @throws {SysError} If the clone fails, or if only a fork is possible and cannot do what was asked for.
 */
export function spawnProcess(socket: Fd, flags: number, inherit: boolean): { pid: number; pidfd: Fd } {
  waitForChildren();
  const bytes = new Uint8Array(SPAWN.size);
  const view = new DataView(bytes.buffer);
  const stack = new Uint8Array(STACK);
  const args = [cString("penne-agent"), cString(`${socket.number}`)];
  const argv = new BigUint64Array([...args.map(address), 0n]);
  view.setBigUint64(SPAWN.flags, BigInt(flags), true);
  view.setBigUint64(SPAWN.stack, address(stack), true);
  view.setBigUint64(SPAWN.stackSize, BigInt(STACK), true);
  view.setBigUint64(SPAWN.argv, address(new Uint8Array(argv.buffer)), true);
  view.setInt32(SPAWN.socket, socket.number, true);
  view.setInt32(SPAWN.image, shim().image, true);
  const attempt = (method: number) => {
    view.setInt32(SPAWN.how, method, true);
    const pid = Number(shim().call(ShimFunction.SPAWN, address(bytes), 0n, 0n, 0n, 0n, 0n));
    keepAlive([bytes, stack, args, argv]);
    check("clone", pid, [flags]);
    return { pid, pidfd: new Fd(view.getInt32(SPAWN.pidfd, true)) };
  };
  if (!shim().executable) refusal ??= new SysError("execveat", E.EACCES);
  if (!refusal) {
    const process = attempt(inherit ? METHOD.INHERIT : METHOD.EXEC);
    const error = Number(view.getBigInt64(SPAWN.error, true));
    if (error === 0) return process;
    process.pidfd.close();
    retry(self, "wait4", process.pid, null, 0, null);
    refusal = new SysError("execveat", -error);
  }
  if (inherit || flags & CLONE.PARENT) throw refusal;
  return attempt(METHOD.FORK);
}
