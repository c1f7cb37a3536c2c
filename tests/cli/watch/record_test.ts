// `penne watch --record` and `--replay`: a recording gives the lines of the live watch, and what goes wrong with files.

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { asUser, penne, sh, test } from "../../lib/helpers.ts";
import { NEEDS_OF_BACKEND } from "../../lib/needs.ts";
import { NetLab } from "../../lib/netlab.ts";
import { type Emitted, startShell, watchJson } from "./lab/events.ts";

const NEEDS = ["root", "package:util-linux"] as const;

/** Calls a body with a directory that anyone may write to. */
async function withDirectory(body: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "penne-record-" });
  try {
    await Deno.chmod(directory, 0o777);
    await body(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function replay(file: string, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await sh([penne(), "watch", "--replay", file, ...args]);
  assertEquals([code, stderr], [0, ""]);
  return stdout;
}

// What is printed differs by back end; polling and the process connector feed the state in the same way.
for (const [backend, ...form] of [["ebpf", "--snapshot", "--threads"], ["proc", "--json", "--failed"]] as const) {
  test(
    `${backend}: a recording gives the lines of the live watch`,
    [...NEEDS, ...NEEDS_OF_BACKEND[backend]],
    () =>
      withDirectory(async (directory) => {
        const file = `${directory}/recording`;
        const script = `unshare --net --uts sleep 0.2; touch ${directory}/name; unshare --net=${directory}/name true
        umount ${directory}/name; exit 3`;
        const watch = [penne(), "watch", "--backend", backend, "--record", file, ...form];
        const live = await sh([...watch, "--", "sh", "-c", script]);
        assertEquals([live.code, live.stderr], [3, ""]);
        const json = form.filter((word) => word === "--json");
        assertEquals(await replay(file, ...json), live.stdout);
        assertStringIncludes(live.stdout, json.length ? '"event":"exit"' : "\nexit: pid=");
      }),
  );
}

test(
  "Filters on a recording give what a live watch with these filters gives",
  [...NEEDS, "ebpf"],
  () =>
    withDirectory(async (directory) => {
      const file = `${directory}/recording`;
      await using lab = new NetLab();
      const shell = startShell(
        lab,
        "unshare --net --uts sh -c 'true; true'; unshare --user --map-root-user true; true",
      );
      const tree = ["--tree", `${shell.pid}`];
      const filters = [tree, [
        ...tree,
        "--comm",
        "sh,unshare",
        "--type",
        "net,user",
        "--event",
        "ns,birth,exit",
        "--failed",
      ]];
      const live = [];
      for (const filter of filters) live.push(await watchJson(lab, ["--backend", "ebpf", ...filter]));
      const all = await watchJson(lab, ["--backend", "ebpf", "--failed", "--record", file, ...tree]);
      await shell.go();
      const over = ({ event, pid }: Emitted) => event === "exit" && pid === shell.pid;
      for (const one of [all, ...live]) await one.first("its exit", over);
      await shell.daemon.ended;
      await all.end();
      for (const [i, filter] of filters.entries()) {
        // Each program of a watch stamps events itself, looks at the control group when it gets to it, and may be ended before
        // it has found out what has ended.
        const comparable = (events: Emitted[]) =>
          events.filter(({ event }) => event !== "death" && event !== "capabilities")
            .map(({ event, pid, ppid, comm, type, new: to, id }) =>
              `${event} ${pid} ${ppid} ${comm} ${type} ${to?.id ?? id}`
            );
        const expected = comparable(await live[i]!.end());
        const played = (await replay(file, "--json", ...filter)).trim().split("\n").map((line) => JSON.parse(line));
        assertEquals(comparable(played), expected, filter.join(" "));
        assert(expected.length > 3, filter.join(" "));
      }
    }),
);

test(
  "A recording of a penne that was killed is replayed up to there, with an error",
  NEEDS,
  () =>
    withDirectory(async (directory) => {
      const file = `${directory}/recording`;
      await using lab = new NetLab();
      const watcher = await watchJson(lab, ["--record", file]);
      watcher.daemon.child.kill("SIGKILL");
      await watcher.daemon.ended;
      const { code, stdout, stderr } = await sh([penne(), "watch", "--replay", file]);
      assertEquals([code, stdout.startsWith("capabilities: ")], [1, true]);
      assertStringIncludes(stderr, `penne: cannot replay "${file}": it is cut off after line `);
    }),
);

test("What cannot be recorded in is refused, and a file system that is full ends the recording alone", [
  ...NEEDS,
  "user",
], () =>
  withDirectory(async (directory) => {
    const watch = [penne(), "watch", "--backend", "poll"];
    const refused = async (argv: string[], reason: string, code = 1) => {
      const result = await sh(argv);
      assertEquals([result.code, result.stdout], [code, ""]);
      assertStringIncludes(result.stderr, reason);
    };
    await sh(["mkfifo", `${directory}/fifo`]);
    await Deno.writeTextFile(`${directory}/closed`, "kept", { mode: 0o600 });
    for (const file of ["/dev/null", `${directory}/fifo`, directory]) {
      await refused([...watch, "--record", file], `penne: cannot record in "${file}": `);
    }
    await refused(asUser([...watch, "--record", `${directory}/closed`]), "Permission denied (EACCES)");
    assertEquals(await Deno.readTextFile(`${directory}/closed`), "kept");
    await refused([...watch, "--record", `${directory}/new`, "--event", "no"], "is not one of", 2);
    for (
      const [option, value] of [["--record", "x"], ["--backend", "poll"], ["--duration", "1"], ["--interval", "1"]]
    ) {
      await refused([penne(), "watch", "--replay", "x", option!, value!], `cannot use ${option} with --replay`, 2);
    }
    await refused([penne(), "watch", "--replay", "x", "--", "true"], "cannot use --replay with a COMMAND", 2);
    await refused([penne(), "watch", "--replay", `${directory}/none`], "(ENOENT)");
    await refused([penne(), "watch", "--replay", "/dev/zero"], "it is no recording of penne watch");
    const script = `mount -t tmpfs -o size=16k none ${directory} && exec "$@"`;
    const argv = [...watch, "-o", "/dev/null", "--record", `${directory}/x`, "--", "sh", "-c", "exit 7"];
    const { code, stderr } = await sh(["unshare", "--mount", "sh", "-c", script, "sh", ...argv]);
    assertEquals(code, 7);
    assertStringIncludes(stderr, `cannot go on recording in "${directory}/x": `);
  }));

test("A snapshot has the facts of `penne ls`", [...NEEDS, "kernel:6.18"], async () => {
  await using lab = new NetLab();
  const name = await lab.netns("snapshot");
  const facts = ({ type, inum, id, owner, creator, names }: Emitted) => ({ type, inum, id, owner, creator, names });
  const watcher = await watchJson(lab, ["--snapshot", "--event", "birth", "--type", "net"]);
  const snapshot = (await watcher.end()).filter(({ event }) => event === "namespace").map(facts);
  const found = snapshot.filter(({ names }) => names.some((one: Emitted) => one.kind === "netns" && one.name === name));
  const { stdout } = await sh([penne(), "ls", "--json", "--type", "net", `netns:${name}`]);
  assertEquals(found, JSON.parse(stdout).namespaces.map(facts));
});
