// What a process inside holds must not hold penne: agents that are stopped, file systems that never answer, /proc covered
// by one, an environment mapped from one. penne ends at a deadline, at once on TERM and Ctrl-C, and leaves nothing.

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { marker, Place } from "../../enter/places.ts";
import { firstOutput, Place as KeptPlace } from "../../kept/place.ts";
import { command, isAgent, penne, processes, ROOT, test, TEST_USER, until } from "../../lib/helpers.ts";
import { Pty } from "../../lib/pty.ts";

/** Milliseconds for "at once": less than penne gives an agent. A machine that is loaded may take longer, but not each time. */
const AT_ONCE = 7000;
/** Milliseconds that penne gives an agent, with its end. */
const DEADLINE = 60_000;
const TRIES = 4;

const INSIDE = ["unshare", "-Urmpf", "--mount-proc", "--kill-child"];

/** A place in which every process but PID 1 is stopped again and again. */
function stopping(how = {}): Promise<Place> {
  const script = `(while :; do kill -STOP -1; done) 2>/dev/null & exec "$@"`;
  return Place.open([...INSIDE, "sh", "-c", script, "sh"], how);
}

/** A place with a file system on a directory that answers nothing but some operations. */
function hanging(directory: string, { argv = INSIDE, answered = "" } = {}): Promise<Place> {
  // The list of mounts is read from the working directory and by the shell alone: /proc may be what is covered.
  const script = `cd /proc; perl ${ROOT}tests/attack/hang/hang.pl ${directory} ${answered} &
    mounted() { while read -r _ place type _; do [ "$place $type" = "${directory} fuse" ] && return; done <self/mounts
      return 1; }
    until mounted; do :; done; cd /; exec "$@"`;
  return Place.open([...argv, "sh", "-c", script, "sh"]);
}

/** A run of penne, with all agents that it has had. */
class Run {
  readonly output: Promise<{ code: number; signal: Deno.Signal | null; stderr: string; time: number }>;
  readonly child: Deno.ChildProcess;
  #seen = new Set<string>();
  #start = performance.now();
  #watching: ReturnType<typeof setInterval>;
  ended = false;

