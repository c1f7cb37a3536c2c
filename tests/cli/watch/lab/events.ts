// What the tests of `penne watch` share: starting it, and what it has told so far.

import { O } from "../../../../ffi/core/consts.ts";
import { open } from "../../../../ffi/sys/file.ts";
import { self } from "../../../../ffi/core/task.ts";
import { type NamespaceId, namespaceIdOf } from "../../../../mod/namespaces/id.ts";
import { asUser, penne, until } from "../../../lib/helpers.ts";
import type { Daemon, NetLab } from "../../../lib/netlab.ts";

/** Back ends that every test is for which does not name one. */
export const BACKENDS = ["ebpf", "proc", "poll"] as const;
/** What the one that looks from time to time needs to look often. */
export const OFTEN = ["--interval", "0.05"];

/** A record in JSON. */
// deno-lint-ignore no-explicit-any -- as it is told
export type Told = Record<string, any>;

/** `penne watch` that goes on. */
export interface Watcher {
  readonly daemon: Daemon;
  /** All records by now. */
  told(): Told[];
  /** Waits for a record. */
  first(what: string, condition: (told: Told) => boolean, seconds?: number): Promise<Told>;
  /** Ends it, and gives all records. */
  end(): Promise<Told[]>;
}

/** Starts `penne watch --json`, and returns when it has told what can be seen. */
export async function watchJson(
  lab: NetLab,
  args: string[],
  { user = false, wrap = [] as string[] } = {},
): Promise<Watcher> {
  const argv = [...wrap, penne(), "watch", "--json", ...args];
  const daemon = lab.start(user ? asUser(argv) : argv, { cwd: "/" });
  let over = false;
  daemon.ended.then(() => over = true);
  const told = () => {
    const lines = daemon.output().split("\n");
    lines.pop(); // not yet whole, or empty
    return lines.map((line) => JSON.parse(line));
  };
  await until("it has told what can be seen", () => over || daemon.output().includes("\n"));
  if (over) throw new Error(`penne watch has ended: ${daemon.errors()}`);
  return {
    daemon,
    told,
    async first(what, condition, seconds = 30) {
      let found: Told | undefined;
      await until(what, () => (found = told().find(condition)) !== undefined, seconds);
      return found!;
    },
    async end() {
      daemon.child.kill("SIGTERM");
      await daemon.ended;
      return told();
    },
  };
}

/** A while. */
export function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Identity of a process's namespace; the id is null if there is none. */
export function idOf(pid: number, type: string): NamespaceId {
  try {
    using fd = open(self, `/proc/${pid}/ns/${type}`, O.RDONLY);
    return namespaceIdOf(fd);
  } catch {
    return { inum: 0, id: null };
  }
}

/** Starts a shell that begins its script when it is told to. */
export function startShell(lab: NetLab, script: string): { daemon: Daemon; pid: number; go: () => Promise<void> } {
  const daemon = lab.start(["sh", "-c", `read -r go; ${script}`], { stdin: "piped" });
  const go = async () => {
    const writer = daemon.child.stdin.getWriter();
    await writer.write(new TextEncoder().encode("go\n"));
    await writer.close();
  };
  return { daemon, pid: daemon.child.pid, go };
}
