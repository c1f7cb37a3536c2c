// Terminals: job control, window sizes and settings.

import { assertEquals } from "@std/assert";
import { asUser, netOption, penne, penneRun, processes, test, until } from "../../lib/helpers.ts";
import { Pty } from "../../lib/pty.ts";

const BASH = ["package:bash", "package:coreutils"] as const;

/** A fraction of a second that tells these tests' own `sleep` from those of others. */
const OWN = crypto.getRandomValues(new Uint32Array(1))[0]!;

/** Whether our `sleep SECONDS` is running, so that a key typed now finds it there. */
function sleeps(seconds: number): boolean {
  return processes().some(({ cmdline }) => cmdline.join(" ") === `sleep ${seconds}.${OWN}`);
}

/** State of our `sleep SECONDS`, as in /proc/PID/stat. */
function stateOf(seconds: number): string {
  const found = processes().find(({ cmdline }) => cmdline.join(" ") === `sleep ${seconds}.${OWN}`);
  return found ? /^State:\t(.)/m.exec(Deno.readTextFileSync(`/proc/${found.pid}/status`))![1]! : "none";
}

/** Whether a process executes a program. */
function executes(pid: number, program: string): boolean {
  try {
    return Deno.readLinkSync(`/proc/${pid}/exe`) === Deno.realPathSync(program);
  } catch {
    return false; // it has ended
  }
}

/** An interactive shell without start-up files. */
const SHELL = ["/bin/bash", "--norc", "--noprofile", "-i"];

test("an interactive bash inside has job control, and Ctrl-C stops only the foreground job", BASH, async () => {
  using pty = new Pty([...penneRun(), "--", ...SHELL]);
  const settings = pty.settings;
  await pty.expect(/READY> /);
  pty.type(`sleep 1000.${OWN} &\n`);
  await pty.expect(/\[1\] \d+/);
  pty.type(`sleep 2000.${OWN}\n`);
  await until("sleep runs", () => sleeps(2000));
  pty.type("\x03");
  await pty.expect(/\^C/);
  await pty.expect(/READY> /);
  pty.type("jobs\n");
  await pty.expect(/Running +sleep 1000/);
  pty.type(`sleep 3000.${OWN}\n`);
  await until("sleep runs", () => sleeps(3000));
  pty.type("\x1a");
  await pty.expect(/Stopped +sleep 3000/);
  pty.type("fg\n");
  await pty.expect(/sleep 3000[.]\d+\r\n/);
  await until("it continues", () => stateOf(3000) === "S");
  pty.type("\x03");
  await pty.expect(/READY> /);
  pty.type("exit 3\n");
  assertEquals((await pty.end()).code, 3);
  assertEquals(pty.settings, settings);
  assertEquals(pty.foreground, pty.pid);
  assertEquals(sleeps(1000), false);
});

test("from an outer shell, Ctrl-Z stops penne and its command, and fg continues both", BASH, async () => {
  using pty = new Pty(SHELL);
  await pty.expect(/READY> /);
  const shell = pty.foreground;
  pty.type("stty -a | md5sum\n");
  const before = (await pty.expect(/([0-9a-f]{32}) /))[1];
  await pty.expect(/READY> /);
  pty.type(`${penne()} run ${netOption()} -- sh -c 'echo UP; sleep 6000.${OWN}; echo WOKEN'\n`);
  await pty.expect(/\r\nUP/);
  await until("sleep runs", () => sleeps(6000));
  pty.type("\x1a");
  await pty.expect(/Stopped/);
  await pty.expect(/READY> /);
  await until("the command is stopped", () => stateOf(6000) === "T");
  pty.type("fg\n");
  await until("the command continues", () => stateOf(6000) === "S");
  pty.type("\x1a");
  await pty.expect(/Stopped/);
  await pty.expect(/READY> /);
  pty.type("bg\n");
  await pty.expect(/READY> /);
  await until("it continues in the background", () => stateOf(6000) === "S");
  pty.type("fg\n");
  await pty.expect(/run .*-- sh/);
  await pty.givenAway(shell);
  pty.type("\x03");
  await pty.expect(/READY> /);
  pty.type("echo code $?\n");
  await pty.expect(/code 130/);
  pty.type("stty -a | md5sum\n");
  assertEquals((await pty.expect(/([0-9a-f]{32}) /))[1], before);
  pty.type("exit\n");
  await pty.end();
});

