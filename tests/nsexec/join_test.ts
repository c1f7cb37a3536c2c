// Joins namespaces by path and maps ids, as root and as an unprivileged user.

import { assert, assertEquals, assertMatch } from "@std/assert";
import type { NamespaceType } from "../../mod/namespaces/types.ts";
import {
  type Attribute,
  type Dialect,
  DIALECTS,
  encodeBootstrap,
  type TextAttribute,
} from "../../mod/nsexec/message.ts";
import { command, penne, test } from "../lib/helpers.ts";
import { subordinateIds, userIds } from "../lib/user.ts";
import { Bootstrap, leftovers, link, type StartOptions } from "./driver.ts";
import { Home } from "./namespaces.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (name: TextAttribute["name"], value: string): Attribute => ({ name, value: bytes(value) });
const NEWUSER: Attribute = { name: "cloneFlags", value: 0x10000000 };
const ROOTLESS: Attribute = { name: "rootless", value: 1 };
const SETGROUP: Attribute = { name: "setgroup", value: 1 };
const ALL: readonly NamespaceType[] = ["user", "ipc", "uts", "net", "pid", "mnt", "cgroup", "time"];

/** Sends a message; the command waits for end of file on its pipe. */
function start(dialect: Dialect, attributes: readonly Attribute[], options: Partial<StartOptions> = {}): Bootstrap {
  const argv = [penne(), "nsexec", "--dialect", dialect, "--", "/bin/sh", "-c", "read x <&3"];
  const run = Bootstrap.start({ argv, ...options });
  run.send(encodeBootstrap({ attributes }, dialect));
  return run;
}

/** Sends a message that must succeed; returns the pid of the command. */
function joined(run: Bootstrap): number {
  const { code } = run.wait(run.pid);
  assertEquals(code, 0, `${run.stderr} ${JSON.stringify(run.log.filter(({ level }) => level === "fatal"))}`);
  const { stage1, stage2 } = run.pids!;
  assertEquals(run.wait(stage1).code, 0);
  return stage2;
}

const namespacesOf = (pid: number | "self") =>
  Object.fromEntries(ALL.map((type) => [type, link(`/proc/${pid}/ns/${type}`)]));

for (const dialect of DIALECTS) {
  test(`joins each kind of namespace by its path, and all together, in dialect ${dialect}`, ["root"], () => {
    const types = dialect === "1.2" ? ALL : ALL.filter((type) => type !== "time");
    using home = new Home(types);
    const there = namespacesOf(home.pid);
    const here = namespacesOf("self");
    for (const list of [...types.map((type) => [type]), types]) {
      using run = start(dialect, [text("namespaces", home.list(list))]);
      const expected = { ...here, ...Object.fromEntries(list.map((type) => [type, there[type]])) };
      assertEquals(namespacesOf(joined(run)), expected, list.join());
    }
  });
}

test("joins a net namespace that the joined user namespace does not own, in dialect 1.2 alone", ["root"], () => {
  using home = new Home(["user", "uts"]);
  using other = new Home(["net"]);
  const list = text("namespaces", `${home.list()},${other.list()}`);
  {
    using run = start("1.2", [list]);
    const pid = joined(run);
    assertEquals(link(`/proc/${pid}/ns/net`), link(other.path("net")));
    assertEquals(link(`/proc/${pid}/ns/user`), link(home.path("user")));
    assertMatch(Deno.readTextFileSync(`/proc/${pid}/status`), /^Uid:\t0\t0\t0\t0$/m);
  }
  for (const dialect of ["seed", "1.1"] as const) {
    using run = start(dialect, [list]);
    assertEquals(run.wait(run.pid).code, 1);
    while (run.pump(20)) continue;
    const fatal = run.log.filter(({ level }) => level === "fatal").map((line) => line.text);
    assertEquals(fatal, [
      "failed to setns into net namespace: Operation not permitted",
      "failed to sync with stage-1: next state",
    ]);
  }
  assertEquals(leftovers(), []);
});

test(
  "namespaces that cannot be joined for lack of privilege are logged one by one, and together",
  ["user"],
  () => {
    using run = start("1.2", [text("namespaces", "net:/proc/self/ns/net,uts:/proc/self/ns/uts"), ROOTLESS], {
      user: true,
    });
    assertEquals(run.wait(run.pid).code, 1);
    while (run.pump(20)) continue;
    assertEquals(run.log.filter(({ level }) => level === "fatal").map((line) => line.text), [
      "failed to setns(0x40000000) into net namespace (with path /proc/self/ns/net): Operation not permitted",
      "failed to setns(0x4000000) into uts namespace (with path /proc/self/ns/uts): Operation not permitted",
      "failed to join {net, uts} namespaces: Operation not permitted",
      "failed to sync with stage-1: next state",
    ]);
  },
);

test("an unprivileged user joins namespaces of its own", ["user", "package:util-linux"], async () => {
  const argv = ["unshare", "-UrinumCpTf", "--kill-child", "sh", "-c", "echo; read x"];
  const child = command(argv, { user: true }, { stdin: "piped", stdout: "piped" }).spawn();
  const reader = child.stdout.getReader();
  try {
    await reader.read();
    const [inner] = Deno.readTextFileSync(`/proc/${child.pid}/task/${child.pid}/children`).match(/\d+/g)!;
    const there = namespacesOf(Number(inner));
    for (const dialect of ["1.1", "1.2"] as const) {
      const types = dialect === "1.2" ? ALL : ALL.filter((type) => type !== "time");
      for (const list of [types, ["user", "net"], ["user", "pid", "mnt"]] as const) {
        const paths = list.map((type) => `${type}:/proc/${inner}/ns/${type}`).join();
        using run = start(dialect, [text("namespaces", paths), ROOTLESS], { user: true });
        const pid = joined(run);
        for (const type of list) {
          assertEquals(link(`/proc/${pid}/ns/${type}`), there[type], `${dialect} ${list} ${type}`);
        }
      }
    }
  } finally {
    await child.stdin.close();
    await reader.cancel();
    await child.status;
  }
});

