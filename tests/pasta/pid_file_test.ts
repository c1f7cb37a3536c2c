// The pid file of penne under the name pasta: as it was after a start that failed or was killed, and right after one that
// did not.

import { assert, assertEquals, assertMatch } from "@std/assert";
import { killIfAlive, test, until } from "../lib/helpers.ts";
import { must, NetLab } from "../lib/netlab.ts";
import { call, Engine, pasta, running } from "./lib.ts";

const NEEDS = ["root", "user", "user namespaces", "tun", "package:iproute2", "package:util-linux"] as const;
const NONE = ["-u", "none", "-T", "none", "-U", "none"];
/** Times that a start is killed; PENNE_KILLS sets more. */
const KILLS = Number(Deno.env.get("PENNE_KILLS") ?? 12);

async function open() {
  const lab = await NetLab.open();
  await lab.usual();
  const engine = await Engine.open(lab);
  const child = await engine.alone(["sleep", "1000"]);
  const sh = (script: string) => must(engine.argv(["sh", "-c", `cd ${Engine.directory}; ${script}`]));
  return { lab, engine, child, sh };
}

/** Whether a process runs, and is no zombie. */
function lives(pid: number): boolean {
  try {
    return !/\) Z /.test(Deno.readTextFileSync(`/proc/${pid}/stat`));
  } catch {
    return false;
  }
}

test("a start that fails leaves the pid file of another process alone, and makes none", [
  ...NEEDS,
  "package:python3",
], async () => {
  const { lab, engine, child, sh } = await open();
  await using _ = lab;
  const busy = "import socket, time; s = socket.create_server(('', 7201)); print(1, flush=True); time.sleep(1000)";
  const server = lab.start(lab.in(lab.host, ["python3", "-c", busy]));
  await until("the port is busy", () => server.output() !== "");
  await sh("echo 4321 >old");
  for (const target of [[`${child.pid}`], ["true"]]) {
    for (const file of ["old", "new"]) {
      const path = `${Engine.directory}/${file}`;
      const { code, stderr } = await call(engine.argv([pasta(), "-t", "7201", ...NONE, "-P", path, ...target]));
      assertEquals(code, 1, stderr);
      assertEquals(await sh("cat old; ls"), "4321\nold\n", `${file}, ${target}`);
    }
  }
});

test(
  "a pid file that exists is overwritten, whatever its length; a device and a link are written to",
  NEEDS,
  async () => {
    const { lab, engine, child, sh } = await open();
    await using _ = lab;
    await sh("echo 1234567890123456789 >old; chmod 644 old; ln -s linked link");
    for (const [file, ...listed] of [["old", "644 old"], ["link", "600 linked"], ["made", "600 made"]]) {
      const words = [pasta(), "-t", "none", ...NONE, "-P", `${Engine.directory}/${file}`, `${child.pid}`];
      const { code, stderr } = await call(engine.argv(words));
      assertEquals([code, stderr], [0, ""]);
      const [pid] = running(words);
      assertEquals(await sh(`cat ${file}`), `${pid}\n`);
      assertEquals(await sh(`stat -L -c '%a %n' ${listed[0]!.split(" ")[1]}`), `${listed[0]}\n`);
      assert(await killIfAlive(pid!));
    }
    const { code, stderr } = await call(
      engine.argv([pasta(), "-t", "none", ...NONE, "-P", "/dev/null", `${child.pid}`]),
    );
    assertEquals([code, stderr], [0, ""]);
  },
);

test("a pid file for which there is no room is an error that names it, and nothing is left", NEEDS, async () => {
  const { lab, engine, child, sh } = await open();
  await using _ = lab;
  await sh("mkdir full; mount -t tmpfs -o size=4k none full; head -c 4096 /dev/zero >full/filled");
  const path = `${Engine.directory}/full/pid`;
  const words = [pasta(), "-t", "none", ...NONE, "-P", path, `${child.pid}`];
  const { code, stderr } = await call(engine.argv(words));
  assertEquals([code, stderr], [1, `Couldn't write PID file ${path}: No space left on device\n`]);
  assertEquals(await sh("ls full"), "filled\n");
  assertEquals(running(words), []);
  const log = await call(engine.argv([pasta(), "-t", "none", ...NONE, "-l", `${path}.log`, `${child.pid}`]));
  assertEquals(log.code, 1);
  assertMatch(log.stderr, /^Couldn't (open|write to) log file.*: No space left on device\n$/);
});

test(
  "killed at any moment of its start, penne leaves no process, and no pid file of one that is gone",
  NEEDS,
  async () => {
    const { lab, engine, child, sh } = await open();
    await using _ = lab;
    const words = [pasta(), "-t", "none", ...NONE, "-P", `${Engine.directory}/pid`, `${child.pid}`];
    for (let i = 0; i < KILLS; i++) {
      const [program, ...args] = engine.argv(words);
      const started = new Deno.Command(program!, { args, stdin: "null", stdout: "null", stderr: "piped", cwd: "/" })
        .spawn();
      const errors = new Response(started.stderr).text();
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 250));
      // The process that the caller knows; it may have done its work.
      try {
        started.kill("SIGKILL");
      } catch {
        // It has ended.
      }
      const { code } = await started.status;
      // The second process has this until it is ready. If nobody is there to be told, it ends.
      await errors;
      let [left, told] = [[] as number[], "?"];
      for (const end = Date.now() + 60_000; told !== `${left[0] ?? ""}` && Date.now() < end;) {
        left = running(words);
        told = (await sh("cat pid 2>/dev/null || true")).trim();
      }
      assertEquals(told, `${left[0] ?? ""}`, `after ${i} times`);
      if (code === 0) assertEquals(left.length, 1);
      await Promise.all(left.map(killIfAlive));
      await until("it is gone", () => !left.some(lives));
      await sh("rm -f pid");
    }
  },
);