test("the command sees changes of the window size", BASH, async () => {
  using pty = new Pty([
    ...penneRun(),
    "--",
    "bash",
    "-c",
    `trap 'stty size' WINCH; echo UP; while :; do sleep 0.05; done`,
  ]);
  await pty.expect(/UP/);
  await pty.resizeUntilSeen(33, 111);
  await pty.resizeUntilSeen(44, 99);
});

test("settings and foreground are restored when the shell inside is killed", BASH, async () => {
  for (const how of ["kill -9 $$", "stty raw -echo; kill -9 $$"]) {
    using pty = new Pty([...penneRun(), "--", ...SHELL]);
    const settings = pty.settings;
    await pty.expect(/READY> /);
    pty.type(`${how}\n`);
    assertEquals((await pty.end()).code, 137);
    assertEquals(pty.settings, settings);
    assertEquals(pty.foreground, pty.pid);
  }
});

test("terminal settings made by a successful command stay", BASH, async () => {
  using pty = new Pty(["/bin/sh", "-c", `${penne()} run ${netOption()} -- stty -echo; stty -a`]);
  await pty.expect(/ -echo /);
  await pty.end();
});

test("in a pipeline and in a script, no process loses the terminal", BASH, async () => {
  using pty = new Pty(SHELL);
  await pty.expect(/READY> /);
  pty.type(`${penne()} run ${netOption()} -- echo through | sh -c 'cat; read line </dev/tty; echo "got $line"'\n`);
  await pty.expect(/\r\nthrough/);
  pty.type("words\n");
  await pty.expect(/got words/);
  await pty.expect(/READY> /);
  pty.type(`sh -c '${penne()} run ${netOption()} -- sh -c "echo UP; sleep 4000.${OWN}"; echo after $?'\n`);
  await pty.expect(/\r\nUP/);
  await until("sleep runs", () => sleeps(4000));
  pty.type("\x03");
  await pty.expect(/READY> /);
  await until("everything has ended", () => !sleeps(4000));
  pty.type("exit\n");
  await pty.end();
});

test("--new-session removes the controlling terminal, and Ctrl-C still reaches the command", BASH, async () => {
  using pty = new Pty([
    ...penneRun(),
    "--new-session",
    "--",
    "sh",
    "-c",
    `(: </dev/tty) 2>&1; echo UP; exec sleep 5000.${OWN}`,
  ]);
  await pty.expect(/No such device or address/);
  await pty.expect(/UP/);
  await until("sleep runs", () => sleeps(5000));
  pty.type("\x03");
  assertEquals((await pty.end()).code, 130);
});

/** Pushes a character into the terminal that is the standard input, as TIOCSTI of ioctl(2) does. */
const PUSH = `
import fcntl, termios
try:
    fcntl.ioctl(0, termios.TIOCSTI, b"x")
    print("PUSHED", flush=True)
except OSError as error:
    print("REFUSED", error.errno, flush=True)
`;

test(
  "with --new-session a command of the user cannot push input into the terminal (TIOCSTI, CVE-2017-5226, CVE-2019-7303)",
  [
    "root",
    "user",
    "TIOCSTI",
    "package:python3",
  ],
  async () => {
    for (const [options, said] of [[[], "PUSHED"], [["--new-session"], "REFUSED 1"]] as const) {
      const run = [penne(), "run", "--net=none", ...options, "--", "python3", "-c", PUSH];
      using pty = new Pty(["/usr/bin/env", ...asUser(run)]);
      await pty.expect(new RegExp(said));
      await pty.end();
    }
  },
);

test("a penne in the background of a shell is stopped when its command reads the terminal", BASH, async () => {
  using pty = new Pty(SHELL);
  await pty.expect(/READY> /);
  const shell = pty.foreground;
  pty.type(`${penne()} run ${netOption()} -- sh -c 'read line; echo "got $line"' &\n`);
  await pty.expect(/\[1\]/);
  // The shell reports it with its next prompt.
  const asking = setInterval(() => pty.type("\n"), 500);
  try {
    await pty.expect(/Stopped/);
  } finally {
    clearInterval(asking);
  }
  pty.type("fg\n");
  await pty.expect(/run .*-- sh/);
  await pty.givenAway(shell);
  pty.type("text\n");
  await pty.expect(/got text/);
  pty.type("exit\n");
  await pty.end();
});

