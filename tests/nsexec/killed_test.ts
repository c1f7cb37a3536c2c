// A stage is killed at every step: the other stages end, the caller notices, and the next bootstrap works.
//
// The pipe of the log holds one line, so penne does one step each time that the driver reads one. At a step, a line is in
// the pipe and the next one is waiting to be written.

import { assert, assertEquals, assertMatch } from "@std/assert";
import { SIGNAL } from "../../ffi/core/consts.ts";
import { self } from "../../ffi/core/task.ts";
import { type Attribute, type Dialect, DIALECTS, encodeBootstrap } from "../../mod/nsexec/message.ts";
import { penne, processes, sh, test } from "../lib/helpers.ts";
import { Bootstrap, leftovers, type LogLine } from "./driver.ts";

const text = (value: string) => new TextEncoder().encode(value);

/** A message with as many steps as root can have. */
function message(dialect: Dialect): Uint8Array {
  const attributes: Attribute[] = [
    { name: "cloneFlags", value: 0x7e020000 },
    { name: "namespaces", value: text("uts:/proc/self/ns/uts,net:/proc/self/ns/net") },
    { name: "uidMap", value: text("0 0 1\n") },
    { name: "gidMap", value: text("0 0 1\n") },
    { name: "oomScoreAdj", value: text("100") },
    { name: "rootless", value: 0 },
  ];
  return encodeBootstrap({ attributes }, dialect);
}

function start(dialect: Dialect, stepwise: boolean): Bootstrap {
  const argv = [penne(), "nsexec", "--dialect", dialect, "--", "/bin/sh", "-c", "read x <&3"];
  const run = Bootstrap.start({ argv, stepwise });
  run.send(message(dialect));
  if (dialect === "seed") run.send(new Uint8Array([0x80]));
  return run;
}

/** Does some steps, or all; returns the lines. */
function walk(run: Bootstrap, steps: number): LogLine[] {
  const lines: LogLine[] = [];
  while (lines.length < steps) {
    const line = run.step();
    if (!line) break;
    lines.push(line);
    // From here on stage 2 is the command, which holds the pipe, so end of file does not come.
    if (line.text === "<~ nsexec stage-0") break;
  }
  return lines;
}

/** The line after which a stage has no more to do: the last request to stage 1, and before stage 2 becomes the command. */
const OVER: Readonly<Record<number, string>> = {
  0: "<= nsexec container setup",
  1: "stage-1 requested pid to be forwarded",
  2: "<= nsexec container setup",
};

for (const dialect of DIALECTS) {
  for (const victim of [0, 1, 2]) {
    test(`stage ${victim} is killed at every step, in dialect ${dialect}`, ["root"], () => {
      let all: LogLine[];
      {
        using run = start(dialect, true);
        all = walk(run, Infinity);
        assertEquals(run.wait(run.pid).code, 0);
      }
      let kills = 0;
      for (let steps = 1; steps < all.length; steps++) {
        using run = start(dialect, true);
        const lines = walk(run, steps);
        const pid = run.stagePid(victim);
        if (pid === null) continue; // it is not there yet
        if (lines.some(({ text }) => text === OVER[victim])) break;
        run.settle();
        self.raw("kill", pid, SIGNAL.KILL);
        kills++;
        run.go();
        const where = `after "${lines.at(-1)!.stage}: ${lines.at(-1)!.text}"`;
        const stage0 = run.wait(run.pid, 1000);
        assertEquals(stage0, { ...stage0, ...victim === 0 ? { signal: 9 } : { code: 1 } }, where);
        while (run.pump(20)) continue;
        if (victim > 0) {
          const texts = run.log.filter(({ level }) => level === "fatal").map((line) => `${line.stage}: ${line.text}`);
          assertEquals(
            texts,
            [`nsexec-0: failed to sync with ${victim === 1 ? "stage-1" : "child"}: next state`],
            where,
          );
        }
        // The caller knows the other stages from the pids that it received, or from the log.
        for (const stage of [1, 2]) {
          const child = run.stagePid(stage);
          if (child === null) continue;
          const { code, signal } = run.wait(child, 1000);
          if (stage === victim) assertEquals(signal, 9, where);
          else assert(code !== null, where);
        }
        assertEquals(leftovers(), [], where);
      }
      assert(kills > 3, `${kills}`);
      using again = start(dialect, false);
      assertEquals(again.wait(again.pid).code, 0);
    });
  }
}

