// What a program that an agent becomes inherits of ours beside stdin, stdout and stderr.

import { type Agent, waitForChildren } from "../../ffi/agent/agent.ts";
import { F, SIGNAL } from "../../ffi/core/consts.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { call, type Task } from "../../ffi/core/task.ts";
import { ignoreSignal } from "../../ffi/sys/signal.ts";
import { attempt } from "../base/errors.ts";

/**
 * Gives an agent descriptors of ours under the same numbers.
 *
 * @param agent An agent that was spawned, not cloned: only then none of the numbers is that of its socket.
 * @param keepFds The numbers.
 * @throws {PenneError} If one is not open.
 */
export function placeKeptFds(agent: Agent, keepFds: readonly number[]): void {
  for (const number of keepFds) {
    attempt(`keep descriptor ${number}`, () => {
      const got = call(agent, "fcntl", Fd.borrow(number), F.DUPFD, number);
      if (got === number) return;
      // The duplicate that came over the socket had that very number; it is free by now.
      call(agent, "dup3", got, number, 0);
      call(agent, "close", got);
    });
  }
}

/**
 * Ignores SIGCHLD in what is about to become a program if the caller does.
 *
 * @param task An agent, or this process.
 */
export function ignoreChildrenAgain(task: Task): void {
  if (!waitForChildren()) return;
  ignoreSignal(task, SIGNAL.CHLD);
}
