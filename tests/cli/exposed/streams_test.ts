// Standard descriptors that are no terminals: penne copies the bytes of a command that others may trace.

import { assert, assertEquals, assertMatch } from "@std/assert";
import { command, penne, processes, sh, test, until } from "../../lib/helpers.ts";
import { Pty } from "../../lib/pty.ts";
import { eachWay, TEST_UID } from "./victims.ts";

const NEEDS = ["root", "user", "user namespaces", "package:bash", "package:coreutils"] as const;
const RUN = [penne(), "run", "--unshare", "pid,mnt", "--uid", `${TEST_UID}`];
const LINE = RUN.join(" ");

/** Runs a line of bash to its end. */
const bash = (script: string) => sh(["bash", "-c", script], { cwd: "/" });

/** Processor time of a process, in clock ticks. */
function ticks(pid: number): number {
  const fields = Deno.readTextFileSync(`/proc/${pid}/stat`).replace(/^.*\)/s, "").trim().split(" ");
  return Number(fields[11]) + Number(fields[12]);
}

/** A directory that every user can read. */
class Directory implements Disposable {
  readonly path = Deno.makeTempDirSync({ prefix: "penne-stream-" });

  constructor() {
    Deno.chmodSync(this.path, 0o755);
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.path, { recursive: true });
  }
}

test("output, errors, input and exit code pass", NEEDS, async (t) => {
  await eachWay(async ({ name, argv }) => {
    await t.step(name, async () => {
      const words = [...argv, "sh", "-c", `'tr a-z A-Z; echo bad >&2; test -t 0 || test -t 1 || exit 7'`].join(" ");
      const { code, stdout, stderr } = await bash(`printf 'one\\ntwo\\n' | ${words}`);
      assertEquals([code, stdout, stderr], [7, "ONE\nTWO\n", "bad\n"]);
    });
  });
});

test("10 MB pass whole, through pipes and files, and a reader or writer may be slow", NEEDS, async (t) => {
  using directory = new Directory();
  const file = `${directory.path}/random`;
  const out = `${directory.path}/out`;
  await bash(`head -c 10000000 /dev/urandom >${file}`);
  const sum = (await bash(`sha256sum <${file}`)).stdout;
  const ways: [string, string][] = [
    ["pipe to pipe", `cat ${file} | ${LINE} -- cat | sha256sum`],
    ["file to pipe", `${LINE} -- cat <${file} | sha256sum`],
    ["pipe to file", `cat ${file} | ${LINE} -- cat >${out}; sha256sum <${out}`],
    ["appended to a file", `: >${out}; ${LINE} -- cat <${file} >>${out}; sha256sum <${out}`],
    ["stderr", `${LINE} -- sh -c 'cat >&2' <${file} 2>&1 >/dev/null | sha256sum`],
    ["a slow reader", `${LINE} -- cat <${file} | (sleep 1; sha256sum)`],
    ["a slow writer", `(head -c 5000000 ${file}; sleep 1; tail -c +5000001 ${file}) | ${LINE} -- cat | sha256sum`],
    ["what a killed pipeline inside leaves", `${LINE} -- sh -c 'cat; sleep 100 &' <${file} | sha256sum`],
  ];
  for (const [name, line] of ways) {
    await t.step(name, async () => {
      const { stdout, stderr } = await bash(line);
      assertEquals([stdout, stderr], [sum, ""]);
    });
  }
});

