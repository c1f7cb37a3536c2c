// Commands that another user may trace, each started by root in one of the ways to do so.

import { asUser, penne, processes, TEST_USER, until } from "../../lib/helpers.ts";
import { marker, Place as Container } from "../../enter/places.ts";
import { Place as Sets } from "../../kept/place.ts";

/** Id of the user that traces. */
export const TEST_UID = Number(
  Deno.readTextFileSync("/etc/passwd").match(new RegExp(`^${TEST_USER}:[^:]*:(\\d+):`, "m"))?.[1] ?? -1,
);

/** A way to start such a command. */
export interface Way {
  /** What the test calls it. */
  readonly name: string;
  /** The command line of penne, up to the words of the command. */
  readonly argv: readonly string[];
  /** Whether the test user may trace the command; or only what is inside. */
  readonly traceable: boolean;
}

/** Calls a test body with each way; what a way needs exists meanwhile. */
export async function eachWay(body: (way: Way) => Promise<void>): Promise<void> {
  using sets = new Sets();
  await using container = await Container.all({ user: true });
  await using plain = await Container.open(["unshare", "--uts"]);
  const ids = ["--uid", `${TEST_UID}`, "--gid", `${TEST_UID}`];
  const maps = ["--map-users", `0:${TEST_UID}:1`, "--map-groups", `0:${TEST_UID}:1`];
  const [program, ...keep] = sets.argv("keep", `set`, "--user", TEST_USER);
  const ways: Way[] = [
    { name: "keep --user", argv: [program!, ...keep, "--"], traceable: true },
    { name: "enter", argv: [penne(), "enter", `${container.pid}`, "--"], traceable: true },
    { name: "run --uid", argv: [penne(), "run", "--unshare", "uts", ...ids, "--"], traceable: true },
    { name: "enter --uid", argv: [penne(), "enter", ...ids, `${plain.pid}`, "--"], traceable: true },
    { name: "run --map-users", argv: [penne(), "run", "--net=none", ...maps, "--"], traceable: false },
  ];
  for (const way of ways) {
    await body(way);
    if (way.name.startsWith("keep")) await sets.run("drop", "set", "--user", TEST_USER, "--force");
  }
}

/** A program that sleeps until it is ended, and can be told from others. */
export class Sleeper {
  /** Its command line. */
  readonly argv: readonly string[];
  #word = marker();

  constructor() {
    this.argv = ["sleep", "1000", `0.${this.#word.split(".")[1]}e-9`];
  }

  #find() {
    return processes().find(({ cmdline }) => cmdline[0] === "sleep" && cmdline[2] === this.argv[2]);
  }

  /** Whether it runs. */
  get runs(): boolean {
    return this.#find() !== undefined;
  }

  /** Waits until it runs; returns its pid. */
  async pid(): Promise<number> {
    await until("the victim runs", () => this.runs);
    return this.#find()!.pid;
  }

  /** Kills it. */
  end(): void {
    Deno.kill(this.#find()!.pid, "SIGKILL");
  }
}

/** Runs a program as the user that traces. */
export async function traceWith(argv: string[]): Promise<{ code: number; text: string }> {
  const [program, ...args] = asUser(argv);
  const { code, stdout, stderr } = await new Deno.Command(program!, { args, cwd: "/" }).output();
  return { code, text: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
}
