// What a user may do who traces a command of root's: nothing with root's terminal, directory, environment or input.

import { assert, assertEquals, assertMatch, assertNotMatch } from "@std/assert";
import { asUser, command, penne, processes, ROOT, sh, test, TEST_USER, until } from "../lib/helpers.ts";
import { Pty } from "../lib/pty.ts";
import { Place as Container } from "../enter/places.ts";
import { as, Place as Sets } from "../kept/place.ts";
import { eachWay, Sleeper, traceWith } from "../cli/exposed/victims.ts";

const NEEDS = ["root", "user", "user namespaces", "package:gcc", "package:bash", "package:procps"] as const;
const SHELL = ["/bin/bash", "--norc", "--noprofile", "-i"];

/** A directory that only root can enter, and a program that the test user can execute. */
class Lab implements Disposable {
  readonly secret = Deno.makeTempDirSync({ prefix: "penne-secret-" });
  readonly public = Deno.makeTempDirSync({ prefix: "penne-public-" });

  constructor() {
    Deno.chmodSync(this.public, 0o755);
    Deno.writeTextFileSync(`${this.secret}/file`, "topsecret\n");
  }

  /** Compiles a program that the test user can execute; returns its path. */
  async compile(name: string): Promise<string> {
    const args = ["-o", `${this.public}/${name}`, `${ROOT}tests/attack/${name}.c`];
    const { success, stderr } = await new Deno.Command("gcc", { args }).output();
    if (!success) throw new Error(new TextDecoder().decode(stderr));
    return `${this.public}/${name}`;
  }

  [Symbol.dispose](): void {
    for (const directory of [this.secret, this.public]) Deno.removeSync(directory, { recursive: true });
  }
}

test(
  "a line that a tracer types into the terminal of the command does not reach root's shell",
  [...NEEDS, "TIOCSTI"],
  async (t) => {
    using lab = new Lab();
    const inject = await lab.compile("inject");
    await eachWay(async ({ name, argv, traceable }) => {
      await t.step(name, async () => {
        const proof = `${lab.secret}/${name.replaceAll(" ", "")}`;
        using pty = new Pty(SHELL);
        await pty.expect(/READY> /);
        const victim = new Sleeper();
        pty.type(`${[...argv, ...victim.argv].join(" ")}\n`);
        const pid = await victim.pid();
        const { code, text } = await traceWith([inject, `${pid}`, `id >${proof}\n`]);
        // The method works, so that the shell would get the line if it had the same terminal.
        assertMatch(text, traceable ? /^(\d+) of \1 $/m : /attach: Operation not permitted/);
        assertEquals(code, traceable ? 0 : 1);
        victim.end();
        await pty.expect(/READY> /);
        pty.type("echo sh''ell\n");
        await pty.expect(/shell/);
        pty.type("exit\n");
        await pty.end();
        assertEquals([...Deno.readDirSync(lab.secret)].map((entry) => entry.name), ["file"]);
      });
    });
  },
);

test("environment, working directory and input of root cannot be reached by /proc", NEEDS, async (t) => {
  using lab = new Lab();
  await eachWay(async ({ name, argv }) => {
    await t.step(name, async () => {
      const victim = new Sleeper();
      const words = [...argv, ...victim.argv].map((word) => `'${word}'`).join(" ");
      const script = `cd ${lab.secret} && MYTOKEN=s3cr3t exec ${words} <file`;
      const child = command(["sh", "-c", script], {}, { stdin: "null", stdout: "piped", stderr: "piped" }).spawn();
      const pid = await victim.pid();
      const look = `cd /proc/${pid}; cat cwd/file cwd/*/file fd/0; tr '\\0' '\\n' <environ; ls -l cwd fd
        cat fd/1 & cat fd/2 & sleep 0.2; kill %1 %2`;
      const { text } = await traceWith(["bash", "-c", look]);
      child.kill("SIGKILL");
      await child.output();
      assertNotMatch(text, /topsecret|s3cr3t/);
      assertNotMatch(text, new RegExp(lab.secret));
    });
  });
});

test(
  "a line that the command itself types into its terminal does not reach root's shell",
  [...NEEDS, "TIOCSTI"],
  async (t) => {
    using lab = new Lab();
    const inject = await lab.compile("inject");
    await eachWay(async ({ name, argv }) => {
      await t.step(name, async () => {
        using pty = new Pty(SHELL);
        await pty.expect(/READY> /);
        pty.type(`${[...argv, inject].join(" ")} 0 "$(printf 'id >${lab.secret}/proof\\nx')"\n`);
        await pty.expect(/(\d+) of \1\r/);
        await pty.expect(/READY> /);
        pty.type("echo sh''ell\n");
        await pty.expect(/shell/);
        pty.type("exit\n");
        await pty.end();
        assertEquals([...Deno.readDirSync(lab.secret)].map((entry) => entry.name), ["file"]);
      });
    });
  },
);

test("keys in root's session keyring cannot be read by the command", NEEDS, async (t) => {
  using lab = new Lab();
  const keyring = await lab.compile("keyring");
  const plain = await sh([keyring, "add", "sh", "-c", `${keyring} read`]);
  assertEquals([plain.code, plain.stdout], [0, "topsecret\n"], plain.stderr);
  await eachWay(async ({ name, argv }) => {
    await t.step(name, async () => {
      const { code, stdout, stderr } = await sh([keyring, "add", ...argv, keyring, "read"]);
      assertEquals([code, stdout], [1, ""]);
      assertMatch(stderr, /^search: Required key not available/);
    });
  });
});

