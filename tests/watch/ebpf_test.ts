// The eBPF back end, compared with what processes read about their own namespaces.

import "../lib/preload.ts";
import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { ROOT, test, until } from "../lib/helpers.ts";
import { out, self } from "../../ffi/core/task.ts";
import { POLL } from "../../ffi/core/consts.ts";
import { poll } from "../../ffi/sys/poll.ts";
import { PenneError } from "../../mod/base/errors.ts";
import { compile } from "./compiled.ts";
import { NAMESPACE_TYPES, namespaceFlag, type NamespaceType } from "../../mod/namespaces/types.ts";
import { openEbpf } from "../../mod/watch/ebpf/backend.ts";
import { type Backend, type ChangeFact, type Fact, SLOTS, slotType } from "../../mod/watch/facts/contract.ts";

const needs = ["root", "ebpf", "package:gcc"] as const;
/** Runs tests/watch/change.c; returns its lines as words. */
function change(way: string, flags: number, name = "change"): string[][] {
  const program = compile("tests/watch/change.c", name);
  const { code, stdout } = new Deno.Command(program, { args: [way, `${flags}`] }).outputSync();
  const lines = new TextDecoder().decode(stdout).trim().split("\n").map((line) => line.split(" "));
  assertEquals(lines.filter(([first]) => first === "error"), [], way);
  assertEquals(code, 0, way);
  return lines;
}

/** Returns the facts so far. */
function collect(backend: Backend): Fact[] {
  const facts: Fact[] = [];
  assertEquals(backend.read((fact) => facts.push(fact)), 0, "lost facts");
  return facts;
}

/** Returns changes as text: thread, slot, reason, old and new. */
function changes(facts: readonly Fact[], tids: ReadonlySet<number>): string[] {
  return facts
    .filter((fact): fact is ChangeFact => fact.kind === "ns" && tids.has(fact.tid))
    .map(({ tid, slot, reason, old, new: made, errno }) => {
      assertEquals(errno, 0);
      return `${tid} ${slot} ${reason} ${old?.inum} ${made?.inum}`;
    });
}

/** Returns the changes that lines of change.c imply. `found` completes a pid namespace without a process: it cannot be read. */
function expected(lines: readonly string[][], found: readonly string[]): string[] {
  const result: string[] = [];
  let before: string[] = [];
  for (const line of lines) {
    if (line[0] === "before") before = line;
    if (line[0] !== "after") continue;
    const [, reason, tid] = line;
    SLOTS.forEach((slot, i) => {
      const old = before[4 + i]!;
      const made = line[4 + i]!;
      if (old === made || old === "0") return;
      const start = `${tid} ${slot} ${reason} ${old} `;
      result.push(made === "0" ? found.find((text) => text.startsWith(start)) ?? `${start}?` : start + made);
    });
  }
  return result.sort();
}

const WAYS: [string, string, readonly NamespaceType[]][] = [
  ["clone(2)", "clone", NAMESPACE_TYPES.filter((type) => type !== "time")], // its flag is part of the signal
  ["clone3(2)", "clone3", NAMESPACE_TYPES],
  ["unshare(2)", "unshare", NAMESPACE_TYPES],
  ["setns(2) with a file of the type", "setns", NAMESPACE_TYPES],
  ["setns(2) with a file of any type", "setns0", NAMESPACE_TYPES],
  ["setns(2) with a pidfd", "pidfd", NAMESPACE_TYPES],
  ["fork(2) after unshare(2)", "fork", NAMESPACE_TYPES],
  ["unshare(2) in a thread", "thread", ["ipc", "uts", "net", "cgroup", "pid"]],
];

