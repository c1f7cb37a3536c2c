// Kept sets from another Deno program.

import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { drop, dropAll, inspect, inspectAll, keep, NAMESPACE_TYPES, openKept, PenneError } from "../../mod/mod.ts";
import { isAgent, processes, sh, test } from "../lib/helpers.ts";
import { firstOutput, Place } from "./place.ts";

test("keep() keeps the namespaces of a set-up command, and returns how it ended", ["root"], async () => {
  using place = new Place();
  const { directory } = place;
  const warnings: string[] = [];
  const onWarning = (message: string) => void warnings.push(message);
  const setUp = { command: ["sh", "-c", "hostname lib"], unshare: ["user", "pid", "uts"] as const };
  assertEquals(await keep("a", { directory, onWarning, key: "1", setUp }), {
    kept: true,
    status: { success: true, code: 0, signal: null },
  });
  assertEquals(await keep("a", { directory, onWarning, key: "1", setUp }), { kept: true, status: null });
  await assertRejects(() => keep("a", { directory, setUp }), PenneError, 'cannot keep "a": that name is taken');
  const { namespaces, holder, occupants } = inspect("a", { directory });
  assertEquals([Object.keys(namespaces), holder?.alive, occupants], [["user", "pid", "uts"], true, []]);
  // The holder is not our child, and no agent is left.
  const children = processes().filter(({ ppid }) => ppid === Deno.pid);
  assertEquals(children.filter((one) => isAgent(one)), []);
  {
    using open = openKept("a", { directory, key: "1" });
    assertEquals([...open.namespaces.keys()], NAMESPACE_TYPES.filter((type) => type in namespaces));
    const uts = `/proc/${Deno.pid}/fd/${open.namespaces.get("uts")!.number}`;
    assertEquals((await sh(["nsenter", `--uts=${uts}`, "hostname"])).stdout, "lib\n");
  }
  assertThrows(() => openKept("a", { directory, key: "2" }), PenneError, "it is stale");
  assertEquals(drop("a", { directory, stale: true }), false);
  assertEquals(drop("a", { directory, stale: true, key: "2" }), true);
  assertThrows(() => drop("a", { directory }), PenneError, "cannot find the kept set");
  assertEquals(warnings, []);
});

test("keep() keeps nothing if the set-up command fails, is too slow or does not exist", ["root"], async () => {
  using place = new Place();
  const { directory } = place;
  const failing = await keep("a", { directory, setUp: { command: ["sh", "-c", "exit 7"] } });
  assertEquals(failing, { kept: false, status: { success: false, code: 7, signal: null } });
  const slow = await keep("a", { directory, timeout: 100, setUp: { command: ["sleep", "100"] } });
  assertEquals(slow, { kept: false, status: { success: false, code: 137, signal: "SIGKILL" } });
  await assertRejects(() => keep("a", { directory, setUp: { command: ["/no/such"] } }), Deno.errors.NotFound);
  await assertRejects(
    () => keep("a", { directory, setUp: { command: [] } }),
    PenneError,
    "the set-up command is missing",
  );
  await assertRejects(() => keep("a b", { directory, setUp: { command: ["true"] } }), PenneError, "use the name");
  assertEquals(place.files(), []);
});

test("keep() keeps the namespaces of a process, and dropAll() drops them", ["root"], async () => {
  using place = new Place();
  const { directory } = place;
  const child = new Deno.Command("unshare", { args: ["-u", "sh", "-c", "echo up; exec sleep 100"], stdout: "piped" })
    .spawn();
  await firstOutput(child);
  assertEquals(await keep("p", { directory, pid: child.pid }), { kept: true, status: null });
  assertEquals(inspectAll({ directory }).map(({ name, occupants }) => [name, occupants.length]), [["p", 1]]);
  const { dropped, failed } = dropAll({ directory });
  assertEquals([dropped, failed.map(({ name }) => name)], [[], ["p"]]);
  child.kill("SIGKILL");
  await child.status;
  assertEquals(dropAll({ directory }), { dropped: ["p"], failed: [] });
});
