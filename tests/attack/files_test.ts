// Files that penne opens again, or removes, in directories of others: the pid file, the log file and the output of watch.

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { O } from "../../ffi/core/consts.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { call, out, self } from "../../ffi/core/task.ts";
import { open, pipe, read } from "../../ffi/sys/file.ts";
import { AF, SOCK, SOL_SOCKET } from "../../ffi/net/constants.ts";
import { LogFile } from "../../mod/cli/report/log_file.ts";
import { Reporter } from "../../mod/cli/report/reporter.ts";
import { sendLine } from "../../mod/cli/report/send.ts";
import { command, penne, run, sh, test, TEST_USER, until } from "../lib/helpers.ts";

const SO_SNDBUF = 7;

const NEEDS = ["root", "user"] as const;

/** A directory of the test user, and one of root with a file that must stay as it is. */
class Scene implements Disposable {
  readonly theirs = Deno.makeTempDirSync({ prefix: "penne-theirs-" });
  readonly ours = Deno.makeTempDirSync({ prefix: "penne-ours-" });
  readonly victim = `${this.ours}/victim`;

  constructor() {
    Deno.writeTextFileSync(this.victim, "mine\n");
    Deno.chmodSync(this.theirs, 0o755);
    new Deno.Command("chown", { args: [TEST_USER, this.theirs] }).outputSync();
  }

  /** Makes the test user own what it is to have made, a symbolic link too. */
  async give(path: string): Promise<void> {
    await sh(["chown", "-h", TEST_USER, path]);
  }

  assertUntouched(): void {
    assertEquals(Deno.readTextFileSync(this.victim), "mine\n");
    assertEquals([...Deno.readDirSync(this.ours)].map(({ name }) => name), ["victim"]);
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.theirs, { recursive: true });
    Deno.removeSync(this.ours, { recursive: true });
  }
}

function exists(path: string): boolean {
  try {
    return !!Deno.lstatSync(path);
  } catch {
    return false;
  }
}

/** Ends with the code, within some seconds. */
async function endsWith(child: Deno.ChildProcess, code: number): Promise<void> {
  let status: Deno.CommandStatus | null = null;
  child.status.then((ended) => status = ended);
  try {
    await until("penne has ended", () => status !== null);
  } catch (error) {
    child.kill("SIGKILL");
    await child.status;
    throw error;
  }
  assertEquals(status!.code, code);
}

test(
  "a pid file that was replaced does not block the end, and is not removed",
  [...NEEDS, "package:python3"],
  async (t) => {
    const replacements: [string, (file: string, scene: Scene) => Promise<unknown>][] = [
      ["a FIFO", (file) => sh(["mkfifo", file])],
      ["a symbolic link", async (file, { victim }) => await Deno.symlink(victim, file)],
      ["a device that blocks", (file) => sh(["mknod", file, "c", "5", "0"])],
      ["a directory", async (file) => await Deno.mkdir(file)],
      ["a socket", (file) => sh(["python3", "-c", `import socket; socket.socket(socket.AF_UNIX).bind("${file}")`])],
      ["another file", async (file) => await Deno.writeTextFile(file, "1\n")],
      ["another file with the same pid", (file) => sh(["sh", "-c", `cat ${file}.old >${file}`])],
      ["nothing", () => Promise.resolve()],
    ];
    for (const [name, replace] of replacements) {
      await t.step(name, async () => {
        using scene = new Scene();
        const file = `${scene.theirs}/p.pid`;
        const argv = [penne(), "run", "--net=none", "--pid-file", file, "--", "sh", "-c", "read x; exit 7"];
        const child = command(argv, {}, { stdin: "piped" }).spawn();
        await until("the pid file is there", () => exists(file));
        await Deno.rename(file, `${file}.old`);
        await replace(file, scene);
        const there = exists(file);
        await child.stdin.close();
        await endsWith(child, 7);
        assertEquals(exists(file), there);
        scene.assertUntouched();
      });
    }
  },
);

