// The terminal that penne makes for a command that others may trace: it works as the caller's own would.

import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { isAgent, penne, processes, test, until } from "../../lib/helpers.ts";
import { Pty } from "../../lib/pty.ts";
import { eachWay, TEST_UID } from "./victims.ts";

const BASH = ["root", "user", "user namespaces", "package:bash", "package:coreutils", "package:procps"] as const;
const SHELL = ["/bin/bash", "--norc", "--noprofile", "-i"];
/** A command line of penne, up to the words of a command that the test user may trace. */
const RUN = [penne(), "run", "--unshare", "pid,mnt", "--uid", `${TEST_UID}`, "--env", "PS1=INSIDE> "];
const LINE = RUN.slice(0, 6).join(" ");

/** Whether `sleep SECONDS` is running. */
function sleeps(seconds: number): boolean {
  return processes().some(({ cmdline }) => cmdline.join(" ") === `sleep ${seconds}`);
}

/** State of `sleep SECONDS`, as in /proc/PID/stat. */
function stateOf(seconds: number): string {
  const found = processes().find(({ cmdline }) => cmdline.join(" ") === `sleep ${seconds}`);
  return found ? /^State:\t(.)/m.exec(Deno.readTextFileSync(`/proc/${found.pid}/status`))![1]! : "none";
}

const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Starts an interactive shell, and waits for its prompt. */
async function shell(): Promise<Pty> {
  const pty = new Pty(SHELL);
  await pty.expect(/READY> /);
  return pty;
}

test("the command has another terminal than the caller, with the same settings and size", BASH, async (t) => {
  await eachWay(async ({ name, argv }) => {
    await t.step(name, async () => {
      using pty = new Pty([...argv, "sh", "-c", "stty -a; ls -l /proc/self/fd/0; stty -F /dev/tty size; exit 7"]);
      pty.resize(31, 97);
      const outer = await new Deno.Command("stty", { args: ["-aF", pty.path] }).output();
      assertEquals((await pty.end()).code, 7);
      const text = pty.text.replaceAll("\r\n", "\n");
      const words = (text: string) => text.split(/\s+/).join(" ").trim(); // stty folds its lines by the width
      assertEquals(words(text.slice(0, text.indexOf("\nlrwx"))), words(new TextDecoder().decode(outer.stdout)));
      assertNotEquals(/-> (\/dev\/pts\/\d+)/.exec(text)![1], pty.path);
      assertMatch(text, /\n31 97\n$/);
      assertEquals([pty.settings, pty.foreground], [pty.initial, pty.pid]);
    });
  });
});

test("a shell inside has job control: Ctrl-C ends and Ctrl-Z stops its foreground job alone", BASH, async () => {
  using pty = new Pty([...RUN, "--", ...SHELL]);
  await pty.expect(/INSIDE> /);
  pty.type("sleep 1100 &\n");
  await pty.expect(/\[1\] \d+/);
  pty.type("sleep 2100\n");
  await until("sleep runs", () => sleeps(2100));
  pty.type("\x03");
  await pty.expect(/\^C/);
  await pty.expect(/INSIDE> /);
  pty.type("sleep 3100\n");
  await until("sleep runs", () => sleeps(3100));
  pty.type("\x1a");
  await pty.expect(/Stopped +sleep 3100/);
  pty.type("fg\n");
  await pty.expect(/sleep 3100\r\n/);
  await until("it continues", () => stateOf(3100) === "S");
  pty.type("\x03");
  await pty.expect(/INSIDE> /);
  pty.type("exit 3\n");
  assertEquals((await pty.end()).code, 3);
  assertEquals([pty.settings, pty.foreground, sleeps(1100)], [pty.initial, pty.pid, false]);
});