/** A program that puts the terminal into raw mode, and prints the mode after some seconds. */
const RAW = (seconds: number) =>
  `sh -c 'stty raw -echo </dev/tty; printf RAW; sleep ${seconds}; stty -a </dev/tty | grep -o "[-]*icanon"; stty sane </dev/tty'`;

test("a job in the background does not touch the settings of the program in the foreground", BASH, async () => {
  for (const job of ["sleep 0.6; exit 3", "sleep 0.6; kill -9 $$", "kill -STOP $$"]) {
    using pty = new Pty(SHELL);
    await pty.expect(/READY> /);
    pty.type(`${penne()} run ${netOption()} -- sh -c '${job}' &\n`);
    await pty.expect(/\[1\]/);
    pty.type(`${RAW(1.5)}\n`);
    await pty.expect(/RAW/);
    await pty.expect(/-icanon/);
    await pty.expect(/READY> /);
    pty.type("kill -9 %1; sleep 0.2; exit\n");
    pty.type("exit\n");
    await pty.end();
  }
});

test("a killed job in the background does not touch the settings either", BASH, async () => {
  using pty = new Pty(SHELL);
  await pty.expect(/READY> /);
  pty.type(`${penne()} run ${netOption()} -- sleep 7000.${OWN} &\n`);
  await pty.expect(/\[1\]/);
  await until("sleep runs", () => sleeps(7000));
  pty.type(`(sleep 0.5; kill -9 %1) & ${RAW(1.5)}\n`);
  await pty.expect(/RAW/);
  await pty.expect(/-icanon/);
  await pty.expect(/READY> /);
  pty.type("exit\n");
  await pty.end();
});

test("in a pipeline, penne leaves the terminal to its neighbour", BASH, async () => {
  using pty = new Pty(SHELL);
  await pty.expect(/READY> /);
  pty.type(`${penne()} run ${netOption()} -- sh -c 'sleep 0.6; exit 3' | ${RAW(1.5)}\n`);
  await pty.expect(/RAW/);
  await pty.expect(/-icanon/);
  await pty.expect(/READY> /);
  pty.type("exit\n");
  await pty.end();
});

test("a job that stops in the background leaves the shell its terminal", BASH, async () => {
  for (const shell of [SHELL, ["/bin/dash", "-i"]]) {
    using pty = new Pty(shell);
    await pty.expect(/READY> /);
    pty.type(`${penne()} run ${netOption()} -- cat &\n`);
    await new Promise((resolve) => setTimeout(resolve, 700));
    pty.type("echo still he''re\n");
    await pty.expect(/still here/);
    pty.type("kill %1; kill -CONT %1; exit\n");
    pty.type("exit\n");
    await pty.end();
  }
});

test("a hangup of the terminal ends penne as session leader", BASH, async () => {
  using pty = new Pty([...penneRun(), "--", "sleep", `8000.${OWN}`], { leads: true });
  await until("sleep runs", () => sleeps(8000));
  pty.hangUp();
  await until("it has ended", () => !sleeps(8000));
});

test("--new-session: Ctrl-Z stops penne and its command", BASH, async () => {
  using pty = new Pty(SHELL);
  await pty.expect(/READY> /);
  const shell = pty.foreground;
  pty.type(`${penne()} run ${netOption()} --new-session -- sleep 9000.${OWN}\n`);
  await until("sleep runs", () => sleeps(9000));
  await new Promise((resolve) => setTimeout(resolve, 100));
  pty.type("\x1a");
  await pty.expect(/Stopped/);
  await pty.expect(/READY> /);
  pty.type("fg\n");
  await pty.expect(/run .*--new-session/);
  await pty.givenAway(shell);
  await new Promise((resolve) => setTimeout(resolve, 300));
  pty.type("\x03");
  await pty.expect(/READY> /);
  pty.type("exit\n");
  await pty.end();
});

test("Ctrl-Z is ignored where no shell could continue penne, as for any program", BASH, async () => {
  const script = 'echo UP; while read x; do echo "got $x"; done';
  using pty = new Pty([...penneRun(), "--", "sh", "-c", script], { leads: true });
  await pty.expect(/UP/);
  pty.type("\x1a");
  await new Promise((resolve) => setTimeout(resolve, 300));
  pty.type("word\n");
  await pty.expect(/got word/);
});