test(
  "names that others have taken in a sticky directory do not keep a user from writing a pid file",
  NEEDS,
  async () => {
    const directory = Deno.makeTempDirSync({ prefix: "penne-sticky-" });
    Deno.chmodSync(directory, 0o1777);
    // The pid is that of the shell, which executes penne once the names are taken.
    const script = 'echo mine >"$1/p.pid.$$"; chmod 600 "$1/p.pid.$$"; shift; ' +
      `exec setpriv --reuid ${TEST_USER} --regid ${TEST_USER} --clear-groups "$@"`;
    const argv = [penne(), "run", "--net=none", "--pid-file", `${directory}/p.pid`, "--", "cat", `${directory}/p.pid`];
    const { code, stdout, stderr } = await sh(["sh", "-c", script, "sh", directory, ...argv], { cwd: "/" });
    assertEquals([code, stderr], [0, ""]);
    assertEquals([...Deno.readDirSync(directory)].map(({ name }) => name), [`p.pid.${stdout.trim()}`]);
    assertEquals(Deno.readTextFileSync(`${directory}/p.pid.${stdout.trim()}`), "mine\n");
    Deno.removeSync(directory, { recursive: true });
  },
);

test("a directory that turns into a symbolic link leads a pid file nowhere", NEEDS, async (t) => {
  await t.step("at the end", async () => {
    using scene = new Scene();
    const directory = `${scene.theirs}/run`;
    await Deno.mkdir(directory);
    await scene.give(directory);
    const argv = [
      penne(),
      "run",
      "--net=none",
      "--pid-file",
      `${directory}/victim`,
      "--",
      "sh",
      "-c",
      "read x; exit 7",
    ];
    const child = command(argv, {}, { stdin: "piped" }).spawn();
    await until("the pid file is there", () => exists(`${directory}/victim`));
    await Deno.copyFile(`${directory}/victim`, scene.victim); // the very pid
    await Deno.rename(directory, `${directory}.old`);
    await Deno.symlink(scene.ours, directory);
    await scene.give(directory);
    await child.stdin.close();
    await endsWith(child, 7);
    assert(exists(scene.victim));
  });
  await t.step("from the start", async () => {
    using scene = new Scene();
    const directory = `${scene.theirs}/run`;
    await Deno.symlink(scene.ours, directory);
    await scene.give(directory);
    const { code, stderr } = await run(["--net=none", "--pid-file", `${directory}/victim`, "--", "true"]);
    assertEquals(code, 125);
    assertStringIncludes(stderr, `"run" in it is a symbolic link of user `);
    scene.assertUntouched();
  });
});

test("the log file and the output of watch do not follow links of others, and do not block", NEEDS, async (t) => {
  const cases: [string, string[]][] = [
    ["--log-file", [penne(), "inspect", "none", "--log-file"]],
    ["watch -o", [penne(), "watch", "--duration", "0.1", "-o"]],
  ];
  for (const [name, argv] of cases) {
    for (const target of ["victim", "new"]) {
      await t.step(`${name}: a link to ${target}`, async () => {
        using scene = new Scene();
        const link = `${scene.theirs}/file`;
        await Deno.symlink(`${scene.ours}/${target}`, link);
        await scene.give(link);
        const { code, stderr } = await sh([...argv, link]);
        assert(code !== 0);
        assertStringIncludes(stderr, `"file" in it is a symbolic link of user `);
        scene.assertUntouched();
      });
      await t.step(`${name}: a directory that is a link, to ${target}`, async () => {
        using scene = new Scene();
        await Deno.symlink(scene.ours, `${scene.theirs}/dir`);
        await scene.give(`${scene.theirs}/dir`);
        const { stderr } = await sh([...argv, `${scene.theirs}/dir/${target}`]);
        assertStringIncludes(stderr, `"dir" in it is a symbolic link of user `);
        scene.assertUntouched();
      });
    }
    await t.step(`${name}: links of root and of the caller are followed`, async () => {
      using scene = new Scene();
      await Deno.symlink("../ours/./deep/..//file", `${scene.ours}/link`);
      const ours = scene.ours.slice(scene.ours.lastIndexOf("/") + 1);
      await Deno.remove(`${scene.ours}/link`);
      await Deno.mkdir(`${scene.ours}/deep`);
      await Deno.symlink(`../${ours}/./deep/..//file`, `${scene.ours}/link`);
      await Deno.symlink(`${scene.ours}/link`, `${scene.ours}/again`);
      await sh([...argv, `${scene.ours}/again`, "--log-level", "debug"]);
      assert(Deno.readTextFileSync(`${scene.ours}/file`) !== "");
      const { stdout } = await sh(["sh", "-c", `"$@" /dev/fd/3 3>&1 | cat`, "sh", ...argv]);
      assert(stdout !== "");
      const looped = `${scene.ours}/loop`;
      await Deno.symlink(looped, looped);
      const { stderr } = await sh([...argv, looped]);
      assertStringIncludes(stderr, "(ELOOP)");
    });
  }
  await t.step("--log-file: a FIFO that nobody reads", async () => {
    using scene = new Scene();
    const fifo = `${scene.theirs}/log`;
    await sh(["mkfifo", fifo]);
    const child = command([penne(), "run", "--net=none", "--log-file", fifo, "--", "true"]).spawn();
    await endsWith(child, 125);
  });
  await t.step("--log-file: a second name of another file", async () => {
    using scene = new Scene();
    const other = `${scene.theirs}/other`;
    await Deno.writeTextFile(other, "theirs\n");
    await Deno.link(other, `${scene.theirs}/log`);
    const { stderr } = await sh([penne(), "inspect", "none", "--log-file", `${scene.theirs}/log`]);
    assertStringIncludes(stderr, "it has a second name (a hard link)");
    assertEquals(await Deno.readTextFile(other), "theirs\n");
  });
});