  constructor(args: string[], how = {}, argv = [penne(), ...args]) {
    this.child = command(argv, how, { stdin: "null", stdout: "piped", stderr: "piped" }).spawn();
    this.#watching = setInterval(() => this.#look(), 50);
    // At the end of both pipes: nobody holds them any more.
    this.output = this.child.output().then(({ code, signal, stderr }) => {
      clearInterval(this.#watching);
      this.ended = true;
      return { code, signal, stderr: new TextDecoder().decode(stderr), time: performance.now() - this.#start };
    });
  }

  #look(): void {
    const all = processes().filter(isAgent);
    const family = new Set([this.child.pid]);
    for (let before = 0; before !== family.size;) {
      before = family.size;
      for (const { pid, ppid } of all) if (family.has(ppid)) family.add(pid);
    }
    for (const { pid } of all) if (family.has(pid)) this.#seen.add(identity(pid));
  }

  /** Waits until it has agents, and for a second; whether it is still there. */
  async started(): Promise<boolean> {
    await until("there are agents", () => this.#seen.size >= 2 || this.ended);
    await sleep(1000);
    return !this.ended;
  }

  /** Whether it is an ancestor of a process. */
  isAround(pid: number): boolean {
    for (let at = pid; at > 1; at = Number(statOf(at)?.[1] ?? 0)) if (at === this.child.pid) return true;
    return false;
  }

  /** Its agents that still exist; those that wait for a file system end with that. */
  left({ waiting = false } = {}): string[] {
    return [...this.#seen].filter((one) => {
      const state = stateOf(one);
      return state !== null && !(waiting && state === "D");
    });
  }
}

function statOf(pid: number | string): string[] | null {
  try {
    const text = Deno.readTextFileSync(`/proc/${pid}/stat`);
    return text.slice(text.lastIndexOf(")") + 2).split(" ");
  } catch {
    return null;
  }
}

function identity(pid: number): string {
  return `${pid} ${statOf(pid)?.[19]}`;
}

/** The state of a process; null if it has ended. */
function stateOf(one: string): string | null {
  const [pid, start] = one.split(" ");
  const stat = statOf(pid!);
  return stat?.[19] === start && stat?.[0] !== "Z" && stat?.[0] !== "X" ? stat![0]! : null;
}

const sleep = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/**
 * Starts four at once, again and again until one of them was held: others are through before anything is stopped, most of
 * all on a machine that is busy.
 */
async function untilOneIsHeld(one: () => Promise<boolean>): Promise<void> {
  for (let tries = 1; !(await Promise.all([one(), one(), one(), one()])).includes(true); tries++) assert(tries < 20);
}

/** A run has ended later than at once. */
class Late extends Error {}

/** Calls a body, again if something in it was too late. */
async function inTime(body: () => Promise<void>): Promise<void> {
  for (let tries = 1;; tries++) {
    try {
      return await body();
    } catch (error) {
      if (!(error instanceof Late) || tries === TRIES) throw error;
    }
  }
}

function assertAtOnce(start: number): void {
  const took = performance.now() - start;
  if (took >= AT_ONCE) throw new Late(`it took ${took} ms`);
}

/** Ends a run by a signal, and checks that it ends at once. */
async function endsAtOnce(run: Run, signal: "SIGTERM" | "SIGKILL" | "SIGINT"): Promise<string> {
  const start = performance.now();
  assert(!run.ended);
  run.child.kill(signal);
  const { code, stderr, time } = await run.output;
  if (code === 125 && time > 10_000) return stderr; // the machine is so slow that the deadline came first
  assertAtOnce(start);
  assertEquals(code, { SIGTERM: 143, SIGKILL: 137, SIGINT: 130 }[signal], stderr);
  return stderr;
}

test("a container that stops the agents does not hold penne, and keeps none of them", ["root"], async (t) => {
  await using place = await stopping();
  const args = ["enter", `${place.pid}`, "--", "true"];
  for (const signal of ["SIGTERM", "SIGKILL", "SIGINT"] as const) {
    await t.step(`${signal}`, () =>
      inTime(() =>
        untilOneIsHeld(async () => {
          const run = new Run(args);
          if (!await run.started()) return false; // it was through before anything was stopped
          await endsAtOnce(run, signal);
          await until("no agent is left", () => run.left().length === 0);
          return true;
        })
      ));
  }
  await t.step("no signal", () =>
    untilOneIsHeld(async () => {
      const run = new Run(args);
      const runs = () => processes().some(({ pid, cmdline }) => cmdline[0] === "true" && run.isAround(pid));
      await Promise.race([run.output, sleep(25_000)]);
      for (let more = 0; !run.ended && !runs() && more < DEADLINE; more += 100) await sleep(100);
      if (!run.ended) { // the command itself was stopped, which is for it to bear
        assert(runs());
        run.child.kill("SIGTERM");
        await run.output;
        return false;
      }
      const { code, stderr, time } = await run.output;
      if (code === 0) return false;
      assertEquals(code, 125, stderr);
      assert(/did not answer in time: it was stopped there|that took more than 10 s/.test(stderr), stderr);
      assert(time < 25_000 + DEADLINE, `${time}`);
      await until("no agent is left", () => run.left().length === 0);
      return true;
    }));
});

test("nor does it hold penne keep", ["user", "user namespaces"], async () => {
  await using place = await stopping({ user: true });
  using kept = new KeptPlace(TEST_USER);
  for (let held = false, tries = 0, late = 0; !held; tries++) {
    assert(tries < 20);
    const run = new Run([], {}, kept.argv("keep", "stopped", "--pid", `${place.pid}`));
    held = await run.started(); // or it was through before anything was stopped
    if (held) {
      await endsAtOnce(run, "SIGTERM").catch((error) => {
        if (!(error instanceof Late) || ++late === TRIES) throw error;
        held = false;
      });
    } else {
      await run.output;
      await kept.run("drop", "--force", "stopped");
    }
    await until("no agent is left", () => run.left().length === 0);
  }
});

test("a file system that never answers does not hold penne", ["root", "fuse", "package:perl"], async (t) => {
  const directory = await Deno.makeTempDir();
  const paths: [string, string[], { cwd?: string }][] = [
    ["in the path of the command", ["--", `${directory}/program`], {}],
    ["in PATH", ["--env", `PATH=${directory}`, "--", "program"], {}],
    ["as --chdir", ["--chdir", `${directory}/sub`, "--", "true"], {}],
    ["as the working directory", ["--", "true"], { cwd: `${directory}/sub` }],
  ];
  try {
    await Deno.mkdir(`${directory}/sub`);
    const place = await hanging(directory);
    const enter = (args: string[], how: { cwd?: string }) => new Run(["enter", `${place.pid}`, ...args], how);
    const left = (run: Run) => until("only what waits is left", () => run.left({ waiting: true }).length === 0);
    for (const [what, args, how] of paths) {
      for (const signal of ["SIGTERM", "SIGINT", "SIGKILL"] as const) {
        await t.step(`${what}, ${signal}`, () =>
          inTime(async () => {
            const run = enter(args, how);
            assert(await run.started());
            await endsAtOnce(run, signal);
            await left(run);
          }));
      }
    }
    await t.step("until the deadline, all of them at once", () =>
      Promise.all(paths.map(async ([what, args, how]) => {
        const run = enter(args, how);
        const { code, stderr, time } = await run.output;
        assertEquals([what, code], [what, 125], stderr);
        assert(/a file system there hangs|a file system that its path leads through hangs/.test(stderr), stderr);
        assert(time < DEADLINE, `${what}: ${time}`);
        await left(run);
      })).then(() => {}));
    await place[Symbol.asyncDispose]();
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

test("nor does one that answers until the command is read", ["root", "fuse", "package:perl"], async () => {
  const directory = await Deno.makeTempDir();
  const place = await hanging(directory, { answered: "1 3 14" });
  const run = new Run(["enter", `${place.pid}`, "--", `${directory}/program`]);
  assert(await run.started());
  run.child.kill("SIGTERM");
  const start = performance.now();
  assertEquals((await run.child.status).code, 143);
  assert(performance.now() - start < DEADLINE);
  await until("only what waits is left", () => run.left({ waiting: true }).length === 0);
  await place[Symbol.asyncDispose](); // the file system ends, and who waits for it
  assertStringIncludes((await run.output).stderr, "penne: cannot execute the command: SIGTERM came first");
  await Deno.remove(directory);
});

test(
  "Ctrl-C ends penne while the command's file system does not answer",
  ["root", "fuse", "package:perl"],
  async () => {
    const directory = await Deno.makeTempDir();
    const place = await hanging(directory);
    using pty = new Pty([penne(), "enter", `${place.pid}`, "--", `${directory}/program`]);
    const settings = pty.settings;
    await sleep(1500);
    const start = performance.now();
    pty.type("\x03");
    assertEquals((await pty.end()).code ?? 130, 130);
    assert(performance.now() - start < DEADLINE);
    assertEquals([pty.settings, pty.foreground], [settings, pty.pid]);
    await place[Symbol.asyncDispose]();
    await Deno.remove(directory);
  },
);

test("a /proc that never answers is not asked anything", ["root", "fuse", "package:perl"], async () => {
  await using place = await hanging("/proc", { argv: ["unshare", "-mpf", "--mount-proc", "--kill-child"] });
  const name = marker();
  const run = new Run(["enter", `${place.pid}`, "--", "sh", "-c", `setsid sleep ${name} & (sleep ${name} &); exit 5`]);
  const { code, stderr } = await run.output;
  assertEquals([code, stderr], [5, ""]);
  assertEquals(processes().filter(({ cmdline }) => cmdline.join(" ") === `sleep ${name}`), []);
});

/** Processes with a name; their arguments are not read. */
function named(name: string): number[] {
  return Array.from(Deno.readDirSync("/proc"), (entry) => Number(entry.name)).filter((pid) => {
    try {
      return pid > 0 && Deno.readTextFileSync(`/proc/${pid}/comm`) === `${name}\n`;
    } catch {
      return false;
    }
  });
}

test(
  "a process whose environment cannot be read holds an agent only",
  ["root", "fuse", "package:perl", "package:gcc"],
  async () => {
    const directory = await Deno.makeTempDir();
    const [mounted, name] = [`${directory}/mnt`, `locked${Deno.pid % 1e6}`];
    await Deno.mkdir(mounted);
    const built = await command(["gcc", "-o", `${directory}/${name}`, `${ROOT}tests/attack/hang/locked.c`]).output();
    assert(built.success, new TextDecoder().decode(built.stderr));
    const place = await hanging(mounted, { answered: "1 3 14" });
    const argv = ["nsenter", "-t", `${place.pid}`, "-U", "-m", "-p", `${directory}/${name}`, `${mounted}/file`];
    const locker = command(argv, {}, { stdout: "piped" }).spawn();
    try {
      await firstOutput(locker);
      await sleep(1500);
      // From here on whoever reads the arguments of all processes waits too, as processes() does.
      const [pid] = named(name);
      const enter = command([penne(), "enter", "--target-env", `${pid}`, "--", "true"], {}, { stderr: "piped" });
      const start = performance.now();
      const { code, stderr } = await enter.output();
      assertEquals(code, 125);
      assertStringIncludes(new TextDecoder().decode(stderr), "did not answer in time");
      assert(performance.now() - start < DEADLINE);
    } finally {
      for (const pid of named(name)) Deno.kill(pid, "SIGKILL");
      await place[Symbol.asyncDispose]();
      await locker.status;
      await Deno.remove(directory, { recursive: true });
    }
  },
);

/** Stops every agent it sees, again and again. */
const HOLD = `while :; do for p in /proc/[0-9]*; do read -r c <$p/comm && [ "$c" = penne-agent ] &&
  kill -STOP \${p#/proc/}; done; done 2>/dev/null`;

for (const who of ["the command", "another process inside"]) {
  test(`what was entered ends with penne, also if ${who} stops the agents again and again`, ["root"], async () => {
    await using place = await Place.all();
    const name = marker();
    const other = who !== "the command";
    const script = `sleep ${name} & (setsid sleep ${name} &); ${other ? `exec sleep ${name}` : HOLD}`;
    const running = () => processes().filter(({ cmdline }) => cmdline.some((word) => word.includes(name)));
    for (const signal of ["SIGKILL", "SIGTERM"] as const) {
      const run = new Run(["enter", `${place.pid}`, "--", "sh", "-c", script]);
      await until("all run", () => running().length >= 4);
      const holder = other && command(
        ["nsenter", "-t", `${place.pid}`, "-U", "-m", "-p", "--", "sh", "-c", HOLD],
        {},
        { stdin: "null", stdout: "null", stderr: "null" },
      ).spawn();
      await until("agents are stopped", () => run.left().some((one) => stateOf(one) === "T"));
      run.child.kill(signal);
      await run.output;
      await until("nothing runs any more", () => running().length === 0);
      await until("no agent is left", () => run.left().length === 0);
      if (holder) {
        assertEquals(processes().filter(({ ppid }) => ppid === holder.pid).length, 1); // it was none of it
        for (const { pid } of processes().filter(({ ppid }) => ppid === holder.pid)) Deno.kill(pid, "SIGKILL");
        await holder.status;
      }
    }
    assertEquals(Deno.readTextFileSync(`/proc/${place.pid}/comm`), "sleep\n");
  });
}