test(
  "a change of each type is emitted, whatever call makes it, for the right thread, with old and new",
  needs,
  async (t) => {
    using backend = openEbpf({});
    const check = (way: string, flags: number, least: number) => {
      const lines = change(way, flags);
      const facts = collect(backend);
      const tids = new Set(lines.map(([, , tid]) => Number(tid)));
      const found = changes(facts, tids).sort();
      const wanted = expected(lines, found);
      assertEquals(found, wanted);
      assert(wanted.length >= least, `${way}: ${wanted}`);
      for (const [, , tid, pid] of lines) {
        for (const fact of facts) if (fact.tid === Number(tid)) assertEquals(fact.pid, Number(pid));
      }
      return { lines, facts, found };
    };
    for (const [title, way, types] of WAYS) {
      await t.step(title, () => {
        for (const type of types) check(way, namespaceFlag(type), 1);
      });
    }
    await t.step("several types in one call", () => {
      const several = (types: NamespaceType[]) => types.reduce((flags, type) => flags | namespaceFlag(type), 0);
      check("clone3", several(["user", "mnt", "pid", "ipc", "uts", "net", "cgroup", "time"]), 10);
      check("unshare", several(["user", "mnt", "pid", "ipc", "uts", "net", "cgroup", "time"]), 8);
      check("pidfd", several(["ipc", "uts", "net", "cgroup"]), 8);
      check("pidfd", several(["user", "mnt", "uts", "net"]), 8);
    });
    await t.step("execve(2) after unshare(2) of time, in the process and in a child of vfork(2)", () => {
      for (const way of ["exec", "vfork"]) {
        const { found } = check(way, namespaceFlag("time"), 2);
        assertEquals(found.map((text) => text.split(" ").slice(1, 3).join(" ")).sort(), [
          "time exec",
          "time_for_children unshare",
        ]);
      }
    });
    await t.step("a child is in the pid namespace that unshare(2) created", () => {
      const { found } = check("fork", namespaceFlag("pid"), 2);
      const [active, children] = [" pid clone ", " pid_for_children unshare "].map((part) =>
        found.find((text) => text.includes(part))!.split(" ").at(-1)
      );
      assertEquals(active, children);
    });
    if (Deno.build.arch === "x86_64") {
      await t.step("a 32-bit system call", () => {
        const { lines, found } = check("compat", namespaceFlag("uts"), 0);
        if (lines[0]![0] !== "none") assertEquals(found.length, 1); // unless the kernel lacks 32-bit calls
      });
    }
  },
);

test("changes have ids, which are never reused, beside inode numbers", [...needs, "kernel:6.18"], () => {
  using backend = openEbpf({});
  change("unshare", namespaceFlag("uts"));
  const facts = collect(backend).filter((fact) => fact.kind === "ns" && fact.comm === "change") as ChangeFact[];
  assertEquals(facts.length, 1);
  const [{ old, new: made }] = facts as [ChangeFact];
  const own = backend.snapshot().find(({ tid }) => tid === Deno.pid)!;
  assertEquals(old, own.slots.get("uts"));
  assert(made?.id && made.id !== old?.id && /^\d+$/.test(made.id));
});

test("fork, exec and exit have threads, status, name, user and cgroup", needs, () => {
  using backend = openEbpf({});
  change("thread", namespaceFlag("uts"), "penne-thread");
  const child = new Deno.Command("sh", { args: ["-c", "exit 7"], uid: 65534, cwd: "/" }).outputSync();
  assertEquals(child.code, 7);
  const facts = collect(backend);
  const exec = facts.find(({ kind, comm }) => kind === "exec" && comm === "penne-thread")!;
  const mine = facts.filter(({ pid }) => pid === exec.pid);
  const forks = mine.filter((fact) => fact.kind === "fork");
  assertEquals(forks.map(({ ppid, pid, tid }) => [ppid, pid === tid]), [[Deno.pid, true], [exec.pid, false]]);
  const exits = mine.filter((fact) => fact.kind === "exit");
  assertEquals(exits.map(({ tid, last, status }) => [tid, last, status]), [
    [forks[1]!.tid, false, null],
    [exec.pid, true, 0],
  ]);
  assert(mine.every((fact, i) => i === 0 || fact.mono >= mine[i - 1]!.mono), "ordered by time");
  const children = new Set(
    facts.filter((fact) => fact.kind === "fork" && fact.ppid === Deno.pid).map(({ pid }) => pid),
  );
  const sh = facts.find((fact) => fact.kind === "exit" && fact.comm === "sh" && children.has(fact.pid))!;
  assertEquals([sh.uid, sh.kind === "exit" && sh.status], [65534, 7 << 8]);
  const own = backend.snapshot().find(({ tid }) => tid === Deno.pid)!;
  assertEquals(sh.cgroup, own.cgroup);
});

