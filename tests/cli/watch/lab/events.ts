// Shared by the tests of `penne watch`: starts it, and collects its events.

import { O } from "../../../../ffi/core/consts.ts";
import { open } from "../../../../ffi/sys/file.ts";
import { self } from "../../../../ffi/core/task.ts";
import { type NamespaceId, namespaceIdOf } from "../../../../mod/namespaces/id.ts";
import { asUser, penne, until } from "../../../lib/helpers.ts";
import type { Daemon, NetLab } from "../../../lib/netlab.ts";

/** Back ends that each test runs with, unless its title names one. */
export const BACKENDS = ["ebpf", "proc", "poll"] as const;
/** Options that make the polling back end poll often. */
export const OFTEN = ["--interval", "0.05"];

/** An event in JSON. */
// deno-lint-ignore no-explicit-any -- it is parsed, not validated
export type Emitted = Record<string, any>;

/** Whether an event is about the namespace of an earlier one: the number may have been another's before. */
export function follows(emitted: Emitted, birth: Emitted): boolean {
  return emitted.inum === birth.inum && emitted.mono_ns >= birth.mono_ns;
}

/** A running `penne watch`. */
export interface Watcher {
  readonly daemon: Daemon;
  /** Returns all events so far. */
  emitted(): Emitted[];
  /** Waits for an event. */
  first(what: string, condition: (emitted: Emitted) => boolean, seconds?: number): Promise<Emitted>;
  /** Ends it, and returns all events. */
  end(): Promise<Emitted[]>;
}

/** Starts `penne watch --json`, and waits for its first event. */
export async function watchJson(
  lab: NetLab,
  args: string[],
  { user = false, wrap = [] as string[] } = {},
): Promise<Watcher> {
  const argv = [...wrap, penne(), "watch", "--json", ...args];
  const daemon = lab.start(user ? asUser(argv) : argv, { cwd: "/" });
  let over = false;
  daemon.ended.then(() => over = true);
  const emitted = () => {
    const lines = daemon.output().split("\n");
    lines.pop(); // incomplete, or empty
    return lines.map((line) => JSON.parse(line));
  };
  await until("its capabilities", () => over || daemon.output().includes("\n"));
  if (over) throw new Error(`penne watch has ended: ${daemon.errors()}`);
  return {
    daemon,
    emitted,
    async first(what, condition, seconds = 120) {
      let found: Emitted | undefined;
      await until(what, () => (found = emitted().find(condition)) !== undefined, seconds);
      return found!;
    },
    async end() {
      daemon.child.kill("SIGTERM");
      await daemon.ended;
      return emitted();
    },
  };
}

/**
 * Calls a body that watches what lasts some seconds. A back end that reads /proc does so less often on a machine that is
 * loaded, so then the body has another try with what lasts longer.
 */
export async function lasting(backend: string, body: (seconds: number) => Promise<void>): Promise<void> {
  const all = backend === "ebpf" ? [0.3] : [0.3, 1, 4];
  for (const [i, seconds] of all.entries()) {
    try {
      return await body(seconds);
    } catch (error) {
      if (i === all.length - 1) throw error;
    }
  }
}

/** Waits. */
export function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Identifies a process's namespace; the id is null if the process has ended. */
export function idOf(pid: number, type: string): NamespaceId {
  try {
    using fd = open(self, `/proc/${pid}/ns/${type}`, O.RDONLY);
    return namespaceIdOf(fd);
  } catch {
    return { inum: 0, id: null };
  }
}

/** Starts a shell that waits for `go` before it runs its script. */
export function startShell(lab: NetLab, script: string): { daemon: Daemon; pid: number; go: () => Promise<void> } {
  const daemon = lab.start(["sh", "-c", `read -r go; ${script}`], { stdin: "piped" });
  const go = async () => {
    const writer = daemon.child.stdin.getWriter();
    await writer.write(new TextEncoder().encode("go\n"));
    await writer.close();
  };
  return { daemon, pid: daemon.child.pid, go };
}
