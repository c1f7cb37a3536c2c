// spawn() and run() from a Deno program that is not penne.

import "../lib/preload.ts";
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { PenneError, run, type RunOptions, spawn } from "../../mod/mod.ts";
import { ROOT, sh, test } from "../lib/helpers.ts";

/** Descriptors and children of this process. */
function belongings(): { fds: number; children: string } {
  return {
    fds: Array.from(Deno.readDirSync("/proc/self/fd")).length,
    children: Deno.readTextFileSync(`/proc/self/task/${Deno.pid}/children`),
  };
}

test("run() returns code and signal, and leaves nothing in this process", async () => {
  const all = async () => {
    assertEquals(await run({ command: ["sh", "-c", "exit 42"] }), { success: false, code: 42, signal: null });
    assertEquals(await run({ command: ["sh", "-c", "kill -15 $$"] }), { success: false, code: 143, signal: "SIGTERM" });
    assertEquals(await run({ command: ["true"], unshare: ["user", "net"] }), { success: true, code: 0, signal: null });
    assertEquals(await run({ command: ["true"], init: false }), { success: true, code: 0, signal: null });
    assertThrows(() => spawn({ command: ["/no/such"] }), Deno.errors.NotFound);
    assertThrows(() => spawn({ command: ["true"], cwd: "/no/such" }), Deno.errors.NotFound);
    const alone = { command: ["true"], unshare: ["user", "net"], init: false, cwd: "/no/such" } as const;
    assertThrows(() => spawn(alone), Deno.errors.NotFound);
  };
  await all(); // whatever the runtime opens once, it has opened by then
  const before = belongings();
  for (let i = 0; i < 5; i++) await all();
  const after = belongings();
  assertEquals(after.children, before.children);
  assertEquals(after.fds - before.fds < 5, true, `${before.fds} descriptors became ${after.fds}`);
});

test("end() and the end of a block settle status, which can be read again", async () => {
  const ended = spawn({ command: ["sleep", "100"] });
  const status = ended.status;
  assertEquals(ended.end(), { success: false, code: 137, signal: "SIGKILL" });
  assertEquals([await status, await ended.status], Array(2).fill({ success: false, code: 137, signal: "SIGKILL" }));
  let pending: Promise<unknown>;
  {
    using child = spawn({ command: ["sleep", "100"], init: false });
    pending = child.status;
  }
  assertEquals(await pending, { success: false, code: 137, signal: "SIGKILL" });
});

test("a child's pid is still known after its end", async () => {
  const child = spawn({ command: ["true"] });
  await new Promise((resolve) => setTimeout(resolve, 200));
  const { pid } = child;
  assertEquals(pid > 1, true);
  await child.status;
  assertEquals(child.pid, pid);
});

test("forty children do not keep the program from its own file I/O", async () => {
  const children = Array.from({ length: 40 }, () => spawn({ command: ["sleep", "1000"] }));
  const all = Promise.all(children.map((child) => child.status));
  await Deno.readTextFile("/etc/passwd"); // would wait for the children's ends if each held a thread
  children.forEach((child) => child.kill("SIGTERM"));
  assertEquals((await all).every(({ signal }) => signal === "SIGTERM"), true);
});

test("spawn() does not block the event loop, and several run side by side", async () => {
  let ticks = 0;
  const timer = setInterval(() => ticks++, 5);
  const children = [1, 2, 3].map((code) => spawn({ command: ["sh", "-c", `sleep 0.3; exit ${code}`] }));
  const codes = await Promise.all(children.map((child) => child.status));
  clearInterval(timer);
  assertEquals(codes.map(({ code }) => code), [1, 2, 3]);
  assertEquals(ticks > 10, true);
});

test("spawn() returns pid and namespaces, sends signals, and ends the command with `using`", async () => {
  let pid: number;
  {
    using child = spawn({ command: ["sleep", "100"] });
    pid = child.pid;
    assertEquals(`net:[${child.namespaces.net?.inum}]`, Deno.readLinkSync(`/proc/${pid}/ns/net`));
    assertMatch(child.namespaces.net?.id ?? "1", /^\d+$/);
  }
  assertThrows(() => Deno.statSync(`/proc/${pid}`), Deno.errors.NotFound);
  using other = spawn({ command: ["sleep", "100"] });
  other.kill("SIGUSR1");
  assertEquals(await other.status, { success: false, code: 138, signal: "SIGUSR1" });
  assertThrows(() => other.kill(), TypeError, "already terminated");
});

test("end() sends the command its kill signal first", async () => {
  using child = spawn({
    command: ["sh", "-c", "trap 'exit 6' TERM; while :; do sleep 0.02; done"],
    killSignal: "SIGTERM",
  });
  await new Promise((resolve) => setTimeout(resolve, 300));
  const status = child.status;
  child.kill("SIGTERM");
  assertEquals(await status, { success: false, code: 6, signal: null });
  child.end();
});

test("spawn() refuses wrong options before it makes anything", async () => {
  const wrong = [
    { hostname: "" },
    { uid: 5 },
    { net: "host", unshare: ["net"] },
    { map: { users: [] } },
    { map: { users: [{ inside: 0, outside: 0, count: 0 }] } },
    { map: { users: [{ inside: 0.5, outside: 0, count: 1 }] } },
    { map: { mode: "x" } },
    { unshare: ["foo"] },
    { keepFds: [-1] },
    { net: "tun" },
    { killSignal: "FOO" },
  ] as RunOptions[];
  for (const options of wrong) {
    const error = assertThrows(() => spawn(options));
    if (error instanceof TypeError) continue;
    assert(error instanceof PenneError && error.usage, `${error}`);
    await error.hints();
  }
});

test("another program needs nothing but the modules, and --allow-ffi alone", async () => {
  const directory = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(
      `${directory}/program.ts`,
      `import { run } from "${new URL(`file://${ROOT}mod/mod.ts`)}";
       const { code } = await run({ command: ["sh", "-c", "exit $(($(id -u) + 11))"] });
       Deno.exit(code);`,
    );
    const args = ["run", "--quiet", "--no-lock", "--no-config", "--allow-ffi", `${directory}/program.ts`];
    const result = await sh([Deno.execPath(), ...args], { cwd: directory });
    assertEquals([result.code, result.stderr], [11, ""]);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