/** Maps as the kernel shows them, one on each line. */
const map = (pid: number, kind: "uid" | "gid") =>
  Deno.readTextFileSync(`/proc/${pid}/${kind}_map`).trim().split("\n").map((line) => line.trim().replace(/\s+/g, " "));

test("root writes maps of many ranges without a tool, exactly as requested", ["root"], () => {
  const users = Array.from({ length: 100 }, (_, i) => `${2 * i} ${100000 + 3 * i} 1`);
  const groups = ["0 5 2", "2 100000 65536"];
  for (const dialect of DIALECTS) {
    const maps = [text("uidMap", `${users.join("\n")}\n`), text("gidMap", `${groups.join("\n")}\n`)];
    // A missing tool does not matter if it is not needed.
    using run = start(dialect, [NEWUSER, text("uidMapPath", "/nonexistent"), ...maps, SETGROUP]);
    const pid = joined(run);
    assertEquals(map(pid, "uid"), users);
    assertEquals(map(pid, "gid"), groups);
    assertEquals(Deno.readTextFileSync(`/proc/${pid}/setgroups`).trim(), "allow");
  }
});

test("a user maps more than five ranges with newuidmap and newgidmap (CVE-2018-18955)", ["user", "newuidmap"], () => {
  const { uid, gid } = userIds();
  const ranges = (own: number, first: number) => [
    `0 ${own} 1`,
    ...Array.from({ length: 30 }, (_, i) => `${i + 1} ${first + 2 * i} 1`),
  ];
  const users = ranges(uid, subordinateIds("uid").start);
  const groups = ranges(gid, subordinateIds("gid").start);
  for (const dialect of DIALECTS) {
    using run = start(dialect, [
      NEWUSER,
      text("uidMapPath", "/usr/bin/newuidmap"),
      text("uidMap", `${users.join("\n")}\n`),
      text("gidMap", `${groups.join("\n")}\n`),
      text("gidMapPath", "/usr/bin/newgidmap"),
      SETGROUP,
      ROOTLESS,
    ], { user: true });
    const pid = joined(run);
    assertEquals(map(pid, "uid"), users);
    assertEquals(map(pid, "gid"), groups);
  }
});

test("a user maps its own id without a tool, once setgroups is denied (CVE-2014-8989)", ["user"], () => {
  const { uid, gid } = userIds();
  const maps = [text("uidMap", `0 ${uid} 1\n`), text("gidMap", `0 ${gid} 1\n`)];
  {
    using run = start("1.2", [NEWUSER, ...maps, ROOTLESS], { user: true });
    const pid = joined(run);
    assertEquals(map(pid, "uid"), [`0 ${uid} 1`]);
    assertEquals(Deno.readTextFileSync(`/proc/${pid}/setgroups`).trim(), "deny");
  }
  // Otherwise the kernel refuses, and penne has no tool.
  using run = start("1.2", [NEWUSER, ...maps, SETGROUP, ROOTLESS], { user: true });
  assertEquals(run.wait(run.pid).code, 1);
  while (run.pump(20)) continue;
  assert(
    run.log.some(({ level, text }) =>
      level === "fatal" && text === "mapping tool not present: Operation not permitted"
    ),
  );
});

test("any failure of a mapping tool is a failure", ["user"], async () => {
  const { uid } = userIds();
  const directory = await Deno.makeTempDir();
  try {
    await Deno.chmod(directory, 0o755);
    const tools: [string, string, RegExp[]][] = [
      ["refuses", "exit 1", [/^failed to use newuid map on \d+$/]],
      ["kills itself", "kill -9 $$", [/^failed to use newuid map on \d+$/]],
      ["stage 1 away", "kill -9 $1", [/^failed to sync with stage-1: next state$/]],
    ];
    for (const [name, script] of tools) {
      await Deno.writeTextFile(`${directory}/${name}`, `#!/bin/sh\n${script}\n`);
      await Deno.chmod(`${directory}/${name}`, 0o755);
    }
    const missing: [string, string, RegExp[]] = ["missing", "", [
      /^failed to execv: No such file or directory$/,
      /^failed to use newuid map on \d+$/,
    ]];
    for (const [name, , expected] of [...tools, missing]) {
      const maps = [text("uidMapPath", `${directory}/${name}`), text("uidMap", `0 ${uid + 1} 1\n`)];
      using run = start("1.2", [NEWUSER, ...maps, ROOTLESS], { user: true });
      assertEquals(run.wait(run.pid).code, 1, name);
      while (run.pump(20)) continue;
      const fatal = run.log.filter(({ level, stage }) => level === "fatal" && stage === "nsexec-0");
      assertEquals(fatal.length, expected.length, JSON.stringify(fatal));
      expected.forEach((pattern, i) => assertMatch(fatal[i]!.text, pattern));
      assertEquals(leftovers(), []);
    }
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
