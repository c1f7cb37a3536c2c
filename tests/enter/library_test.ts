// enter() from a Deno program that is not penne.

import "../lib/preload.ts";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { enter, type EnterOptions, PenneError, spawn } from "../../mod/mod.ts";
import { test } from "../lib/helpers.ts";
import { Place } from "./places.ts";

/** Descriptors and children of this process. */
function belongings(): { fds: number; children: string } {
  return {
    fds: Array.from(Deno.readDirSync("/proc/self/fd")).length,
    children: Deno.readTextFileSync(`/proc/self/task/${Deno.pid}/children`),
  };
}

test("enter() returns code and signal, and leaves nothing in this process", async () => {
  using box = spawn({ command: ["sleep", "100"], hostname: "box" });
  const target = `${box.pid}`;
  const all = async () => {
    using first = enter({ target, command: ["sh", "-c", "exit 42"] });
    assertEquals(await first.status, { success: false, code: 42, signal: null });
    using second = enter({ target, types: ["user", "uts"], command: ["sh", "-c", "kill -15 $$"] });
    assertEquals(await second.status, { success: false, code: 143, signal: "SIGTERM" });
    assertThrows(() => enter({ target, command: ["/no/such"] }), Deno.errors.NotFound);
    assertThrows(() => enter({ target, command: ["true"], cwd: "/no/such" }), Deno.errors.NotFound);
    assertThrows(() => enter({ target: "4194304", command: ["true"] }), PenneError, "(ESRCH)");
    assertThrows(() => enter({ target: "no-such-set", command: ["true"] }), PenneError);
  };
  await all(); // whatever the runtime opens once, it has opened by then
  const before = belongings();
  for (let i = 0; i < 5; i++) await all();
  const after = belongings();
  assertEquals(after.children, before.children);
  assertEquals(after.fds - before.fds < 5, true, `${before.fds} descriptors became ${after.fds}`);
});

test("enter() returns pid and namespaces, sends signals, and ends the command with `using`", async () => {
  using box = spawn({ command: ["sleep", "100"] });
  let pid: number;
  {
    using child = enter({ target: `${box.pid}`, command: ["sleep", "100"] });
    pid = child.pid;
    assertEquals(`net:[${child.namespaces.net?.inum}]`, Deno.readLinkSync(`/proc/${box.pid}/ns/net`));
    assertEquals(Deno.readLinkSync(`/proc/${pid}/ns/pid`), Deno.readLinkSync(`/proc/${box.pid}/ns/pid`));
  }
  assertEquals(await Deno.stat(`/proc/${pid}`).then(() => "there", () => "gone"), "gone");
  using other = enter({ target: `${box.pid}`, command: ["sleep", "100"] });
  other.kill("SIGUSR1");
  assertEquals(await other.status, { success: false, code: 138, signal: "SIGUSR1" });
  using last = enter({ target: `${box.pid}`, command: ["sleep", "100"], killSignal: "SIGTERM" });
  assertEquals(last.end(), { success: false, code: 143, signal: "SIGTERM" });
});

test("enter() refuses wrong options before it opens anything", () => {
  const target = `${Deno.pid}`;
  const wrong = [
    { target: "" },
    { target: "0" },
    { target: "a\0b" },
    { target: "/a\0b" },
    { target, types: ["foo"] },
    { target, cwd: "" },
    { target, keepFds: [1] },
    { target, killSignal: "FOO" },
    { target, env: { "": "x" } },
    { target, user: 5 },
    { target: "box", layout: "foo" },
    { target: "box", cgroup: true },
    { target, targetEnv: true, clearEnv: true },
    { target, uid: 1, preserveCredentials: true },
  ] as unknown as EnterOptions[];
  for (const options of wrong) {
    const error = assertThrows(() => enter({ command: ["true"], ...options }));
    const usage = error instanceof TypeError || error instanceof PenneError && error.usage;
    assert(usage, `${error}`);
  }
});

test(
  "root in a user's namespaces is that user, outside",
  ["root", "user", "package:util-linux"],
  async () => {
    await using place = await Place.all({ user: true });
    const file = `/tmp/penne-enter-${Deno.pid}`;
    using child = enter({ target: `${place.pid}`, command: ["touch", file] });
    assertEquals((await child.status).code, 0);
    const { uid, gid } = await Deno.stat(file);
    const owner = await Deno.stat(`/proc/${place.pid}`);
    assertEquals([uid, gid], [owner.uid, owner.gid]);
    await Deno.remove(file);
  },
);