test("Ctrl-Z stops penne and its command; fg and bg continue both", BASH, async (t) => {
  await eachWay(async ({ name, argv }) => {
    await t.step(name, async () => {
      using pty = await shell();
      const [prompt, group] = [pty.settings, pty.foreground]; // those of the shell's line editor
      pty.type(`${[...argv].join(" ")} sh -c 'echo UP; sleep 6100; echo WOKEN'\n`);
      await pty.expect(/\r\nUP/);
      await until("sleep runs", () => sleeps(6100));
      for (let i = 0; i < 2; i++) {
        pty.type("\x1a");
        await pty.expect(/Stopped/);
        await pty.expect(/READY> /);
        await until("the command is stopped", () => stateOf(6100) === "T");
        assertEquals(pty.settings, prompt);
        pty.type("fg\n");
        await until("the command continues", () => stateOf(6100) === "S");
      }
      pty.type("\x1a");
      await pty.expect(/Stopped/);
      await pty.expect(/READY> /);
      pty.type("bg\n");
      await pty.expect(/READY> /);
      await until("it continues in the background", () => stateOf(6100) === "S");
      assertEquals(pty.settings, prompt);
      pty.type("fg\n");
      await pty.expect(/echo WOKEN'\r\n/);
      await pty.givenAway(group);
      await pause(200);
      pty.type("\x03");
      await pty.expect(/READY> /);
      pty.type("echo code $?\n");
      await pty.expect(/code 130/);
      pty.type("exit\n");
      await pty.end();
      assertEquals(pty.settings, pty.initial);
    });
  });
});

test("the command sees changes of the window size", BASH, async () => {
  const script = `trap 'stty size' WINCH; stty size; echo UP; while :; do sleep 0.05; done`;
  using pty = new Pty([...RUN, "--", "bash", "-c", script]);
  await pty.expect(/24 80\r\nUP/);
  await pty.resizeUntilSeen(33, 111);
  await pty.resizeUntilSeen(44, 99);
});

test("full-screen programs work", [...BASH, "package:vim-tiny", "package:less", "package:procps"], async (t) => {
  const directory = Deno.makeTempDirSync({ prefix: "penne-screen-" });
  try {
    Deno.chmodSync(directory, 0o777);
    const env = { TERM: "xterm" };
    await t.step("vi", async () => {
      using pty = new Pty([...RUN, "--", "vi", "-u", "NONE", `${directory}/file`], { env });
      await pty.expect(/~/);
      assertNotEquals(pty.settings, pty.initial);
      // Ctrl-C ends the insertion, and Ctrl-V makes the next key a character of the text.
      pty.type("iwords");
      await pty.expect(/words/);
      pty.type("\x03");
      await pause(1500); // the signal empties the terminal's queue
      pty.type("Amore \x16\x1a\x1b:wq\r");
      assertEquals((await pty.end()).code, 0);
      assertEquals(Deno.readTextFileSync(`${directory}/file`), "wordsmore \x1a\n");
      assertEquals(pty.settings, pty.initial);
    });
    await t.step("less", async () => {
      Deno.writeTextFileSync(`${directory}/long`, Array.from({ length: 500 }, (_, i) => `line ${i}\n`).join(""));
      using pty = new Pty([...RUN, "--", "less", `${directory}/long`], { env });
      await pty.expect(/line 22/);
      pty.type("G");
      await pty.expect(/line 499/);
      pty.type("q");
      assertEquals([(await pty.end()).code, pty.settings], [0, pty.initial]);
    });
    await t.step("top", async () => {
      using pty = new Pty([...RUN, "--", "top"], { env });
      await pty.expect(/PID/);
      pty.type("q");
      assertEquals([(await pty.end()).code, pty.settings], [0, pty.initial]);
    });
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

test("SIGKILL of penne, of the guard and of the agent restores the terminal and ends the command", BASH, async (t) => {
  for (const victim of ["penne", "guard", "agent"] as const) {
    for (const shown of ["alone", "from a shell"]) {
      await t.step(`${victim}, ${shown}`, async () => {
        const words = [...RUN.slice(0, 6), "--", "sleep", "7100"];
        using pty = shown === "alone" ? new Pty(words) : await shell();
        if (shown !== "alone") pty.type(`${words.join(" ")}\n`);
        await until("sleep runs", () => sleeps(7100));
        await until("the terminal is raw", () => pty.settings !== pty.initial);
        const all = processes();
        const sleeper = all.find(({ cmdline }) => cmdline.join(" ") === "sleep 7100")!;
        const agent = all.find(({ pid }) => pid === sleeper.ppid)!;
        const guard = all.find(({ pid }) => pid === agent.ppid)!;
        assert(isAgent(agent) && isAgent(guard));
        Deno.kill({ penne: guard.ppid, guard: guard.pid, agent: agent.pid }[victim], "SIGKILL");
        await until("the command has ended", () => !sleeps(7100));
        if (shown === "alone") await pty.end();
        else {
          await pty.expect(/READY> /);
          pty.type("exit\n");
          await pty.end();
        }
        await until("the settings are back", () => pty.settings === pty.initial);
        assertEquals(pty.foreground, pty.pid);
      });
    }
  }
});

test("SIGKILL of penne restores the terminal in a pipeline too", BASH, async () => {
  using pty = new Pty(["/bin/sh", "-c", `${LINE} -- sh -c 'read line; sleep 7200' | cat`]);
  await until("the terminal is raw", () => pty.settings !== pty.initial);
  pty.type("\n");
  await until("sleep runs", () => sleeps(7200));
  const found = processes().find(({ ppid, cmdline }) => ppid === pty.pid && cmdline[0] === penne())!;
  Deno.kill(found.pid, "SIGKILL");
  await pty.end();
  await until("the settings are back", () => pty.settings === pty.initial);
});

test("settings and foreground are restored however the command ends", BASH, async () => {
  for (const how of ["exit 0", "exit 7", "kill -9 $$", "stty raw -echo; kill -9 $$", "stty raw -echo; exit 0"]) {
    using pty = new Pty([...RUN, "--", "sh", "-c", how]);
    const { code } = await pty.end();
    assertEquals(code, how.includes("-9") ? 137 : how.endsWith("7") ? 7 : 0);
    assertEquals([pty.settings, pty.foreground], [pty.initial, pty.pid], how);
  }
  using pty = new Pty([...RUN, "--", "/no/such/program"]);
  assertEquals([(await pty.end()).code, pty.settings], [127, pty.initial]);
});

test("a job in the background is stopped when it reads the terminal, and reads it after fg", BASH, async () => {
  using pty = await shell();
  pty.type(`${LINE} -- sh -c 'read line; echo "got $line"' &\n`);
  await pty.expect(/\[1\]/);
  const asking = setInterval(() => pty.type("\n"), 300);
  try {
    await pty.expect(/Stopped/);
  } finally {
    clearInterval(asking);
  }
  await pause(300);
  pty.type("fg; echo en''d\n");
  await pause(700);
  pty.type("text\n");
  await pty.expect(/got text/);
  await pty.expect(/end/);
  pty.type("exit\n");
  await pty.end();
});

test("a job that runs in the background gets its terminal with the first key after fg", BASH, async () => {
  using pty = await shell();
  pty.type(`${LINE} -- sh -c 'sleep 2; read line; echo "got $line"' &\n`);
  await pty.expect(/READY> /);
  await pause(500);
  pty.type("fg\n");
  await pause(2500);
  pty.type("some text\n");
  await pty.expect(/got some text/);
  await pty.expect(/READY> /);
  pty.type("exit\n");
  await pty.end();
  assertEquals(pty.settings, pty.initial);
});

test("a job that may not write in the background is stopped, and does not spin", BASH, async (t) => {
  for (const line of [`${LINE} --`, `${penne()} run --net=none --`]) {
    await t.step(line.includes("--uid") ? "exposed" : "not exposed", async () => {
      using pty = await shell();
      pty.type(`stty tostop; ${line} sh -c 'sleep 0.3; echo WRIT''TEN' &\n`);
      await pty.expect(/\[1\] (\d+)/);
      const penne = Number(/\[1\] (\d+)/.exec(pty.text)![1]);
      await until("it is stopped", () => /^State:\tT/m.test(Deno.readTextFileSync(`/proc/${penne}/status`)));
      pty.type("fg\n");
      await pty.expect(/WRITTEN/);
      await pty.expect(/READY> /);
      pty.type("exit\n");
      await pty.end();
    });
  }
});

test("in a pipeline and in a script, nobody loses the terminal", BASH, async (t) => {
  await t.step("a neighbour reads it", async () => {
    using pty = await shell();
    pty.type(`${LINE} -- echo through | sh -c 'cat; read line </dev/tty; echo "got $line"'\n`);
    await pty.expect(/\r\nthrough/);
    pty.type("words\n");
    await pty.expect(/got words/);
    pty.type("exit\n");
    await pty.end();
    assertEquals(pty.settings, pty.initial);
  });
  await t.step("a command in a pipeline reads it, once it wants to", async () => {
    using pty = await shell();
    pty.type(`${LINE} -- sh -c 'echo one; echo two; read line; echo "got $line"' | cat; echo en''d\n`);
    await pty.expect(/one\r\ntwo\r\n/);
    await pause(300);
    pty.type("words\n");
    // The echo comes by the terminal, and the rest through the pipe.
    const [text] = await pty.expect(/[^]*end\r\n/);
    assertMatch(text, /^got words\r\n/m);
    assertMatch(text, /^words\r+\n/m);
    pty.type("exit\n");
    await pty.end();
    assertEquals(pty.settings, pty.initial);
  });
  await t.step("Ctrl-C ends the whole pipeline, and the script", async () => {
    using pty = await shell();
    pty.type(`sh -c '${LINE} -- sh -c "echo UP; sleep 4100"; echo af''ter $?'; echo code $?\n`);
    await pty.expect(/\r\nUP/);
    await until("sleep runs", () => sleeps(4100));
    pty.type("\x03");
    await pty.expect(/READY> /);
    await until("everything has ended", () => !sleeps(4100));
    assertEquals(/after \d/.test(pty.text), false, pty.text);
    pty.type(`${LINE} -- sh -c 'read line; sleep 4200' | sleep 4300\n`);
    await until("sleep runs", () => sleeps(4300));
    await pause(300);
    pty.type("\n");
    await until("sleep runs", () => sleeps(4200));
    pty.type("\x03");
    await pty.expect(/READY> /);
    await until("everything has ended", () => !sleeps(4200) && !sleeps(4300));
    pty.type("exit\n");
    await pty.end();
  });
  await t.step("Ctrl-Z stops the whole pipeline, and fg continues it", async () => {
    for (const line of [`${LINE} -- sleep 9210 | cat`, `echo | ${LINE} -- sleep 9210`]) {
      using pty = await shell();
      const group = pty.foreground;
      pty.type(`${line}\n`);
      await until("sleep runs", () => sleeps(9210));
      await pause(100);
      pty.type("\x1a");
      await pty.expect(/Stopped/);
      await pty.expect(/READY> /);
      pty.type("fg\n");
      await pty.givenAway(group);
      await pause(300);
      pty.type("\x03");
      await pty.expect(/READY> /);
      await until("everything has ended", () => !sleeps(9210));
      pty.type("exit\n");
      await pty.end();
    }
  });
});

test("a hangup of the terminal ends penne and its command", BASH, async () => {
  const pty = new Pty(["/bin/sh", "-c", `exec setsid -c ${LINE} -- sleep 8100`]);
  await until("sleep runs", () => sleeps(8100));
  pty[Symbol.dispose]();
  await until("it has ended", () => !sleeps(8100));
});

test("Ctrl-Z is ignored where no shell could continue penne", BASH, async () => {
  const script = `exec setsid -c ${LINE} -- sh -c 'echo UP; while read x; do echo "got $x"; done'`;
  using pty = new Pty(["/bin/sh", "-c", script]);
  await pty.expect(/UP/);
  pty.type("\x1a");
  await pause(300);
  pty.type("word\n");
  await pty.expect(/got word/);
});

test("--new-session leaves the command without a controlling terminal, and the keys work", BASH, async () => {
  using pty = await shell();
  const group = pty.foreground;
  pty.type(`${LINE} --new-session -- sh -c '(: </dev/tty) 2>&1; read x; echo "got $x"; exec sleep 5100'\n`);
  await pty.expect(/No such device or address/);
  pty.type("word\n");
  await pty.expect(/got word/);
  await until("sleep runs", () => sleeps(5100));
  pty.type("\x1a");
  await pty.expect(/Stopped/);
  await pty.expect(/READY> /);
  pty.type("fg; echo code $?\n");
  await pty.givenAway(group);
  await pause(500);
  pty.type("\x03");
  await pty.expect(/code 130/);
  pty.type("exit\n");
  await pty.end();
});

test("--share-terminal gives the command the caller's terminal, and the rest is still kept from it", BASH, async () => {
  const env = { PATH: Deno.env.get("PATH")!, TOKEN: "s3cr3t" };
  using pty = new Pty([...RUN.slice(0, 6), "--share-terminal", "--", "sh", "-c", "tty; ps -o tty= $$; pwd; env"], {
    env,
  });
  assertEquals((await pty.end()).code, 0);
  const name = pty.path.replace("/dev/", "");
  assertMatch(pty.text, new RegExp(`^${pty.path}\r\n${name} *\r\n/\r\n`));
  assert(!pty.text.includes("s3cr3t"));
});

test("a stopped penne ends when its shell is killed, and kill %1 ends a stopped job", BASH, async () => {
  using outer = new Pty(["/bin/sh", "-c", `${SHELL.join(" ")}; exit`], { adopt: false });
  await outer.expect(/READY> /);
  outer.type(`${LINE} -- sleep 9110\n`);
  await until("sleep runs", () => sleeps(9110));
  await pause(100);
  outer.type("\x1a");
  await outer.expect(/Stopped/);
  const bash = processes().find(({ ppid, cmdline }) => ppid === outer.pid && cmdline[0] === "/bin/bash")!;
  Deno.kill(bash.pid, "SIGKILL");
  await until("everything has ended", () => !sleeps(9110));
  using pty = await shell();
  pty.type(`${LINE} -- sh -c 'echo UP; exec cat'\n`);
  await pty.expect(/\r\nUP/);
  await pause(100);
  pty.type("\x1a");
  await pty.expect(/Stopped/);
  await pty.expect(/READY> /);
  pty.type(`kill %1; while [ -n "$(jobs -s)" ]; do sleep 0.1; done; jobs; echo do''ne\n`);
  const [text] = await pty.expect(/[^]*\r\ndone/);
  assertEquals(text.includes("Stopped   "), false, text);
  pty.type("exit\n");
  await pty.end();
});
