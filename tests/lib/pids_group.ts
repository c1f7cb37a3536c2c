// A cgroup that limits processes, cgroups(7).

import { until } from "./helpers.ts";

/** Where cgroups with a pids controller are: version 1, or version 2. */
const PLACES = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"];

function hasLimit(directory: string): boolean {
  try {
    Deno.writeTextFileSync(`${directory}/pids.max`, "max");
    return true;
  } catch {
    return false;
  }
}

let count = 0;

/** A cgroup that limits processes; disposing of it kills what is in it. */
export class PidsGroup implements Disposable, AsyncDisposable {
  /** Its directory. */
  readonly directory: string;

  /** @throws {Error} If there is no pids controller. */
  constructor() {
    for (const place of PLACES) {
      const directory = `${place}/penne-test-${Deno.pid}-${count++}`;
      try {
        Deno.mkdirSync(directory);
      } catch {
        continue;
      }
      if (hasLimit(directory)) {
        this.directory = directory;
        return;
      }
      Deno.removeSync(directory);
    }
    throw new Error("there is no cgroup with a pids controller");
  }

  /** Lets it have at most so many processes. */
  limit(processes: number): void {
    Deno.writeTextFileSync(`${this.directory}/pids.max`, `${processes}`);
  }

  /** Moves a process into it. */
  add(pid: number): void {
    Deno.writeTextFileSync(`${this.directory}/cgroup.procs`, `${pid}`);
  }

  /** A command line that runs another one in it. */
  wrap(argv: string[]): string[] {
    return ["/bin/sh", "-c", `echo $$ >${this.directory}/cgroup.procs; exec "$@"`, "sh", ...argv];
  }

  /** The processes in it. */
  get members(): number[] {
    return Deno.readTextFileSync(`${this.directory}/cgroup.procs`).split("\n").filter(Boolean).map(Number);
  }

  /** Waits until it is empty; fails after some seconds. */
  async empty(seconds = 120): Promise<void> {
    await until(`nothing is left in ${this.directory}`, () => this.members.length === 0, seconds);
  }

  #kill(): boolean {
    for (const pid of this.members) {
      try {
        Deno.kill(pid, "SIGKILL");
      } catch {
        // It has ended.
      }
    }
    try {
      Deno.removeSync(this.directory);
      return true;
    } catch {
      return false; // a process in it still ends
    }
  }

  [Symbol.dispose](): void {
    const end = Date.now() + 60_000;
    while (!this.#kill() && Date.now() < end) continue;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await until(`${this.directory} is removed`, () => this.#kill());
  }
}
