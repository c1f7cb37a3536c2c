// penne enter: processes that are not where one would think: a penne, a process in our own namespaces, and those whose
// children are born elsewhere.

import { assertEquals, assertMatch } from "@std/assert";
import { enter, marker, Place } from "../enter/places.ts";
import { command, ownAgents, penne, processes, test, until } from "../lib/helpers.ts";

function sendKill(child: Deno.ChildProcess): void {
  try {
    child.kill("SIGKILL");
  } catch {
    // It has ended.
  }
}

const RUNS = [
  ["--net=none"],
  ["--net=none", "--no-init"],
  ["--net=none", "--unshare", "user,mnt"],
  ["--net=none", "--unshare", "user,uts"],
] as const;

test("a penne is refused, and its command named", ["user namespaces"], async (t) => {
  for (const options of RUNS) {
    await t.step(options.join(" "), async () => {
      const name = marker();
      const child = command([penne(), "run", ...options, "--", "sleep", name], {}, { stdout: "null" }).spawn();
      using cleanup = new DisposableStack();
      cleanup.defer(() => sendKill(child)); // PID 1 heeds no other
      const running = () => processes().find(({ cmdline }) => cmdline.join(" ") === `sleep ${name}`);
      await until("the command runs", () => running() !== undefined);
      const { pid } = running()!;
      const { code, stdout, stderr } = await enter([`${child.pid}`, "--", "echo", "ran"]);
      assertEquals([code, stdout], [125, ""]);
      assertEquals(
        stderr,
        `penne: cannot enter the namespaces of process ${child.pid}: it is a penne, outside of those of its command\n` +
          `hint: its command is process ${pid} (sleep): penne enter ${pid}\n`,
      );
      assertEquals((await enter([`${pid}`, "--", "echo", "ran"])).stdout, "ran\n");
      sendKill(child);
      await child.status;
    });
  }
});

test("a process in none but our own namespaces is named, and the command runs", async () => {
  for (const args of [[`${Deno.pid}`], ["--type", "net,pid", `${Deno.pid}`]]) {
    const { code, stdout, stderr } = await enter([...args, "--", "echo", "ran"]);
    assertEquals([code, stdout], [0, "ran\n"]);
    const where = `process ${Deno.pid} is in the namespaces that penne is in itself`;
    assertEquals(stderr, `penne: warning: ${where}: the command runs there\n`);
  }
  await asksForMore("--target-env");
});

/** Enters our own namespaces for something else, of which nothing is said. */
async function asksForMore(option: string): Promise<void> {
  const { stdout, stderr } = await enter([option, `${Deno.pid}`, "--", "echo", "ran"]);
  assertEquals([stdout, stderr.includes("is in the namespaces")], ["ran\n", false], stderr);
}

test("a process in none but our own namespaces is not named if its root is asked for", ["root"], async () => {
  await asksForMore("--root");
});

test("a process whose children are born in another pid namespace", ["package:util-linux"], async (t) => {
  const before = new Set(ownAgents().map(({ pid }) => pid));
  // The process that is entered is the one outside of the pid namespace, the parent of PID 1.
  await using place = await Place.open(["unshare", "-Urmpf", "--mount-proc", "--kill-child"]);
  const parent = processes().find(({ pid }) => pid === place.pid)!.ppid;
  const tell = ["--", "sh", "-c", "readlink /proc/self/ns/pid"];
  const inode = `pid:[${Deno.statSync(`/proc/${place.pid}/ns/pid`).ino}]\n`;
  await t.step("is warned of", async () => {
    const { stderr } = await enter([`${parent}`, "--", "true"]);
    assertEquals(
      stderr,
      `penne: warning: children of process ${parent} are in another pid namespace: --for-children joins that\n`,
    );
  });
  await t.step("and entered with them with --for-children", async () => {
    const { code, stdout: told, stderr } = await enter(["--for-children", `${parent}`, ...tell]);
    assertEquals([code, told, stderr], [0, inode, ""]);
    const { stdout } = await enter(["--for-children", "--type", "user,mnt,pid", `${parent}`, ...tell]);
    assertEquals(stdout, inode);
  });
  await t.step("which makes no difference for PID 1", async () => {
    const { code, stdout, stderr } = await enter(["--for-children", `${place.pid}`, ...tell]);
    assertEquals([code, stdout, stderr], [0, inode, ""]);
  });
  await t.step("nor without PID 1", async () => {
    await using alone = await Place.open(["unshare", "-Ur", "--pid"]);
    const { code, stderr } = await enter(["--for-children", `${alone.pid}`, "--", "true"]);
    assertEquals([code, stderr], [0, ""]);
  });
  await t.step("and is refused for what is no process", async () => {
    const { code, stderr } = await enter(["--for-children", "/proc/self/ns/net", "--", "true"]);
    assertEquals(code, 2);
    assertMatch(stderr, /names no process/);
  });
  await until("no agent is left", () => ownAgents().every(({ pid }) => before.has(pid)));
});