test("failed calls are emitted on request, with the types that they asked for", needs, () => {
  using silent = openEbpf({});
  using backend = openEbpf({ failed: true });
  assertEquals([silent.capabilities.failed, backend.capabilities.failed], ["unseen", "exact"]);
  const lines = change("refused", namespaceFlag("net"));
  const tid = Number(lines[0]![2]);
  const found = collect(backend).filter((fact) => fact.kind === "ns" && fact.tid === tid) as ChangeFact[];
  assertEquals(
    found.map(({ reason, slot, errno, old, new: made }) => [reason, slot, errno, made, (old?.inum ?? 0) > 0]),
    lines.map(([, reason, , flag, errno]) => {
      const type = NAMESPACE_TYPES.find((name) => namespaceFlag(name) === Number(flag))!;
      return [reason, type, Number(errno), null, true];
    }) as never,
  );
  assertEquals(collect(silent).filter((fact) => fact.kind === "ns" && fact.tid === tid), []);
});

test("filters work in the kernel, and drop nothing that is wanted", needs, () => {
  const run = (): number =>
    Number(change("unshare", namespaceFlag("uts") | namespaceFlag("net"), "penne-filter")[0]![2]);
  const own = openEbpf({});
  const cgroup = own.snapshot().find(({ tid }) => tid === Deno.pid)!.cgroup!;
  own[Symbol.dispose]();
  const seen = (filter: Parameters<typeof openEbpf>[0]) => {
    using backend = openEbpf(filter);
    const pid = run();
    const facts = collect(backend);
    return {
      all: facts,
      mine: facts.filter((fact) => fact.pid === pid).map((fact) => fact.kind === "ns" ? fact.slot : fact.kind),
    };
  };
  assertEquals(seen({}).mine.sort(), ["exec", "exit", "fork", "net", "uts"]);
  assertEquals(seen({ kinds: new Set(["ns"]) }).mine.sort(), ["net", "uts"]);
  assertEquals(seen({ types: new Set(["uts"]) }).mine.sort(), ["exec", "exit", "fork", "uts"]);
  const types = seen({ types: new Set(["mnt"]), kinds: new Set(["ns"]) });
  assertEquals(types.all.filter((fact) => fact.kind !== "ns" || fact.slot !== "mnt"), []);
  assertEquals(types.mine, []);
  const comms = seen({ comms: new Set(["penne-filter"]) });
  assertEquals(comms.mine.sort(), ["exec", "exit", "net", "uts"]); // the fork still has the old name
  assert(comms.all.every(({ comm }) => comm === "penne-filter"));
  assertEquals(seen({ comms: new Set(["penne-filte"]) }).mine, []);
  assertEquals(seen({ uids: new Set([0]) }).mine.length, 5);
  assertEquals(seen({ uids: new Set([54321]) }).all, []);
  assertEquals(seen({ cgroups: new Set([cgroup]) }).mine.length, 5);
  assertEquals(seen({ cgroups: new Set([0xfffffffffff1n]) }).all, []);
  assertEquals(seen({ pids: new Set([Deno.pid]) }).mine, ["fork"]); // its creator matches
  const inum = (slot: string) => Number(/\d+/.exec(Deno.readLinkSync(`/proc/self/ns/${slot}`)));
  for (const slot of ["pid", "user"]) assertEquals(seen({ inums: new Set([inum(slot)]) }).mine.length, 5, slot);
  const net = seen({ inums: new Set([inum("net")]) }).mine;
  assertEquals(net.sort(), ["exec", "fork", "net", "uts"]); // it ends in another namespace
  assertEquals(seen({ inums: new Set([1]) }).all, []);
});

