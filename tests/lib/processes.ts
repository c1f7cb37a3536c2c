// Processes as /proc shows them, and which of them are agents of penne.

import { isMarked, textOf } from "./leaks.ts";

/** A process as /proc shows it. */
export interface Process {
  pid: number;
  ppid: number;
  exe: string;
  cmdline: string[];
}

/** All processes except zombies. */
export function processes(): Process[] {
  const found: Process[] = [];
  for (const { name } of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = textOf(`/proc/${name}/stat`);
      if (!stat) continue; // it has just ended
      const [state, ppid] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      if (state === "Z" || state === "X") continue;
      let exe = "";
      try {
        exe = Deno.readLinkSync(`/proc/${name}/exe`);
      } catch {
        // A kernel thread, or a process that we may not inspect.
      }
      const cmdline = textOf(`/proc/${name}/cmdline`).split("\0").slice(0, -1);
      found.push({ pid: Number(name), ppid: Number(ppid), exe, cmdline });
    } catch {
      // It has just ended.
    }
  }
  return found;
}

/**
 * Kills a process if it is alive: one that has ended, but that nobody has waited for, takes signals as well.
 *
 * @returns Whether it was alive.
 */
export async function killIfAlive(pid: number): Promise<boolean> {
  try {
    Deno.kill(pid, "SIGSTOP");
    for (;;) {
      const [, state] = /^.*\) (\S)/s.exec(textOf(`/proc/${pid}/stat`)) ?? [];
      if (state === undefined || state === "Z" || state === "X") return false;
      if (state === "T") break;
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    Deno.kill(pid, "SIGKILL");
    return true;
  } catch {
    return false;
  }
}

/** Whether a process is one of penne's agents; a user may read no agent's /proc/PID/exe, so the name has to do. */
export function isAgent({ exe, cmdline: [name = ""] }: Process): boolean {
  return exe ? exe.startsWith("/memfd:penne-agent") : ["penne-agent", "penne-holder"].includes(name);
}

/**
 * Penne's agents that this run of the tests has started, and those that init or another ancestor of it has adopted: not
 * those of programs that somebody else runs here.
 */
export function ownAgents(): Process[] {
  const all = new Map(processes().map((one) => [one.pid, one]));
  const above = new Set<number>();
  for (let pid = Deno.pid; all.has(pid) && !above.has(pid);) above.add(pid = all.get(pid)!.ppid);
  const descends = (ppid: number): boolean => ppid === Deno.pid || all.has(ppid) && descends(all.get(ppid)!.ppid);
  const isOurs = ({ ppid }: Process): boolean => {
    const parent = all.get(ppid);
    if (!parent || above.has(ppid) || descends(ppid)) return true;
    return isAgent(parent) ? isOurs(parent) : isMarked(ppid);
  };
  return [...all.values()].filter((one) => isAgent(one) && isOurs(one));
}

/** Whether a process holds another one by a pidfd. */
function holds(pid: number, other: number): boolean {
  try {
    return [...Deno.readDirSync(`/proc/${pid}/fdinfo`)].some(({ name }) =>
      new RegExp(`^Pid:\\s*${other}$`, "m").test(textOf(`/proc/${pid}/fdinfo/${name}`))
    );
  } catch {
    return false; // it has just ended, or closed one
  }
}

/** Milliseconds after which a penne that lives on with other agents may have given up one. */
const GIVEN_UP = 2000;

/**
 * Kills an agent of a penne, at any moment of its life, and waits until that penne has ended. One that had given up the
 * agent already goes on with others: it is killed.
 *
 * @returns Whether it was the agent whose end has ended it.
 */
export async function endByAgent(penne: Deno.ChildProcess, agent: number): Promise<boolean> {
  let ended = false;
  const status = penne.status.then(() => ended = true);
  const soon = () => Promise.race([status, new Promise((resolve) => setTimeout(resolve, GIVEN_UP))]);
  const others = () => processes().some((one) => isAgent(one) && one.ppid === penne.pid);
  let given = !await killIfAlive(agent);
  for (let times = 0; !ended && !given;) {
    await soon();
    if (ended) break;
    times = !holds(penne.pid, agent) && others() ? times + 1 : 0;
    given = times === 2;
  }
  if (given && !ended) {
    try {
      penne.kill("SIGKILL");
    } catch {
      // It has just ended.
    }
  }
  await status;
  return !given;
}