test(
  "10 MB pass whole through the terminal, and so does what is typed",
  NEEDS,
  async (t) => {
    using directory = new Directory();
    await t.step("output", async () => {
      const text = `${directory.path}/text`;
      await bash(`head -c 7500000 /dev/urandom | base64 >${text}`);
      using pty = new Pty([...RUN, "--", "cat", text]);
      const { code } = await pty.end();
      assertEquals(code, 0);
      assert(pty.text === Deno.readTextFileSync(text).replaceAll("\n", "\r\n"), `${pty.text.length} bytes`);
    });
    await t.step("input", async () => {
      using pty = new Pty([...RUN, "--", "sh", "-c", "stty raw -echo; echo UP; head -c 200000 | sha256sum"]);
      await pty.expect(/UP/);
      const text = "0123456789abcdef".repeat(12500);
      for (let at = 0; at < text.length; at += 1000) {
        pty.type(text.slice(at, at + 1000));
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      const [sum] = await pty.expect(/[0-9a-f]{64}/);
      const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
      assertEquals(sum, Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join(""));
    });
  },
);

test("the end of the input reaches the command, which may go on writing", NEEDS, async () => {
  const cases = [
    [`echo in | ${LINE} -- sh -c 'cat; sleep 0.3; echo after'`, "in\nafter\n"],
    [`${LINE} -- sh -c 'cat; echo end' </dev/null`, "end\n"],
    [`${LINE} -- sh -c 'cat; echo end' <&-`, "end\n"],
    [`yes | ${LINE} -- sh -c 'exec <&-; sleep 0.2; echo end'`, "end\n"],
    [`${LINE} -- sh -c 'cat; echo end' </`, "end\n"],
  ];
  for (const [line, expected] of cases) assertEquals((await bash(line!)).stdout, expected!, line);
});

test("a reader that has gone ends the command, and a full disk is reported", NEEDS, async () => {
  const ended = await bash(`${LINE} -- yes | head -1; echo \${PIPESTATUS[0]}`);
  assertEquals(ended.stdout, `y\n${128 + 13}\n`);
  const full = await bash(`${LINE} -- sh -c 'head -c 1000000 /dev/zero; exit 3' >/dev/full; echo $?`);
  assertMatch(full.stderr, /penne: warning: cannot write to stdout: No space left on device/);
});

test("stdout and stderr keep their order where they are one file", NEEDS, async () => {
  const script = `'for i in 1 2 3 4 5 6 7 8 9; do echo $i; echo e$i >&2; done'`;
  const { stdout } = await bash(`${LINE} -- sh -c ${script} 2>&1 | cat`);
  assertEquals(stdout, [1, 2, 3, 4, 5, 6, 7, 8, 9].map((i) => `${i}\ne${i}\n`).join(""));
});

test("the command may open its outputs by name, as programs do", NEEDS, async (t) => {
  await eachWay(async ({ name, argv }) => {
    await t.step(name, async () => {
      const words = [...argv, "sh", "-c", `'echo out >/dev/stdout; echo err >/dev/stderr'`].join(" ");
      const { stdout, stderr } = await bash(`${words} | cat`);
      assertEquals([stdout, stderr], ["out\n", "err\n"]);
    });
  });
});

test("programs that share a file as input go on behind what the command has read", NEEDS, async () => {
  using directory = new Directory();
  const list = `${directory.path}/list`;
  await bash(`seq 1 50000 >${list}`);
  const { stdout } = await bash(`(read a; ${LINE} -- true; read b; ${LINE} -- sh -c 'read x; read y'; read c
    echo $a $b $c) <${list}`);
  assertEquals(stdout, "1 2 5\n");
});

test("penne does not run while nothing moves", NEEDS, async (t) => {
  const lines = [
    ["nothing to read", `sleep 1000 | ${LINE} -- sleep 1000 | cat`],
    ["a full pipe", `${LINE} -- yes | sleep 1000`],
    ["a command that does not read", `yes | ${LINE} -- sleep 1000`],
    ["an input that has ended", `: | ${LINE} -- sleep 1000 | cat`],
    ["an output that is closed", `${LINE} -- sh -c 'exec >&- 2>&-; sleep 1000' | cat`],
    ["a reader that has gone", `${LINE} -- sleep 1000 | true`],
  ];
  for (const [name, line] of lines) {
    await t.step(name!, async () => {
      // With a process group of its own, which ends with the step.
      const argv = ["setsid", "bash", "-c", line!];
      const child = command(argv, { cwd: "/" }, { stdin: "null", stdout: "null", stderr: "null" }).spawn();
      const found = () => processes().find(({ cmdline }) => cmdline[0] === penne());
      try {
        await until("penne runs", () => found() !== undefined);
        const { pid } = found()!;
        await new Promise((resolve) => setTimeout(resolve, 500)); // for its start, which may take longer
        const used: number[] = [];
        while (used.length < 100 && used.at(-1) !== 0) {
          const before = ticks(pid);
          await new Promise((resolve) => setTimeout(resolve, 300));
          used.push(ticks(pid) - before);
        }
        assertEquals(used.at(-1), 0, `${used} ticks in a row`);
      } finally {
        Deno.kill(-child.pid, "SIGTERM");
        await child.status;
        await until("penne has ended", () => found() === undefined); // it may outlive the shell
      }
    });
  }
});

test("a reader that does not read does not keep penne from ending on a signal", NEEDS, async () => {
  using directory = new Directory();
  const fifo = `${directory.path}/fifo`;
  // The command ends at once, and leaves more than the fifo takes.
  const { stdout } = await bash(`mkfifo ${fifo}; sleep 5 <>${fifo} &
    ${LINE} -- sh -c 'head -c 120000 /dev/zero' >${fifo} & sleep 1; kill $!; wait $!; echo $?`);
  assertEquals(stdout, "143\n");
});
