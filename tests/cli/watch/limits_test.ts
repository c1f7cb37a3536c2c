// The limitations that the proposal of 2016 listed, one by one: `penne watch` does not have them.

import { assert, assertEquals } from "@std/assert";
import { type Need, test } from "../../lib/helpers.ts";
import { NEEDS_OF_BACKEND } from "../../lib/needs.ts";
import { NetLab } from "../../lib/netlab.ts";
import { BACKENDS, type Emitted, idOf, lasting, OFTEN, startShell, watchJson } from "./lab/events.ts";

const NEEDS: readonly Need[] = ["root", "package:util-linux", "kernel:6.18"];

/** Watches a script; returns the capabilities, and the events of its process and their descendants. */
async function watchScript(
  lab: NetLab,
  backend: string,
  script: string,
  args: string[] = [],
): Promise<[Emitted, Emitted[]]> {
  const shell = startShell(lab, script);
  const watcher = await watchJson(lab, ["--backend", backend, ...OFTEN, "--tree", `${shell.pid}`, ...args]);
  await shell.go();
  await shell.daemon.ended;
  await watcher.first("its exit", (emitted) => emitted.event === "exit" && emitted.pid === shell.pid);
  const [capabilities, ...all] = await watcher.end();
  return [capabilities!, all];
}

for (const backend of BACKENDS) {
  const needs = [...NEEDS, ...NEEDS_OF_BACKEND[backend]];
  test(
    `${backend}: the pid namespace of a task differs from the one for its children`,
    needs,
    () =>
      lasting(backend, async (seconds) => {
        await using lab = new NetLab();
        const [{ sights }, all] = await watchScript(lab, backend, `unshare --pid --fork sleep ${seconds}; true`);
        const changes = all.filter(({ event, type }) => event === "ns" && `${type}`.startsWith("pid"));
        const outside = idOf(Deno.pid, "pid");
        const exact = sights.ns.pid === "exact";
        const own = changes.find(({ type }) => type === "pid");
        assertEquals([own?.reason, own?.old, own?.exact], ["clone", outside, exact]);
        assertEquals(all.filter(({ event, type }) => event === "birth" && type === "pid").map(({ id }) => id), [
          own?.new.id,
        ]);
        const forChildren = changes.filter(({ type }) => type === "pid_for_children");
        // The fork changes it only for the child; a task first seen in there has no change of its own.
        for (const { pid, new: { id } } of forChildren) assert(pid !== own?.pid || id === own?.new.id);
        if (exact) {
          assertEquals(forChildren.map(({ reason, old, new: to }) => [reason, old, to]), [[
            "unshare",
            outside,
            own?.new,
          ]]);
        }
      }),
  );

  test(
    `${backend}: changes of user and mount namespaces have the old and the new one`,
    needs,
    () =>
      lasting(backend, async (seconds) => {
        await using lab = new NetLab();
        const [{ sights }, all] = await watchScript(lab, backend, `unshare --user --mount sleep ${seconds}; true`);
        for (const type of ["user", "mnt"]) {
          const changes = all.filter((emitted) => emitted.event === "ns" && emitted.type === type);
          assertEquals(changes.length, 1, type);
          const [{ old, new: to, exact }] = changes as [Emitted];
          assertEquals([old, exact], [idOf(Deno.pid, type), sights.ns[type] === "exact"]);
          assert(to.inum !== old.inum && to.id !== old.id);
          const births = all.filter((emitted) => emitted.event === "birth" && emitted.type === type);
          assertEquals(births.map(({ inum, id }) => ({ inum, id })), [to]);
        }
      }),
  );

  test(
    `${backend}: creating and joining a namespace differ, by the reason where it is observed`,
    needs,
    () =>
      lasting(backend, async (seconds) => {
        await using lab = new NetLab();
        const other = lab.start(["unshare", "--ipc", "sleep", "1000"]);
        const own = idOf(Deno.pid, "ipc").id;
        while ([own, null].includes(idOf(other.child.pid, "ipc").id)) {
          await new Promise((resolve) => setTimeout(resolve, 10));
        }
        const target = idOf(other.child.pid, "ipc");
        const script = `unshare --ipc sleep ${seconds}; nsenter --ipc=/proc/${other.child.pid}/ns/ipc sleep ${seconds}`;
        const [{ sights }, all] = await watchScript(lab, backend, `${script}; true`, ["--type", "ipc"]);
        const [made, joined] = all.filter(({ event }) => event === "ns") as [Emitted, Emitted];
        assertEquals(joined.new, target);
        assertEquals(all.filter(({ event }) => event === "birth").map(({ id }) => id), [made.new.id]);
        if (sights.ns.ipc === "exact") assertEquals([made.reason, joined.reason], ["unshare", "setns"]);
      }),
  );
}
