// Gives tests of kept sets a place of their own, so that they touch no real sets, and ways to look into it.

import type { NamespaceType } from "../../mod/namespaces/types.ts";
import { asUser, command, penne, type Result, sh, TEST_USER } from "../lib/helpers.ts";

/** The part of `penne inspect --json` that tests look at. */
export interface Inspected {
  name: string;
  user: number | null;
  complete: boolean;
  problems: string[];
  namespaces: Partial<Record<NamespaceType, { by: string; inum: number; id: string | null; file: string | null }>>;
  holder: { pid: number; alive: boolean } | null;
  init: { pid: number } | null;
  source: string | null;
  creator: number | null;
  stale: { vote: string; reason: string };
  occupants: { pid: number; comm: string }[];
}

/** Prefixes a command line so that a user runs it; null for root. */
export function as(user: string | null, argv: string[]): string[] {
  if (user === null) return argv;
  if (user === TEST_USER) return asUser(argv);
  return ["setpriv", "--reuid", user, "--regid", "nogroup", "--clear-groups", "--inh-caps=-all", "--", ...argv];
}

/** Waits for the first output of a process, and reads no further. */
export async function firstOutput(process: Deno.ChildProcess): Promise<void> {
  const reader = process.stdout.getReader();
  await reader.read();
  await reader.cancel();
}

/** A directory for sets, in which penne runs. */
export class Place implements Disposable {
  /** The directory. */
  readonly directory: string;
  /** The user that works in it; null for root. */
  readonly user: string | null;
  #made: boolean;

  constructor(user: string | null = null, directory?: string) {
    this.#made = directory === undefined;
    this.directory = directory ?? Deno.makeTempDirSync({ prefix: "penne-kept-" });
    this.user = user;
    if (!this.#made) return;
    Deno.chmodSync(this.directory, 0o755);
    if (user !== null) {
      new Deno.Command("chown", { args: [user, this.directory] }).outputSync();
      Deno.chmodSync(this.directory, 0o700);
    }
  }

  /** The same place for another user. */
  for(user: string | null): Place {
    return new Place(user, this.directory);
  }

  /** The directory of namespaces and info files. */
  get ns(): string {
    return `${this.directory}/ns`;
  }

  /** A command line of penne in this place. */
  argv(name: string, ...args: string[]): string[] {
    const at = args.indexOf("--");
    const [words, rest] = at < 0 ? [args, []] : [args.slice(0, at), args.slice(at)];
    return as(this.user, [penne(), name, ...words, "--dir", this.directory, ...rest]);
  }

  /** Runs penne to its end. */
  run(name: string, ...args: string[]): Promise<Result> {
    return sh(this.argv(name, ...args), { cwd: "/" });
  }

  /** Runs penne, which must succeed. */
  async must(name: string, ...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.run(name, ...args);
    if (code !== 0) throw new Error(`penne ${name} ${args.join(" ")}: ${code}: ${stderr}`);
    return stdout;
  }

  /** Starts penne and drops its output. */
  spawn(name: string, ...args: string[]): Deno.ChildProcess {
    return command(this.argv(name, ...args), { cwd: "/" }, { stdin: "null", stdout: "null", stderr: "null" }).spawn();
  }

  /** Inspects a set; null if it does not exist. */
  async inspect(name: string, ...args: string[]): Promise<Inspected | null> {
    const { stdout } = await this.run("inspect", name, "--json", ...args);
    return stdout ? JSON.parse(stdout) : null;
  }

  /** Names in the directory of namespaces. */
  files(): string[] {
    try {
      return [...Deno.readDirSync(this.ns)].map(({ name }) => name).sort();
    } catch {
      return [];
    }
  }

  [Symbol.dispose](): void {
    if (!this.#made) return;
    const quiet = { stdin: "null", stdout: "null", stderr: "null" } as const;
    for (const layout of ["penne", "snap"]) {
      const [program, ...args] = this.argv("drop", "--all", "--force", "--layout", layout);
      new Deno.Command(program!, { args, cwd: "/", ...quiet }).outputSync();
    }
    const mounts = Deno.readTextFileSync("/proc/self/mountinfo").split("\n").map((line) => line.split(" ")[4] ?? "");
    for (const path of mounts.filter((one) => one.startsWith(`${this.directory}/`)).reverse()) {
      new Deno.Command("umount", { args: ["-l", path], ...quiet }).outputSync();
    }
    Deno.removeSync(this.directory, { recursive: true });
  }
}
