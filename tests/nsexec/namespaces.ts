// Namespaces to join, made by an agent that stays in them.

import { Agent } from "../../ffi/agent/agent.ts";
import { cString } from "../../ffi/core/memory.ts";
import { waitChild } from "../../ffi/sys/process.ts";
import { call } from "../../ffi/core/task.ts";
import { namespaceFlag, type NamespaceType } from "../../mod/namespaces/types.ts";

/** Namespaces with one process in them. */
export class Home implements Disposable {
  /** The process; it is PID 1 if there is a pid namespace. */
  readonly agent: Agent;
  #parent: Agent | null = null;

  /**
   * @param types What to make.
   * @param ids The one user and group id that is mapped to 0, if there is a user namespace.
   */
  constructor(readonly types: readonly NamespaceType[], ids = 0) {
    const flags = types.filter((type) => type !== "time").reduce((set, type) => set | namespaceFlag(type), 0);
    let agent = Agent.spawn(flags);
    if (types.includes("user")) {
      Deno.writeTextFileSync(`/proc/${agent.pid}/setgroups`, "deny");
      Deno.writeTextFileSync(`/proc/${agent.pid}/uid_map`, `0 ${ids} 1\n`);
      Deno.writeTextFileSync(`/proc/${agent.pid}/gid_map`, `0 ${ids} 1\n`);
      call(agent, "setresgid", 0, 0, 0);
      call(agent, "setresuid", 0, 0, 0);
    }
    if (types.includes("time")) {
      call(agent, "unshare", namespaceFlag("time"));
      this.#parent = agent;
      const child = agent.clone();
      // Its pid in this pid namespace, which may differ from the one its parent sees.
      agent = child;
    }
    this.agent = agent;
    call(agent, "prctl", 15, cString("penne-home"), 0, 0, 0);
  }

  /** Pid of the process in this pid namespace. */
  get pid(): number {
    const found = /^Pid:\s*(\d+)/m.exec(Deno.readTextFileSync(`/proc/self/fdinfo/${this.agent.pidfd.number}`));
    return Number(found![1]);
  }

  /** Path of a namespace. */
  path(type: NamespaceType): string {
    return `/proc/${this.pid}/ns/${type}`;
  }

  /** The namespaces as a message lists them. */
  list(types: readonly NamespaceType[] = this.types): string {
    return types.map((type) => `${type}:${this.path(type)}`).join(",");
  }

  [Symbol.dispose](): void {
    this.agent.close();
    if (this.#parent) {
      this.#parent.close();
      waitChild(this.#parent.pid);
    } else waitChild(this.agent.pid);
  }
}