test("the process that keeps a set has no key of the session in which it was started", NEEDS, async (t) => {
  using lab = new Lab();
  const [keyring, inject] = [await lab.compile("keyring"), await lab.compile("inject")];
  const find = async (pid: number) => (await traceWith([inject, `${pid}`, "--key", "penne-test"])).text;
  await t.step("the method works", async () => {
    const victim = new Sleeper();
    const [program, ...args] = asUser([keyring, "add", ...victim.argv]);
    const child = new Deno.Command(program!, { args, cwd: "/" }).spawn();
    assertEquals(await find(await victim.pid()), "key: found\n");
    victim.end();
    await child.status;
  });
  await using container = await Container.all({ user: true });
  for (const user of [null, TEST_USER]) {
    using sets = new Sets(user);
    const what = user ? ["--pid", `${container.pid}`] : ["--user", TEST_USER, "--", "true"];
    await t.step(user ? "keep NAME PID" : "keep --user", async () => {
      const { code, stderr } = await sh([
        ...as(user, [keyring, "add"]),
        // Its filter would end a holder that is made to ask for a key.
        ...sets.for(null).argv("keep", "set", "--no-confine", "--log-level", "error", ...what),
      ]);
      assertEquals([code, stderr], [0, ""]);
      const set = await sets.inspect("set", ...user ? [] : ["--user", TEST_USER]);
      assertEquals(await find(set!.holder!.pid), "key: Required key not available\n");
      await sets.must("drop", "set", "--force", ...user ? [] : ["--user", TEST_USER]);
    });
  }
});

test("the tracer cannot stop, end or trace the agent that gives root its terminal back", NEEDS, async (t) => {
  await eachWay(async ({ name, argv }) => {
    await t.step(name, async () => {
      const victim = new Sleeper();
      using pty = new Pty([...argv, ...victim.argv]);
      const pid = await victim.pid();
      const all = processes();
      const find = (pid: number) => all.find((process) => process.pid === pid)!;
      let guard = find(find(pid).ppid);
      while (find(guard.ppid).cmdline[0] !== penne()) guard = find(guard.ppid);
      const tries = ["STOP", "KILL"].map((signal) => `kill -${signal} ${guard.pid}`);
      const { text } = await traceWith(["bash", "-c", [...tries, `ls -l /proc/${guard.pid}/fd`].join("; ")]);
      assertEquals(text.match(/Operation not permitted|Permission denied/g)?.length, 3, text);
      if (name === "keep --user") {
        await traceWith(["bash", "-c", `kill -STOP ${pid} $(ps -o ppid= ${pid})`]);
        await new Promise((resolve) => setTimeout(resolve, 300));
        Deno.kill(guard.ppid, "SIGKILL");
      } else victim.end();
      await pty.end();
      await until("the settings are back", () => pty.settings === pty.initial);
    });
  });
});

/** Whether a process has become yes(1). */
function writes(pid: number): boolean {
  try {
    return Deno.readLinkSync(`/proc/${pid}/exe`).endsWith("/yes");
  } catch {
    return false; // it has ended
  }
}

test("the tracer cannot keep penne from ending by writing for ever to what the command had", NEEDS, async (t) => {
  using lab = new Lab();
  await eachWay(async ({ name, argv }) => {
    await t.step(name, async () => {
      const victim = new Sleeper();
      const words = [...argv, "sh", "-c", `'${victim.argv.join(" ")}; exit 7'`].join(" ");
      const go = `${lab.secret}/${name.replaceAll(" ", "")}`;
      const reader = `until [ -e '${go}' ]; do sleep 0.1; done; wc -c`;
      const child = command(["bash", "-c", `${words} | (${reader}); exit \${PIPESTATUS[0]}`], {}, {
        stdin: "null",
        stdout: "piped",
        stderr: "null",
      }).spawn();
      const pid = await victim.pid();
      const [program, ...args] = asUser(["bash", "-c", `exec yes >/proc/${pid}/fd/1`]);
      const writer = new Deno.Command(program!, { args, cwd: "/", stderr: "null" }).spawn();
      let over = false; // where it may not write there
      writer.status.then(() => over = true);
      await until("another process writes", () => over || writes(writer.pid));
      await new Promise((resolve) => setTimeout(resolve, 300));
      victim.end();
      await until("the command has ended", () => !victim.runs);
      Deno.writeTextFileSync(go, "");
      const { code, stdout } = await child.output();
      assertEquals(code, 7);
      assert(Number(new TextDecoder().decode(stdout)) < 10_000_000);
      await writer.status; // of SIGPIPE
    });
  });
});

test("the tracer cannot suspend penne where its shell would not be seen to do so", NEEDS, async (t) => {
  await eachWay(async ({ name, argv, traceable }) => {
    if (!traceable) return;
    await t.step(name, async () => {
      using pty = new Pty(SHELL);
      await pty.expect(/READY> /);
      const victim = new Sleeper();
      pty.type(`${[...argv, ...victim.argv].join(" ")} </dev/null >/dev/null 2>&1; echo en''d $?\n`);
      const pid = await victim.pid();
      for (const signal of ["TSTP", "STOP", "TTIN", "TTOU"]) {
        await traceWith(["kill", `-${signal}`, `${pid}`]);
        await until("the command runs again", () => !/^State:\tT/m.test(Deno.readTextFileSync(`/proc/${pid}/status`)));
      }
      victim.end();
      await pty.expect(/end 137/);
      pty.type("exit\n");
      await pty.end();
      assert(!pty.text.includes("Stopped"));
    });
  });
});
