// Many calls at once, and SIGKILL at any moment: no half-made set is ever used, and the next call repairs what is left.

import { assert, assertEquals } from "@std/assert";
import { IOCTL } from "../../ffi/core/consts.ts";
import { self } from "../../ffi/core/task.ts";
import { stat } from "../../ffi/sys/stat.ts";
import { PenneError } from "../../mod/base/errors.ts";
import { openKept } from "../../mod/kept/open.ts";
import { LOCK_LIMIT } from "../../mod/kept/store/lock.ts";
import { isAgent, processes, sh, test, TEST_USER, until } from "../lib/helpers.ts";
import { firstOutput, Place } from "./place.ts";

const SET_UP = ["--unshare", "user,uts,pid,ipc", "--", "true"];

/** Opens a set if it is there, and checks that its namespaces belong together. */
function look(place: Place, name: string): "complete" | "absent" | "broken" {
  try {
    using open = openKept(name, { directory: place.directory });
    assertEquals([...open.namespaces.keys()], ["user", "pid", "ipc", "uts"]);
    const user = stat(self, open.namespaces.get("user")!).ino;
    for (const type of ["pid", "ipc", "uts"] as const) {
      using owner = self.open("ioctl", open.namespaces.get(type)!, IOCTL.NS_GET_USERNS);
      assertEquals(stat(self, owner).ino, user, `the ${type} namespace is another set's`);
    }
    return "complete";
  } catch (error) {
    if (!(error instanceof PenneError)) throw error;
    if (error.message.startsWith("cannot find the kept set")) return "absent";
    if (error.message.startsWith("cannot use the kept set")) return "broken";
    throw error;
  }
}

/** The parts of the set named "control", which no test here may change. */
function fingerprint(place: Place): string {
  const info = Deno.readTextFileSync(`${place.ns}/control.info`);
  const files = place.files().filter((name) => name.startsWith("control.")).map((name) =>
    `${name} ${Deno.statSync(`${place.ns}/${name}`).ino}`
  );
  return [info, ...files].join("\n");
}

test("many names are kept at once, also in a new directory", ["root"], async () => {
  for (let i = 0; i < 4; i++) {
    using place = new Place();
    const names = Array.from({ length: 6 }, (_, n) => `name${n}`);
    await Promise.all(names.map((name) => place.must("keep", name, "--unshare", "uts", "--", "true")));
    const inspected = await Promise.all(names.map((name) => place.inspect(name)));
    assertEquals(inspected.map((one) => one?.problems), names.map(() => []));
    await place.must("drop", "--all");
    assertEquals(place.files(), []);
  }
});

