// Going to the background with the compiled binary.

import { assertEquals, assertStringIncludes } from "@std/assert";
import { command, netOption, penne, penneRun, processes, run, sh, test, until } from "../../lib/helpers.ts";

/** The pid that a pid file holds. */
async function pidIn(file: string): Promise<number> {
  return Number((await Deno.readTextFile(file)).trim());
}

function alive(pid: number): boolean {
  return processes().some((p) => p.pid === pid);
}

test(
  "the starting process exits with 0 once ready, and its output ends while the second process runs on",
  async () => {
    const file = `${await Deno.makeTempDir()}/pid`;
    const own = `100.${crypto.getRandomValues(new Uint32Array(1))[0]}`;
    const argv = [...penneRun(), "--background", "--pid-file", file, "--", "sleep", own];
    const child = command(argv, {}, { stdin: "null", stdout: "piped", stderr: "piped" }).spawn();
    const output = await child.output(); // resolves at the end of both pipes
    assertEquals([output.code, output.stdout.length, output.stderr.length], [0, 0, 0]);
    const pid = await pidIn(file);
    assertEquals(alive(pid), true);
    for (const fd of [0, 1, 2]) assertEquals(Deno.readLinkSync(`/proc/${pid}/fd/${fd}`), "/dev/null");
    const sleeping = processes().filter(({ cmdline }) => cmdline.join(" ") === `sleep ${own}`);
    assertEquals(sleeping.length, 1);
    Deno.kill(pid, "SIGTERM");
    await until("it has ended", () => !alive(pid));
    await until("the pid file is gone", () => !Array.from(Deno.readDirSync(file.replace(/\/pid$/, ""))).length);
    await Deno.remove(file.replace(/\/pid$/, ""));
  },
);

test("fifty processes go to the background, and end on SIGTERM", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const files = Array.from({ length: 50 }, (_, i) => `${directory}/${i}`);
    for (let at = 0; at < files.length; at += 10) {
      await Promise.all(
        files.slice(at, at + 10).map(async (file) => {
          assertEquals((await run(["--background", "--pid-file", file, "--", "sleep", "100"])).code, 0);
        }),
      );
    }
    const pids = await Promise.all(files.map(pidIn));
    assertEquals(pids.filter((pid) => !alive(pid)), []);
    for (const pid of pids) Deno.kill(pid, "SIGTERM");
    await until("all have ended", () => !pids.some(alive));
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

test(
  "the runtime survives garbage collections, timers and dynamic imports in the background, 50 of 50",
  async () => {
    // The hidden self-test does these things in the background before it reports that it is ready.
    const results: number[] = [];
    const some = async () => {
      for (let i = 0; i < 10; i++) results.push((await sh([penne(), "__self-test"])).code);
    };
    await Promise.all(Array.from({ length: 5 }, some));
    assertEquals(results, Array(50).fill(0));
  },
);

test("the starting process reports a failure in the background, with its exit code", async () => {
  for (const [argv, code, text] of [[["no-such-command"], 127, "ENOENT"], [["/etc/passwd"], 126, "EACCES"]] as const) {
    const result = await run(["--background", "--", ...argv]);
    assertEquals(result.code, code);
    assertStringIncludes(result.stderr, text);
  }
  const result = await run(["--background", "--chdir", "/no/such", "--", "true"]);
  assertEquals(result.code, 125);
  assertStringIncludes(result.stderr, "penne: cannot change to the directory");
});

test("output to files and status lines continue in the background", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const script =
      `exec "$0" run ${netOption()} --background --status-fd 5 -- sh -c 'echo out; echo err >&2; exit 4' >"$1/out" 2>&1 5>"$1/status"`;
    assertEquals((await sh(["bash", "-c", script, penne(), directory])).code, 0);
    const status = () => Deno.readTextFileSync(`${directory}/status`).trim().split("\n");
    await until("the end was reported", () => status().length === 3);
    assertEquals(JSON.parse(status()[2]!), { event: "exit", code: 4, signal: null });
    assertEquals(await Deno.readTextFile(`${directory}/out`), "out\nerr\n");
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

/** What the processes below one, and it itself, have as working directory and descriptors. */
function held(pid: number): { args: string; cwd: string; files: string[] }[] {
  const all = processes();
  const below = (one: number): number[] => [one, ...all.filter((p) => p.ppid === one).flatMap((p) => below(p.pid))];
  return below(pid).map((one) => ({
    args: all.find((p) => p.pid === one)!.cmdline.join(" "),
    cwd: Deno.readLinkSync(`/proc/${one}/cwd`),
    files: Array.from(Deno.readDirSync(`/proc/${one}/fd`), ({ name }) => {
      try {
        return Deno.readLinkSync(`/proc/${one}/fd/${name}`);
      } catch {
        return ""; // closed meanwhile
      }
    }),
  }));
}

test("in the background only the command keeps the caller's directory and its stdout", ["root"], async () => {
  for (const options of [["--net=none"], ["--no-init", "--net=none"], ["--net=host", "--unshare", "uts"]]) {
    const directory = await Deno.makeTempDir();
    const marker = `1000.${crypto.getRandomValues(new Uint32Array(1))[0]}`;
    const script = `"$@" >output`;
    const argv = [
      penne(),
      "run",
      ...options,
      "--background",
      "--pid-file",
      "pid",
      "--",
      "sh",
      "-c",
      `sleep ${marker}; echo over`,
    ];
    assertEquals((await sh(["sh", "-c", script, "sh", ...argv], { cwd: directory })).code, 0);
    const pid = await pidIn(`${directory}/pid`);
    const sleeper = () => processes().find(({ cmdline }) => cmdline.join(" ") === `sleep ${marker}`);
    await until("the command runs", () => sleeper() !== undefined);
    const here = held(pid).filter(({ cwd, files }) => cwd === directory || files.includes(`${directory}/output`));
    assertEquals(here.map(({ args }) => args).filter((args) => !args.includes(marker)), []);
    assertEquals(here.length > 0, true);
    Deno.kill(sleeper()!.pid, "SIGKILL");
    await until(
      "it has ended, and its pid file is gone",
      () => !Array.from(Deno.readDirSync(directory)).some(({ name }) => name === "pid"),
    );
    assertEquals(await Deno.readTextFile(`${directory}/output`), "over\n");
    await Deno.remove(directory, { recursive: true });
  }
});

test("nothing is left when the starting process is killed before it is ready", async () => {
  const marker = `1000.${crypto.getRandomValues(new Uint32Array(1))[0]}`;
  for (let i = 0; i < 10; i++) {
    const argv = [...penneRun(), "--background", "--", "sh", "-c", `sleep 0.5; exec sleep ${marker}`];
    const child = command(argv, {}, { stdin: "null", stdout: "null", stderr: "null" }).spawn();
    await new Promise((resolve) => setTimeout(resolve, i * 4));
    child.kill("SIGKILL");
    await child.status;
  }
  await new Promise((resolve) => setTimeout(resolve, 1500));
  await until("nothing is left", () => !processes().some((p) => p.cmdline.some((word) => word.includes(marker))));
});
