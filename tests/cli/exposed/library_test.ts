// Exposed commands of a program that uses the library: their relay runs in the program's event loop.

import { assertEquals, assertStringIncludes } from "@std/assert";
import { ROOT, sh, test } from "../../lib/helpers.ts";
import { Pty } from "../../lib/pty.ts";
import { TEST_UID } from "./victims.ts";

const NEEDS = ["root", "user", "user namespaces", "package:bash"] as const;

/** A program that runs commands as the test user by way of the library, and counts the turns of its event loop. */
function program(body: string): string {
  return `import { enter, keep, run, spawn } from ${JSON.stringify(`${ROOT}mod/mod.ts`)};
    const as = (...command: string[]) => ({ command, uid: ${TEST_UID}, unshare: ["pid", "mnt"] as const });
    let turns = 0;
    const timer = setInterval(() => turns++, 10);
    ${body}
    clearInterval(timer);`;
}

/** The command line of such a program. */
function deno(body: string): string[] {
  const file = Deno.makeTempFileSync({ prefix: "penne-library-", suffix: ".ts" });
  Deno.writeTextFileSync(file, program(body));
  const words = [Deno.execPath(), "run", "-A", "--no-check", "--quiet", `--config=${ROOT}deno.json`, file];
  return ["bash", "-c", `trap 'rm ${file}' EXIT; "$@"`, "bash", ...words];
}

test("the library relays what a command reads and writes, and the event loop goes on", NEEDS, async () => {
  const body = `
    const { code } = await run(as("sh", "-c", "sort; env | grep TOKEN; pwd; echo bad >&2; sleep 0.5; exit 7"));
    console.log(code, turns > 5);`;
  const argv = deno(body);
  const [, , script, , ...words] = argv;
  const piped = `printf 'b\\na\\n' | TOKEN=1 bash -c "${script!.replaceAll('"', '\\"').replaceAll("$", "\\$")}" bash ${
    words.join(" ")
  }`;
  const { stdout, stderr } = await sh(["bash", "-c", piped]);
  assertEquals([stdout, stderr], ["a\nb\n/\n7 true\n", "bad\n"]);
});

test("the library passes 10 MB whole, and kills, ends and disposes of exposed commands", NEEDS, async () => {
  const { stdout, stderr } = await sh(deno(`
    await run(as("sh", "-c", "head -c 10000000 /dev/zero | tr '\\\\0' x"));
    using child = spawn(as("sleep", "100"));
    child.kill("SIGINT");
    const killed = await child.status;
    const other = spawn(as("sleep", "100"));
    const ended = other.end();
    { using third = spawn(as("sleep", "100")); }
    console.log("\\n", killed.signal, ended.signal, (await other.status).signal);`));
  assertEquals(stderr, "");
  assertEquals(stdout.indexOf("\n"), 10000000);
  assertEquals(stdout.slice(10000000), "\n SIGINT SIGKILL SIGKILL\n");
});

test("in a program on a terminal, an exposed command gets one of its own, and can be used", NEEDS, async () => {
  const argv = deno(`
    const script = "ls -l /proc/self/fd/0; stty size; read line; echo got $line; kill -TSTP $$; echo back";
    const { code } = await run(as("sh", "-c", script));
    console.log(["code", code, turns > 0].join(" "));`);
  using pty = new Pty(["/bin/bash", "--norc", "--noprofile", "-i"]);
  await pty.expect(/READY> /);
  Deno.writeTextFileSync("/tmp/penne-library-argv", argv.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(" "));
  pty.type(`eval "$(cat /tmp/penne-library-argv)"\n`);
  const [, name] = await pty.expect(/-> (\/dev\/pts\/\d+)/);
  assertEquals(name === pty.path, false);
  await pty.expect(/24 80/);
  await new Promise((resolve) => setTimeout(resolve, 500));
  pty.type("words\n");
  await pty.expect(/got words/);
  await pty.expect(/Stopped/);
  await pty.expect(/READY> /);
  pty.type("fg\n");
  await pty.expect(/back/);
  await pty.expect(/code 0 true/);
  pty.type("exit\n");
  await pty.end();
  assertEquals(pty.settings, pty.initial);
  Deno.removeSync("/tmp/penne-library-argv");
});

test("keep() and enter() of the library treat exposed commands the same", NEEDS, async () => {
  const { stdout, stderr, code } = await sh(deno(`
    const directory = Deno.makeTempDirSync({ dir: "/run" });
    Deno.chmodSync(directory, 0o755);
    const setUp = { command: ["sh", "-c", "pwd; ls -l /proc/self/fd/0 | cut -d' ' -f9-; echo $TOKEN"] };
    const { kept } = await keep("x", { directory, user: ${TEST_UID}, setUp });
    const child = await enter({ target: "x", directory, user: ${TEST_UID}, command: ["sh", "-c", "pwd; exit 5"] });
    console.log(kept, (await child.status).code);
    const { drop } = await import(${JSON.stringify(`${ROOT}mod/mod.ts`)});
    drop("x", { directory, user: ${TEST_UID} });
    new Deno.Command("umount", { args: [directory + "/ns"] }).outputSync();
    Deno.removeSync(directory, { recursive: true });`));
  assertEquals([code, stderr], [0, ""]);
  assertStringIncludes(stdout, "/\n");
  assertEquals(stdout.split("\n").slice(-3).join("\n"), "/\ntrue 5\n");
});

test("end() and status say the same of every command, exposed or not", NEEDS, async () => {
  const { stdout, stderr } = await sh(deno(`
    const block = () => new Deno.Command("sleep", { args: ["0.3"] }).outputSync();
    const said = [];
    for (const place of [as(), { unshare: ["pid", "mnt"] }]) {
      const start = (script, more = {}) => spawn({ ...place, command: ["sh", "-c", script], ...more });
      const trapping = start("trap 'exit 5' TERM; echo; while :; do sleep 0.05; done", { killSignal: "SIGTERM", stdout: "piped" });
      await trapping.stdout.getReader().read();
      const over = start("exit 7");
      block();
      const awaited = start("kill -9 $$");
      await awaited.status;
      const disposed = start("sleep 100");
      disposed[Symbol.dispose]();
      for (const child of [trapping, over, awaited, disposed]) said.push([child.end(), await child.status, child.end()]);
    }
    console.log(JSON.stringify(said));`));
  assertEquals(stderr, "");
  const said = JSON.parse(stdout);
  assertEquals(said.length, 8);
  for (const [ended, status, again] of said) assertEquals([status, again], [ended, ended]);
  const codes = said.map(([{ code }]: [{ code: number }]) => code);
  assertEquals([codes[1], codes[2], codes[5], codes[6]], [7, 137, 7, 137]);
});
