// Namespaces to enter, with a process in them that was not started by penne.

import type { NamespaceType } from "../../mod/namespaces/types.ts";
import { command, type How, penne, processes, type Result, sh, until } from "../lib/helpers.ts";

/** Every kind of namespace, in the order in which penne opens those of a process. */
export const ALL: readonly NamespaceType[] = ["user", "mnt", "pid", "ipc", "uts", "net", "cgroup", "time"];

/** A shell script that prints its namespaces, one on each line. */
export const TELL = `for t in ${ALL.join(" ")}; do readlink /proc/self/ns/$t; done`;

/** The namespaces of a process, as {@linkcode TELL} prints them. */
export function namespacesOf(pid: number | "self"): string[] {
  return ALL.map((type) => Deno.readLinkSync(`/proc/${pid}/ns/${type}`));
}

/** Runs `penne enter` to its end. */
export function enter(args: string[], how: How = {}): Promise<Result> {
  return sh([penne(), "enter", ...args], how);
}

/** A number of seconds for sleep(1) that no other process has among its arguments. */
export function marker(): string {
  return `1000.${crypto.getRandomValues(new Uint32Array(1))[0]}`;
}

/** A process that sleeps somewhere. */
export class Place implements AsyncDisposable {
  /** Its pid in this pid namespace. */
  readonly pid: number;
  #child: Deno.ChildProcess;

  private constructor(pid: number, child: Deno.ChildProcess) {
    this.pid = pid;
    this.#child = child;
  }

  /** Runs `sleep` through a command line that ends where its arguments follow, and finds it. */
  static async open(argv: string[], how: How = {}): Promise<Place> {
    const name = marker();
    const child = command([...argv, "sleep", name], how, { stdin: "null", stdout: "null", stderr: "null" }).spawn();
    const found = () => processes().find(({ cmdline }) => cmdline[0] === "sleep" && cmdline[1] === name);
    await until(`${argv.join(" ")} runs`, () => found() !== undefined);
    return new Place(found()!.pid, child);
  }

  /** Namespaces of all kinds, made by unshare(1), with a /proc of their own. */
  static all(how: How = {}): Promise<Place> {
    return Place.open(["unshare", "-UrmpiunCT", "--kill-child", "--fork", "--mount-proc"], how);
  }

  /** Its namespaces. */
  get namespaces(): string[] {
    return namespacesOf(this.pid);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      Deno.kill(this.pid, "SIGKILL");
    } catch {
      // It has ended.
    }
    await this.#child.status;
  }
}