test("a stopped penne ends when its shell is killed", BASH, async () => {
  using pty = new Pty(["/bin/sh", "-c", `${SHELL.join(" ")}; exit`], { adopt: false });
  await pty.expect(/READY> /);
  pty.type(`${penne()} run ${netOption()} -- sleep 9100.${OWN}\n`);
  await until("sleep runs", () => sleeps(9100));
  pty.type("\x1a");
  await pty.expect(/Stopped/);
  const shell = processes().find(({ ppid, cmdline }) => ppid === pty.pid && cmdline[0] === "/bin/bash")!;
  Deno.kill(shell.pid, "SIGKILL");
  await until("everything has ended", () => !sleeps(9100));
});

test("Ctrl-Z stops a whole pipeline, and fg continues it", BASH, async () => {
  for (
    const line of [
      `${penne()} run ${netOption()} -- sleep 9200.${OWN} | cat`,
      `echo | ${penne()} run ${netOption()} -- sleep 9200.${OWN}`,
    ]
  ) {
    using pty = new Pty(SHELL);
    await pty.expect(/READY> /);
    const shell = pty.foreground;
    pty.type(`${line}\n`);
    await until("sleep runs", () => sleeps(9200));
    pty.type("\x1a");
    await pty.expect(/Stopped/);
    await pty.expect(/READY> /);
    pty.type("fg\n");
    await pty.givenAway(shell);
    await new Promise((resolve) => setTimeout(resolve, 300));
    pty.type("\x03");
    await pty.expect(/READY> /);
    await until("everything has ended", () => !sleeps(9200));
    pty.type("exit\n");
    await pty.end();
  }
});

test("kill %1 ends a stopped job", BASH, async () => {
  using pty = new Pty(SHELL);
  await pty.expect(/READY> /);
  pty.type(`${penne()} run ${netOption()} -- sh -c 'echo UP; exec cat'\n`);
  await pty.expect(/\r\nUP/);
  await new Promise((resolve) => setTimeout(resolve, 100));
  pty.type("\x1a");
  await pty.expect(/Stopped/);
  await pty.expect(/READY> /);
  // A shell may say once more that the job is stopped, when it kills it.
  pty.type(`kill %1; while [ -n "$(jobs -s)" ]; do sleep 0.1; done\n`);
  await pty.expect(/READY> /);
  pty.type("jobs; echo done\n");
  const [text] = await pty.expect(/[^]*\r\ndone/);
  assertEquals(text.includes("Stopped   "), false, text);
  pty.type("exit\n");
  await pty.end();
});

test("signals during the start act as on any program", BASH, async () => {
  for (const [key, expected] of [["\x03", 130], ["\x1c", 131]] as const) {
    for (let i = 0; i < 25; i++) {
      using pty = new Pty([...penneRun(), "--", "sleep", `9300.${OWN}`]);
      await new Promise((resolve) => setTimeout(resolve, 15 + i * 4));
      pty.type(key);
      const { code, signal } = await pty.end();
      // Until penne catches signals, they kill penne itself.
      assertEquals(code === expected || signal === expected - 128, true, `${code} ${signal} ${pty.text}`);
    }
  }
  for (let i = 0; i < 25; i++) {
    using pty = new Pty(SHELL);
    await pty.expect(/READY> /);
    const shell = pty.foreground;
    pty.type(`${penne()} run ${netOption()} -- sleep 9400.${OWN}\n`);
    // As long as the job is still a fork of the shell, it ignores the key.
    await until("penne is in the foreground", () => pty.foreground !== shell && executes(pty.foreground, penne()));
    await new Promise((resolve) => setTimeout(resolve, i * 5));
    pty.type("\x1a");
    await pty.expect(/Stopped/);
    await pty.expect(/READY> /);
    pty.type("fg\n");
    await pty.givenAway(shell);
    await until("sleep runs", () => sleeps(9400));
    await new Promise((resolve) => setTimeout(resolve, 50));
    pty.type("\x03");
    await pty.expect(/READY> /);
    pty.type("exit\n");
    await pty.end();
  }
});
