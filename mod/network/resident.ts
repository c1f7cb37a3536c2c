// An agent that stays in a network namespace and can do little there.

import { Agent } from "../../ffi/agent/agent.ts";
import { CAP, CLONE } from "../../ffi/core/consts.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { call, self, type Task } from "../../ffi/core/task.ts";
import { AF, SOCK } from "../../ffi/net/constants.ts";
import { openOwningUser } from "../../ffi/sys/namespace.ts";
import { stat } from "../../ffi/sys/stat.ts";
import { giveUpCapabilities } from "../agents/credentials.ts";
import { endAgents } from "../agents/enclosure.ts";
import { harden, setName } from "../agents/guard.ts";
import { attempt } from "../base/errors.ts";

/** Opens the network namespace of a socket, for who has CAP_NET_ADMIN there. */
const SIOCGSKNS = 0x894c;

/** Low ports and, before Linux 5.7, SO_BINDTODEVICE. */
export const KEPT = 1n << BigInt(CAP.NET_BIND_SERVICE) | 1n << BigInt(CAP.NET_RAW);

/**
 * Starts an agent that stays in a network namespace, which it keeps alive. It is outside of all PID namespaces below ours.
 *
 * @param netns The namespace.
 * @param owner The user namespace that owns it; null if that is our own.
 * @returns The agent. Of capabilities it has those that opening ports may need.
 * @throws {PenneError} If the namespaces cannot be entered.
 */
export function spawnResident(netns: Fd, owner: Fd | null): Agent {
  const agent = attempt("start an agent", () => Agent.spawn());
  try {
    setName(agent, "penne-ports");
    harden(agent);
    attempt("enter the network namespace", () => {
      if (owner) call(agent, "setns", owner, CLONE.NEWUSER);
      call(agent, "setns", netns, CLONE.NEWNET);
      // That by which it empties its bounding set when it is confined.
      giveUpCapabilities(agent, KEPT | 1n << BigInt(CAP.SETPCAP));
    });
    return agent;
  } catch (error) {
    endAgents([agent]);
    throw error;
  }
}

/** Opens a task's network namespace, by a socket: its root directory need not have a /proc, or not the kernel's. */
function openNetns(task: Task): Fd {
  using socket = task.open("socket", AF.INET, SOCK.DGRAM | SOCK.CLOEXEC, 0);
  return task.open("ioctl", socket, SIOCGSKNS);
}

/**
 * Starts an agent that stays in the network namespace of a task.
 *
 * @param task The task, whose user namespace is ours or below it.
 * @returns The agent.
 * @throws {PenneError} If the namespaces cannot be entered.
 */
export function spawnBeside(task: Task): Agent {
  using netns = attempt("open the network namespace", () => openNetns(task));
  using owner = openOwningUser(netns);
  const own = stat(self, owner).ino === stat(self, "/proc/thread-self/ns/user").ino;
  return spawnResident(netns, own ? null : owner);
}
