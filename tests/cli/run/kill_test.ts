// Nothing is left when penne or an agent is killed at a random moment.
//
// 40 tries per variant, or as many as PENNE_KILLS says.

import { assertEquals } from "@std/assert";
import {
  command,
  endByAgent,
  isAgent,
  killIfAlive,
  netOption,
  ownAgents,
  penne,
  penneRun,
  type Process,
  processes,
  test,
  until,
} from "../../lib/helpers.ts";
import { Pty } from "../../lib/pty.ts";

const TRIES = Number(Deno.env.get("PENNE_KILLS") ?? 40);
const AT_ONCE = 10;
/** Milliseconds that cover the set-up, the start of the command, and some of its run. */
const WINDOW = 120;

/**
 * A mount namespace in which penne is started as root, so that what other programs of the machine mount, or write to /run,
 * is not taken for something left. Other users have no right to mount anything outside.
 */
class Room implements AsyncDisposable {
  readonly #keeper: Deno.ChildProcess | null = null;

  constructor() {
    if (Deno.uid() !== 0) return;
    const script =
      "mount -t tmpfs none /run && mount -t tmpfs none /dev/shm && mkdir /run/penne && echo && exec sleep 1000";
    const argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script];
    this.#keeper = command(argv, {}, { stdin: "null", stdout: "piped" }).spawn();
  }

  /** Waits until it is there. */
  async ready(): Promise<void> {
    const reader = this.#keeper?.stdout.getReader();
    assertEquals((await reader?.read())?.done ?? false, false);
    await reader?.cancel();
  }

  /** A command line that runs another one there, in a directory. */
  within(directory: string, argv: string[]): string[] {
    if (!this.#keeper) return argv;
    const enter = ["nsenter", `--mount=/proc/${this.#keeper.pid}/ns/mnt`];
    return [...enter, "sh", "-c", 'cd "$0" && exec "$@"', directory, ...argv];
  }

  /** What could be left besides processes: mounts, and files where penne could write. */
  traces(home: string): string[] {
    const list = (path: string) => Array.from(Deno.readDirSync(path), ({ name }) => `${path}/${name}`);
    if (!this.#keeper) return list(home);
    const own = `/proc/${this.#keeper.pid}`;
    const mounts = Deno.readTextFileSync(`${own}/mountinfo`).split("\n");
    return [...mounts, ...[home, `${own}/root/run`, `${own}/root/dev/shm`].flatMap(list)];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#keeper?.kill("SIGKILL");
    await this.#keeper?.status;
  }
}

/** Processes with a marker among their arguments. */
function remaining(marker: string): Process[] {
  return processes().filter((p) => p.pid !== Deno.pid && p.cmdline.some((word) => word.includes(marker)));
}

const VARIANTS: [string, string[]][] = [
  ["the default namespaces", []],
  ["a net namespace alone", Deno.uid() === 0 ? ["--unshare", "net"] : ["--unshare", "user,net"]],
  ["--no-init", ["--no-init"]],
];

/** Waits until nothing is left; returns the time that took, in milliseconds. */
async function settle(
  room: Room,
  home: string,
  before: string[],
  agents: Set<number>,
  marker: string,
): Promise<number> {
  const start = Date.now();
  const left = () => [...remaining(marker), ...ownAgents().filter((p) => !agents.has(p.pid))];
  await until(`all is gone: ${JSON.stringify(left().slice(0, 3))}`, () => left().length === 0);
  const took = Date.now() - start;
  // Mounts vanish here too when somebody removes the directory that they are on.
  assertEquals(room.traces(home).filter((trace) => !before.includes(trace)), []);
  return took;
}

for (const [what, options] of VARIANTS) {
  for (const victim of ["penne", "an agent"]) {
    test(`nothing is left when ${victim} is killed at a random moment, with ${what}`, async (t) => {
      const home = await Deno.makeTempDir();
      const env = { PATH: Deno.env.get("PATH")!, HOME: home, TMPDIR: home, XDG_RUNTIME_DIR: home };
      await using room = new Room();
      await room.ready();
      // The directory of control sockets stays, and so does the socket of a penne that was killed, until the next one.
      await Deno.mkdir(`${home}/penne`);
      const before = room.traces(home);
      const agents = new Set(ownAgents().map(({ pid }) => pid));
      let [done, slowest, hits] = [0, 0, 0];
      while (done < TRIES) {
        const marker = `1000.${crypto.getRandomValues(new Uint32Array(1))[0]}`;
        const script = `sleep ${marker} & (sleep ${marker} &) ; setsid sleep ${marker} & sleep ${marker}`;
        await Promise.all(Array.from({ length: Math.min(AT_ONCE, TRIES - done) }, async () => {
          const argv = room.within(home, [...penneRun([...options]), "--", "sh", "-c", script]);
          const child = command(argv, { env, cwd: home }, { stdin: "null", stdout: "null", stderr: "null" }).spawn();
          await new Promise((resolve) => setTimeout(resolve, Math.random() * WINDOW));
          if (victim === "penne") {
            child.kill("SIGKILL");
          } else {
            const mine = () => {
              const all = processes();
              const first = all.filter((p) => isAgent(p) && p.ppid === child.pid);
              return [...first, ...all.filter((p) => isAgent(p) && first.some(({ pid }) => pid === p.ppid))];
            };
            await until("an agent exists", () => mine().length > 0);
            const all = mine();
            const chosen = all[Math.floor(Math.random() * all.length)];
            if (chosen && await endByAgent(child, chosen.pid)) hits++;
            else if (!chosen) child.kill("SIGKILL");
          }
          const status = await child.status;
          if (victim === "penne") hits += status.signal === "SIGKILL" ? 1 : 0;
          else assertEquals([125, 137].includes(status.code), true, `penne exited with ${status.code}`);
        }));
        done += AT_ONCE;
        slowest = Math.max(slowest, await settle(room, home, before, agents, marker));
      }
      await Deno.remove(home, { recursive: true });
      assertEquals(hits > 0, true);
      await t.step(`${hits} of ${TRIES} were killed; the last trace was gone after ${slowest} ms`, () => {});
    });
  }
}

for (const victim of ["penne", "an agent"]) {
  test(`the terminal is given back when ${victim} is killed at a random moment`, async () => {
    const agents = new Set(ownAgents().map(({ pid }) => pid));
    for (let i = 0; i < Math.ceil(TRIES / 4); i++) {
      const marker = `1000.${crypto.getRandomValues(new Uint32Array(1))[0]}`;
      // The session leader stays, so that the terminal can be given back to it.
      const script = `trap : INT; echo READY; ${penne()} run ${netOption()} -- sh -c ` +
        `'stty raw -echo; sleep ${marker} & sleep ${marker}'; echo OVER; sleep 1000`;
      using pty = new Pty(["/bin/sh", "-mc", script]);
      const settings = pty.settings;
      await pty.expect(/READY/);
      await until("penne runs", () => processes().some((p) => p.ppid === pty.pid && p.cmdline[1] === "run"));
      const running = processes().find((p) => p.ppid === pty.pid && p.cmdline[1] === "run")!;
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 2 * WINDOW));
      if (victim === "penne") {
        Deno.kill(running.pid, "SIGKILL");
      } else {
        let victim: Process | undefined;
        await until("an agent exists", () => {
          victim = ownAgents().find((p) => !agents.has(p.pid) && p.ppid === running.pid);
          return victim !== undefined;
        });
        await killIfAlive(victim!.pid);
      }
      await pty.expect(/OVER/);
      await until("the settings are back", () => pty.settings === settings);
      const alive = (group: number) => group === pty.pid || processes().some(({ pid }) => pid === group);
      await until("the foreground group is alive", () => alive(pty.foreground));
      await until("all is gone", () => remaining(marker).every(({ pid }) => pid === pty.pid));
    }
  });
}

test("the next run works after an agent was killed", async () => {
  const marker = `1000.${crypto.getRandomValues(new Uint32Array(1))[0]}`;
  const child = command([...penneRun(), "--", "sleep", marker], {}, { stderr: "piped", stdin: "null" }).spawn();
  await until("the command runs", () => processes().some((p) => p.cmdline.join(" ") === `sleep ${marker}`));
  Deno.kill(ownAgents().find((p) => p.ppid === child.pid)!.pid, "SIGKILL");
  const { code, stderr } = await child.output();
  assertEquals(code, 137);
  assertEquals(
    new TextDecoder().decode(stderr),
    "penne: the agent that supervised the command was killed, and the command with it\n",
  );
});