test("fifty processes keep, open and drop one name at once", ["root", "user"], async (t) => {
  for (const user of [null, TEST_USER]) {
    await t.step(user ?? "root", async () => {
      using place = new Place(user);
      await place.must("keep", "control", ...SET_UP);
      const before = fingerprint(place);
      const count: Record<string, number> = {};
      const one = async (i: number) => {
        const [command, args] = ([["keep", SET_UP], ["inspect", []], ["drop", []]] as const)[i % 3]!;
        const { code, stdout, stderr } = await place.run(command, "hot", ...args);
        const said = code === 0
          ? "done"
          : stderr.includes("cannot find the kept set")
          ? "absent"
          : stderr.includes("that name is taken")
          ? "taken"
          : `${code}: ${stdout}${stderr}`;
        assert(["done", "absent", "taken"].includes(said), `${command}: ${said}`);
        count[`${command} ${said}`] = (count[`${command} ${said}`] ?? 0) + 1;
      };
      let done = false;
      const all = Promise.all(Array.from({ length: 50 }, (_, i) => one(i))).finally(() => done = true);
      const seen = { complete: 0, absent: 0, broken: 0 };
      while (!done) {
        if (user === null) seen[look(place, "hot")]++;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      await all;
      assertEquals(seen.broken, 0);
      // As many were dropped as were kept, except for one that may still exist.
      const left = (await place.inspect("hot"))?.complete ? 1 : 0;
      assertEquals((count["keep done"] ?? 0) - (count["drop done"] ?? 0), left, JSON.stringify(count));
      assertEquals(fingerprint(place), before);
    });
  }
});

test(
  "after SIGKILL at any moment the next call repairs what is left, and changes no other set",
  ["root", "user"],
  async (t) => {
    for (const user of [null, TEST_USER]) {
      await t.step(user ?? "root", async () => {
        using place = new Place(user);
        await place.must("keep", "control", ...SET_UP);
        const before = fingerprint(place);
        const times: number[] = [];
        const states: Record<string, number> = {};
        const rounds = 8;
        for (let i = 0; i < rounds; i++) {
          const dropping = i % 2 === 1;
          if (dropping && (await place.inspect("hot"))?.complete !== true) await place.must("keep", "hot", ...SET_UP);
          if (!dropping && (await place.inspect("hot")) !== null) await place.must("drop", "hot");
          const child = dropping ? place.spawn("drop", "hot") : place.spawn("keep", "hot", ...SET_UP);
          // Between its first steps and about its end, which depends on the machine.
          await new Promise((resolve) => setTimeout(resolve, 30 + Math.random() * 90));
          try {
            child.kill("SIGKILL");
          } catch {
            // It has ended already.
          }
          await child.status;
          if (user === null) {
            const state = look(place, "hot");
            states[state] = (states[state] ?? 0) + 1;
          }
          assertEquals(fingerprint(place), before);
          // The next call makes the set, whatever is left.
          const began = performance.now();
          const { code, stderr } = await place.run("keep", "hot", "--key", `${i}`, ...SET_UP);
          times.push(performance.now() - began);
          assertEquals(code, 0, stderr);
          assertEquals((await place.inspect("hot"))?.complete, true);
        }
        // No call waited for a lock of a process that was killed.
        assert(Math.max(...times) < LOCK_LIMIT * 0.8, `${times.map(Math.round)} ms; ${JSON.stringify(states)}`);
        await place.must("drop", "hot");
        assertEquals(fingerprint(place), before);
        // One holder is left, that of the other set.
        const ours = () =>
          processes().filter((one) => isAgent(one) && one.cmdline.some((word) => word.startsWith(place.ns)));
        await until("no other holder is left", () => ours().length === 1);
      });
    }
  },
);

test(
  "killed at any request to its agents, penne leaves only what the next call repairs",
  ["root", "package:strace"],
  async (t) => {
    using place = new Place();
    await place.must("keep", "control", ...SET_UP);
    const before = fingerprint(place);
    const killedAt = async (request: number, name: string, ...args: string[]) => {
      const inject = [
        "strace",
        "-o",
        "/dev/null",
        "-e",
        "trace=sendmsg",
        "-e",
        `inject=sendmsg:signal=KILL:when=${request}`,
      ];
      const { signal, code } = await sh([...inject, ...place.argv(name, ...args)], { cwd: "/" });
      return signal !== null || code === 137;
    };
    // penne changes files and mounts by requests only. Try every third one, from a random one on.
    const every = 3;
    const begin = 1 + Math.floor(Math.random() * every);
    const seen = new Set<string>();
    await t.step("keep", async () => {
      // The first twenty come before anything is made.
      for (let request = 20 + begin; await killedAt(request, "keep", "hot", ...SET_UP); request += every) {
        seen.add(look(place, "hot"));
        const began = performance.now();
        await place.must("keep", "hot", "--key", "next", ...SET_UP);
        assert(performance.now() - began < LOCK_LIMIT * 0.8);
        assertEquals(look(place, "hot"), "complete");
        assertEquals(fingerprint(place), before);
        await place.must("drop", "hot");
      }
    });
    assert(seen.has("absent") && seen.has("broken"), [...seen].join());
    await t.step("drop", async () => {
      await place.must("keep", "hot", "--key", "next", ...SET_UP);
      for (let request = begin; await killedAt(request, "drop", "hot"); request += every) {
        seen.add(look(place, "hot"));
        await place.must("keep", "hot", "--key", "next", ...SET_UP);
        assertEquals(look(place, "hot"), "complete");
        assertEquals(fingerprint(place), before);
      }
    });
    assert(seen.has("complete"), [...seen].join());
  },
);

test("what is left of a set that was half made or removed is reported, and removed", ["root"], async () => {
  using place = new Place();
  const break_ = async (what: string) => {
    await place.must("keep", "x", "--unshare", "uts,net", "--", "true");
    const result = await sh(["sh", "-ec", what], { cwd: place.ns });
    assertEquals(result.code, 0, result.stderr);
  };
  for (
    const [what, problem] of [
      ["rm x.info", "making or removing it was cut short"],
      ["umount x.net", "no namespace is mounted"],
      ["umount x.net; rm x.net", "does not exist"],
      ["rm x.info; umount x.net x.uts; rm x.uts", "making or removing it was cut short"],
      ["mv x.info x.info.new", "making or removing it was cut short"],
    ] as const
  ) {
    await break_(what);
    const inspected = await place.inspect("x");
    assertEquals(
      [inspected?.complete, inspected?.problems[0]?.includes(problem)],
      [false, true],
      JSON.stringify(inspected),
    );
    assertEquals(look(place, "x"), "broken");
    await place.must("drop", "--all");
    assertEquals(place.files(), [], what);
  }
  // The holder of a dropped set stays with the processes in it, even when no info file names it.
  await place.must("keep", "x", "--unshare", "user,pid", "--", "sh", "-c", "sleep 100 > /dev/null 2>&1 & :");
  const { occupants } = (await place.inspect("x"))!;
  assertEquals(occupants.map(({ comm }) => comm), ["sleep"]);
  await place.must("drop", "x", "--force");
  await break_("echo > x.info");
  await place.must("drop", "x");
  await new Promise((resolve) => setTimeout(resolve, 50));
  assertEquals(processes().some(({ pid }) => pid === occupants[0]!.pid), true);
  Deno.kill(occupants[0]!.pid, "SIGKILL");
  const holders = () => processes().filter(({ cmdline }) => cmdline[2]?.startsWith(`${place.ns}/x`));
  await until("the holder has ended too", () => holders().length === 0);
  // In another mount namespace, such as a container's, there may be another set of that path.
  const container = new Deno.Command("unshare", {
    args: [
      "-m",
      "sh",
      "-c",
      'mount -t tmpfs none "$1" && shift && "$@" && echo && cat > /dev/null',
      "-",
      place.directory,
      ...place.argv("keep", "x", "--unshare", "user,pid", "--", "true"),
    ],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  await firstOutput(container);
  assertEquals(holders().length, 1);
  await break_("echo > x.info");
  await place.must("drop", "x");
  assertEquals(holders().length, 1);
  Deno.kill(holders()[0]!.pid, "SIGKILL");
  await container.stdin.close();
  await container.status;
  // A namespace that was mounted several times is removed completely.
  await break_("mount --bind x.net x.net; mount --bind x.net x.net");
  await place.must("drop", "x");
  assertEquals(place.files(), []);
});