test("a log that is not read loses lines, and penne goes on", () => {
  const directory = Deno.makeTempDirSync({ prefix: "penne-fifo-" });
  const fifo = `${directory}/log`;
  new Deno.Command("mkfifo", { args: [fifo] }).outputSync();
  {
    using reader = open(self, fifo, O.RDONLY | O.NONBLOCK);
    using log = new LogFile(fifo, 1024);
    const line = new TextEncoder().encode(`${"x".repeat(1023)}\n`);
    const start = performance.now();
    for (let i = 0; i < 500; i++) log.append(line);
    assert(performance.now() - start < 10_000);
    // Once it is read again, later lines arrive.
    const buffer = new Uint8Array(1 << 16);
    read(reader, buffer);
    log.append(new TextEncoder().encode("later\n"));
    let text = "";
    for (let n = 1; n > 0;) {
      n = self.raw("read", reader, out(buffer), buffer.length);
      if (n > 0) text += new TextDecoder().decode(buffer.subarray(0, n));
    }
    assert(text.endsWith("later\n"));
  }
  Deno.removeSync(directory, { recursive: true });
});

test("a status descriptor may be a socket of any kind, and be read slowly or not at all", async (t) => {
  for (
    const [name, kind] of [["stream", SOCK.STREAM], ["seqpacket", SOCK.SEQPACKET], ["datagram", SOCK.DGRAM]] as const
  ) {
    await t.step(name, () => {
      const ends = new Int32Array(2);
      call(self, "socketpair", AF.UNIX, kind | SOCK.CLOEXEC, 0, out(new Uint8Array(ends.buffer)));
      using ours = new Fd(ends[0]!);
      using theirs = new Fd(ends[1]!);
      const small = new Uint8Array(new Uint32Array([1]).buffer);
      call(self, "setsockopt", ours, SOL_SOCKET, SO_SNDBUF, small, small.length);
      const line = new TextEncoder().encode(`${"x".repeat(20_000)}\n`);
      const start = performance.now();
      let [sent, last] = [0, 1];
      for (let i = 0; i < 50 && last > 0; i++) sent += last = sendLine(ours, line, 0);
      assert(performance.now() - start < 10_000, `${performance.now() - start} ms`);
      assert(sent < 50 * line.length);
      assertEquals(theirs.closed, false);
    });
  }
  await t.step("a pipe", () => {
    const [reader, writer] = pipe();
    using _reader = reader;
    using _writer = writer;
    const line = new Uint8Array(100_000);
    assert(sendLine(writer, line, 0) < line.length);
    assertEquals(sendLine(writer, line, 0), 0);
  });
  await t.step("a reader that comes back finds whole lines after the one that was cut short", () => {
    const [reader, writer] = pipe();
    using _reader = reader;
    const report = new Reporter({ ready: null, status: writer, pidFile: null });
    report.event({ event: "long", text: "x".repeat(100_000) });
    let text = "";
    const drain = (until: number) => {
      const buffer = new Uint8Array(1 << 16);
      while (text.length < until) text += new TextDecoder().decode(buffer.subarray(0, read(reader, buffer)));
    };
    drain(1 << 16);
    report.event({ event: "later" });
    writer.close();
    drain(text.length + 10);
    assertEquals(JSON.parse(text.split("\n").at(-2)!), { event: "later" });
  });
});
