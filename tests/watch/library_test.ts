// watch() in another Deno program: start, end, and slow readers.

import "../lib/preload.ts";
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { PenneError } from "../../mod/base/errors.ts";
import { type TimedEvent, watch } from "../../mod/watch/mod.ts";
import { test, until } from "../lib/helpers.ts";
import { NEEDS_OF_BACKEND } from "../lib/needs.ts";

// The pool that waits for descriptors keeps its own open for the life of the process.
for await (const _ of watch({ backend: "poll" })) break;

function openFds(): number {
  return [...Deno.readDirSync("/proc/self/fd")].length;
}

/** Runs a program to its end, and returns its pid. */
async function runTrue(): Promise<number> {
  const child = new Deno.Command("true").spawn();
  await child.status;
  return child.pid;
}

for (const backend of ["ebpf", "proc", "poll"] as const) {
  test(
    `${backend}: events since the call are emitted, whenever the iteration begins`,
    ["root", ...NEEDS_OF_BACKEND[backend]],
    async () => {
      const events = watch({ backend, interval: 30, trees: [Deno.pid] });
      // Long enough for several readings of /proc.
      const child = new Deno.Command("sleep", { args: [backend === "poll" ? "3" : "0.3"] }).spawn();
      await child.status;
      const seen: TimedEvent[] = [];
      for await (const event of events) {
        seen.push(event);
        if (event.event === "exit" && event.pid === child.pid) break;
      }
      assertEquals(seen[0]?.event, "capabilities");
      assert(seen.some((event) => event.event === "fork" && event.pid === child.pid));
      assert(seen.every(({ time }) => /^\d{4}-.*Z$/.test(time)));
    },
  );

  test(
    `${backend}: the signal ends the iteration with its reason, and nothing stays open`,
    ["root", ...NEEDS_OF_BACKEND[backend]],
    async () => {
      for await (const _ of watch({ backend })) break; // opens what stays open for the life of the process
      await new Promise((resolve) => setTimeout(resolve, 50));
      const before = openFds();
      for (const when of ["before", "while waiting"]) {
        const controller = new AbortController();
        const reason = new Error("enough");
        const events = watch({ backend, signal: controller.signal, events: ["name"] });
        if (when === "before") controller.abort(reason);
        else setTimeout(() => controller.abort(reason), 50);
        await assertRejects(
          async () => {
            for await (const _ of events);
          },
          Error,
          "enough",
        );
        assertThrows(() => watch({ signal: controller.signal }), Error, "enough");
      }
      await until("nothing stays open", () => openFds() <= before);
    },
  );

  test(
    `${backend}: an iteration can be ended before it begins, and while it waits`,
    ["root", ...NEEDS_OF_BACKEND[backend]],
    async () => {
      await watch({ backend }).return();
      await new Promise((resolve) => setTimeout(resolve, 50));
      const before = openFds();
      await watch({ backend }).return();
      const events = watch({ backend, events: ["name"], types: ["cgroup"] });
      await events.next(); // the capabilities
      const waiting = events.next();
      assertEquals(await events.return(), { done: true, value: undefined });
      assertEquals(await waiting, { done: true, value: undefined });
      await until("nothing stays open", () => openFds() <= before);
    },
  );
}

test(
  "A reader that is too slow gets the number of lost events, and ends up with the right state",
  ["root", "process connector"],
  async () => {
    const events = watch({ backend: "proc", limit: 20, trees: [Deno.pid], events: ["fork", "exit"] });
    await events.next(); // the capabilities
    const children = [];
    for (let i = 0; i < 30; i++) children.push(await runTrue());
    const stays = new Deno.Command("sleep", { args: ["100"] }).spawn();
    // Lets the loop turn while nothing is taken.
    await new Promise((resolve) => setTimeout(resolve, 100));
    const seen: TimedEvent[] = [];
    const alive = new Set<number>();
    for await (const event of events) {
      seen.push(event);
      if (event.event === "fork") alive.add(event.pid);
      if (event.event === "exit") alive.delete(event.pid);
      if (event.event === "resync") break;
    }
    stays.kill("SIGKILL");
    await stays.status;
    const lost = seen.find((event) => event.event === "lost");
    assert(lost?.event === "lost" && lost.source === "reader" && lost.count > 0);
    assert(alive.has(stays.pid));
    assertEquals(children.filter((pid) => alive.has(pid)), []);
  },
);

test("A watch that cannot be started throws at once, and leaves an earlier recording as it is", async () => {
  const file = await Deno.makeTempFile({ prefix: "penne-library-" });
  try {
    await Deno.writeTextFile(file, "kept");
    assertThrows(() => watch({ cgroups: ["/penne/no/such"], record: file }), Error, "it does not exist");
    assertEquals(await Deno.readTextFile(file), "kept");
  } finally {
    await Deno.remove(file);
  }
  const full = () => watch({ backend: "poll", record: "/dev/full" });
  assertThrows(full, PenneError, 'cannot record in "/dev/full": No space left on device (ENOSPC)');
});