test("a stage is killed while the mapping tool hangs, and the tool ends too", ["user"], async () => {
  const directory = await Deno.makeTempDir();
  try {
    await Deno.chmod(directory, 0o755);
    const tool = `${directory}/newuidmap`;
    await Deno.writeTextFile(tool, `#!/bin/sh\nexec sleep 1000\n`);
    await Deno.chmod(tool, 0o755);
    for (const victim of [0, 1]) {
      const argv = [penne(), "nsexec"];
      using run = Bootstrap.start({ argv, user: true });
      const attributes: Attribute[] = [
        { name: "cloneFlags", value: 0x10000000 },
        { name: "uidMapPath", value: text(tool) },
        { name: "uidMap", value: text("0 0 1\n") },
        { name: "rootless", value: 1 },
      ];
      run.send(encodeBootstrap({ attributes }, "1.2"));
      const hangs = () => processes().find(({ ppid, cmdline }) => ppid === run.pid && cmdline[0] === "sleep");
      assert(run.until(() => run.stagePid(1) && hangs()));
      const { pid } = hangs()!;
      self.raw("kill", run.stagePid(victim)!, 9);
      assertEquals(run.wait(run.pid)[victim === 0 ? "signal" : "code"], victim === 0 ? 9 : 1);
      run.wait(run.stagePid(1)!);
      assert(run.until(() => !processes().some((process) => process.pid === pid)));
      assertEquals(leftovers(), []);
    }
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

test("all stages end if the caller ends before the answer", () => {
  for (const dialect of DIALECTS) {
    using run = Bootstrap.start({ argv: [penne(), "nsexec", "--dialect", dialect], stepwise: true });
    run.send(encodeBootstrap({ attributes: [{ name: "oomScoreAdj", value: text("100") }] }, dialect));
    while (run.step()!.text !== "spawn stage-1") continue;
    run.pipe.close();
    run.go();
    assertEquals(run.wait(run.pid, 1000).code, 1);
    while (run.pump(20)) continue;
    assertEquals(run.log.filter(({ level }) => level === "fatal").map((line) => `${line.stage}: ${line.text}`), [
      "nsexec-0: failed to sync with runc: write(pid-JSON): Broken pipe",
    ]);
    for (const stage of [1, 2]) assertEquals(run.wait(run.stagePid(stage)!, 1000).code, 1);
    assertEquals(leftovers(), []);
  }
});

test("there is no bootstrap if memfds must not be executed", ["root", "package:util-linux"], async () => {
  const script = `echo 2 >/proc/sys/vm/memfd_noexec && _LIBCONTAINER_INITPIPE=0 exec ${penne()} nsexec -- true`;
  const { code, stderr } = await sh(["unshare", "-pf", "--mount-proc", "sh", "-c", script]);
  const [fatal, hint] = stderr.split("\n");
  assertEquals([code, fatal], [1, "FATAL: could not ensure we are a cloned binary: Permission denied"]);
  assertMatch(hint!, /^hint: vm\.memfd_noexec is 2 in this pid namespace, .*: sysctl -w vm\.memfd_noexec=1$/);
});

test("PID 1 of a pid namespace has no siblings, and says so", ["root", "package:util-linux"], async () => {
  const message = Array.from(encodeBootstrap({ attributes: [] }, "1.2"), (byte) => `\\0${byte.toString(8)}`).join("");
  const script =
    `printf '%b' '${message}' | _LIBCONTAINER_INITPIPE=0 unshare -pf --mount-proc ${penne()} nsexec -- true`;
  const { code, stderr } = await sh(["sh", "-c", script]);
  assertEquals([code, stderr], [1, "FATAL: unable to spawn stage-1: Invalid argument\n"]);
});