test("the kernel follows a tree: processes that exist, and those created later", needs, async () => {
  const script = "read line; (unshare -u sh -c 'unshare -i true; true'; true); true";
  const spawn = () => new Deno.Command("sh", { args: ["-c", `(${script}); true`], stdin: "piped" }).spawn();
  const tree = spawn();
  const other = spawn();
  const children = (pid: number) => Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`).trim();
  await until("both have a child", () => [tree, other].every(({ pid }) => children(pid) !== ""));
  using backend = openEbpf({ trees: new Set([tree.pid]) });
  for (const { stdin } of [other, tree]) {
    const writer = stdin.getWriter();
    await writer.write(new Uint8Array([10]));
    await writer.close();
  }
  await Promise.all([tree.status, other.status]);
  const facts = collect(backend);
  const members = new Set([tree.pid]);
  for (const { pid } of [{ pid: tree.pid }]) assert(facts.some((fact) => fact.pid === pid && fact.kind === "exit"));
  for (const fact of facts) {
    if (fact.kind === "fork" && (members.has(fact.ppid) || fact.ppid > tree.pid)) members.add(fact.pid);
  }
  assert(facts.every(({ pid }) => pid !== other.pid));
  assertEquals(facts.filter((fact) => fact.kind === "ns").map((fact) => fact.slot), ["uts", "ipc"]);
  assert(facts.filter((fact) => fact.kind === "exit").length >= 4);
});

test("in another pid namespace pids are its own, and tasks outside have none", needs, () => {
  const module = new URL("../../mod/watch/ebpf/backend.ts", import.meta.url).href;
  const code = `import { openEbpf } from ${JSON.stringify(module)};
    using backend = openEbpf({ trees: new Set([Deno.pid]) });
    new Deno.Command("unshare", { args: ["-npf", "true"] }).outputSync();
    backend.read((fact) => {
      if (fact.pid !== Deno.pid) console.log(fact.kind, fact.pid, fact.slot ?? fact.ppid ?? "", fact.new?.inum ?? "");
    });
    console.log("tasks", backend.snapshot().filter(({ pid, tid }) => pid === tid).map(({ pid }) => pid).join());`;
  const { stdout } = new Deno.Command("timeout", {
    args: ["120", "unshare", "-pf", "--mount-proc", Deno.execPath(), "eval", "--no-lock", code],
    cwd: ROOT,
  }).outputSync();
  const lines = new TextDecoder().decode(stdout).trim().split("\n").map((line) => line.split(" "));
  const child = lines[0]![1]!;
  const grandchild = lines.find(([kind, , ppid]) => kind === "fork" && ppid === child)![1]!;
  assert(Number(grandchild) > Number(child) && Number(grandchild) < 100);
  assertEquals(lines.map(([kind, pid, slot]) => [kind, pid, kind === "ns" ? slot : ""]), [
    ["fork", child, ""],
    ["exec", child, ""],
    ["ns", child, "net"],
    ["ns", child, "pid_for_children"],
    ["fork", grandchild, ""],
    ["ns", grandchild, "pid"],
    ["exec", grandchild, ""],
    ["exit", grandchild, ""],
    ["exit", child, ""],
    ["tasks", "1", ""],
  ]);
  const inum = (slot: string) => lines.find(([, , word]) => word === slot)![3];
  assertEquals(inum("pid"), inum("pid_for_children"));
});

test("a snapshot has every thread with its namespaces, as in /proc", needs, () => {
  using backend = openEbpf({});
  const tasks = backend.snapshot();
  const own = tasks.find(({ tid }) => tid === Deno.pid)!;
  assertEquals(own.comm, Deno.readTextFileSync("/proc/self/comm").trim());
  assertEquals(own.ppid, Deno.ppid);
  assertEquals(own.uid, 0);
  const start = Number(Deno.readTextFileSync("/proc/self/stat").split(") ")[1]!.split(" ")[19]);
  assertEquals(Number(own.start / 10_000_000n), start); // /proc counts hundredths of a second
  // Other processes of the machine may change between the snapshot and the reading: none does each time.
  let [compared, others] = [0, ["none compared"]];
  for (let tries = 0; tries < 10 && others.length; tries++) {
    [compared, others] = [0, []];
    for (const { tid, pid, slots } of backend.snapshot()) {
      for (const slot of SLOTS) {
        try {
          const link = Deno.readLinkSync(`/proc/${pid}/task/${tid}/ns/${slot}`);
          const seen = `${slotType(slot)}:[${slots.get(slot)?.inum}]`;
          if (link !== seen) others.push(`${pid}/${tid} ${slot}: ${seen} instead of ${link}`);
          compared++;
        } catch (error) {
          if (!(error instanceof Deno.errors.NotFound || error instanceof Deno.errors.PermissionDenied)) throw error;
        }
      }
    }
  }
  assertEquals(others, []);
  assert(compared >= SLOTS.length * [...Deno.readDirSync("/proc/self/task")].length);
});

test("all namespaces are listed, also those without a process", [...needs, "kernel:6.18"], () => {
  using backend = openEbpf({ kinds: new Set(["ns"]) });
  const name = `penne-watch-${Deno.pid}`;
  const path = `/run/${name}`;
  Deno.writeTextFileSync(path, "");
  assert(new Deno.Command("unshare", { args: [`--uts=${path}`, "true"] }).outputSync().success);
  try {
    const inum = Deno.statSync(path).ino!;
    const all = backend.namespaces!();
    assertEquals(all.filter((one) => one.inum === inum && one.type === "uts").length, 1);
    assertEquals(new Set(all.map(({ type }) => type)), new Set(NAMESPACE_TYPES));
    assertEquals(new Set(all.map(({ id }) => id)).size, all.length);
    // The last one: the inode number may have been another namespace's.
    const found = collect(backend).findLast((fact) => fact.kind === "ns" && fact.new?.inum === inum) as ChangeFact;
    assertEquals(all.find(({ id }) => id === found.new!.id)?.inum, inum);
  } finally {
    new Deno.Command("umount", { args: [path] }).outputSync();
    Deno.removeSync(path);
  }
});

test("facts that do not fit into the ring buffer are counted: emitted and lost facts add up", needs, () => {
  const storm = compile("tests/bench/programs/storm.c", "penne-storm");
  const count = 20_000;
  using backend = openEbpf({ kinds: new Set(["ns"]), comms: new Set(["penne-storm"]) }, { ring: 65536 });
  const once = () => {
    const { success } = new Deno.Command(storm, { args: ["uts", `${count}`, "0"], stdin: "null" }).outputSync();
    assert(success);
    let emitted = 0;
    let last = "";
    const lost = backend.read((fact) => {
      emitted++;
      if (fact.kind !== "ns") throw new Error(fact.kind);
      if (last !== "" && fact.old!.id !== null) assertEquals(fact.old!.id, last);
      last = fact.new!.id ?? "";
    });
    assertEquals(emitted + lost, count);
    assert(emitted > 500 && lost > 500, `${emitted} emitted, ${lost} lost`);
  };
  once();
  once(); // the back end continues after a loss
  change("unshare", namespaceFlag("uts"), "penne-storm");
  let more = 0;
  assertEquals(backend.read(() => more++), 0);
  assertEquals(more, 1);
});

test("a storm that is read while it lasts is emitted in full", needs, async () => {
  const storm = compile("tests/bench/programs/storm.c", "penne-storm");
  const count = 20_000;
  using backend = openEbpf({ kinds: new Set(["ns"]), comms: new Set(["penne-storm"]) });
  const child = new Deno.Command(storm, { args: ["uts", `${count}`, "0"], stdin: "null", stdout: "piped" }).spawn();
  let emitted = 0;
  let lost = 0;
  for (let idle = 0; idle < 3 || emitted + lost < count && idle < 200;) {
    const [events] = poll([{ fd: backend.fd!, events: POLL.IN }], 300);
    const before = emitted;
    lost += backend.read(() => emitted++);
    idle = emitted === before && events === 0 ? idle + 1 : 0;
  }
  assert((await child.output()).success);
  assertEquals([emitted, lost], [count, 0]);
  // Wake-ups are back after the storm.
  change("unshare", namespaceFlag("uts"), "penne-storm");
  assertEquals(poll([{ fd: backend.fd!, events: POLL.IN }], 60_000), [POLL.IN]);
  assertEquals(backend.read(() => emitted++), 0);
  assertEquals(emitted, count + 1);
});

test("a reading takes all facts unless it may be partial", needs, () => {
  const storm = compile("tests/bench/programs/storm.c", "penne-storm");
  const count = 40_000;
  using backend = openEbpf({ kinds: new Set(["ns"]), comms: new Set(["penne-storm"]) }, { ring: 8 << 20 });
  for (const part of [false, true]) {
    assert(new Deno.Command(storm, { args: ["uts", `${count}`, "0"], stdin: "null" }).outputSync().success);
    let emitted = 0;
    assertEquals(backend.read(() => emitted++, part), 0);
    assertEquals(emitted < count, part, `${emitted} of ${count}`);
    while (poll([{ fd: backend.fd!, events: POLL.IN }], 100)[0]) backend.read(() => emitted++, part);
    assertEquals(emitted, count);
  }
});

test("a back end may be closed from its own callback", needs, () => {
  const backend = openEbpf({});
  change("unshare", namespaceFlag("uts"));
  let emitted = 0;
  backend.read(() => {
    emitted++;
    backend[Symbol.dispose]();
  });
  assert(emitted >= 1);
  assertEquals(backend.read(() => emitted = 0), 0);
  assertThrows(() => backend.follow!(1), TypeError, "is closed");
});

test("closing leaves nothing behind", needs, () => {
  const fds = () => [...Deno.readDirSync("/proc/self/fd")].length;
  const programs = () =>
    [...Deno.readDirSync("/proc/self/fdinfo")].filter(({ name }) => {
      try {
        return Deno.readTextFileSync(`/proc/self/fdinfo/${name}`).includes("prog_type");
      } catch {
        return false;
      }
    }).length;
  openEbpf({})[Symbol.dispose]();
  const before = fds();
  for (let i = 0; i < 3; i++) openEbpf({ trees: new Set([1]) })[Symbol.dispose]();
  assertEquals(fds(), before);
  assertEquals(programs(), 0);
});

test("a refusal fails at once, with the reason", needs, async (t) => {
  const refused = async (body: () => unknown, message: string, hint: string) => {
    const error = assertThrows(body, PenneError, message);
    assertStringIncludes((await error.hints()).join("\n"), hint);
  };
  await t.step("without BTF", () => {
    assertThrows(
      () => openEbpf({}, { btf: "/no/such/btf" }),
      PenneError,
      "cannot observe namespaces by eBPF: No such file or directory (ENOENT)",
    );
  });
  await t.step("with another file instead of BTF", () => {
    assertThrows(
      () => openEbpf({}, { btf: "/proc/version" }),
      PenneError,
      "cannot observe namespaces by eBPF: /proc/version: This is not BTF",
    );
  });
  await t.step("without capabilities", async () => {
    const header = new Uint8Array(Uint32Array.of(0x20080522, 0).buffer);
    const before = new Uint32Array(6);
    assertEquals(self.raw("capget", header, out(new Uint8Array(before.buffer))), 0);
    const less = before.slice();
    less[0] = less[0]! & ~(1 << 21); // SYS_ADMIN
    less[3] = less[3]! & ~(1 << 6 | 1 << 7); // PERFMON, BPF
    assertEquals(self.raw("capset", header, new Uint8Array(less.buffer)), 0);
    try {
      await refused(
        () => openEbpf({}),
        "cannot observe namespaces by eBPF: Operation not permitted (EPERM)",
        "CAP_BPF and CAP_PERFMON",
      );
    } finally {
      assertEquals(self.raw("capset", header, new Uint8Array(before.buffer)), 0);
    }
  });
  await t.step("in a user namespace", () => {
    const module = new URL("../../mod/watch/ebpf/backend.ts", import.meta.url).href;
    const code = `import { openEbpf } from ${JSON.stringify(module)};
      try { openEbpf({}); } catch (error) { console.log(error.message, ...await error.hints()); }`;
    const { stdout } = new Deno.Command("timeout", {
      args: ["120", "unshare", "-Ur", Deno.execPath(), "eval", "--no-lock", code],
      cwd: ROOT,
    }).outputSync();
    const said = new TextDecoder().decode(stdout);
    assertStringIncludes(said, "cannot observe namespaces by eBPF: Operation not permitted (EPERM)");
    assertStringIncludes(said, "from a user namespace");
  });
});
