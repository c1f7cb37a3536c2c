// `penne watch` with real processes, for each back end.

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Agent } from "../../../ffi/agent/agent.ts";
import { CLONE, O } from "../../../ffi/core/consts.ts";
import { open } from "../../../ffi/sys/file.ts";
import { waitChild } from "../../../ffi/sys/process.ts";
import { call, self } from "../../../ffi/core/task.ts";
import { asUser, command, penne, ROOT, sh, test, until } from "../../lib/helpers.ts";
import { NEEDS_OF_BACKEND } from "../../lib/needs.ts";
import { must, NetLab } from "../../lib/netlab.ts";
import {
  BACKENDS,
  type Emitted,
  follows,
  idOf,
  lasting,
  OFTEN,
  pause,
  startShell,
  type Watcher,
  watchJson,
} from "./lab/events.ts";

const NEEDS = ["root", "package:iproute2", "package:util-linux"] as const;
const HANDLES = [...NEEDS, "kernel:6.18"] as const;

/**
 * A mount namespace for penne and what it watches. A mount namespace that another program makes has copies of all mounts of
 * the one that it comes from, and these would hold the namespaces that a test mounts.
 */
const APART = { wrap: ["unshare", "--mount"] };

/** Runs a command line in the mount namespace of a process. */
function within({ daemon }: Watcher, argv: string[]): Promise<string> {
  return must(["nsenter", `--mount=/proc/${daemon.child.pid}/ns/mnt`, ...argv]);
}

/** Runs `penne watch` to its end. */
async function watchText(args: string[]): Promise<{ code: number; lines: string[]; stderr: string }> {
  const { code, stdout, stderr } = await sh([penne(), "watch", ...args]);
  return { code, lines: stdout.split("\n").slice(0, -1), stderr };
}

for (const backend of BACKENDS) {
  const args = ["--backend", backend, ...OFTEN];
  const needs = [...NEEDS, ...NEEDS_OF_BACKEND[backend]];
  const handles = [...HANDLES, ...NEEDS_OF_BACKEND[backend]];

  test(
    `${backend}: a scripted scenario is observed as well as the capabilities say`,
    needs,
    () =>
      lasting(backend, async (seconds) => {
        await using lab = new NetLab();
        const watcher = await watchJson(lab, args);
        const [{ sights, event, backend: used }] = watcher.emitted() as [Emitted];
        assertEquals([event, used], ["capabilities", backend]);
        const uts = lab.start(["unshare", "--uts", "sleep", "1000"]);
        const own = await Deno.readLink("/proc/self/ns/uts");
        await until("its namespace", () => Deno.readLinkSync(`/proc/${uts.child.pid}/ns/uts`) !== own);
        // Everything lasts for several polls.
        const script =
          `P="sleep ${seconds}"; $P; unshare --net $P; nsenter --uts=/proc/${uts.child.pid}/ns/uts $P; exec $P`;
        const daemon = lab.start(["sh", "-c", script]);
        const { pid } = daemon.child;
        await daemon.ended;
        await watcher.first("its exit", (emitted) => emitted.event === "exit" && emitted.pid === pid);
        const all = await watcher.end();
        const pids = new Set([pid]);
        for (const emitted of all) if (emitted.event === "fork" && pids.has(emitted.ppid)) pids.add(emitted.pid);
        const mine = all.filter((emitted) => pids.has(emitted.pid));
        for (const kind of ["fork", "exec", "exit"] as const) {
          const found = mine.filter((emitted) => emitted.event === kind);
          const exact = sights[kind] === "exact";
          // The polling back end sees a new process when it has already executed its program.
          assert(found.length >= (exact ? 4 : kind === "exec" ? 1 : 3), `${kind}: ${found.length} of 4`);
          assert(found.every((emitted) => emitted.exact === exact), `${kind} is ${sights[kind]}`);
        }
        const unshared = mine.find((emitted) => emitted.event === "ns" && emitted.type === "net");
        const joined = mine.find((emitted) => emitted.event === "ns" && emitted.type === "uts");
        assertEquals([unshared?.exact, joined?.exact], [sights.ns.net === "exact", sights.ns.uts === "exact"]);
        if (sights.ns.net === "exact") assertEquals([unshared?.reason, joined?.reason], ["unshare", "setns"]);
        assertEquals(joined?.reason === "setns" || joined?.reason === "clone", true);
        assertEquals(`net:[${unshared?.old.inum}]`, await Deno.readLink("/proc/self/ns/net"));
        assertEquals(`uts:[${joined?.new.inum}]`, await Deno.readLink(`/proc/${uts.child.pid}/ns/uts`));
        const born = mine.filter((emitted) => emitted.event === "birth");
        assertEquals(born.map(({ type, inum }) => [type, inum]), [["net", unshared?.new.inum]]);
        const death = all.find((emitted) =>
          emitted.event === "death" && emitted.type === "net" && follows(emitted, born[0]!)
        );
        assertEquals(death?.cause, "exit");
        for (const emitted of mine) {
          assertMatch(emitted.time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$/);
          assertEquals(Math.abs(Date.parse(emitted.time) - Date.now()) < 60_000, true);
          assertEquals([typeof emitted.mono_ns, emitted.source], ["number", backend]);
        }
      }),
  );

  test(
    `${backend}: a namespace that is held by one holder after another ends with the last of them`,
    handles,
    async () => {
      await using lab = new NetLab();
      const path = await Deno.makeTempFile({ prefix: "penne-held-" });
      lab.defer(() => sh(["sh", "-c", `umount ${path} 2>/dev/null; rm -f ${path}`]).then(() => {}));
      const watcher = await watchJson(lab, [...args, "--event", "birth,death", "--type", "net,user"], APART);
      const agent = Agent.spawn(CLONE.NEWNET);
      const file = `/proc/${agent.pid}/ns/net`;
      call(agent, "getpid");
      const { inum, id } = idOf(agent.pid, "net");
      const dead = () => watcher.emitted().find((emitted) => emitted.event === "death" && emitted.id === id);
      const stillAlive = async (holder: string, milliseconds = 350) => {
        await pause(milliseconds);
        assertEquals(dead(), undefined, `held by ${holder}`);
      };
      await watcher.first("its birth", (emitted) => emitted.event === "birth" && emitted.id === id);
      await stillAlive("a process");
      await within(watcher, ["mount", "--bind", file, path]);
      agent.close();
      await stillAlive("a bind mount");
      const fd = open(self, `/proc/${watcher.daemon.child.pid}/root${path}`, O.RDONLY);
      await within(watcher, ["umount", "--lazy", path]);
      await stillAlive("a descriptor");
      let socket;
      {
        using inside = Agent.spawn();
        call(inside, "setns", fd, CLONE.NEWNET);
        socket = inside.open("socket", 2, 2, 0);
        fd.close();
      }
      await stillAlive("a socket", 600);
      const held = [...Deno.readDirSync(`/proc/${watcher.daemon.child.pid}/fd`)].map(({ name }) => {
        try {
          return Deno.readLinkSync(`/proc/${watcher.daemon.child.pid}/fd/${name}`);
        } catch {
          return "";
        }
      });
      assertEquals(
        held.filter((link) => /^[a-z]+:\[\d+\]$/.test(link) && !link.startsWith("pipe") && !link.startsWith("socket")),
        [],
      );
      socket.close();
      await until("its death", () => dead() !== undefined);
      assertEquals([dead()!.inum, dead()!.cause, dead()!.exact], [inum, "unknown", true]);
    },
  );

  test(`${backend}: the death of a namespace has its cause`, handles, async () => {
    await using lab = new NetLab();
    const path = await Deno.makeTempFile({ prefix: "penne-cause-" });
    lab.defer(() => sh(["sh", "-c", `umount ${path} 2>/dev/null; rm -f ${path}`]).then(() => {}));
    const watcher = await watchJson(lab, [...args, "--event", "ns,birth,death", "--type", "uts,user"], APART);
    const cause = async (what: string, id: string | null) => {
      const emitted = await watcher.first(what, (one) => one.event === "death" && one.id === id);
      return emitted.cause;
    };
    const own = idOf(Deno.pid, "uts").id;
    // An exit.
    const first = lab.start(["unshare", "--uts", "sleep", "1000"]);
    await until("its namespace", () => ![own, null].includes(idOf(first.child.pid, "uts").id));
    const { id: ended } = idOf(first.child.pid, "uts");
    await watcher.first("its birth", (emitted) => emitted.event === "birth" && emitted.id === ended);
    first.child.kill("SIGKILL");
    assertEquals(await cause("the end by exit", ended), "exit");
    // A mount.
    const second = lab.start(["unshare", "--uts", "sleep", "1000"]);
    await until("its namespace", () => ![own, null].includes(idOf(second.child.pid, "uts").id));
    const { id: mounted } = idOf(second.child.pid, "uts");
    await watcher.first("its birth", (emitted) => emitted.event === "birth" && emitted.id === mounted);
    await within(watcher, ["mount", "--bind", `/proc/${second.child.pid}/ns/uts`, path]);
    second.child.kill("SIGKILL");
    await pause(300);
    await within(watcher, ["umount", path]);
    assertEquals(await cause("the end by umount", mounted), "unmounted");
    // A user namespace that only a child namespace holds.
    const [outer, inner] = [Agent.spawn(CLONE.NEWUSER), Agent.spawn()];
    call(outer, "getpid");
    for (const map of ["uid_map", "gid_map"]) await Deno.writeTextFile(`/proc/${outer.pid}/${map}`, "0 0 1");
    {
      using fd = open(self, `/proc/${outer.pid}/ns/user`, O.RDONLY);
      call(inner, "setns", fd, CLONE.NEWUSER);
    }
    const { id: above } = idOf(outer.pid, "user");
    await watcher.first("the outer birth", (emitted) => emitted.event === "birth" && emitted.id === above);
    await watcher.first(
      "the join",
      ({ event, pid, new: to }) => event === "ns" && pid === inner.pid && to.id === above,
    );
    call(inner, "unshare", CLONE.NEWUSER);
    const { id: below } = idOf(inner.pid, "user");
    await watcher.first("the inner birth", (emitted) => emitted.event === "birth" && emitted.id === below);
    outer.close();
    waitChild(outer.pid);
    await pause(300);
    assertEquals(watcher.emitted().some((emitted) => emitted.event === "death" && emitted.id === above), false);
    inner.close();
    waitChild(inner.pid);
    assertEquals(await cause("the inner end", below), "exit");
    assertEquals(await cause("the outer end", above), "child");
  });

  test(`${backend}: 300 short-lived names are reported, never early, beside a wait`, needs, async () => {
    await using lab = new NetLab();
    const prefix = `penne-${Deno.pid}-${backend}-`;
    const last = `${prefix}300`;
    const watcher = await watchJson(lab, ["--backend", backend, "--event", "name"]);
    const waiter = lab.start([penne(), "wait", last, "--for", "present"]);
    // Prints the earliest time at which each name may be reported: that of its `ip netns add`.
    const script = `for i in $(seq 300); do date +%s.%N; ` +
      `ip netns add ${prefix}$i; ip netns del ${prefix}$i; done`;
    const begun = (await must(["sh", "-c", script])).trim().split("\n").map(Number);
    const names = () =>
      watcher.emitted().filter((emitted) => emitted.event === "name" && emitted.path.includes(prefix));
    await until("all names", () => names().length >= 600).catch((error) => {
      throw new Error(`${error.message}: ${names().length} of 600`);
    });
    const emitted = names();
    for (let i = 1; i <= 300; i++) {
      const path = `/run/netns/${prefix}${i}`;
      const states = emitted.filter((one) => one.path === path);
      assertEquals(states.map(({ state, type }) => [state, type]), [["mounted", "net"], ["gone", "net"]], path);
      assert(states.every(({ inum, exact }) => typeof inum === "number" || exact === false), path);
      assert(Date.parse(states[0]!.time) / 1000 >= begun[i - 1]! - 0.01, `${path} is early`);
    }
    // `penne wait` sees names that stay; it may miss one that exists only for an instant.
    await must(["ip", "netns", "add", last]);
    lab.defer(() => sh(["ip", "netns", "del", last]).then(() => {}));
    assertEquals((await waiter.ended).code, 0);
  });

  test(`${backend}: filters leave out unwanted events`, needs, () =>
    lasting(backend, async (seconds) => {
      await using lab = new NetLab();
      const tree = startShell(lab, `sleep ${seconds} & unshare --uts sleep ${seconds}; wait`);
      const other = startShell(lab, `unshare --uts --net sleep ${seconds}; sleep 0.1`);
      const watchers = await Promise.all([
        watchJson(lab, [...args, "--tree", `${tree.pid}`]),
        watchJson(lab, [...args, "--event", "ns", "--type", "net"]),
        watchJson(lab, [...args, "--pid", `${tree.pid}`, "--event", "exit"]),
        watchJson(lab, [...args, "--uid", "penne-no-such-user,0"]).catch((error) => error),
      ]);
      assertMatch(`${watchers[3]}`, /has no user/);
      const [below, net, one] = watchers as Awaited<ReturnType<typeof watchJson>>[];
      await Promise.all([tree, other].map(({ go }) => go()));
      await Promise.all([tree, other].map(({ daemon }) => daemon.ended));
      await one!.first("the exit", ({ event, pid }) => event === "exit" && pid === tree.pid);
      await pause(100);
      const exits = (await one!.end()).filter(({ event }) => event !== "capabilities");
      assertEquals(exits.map(({ event, pid }) => [event, pid]), [["exit", tree.pid]]);
      const types = (await net!.end()).filter(({ event }) => event !== "capabilities");
      assert(types.every(({ event, type }) => event === "ns" && type === "net"));
      assert(types.some(({ new: { inum } }) => inum > 0));
      const pids = new Set([tree.pid]);
      for (const emitted of await below!.end()) {
        if (["capabilities", "death", "lost", "resync"].includes(emitted.event)) continue;
        if (emitted.event === "fork") pids.add(emitted.pid);
        assert(pids.has(emitted.pid), JSON.stringify(emitted));
      }
      assert(pids.size >= 3);
    }));

  test(
    `${backend}: a command is followed to its end, with a summary`,
    handles,
    () =>
      lasting(backend, async (seconds) => {
        const { code, lines, stderr } = await watchText([
          ...args,
          "--",
          "sh",
          "-c",
          `sleep ${seconds}; unshare --uts sleep ${seconds}; exit 7`,
        ]);
        assertEquals([code, stderr], [7, ""]);
        assertMatch(lines[0]!, new RegExp(`^capabilities: backend=${backend} `));
        assertEquals(lines.filter((line) => line.startsWith("birth: type=uts")).length, 1);
        assertEquals(lines.filter((line) => line.startsWith("death: type=uts")).length, 1);
        assertEquals(lines.at(-1), "summary: born=1 alive=0");
      }),
  );

  test(`${backend}: a summary lists what a command leaves behind`, handles, () =>
    lasting(backend, async (seconds) => {
      await using lab = new NetLab();
      const path = await Deno.makeTempFile({ prefix: "penne-left-" });
      lab.defer(() => sh(["sh", "-c", `umount ${path}; rm -f ${path}`]).then(() => {}));
      const { code, lines } = await watchText([
        ...args,
        "--",
        "unshare",
        "--uts",
        "sh",
        "-c",
        `sleep ${seconds}; mount --bind /proc/self/ns/uts ${path}`,
      ]);
      assertEquals(code, 0);
      assertStringIncludes(lines.join("\n"), "summary: born=1 alive=1\nalive: type=uts inum=");
    }));

  test(`${backend}: a reader that pauses gets the number of lost events, and the differences`, needs, async () => {
    await using lab = new NetLab();
    const watcher = new Deno.Command(penne(), {
      args: ["watch", "--json", "--backend", backend, "--interval", "0.05"],
      stdin: "null",
      stdout: "piped",
      stderr: "null",
    }).spawn();
    lab.defer(async () => {
      try {
        watcher.kill("SIGKILL");
      } catch {
        // It has already ended.
      }
      await watcher.status;
    });
    const reader = watcher.stdout.getReader();
    const decoder = new TextDecoder();
    let text = decoder.decode((await reader.read()).value, { stream: true });
    // Nothing is read while many short-lived processes cause events.
    const uts = lab.start(["unshare", "--uts", "sleep", "1000"]);
    await must(["sh", "-c", "i=0; while [ $i -lt 300 ]; do /bin/true; i=$((i+1)); done"]);
    const usage = () => {
      const text = Deno.readTextFileSync(`/proc/${watcher.pid}/stat`);
      return text.slice(text.lastIndexOf(")") + 2).split(" ")[0];
    };
    assert(["S", "R"].includes(usage()!), "it runs");
    const reading = (async () => {
      for (let part; !(part = await reader.read()).done;) text += decoder.decode(part.value, { stream: true });
    })();
    await until("the last process", () => text.includes(`"pid":${uts.child.pid},`));
    watcher.kill("SIGTERM");
    await reading;
    for (const line of text.trim().split("\n")) JSON.parse(line);
  });
}

test("The example of the proposal of 2016", NEEDS, async (t) => {
  await using lab = new NetLab();
  const daemon = lab.start([penne(), "watch"]);
  await until("its capabilities", () => daemon.output().includes("\n"));
  const exact = / ns=exact /.test(daemon.output().split("\n")[0]!);
  const child = command(["unshare", "-n", "-f", "ls", "-l", "/proc/self/ns/net"], {}, { stdout: "piped" }).spawn();
  const { pid } = child;
  const inside = /net:\[(\d+)\]/.exec(new TextDecoder().decode((await child.output()).stdout))![1];
  const outside = /\d+/.exec(await Deno.readLink("/proc/self/ns/net"))![0];
  await until("its exit", () => daemon.output().includes(`exit: pid=${pid}\n`));
  const lines = daemon.output().split("\n").filter((line) => /^(fork|exec|exit|ns):/.test(line));
  const grandchild = lines.map((line) => new RegExp(`^fork: ppid=${pid} pid=(\\d+)$`).exec(line)?.[1]).find(Boolean);
  const own = lines.filter((line) => new RegExp(` pid=(${pid}|${grandchild})( |$)`).test(line));
  const change = `ns: pid=${pid} type=net reason=unshare old_inum=${outside} inum=${inside}`;
  const expected = [
    `fork: ppid=${Deno.pid} pid=${pid}`,
    `exec: pid=${pid}`,
    change,
    `fork: ppid=${pid} pid=${grandchild}`,
    `exec: pid=${grandchild}`,
    `exit: pid=${grandchild}`,
    `exit: pid=${pid}`,
  ];
  await t.step(exact ? "exactly" : "but for the change of the namespace, which is inferred", () => {
    if (exact) assertEquals(own, expected);
    else {
      assertEquals(own.filter((line) => !line.startsWith("ns:")), expected.filter((line) => line !== change));
      const found = own.filter((line) => line.startsWith("ns:"));
      assertEquals(found.map((line) => line.replace("=clone", "=unshare")), [`${change} exact=false`]);
    }
  });
});

/** Ways to start a program where less can be observed. */
const PLACES: [string, (argv: string[]) => string[]][] = [
  ["in a user namespace", (argv) => ["unshare", "--user", "--map-root-user", "--", ...argv]],
  ["in a pid namespace", (argv) => ["unshare", "--pid", "--fork", "--mount-proc", "--", ...argv]],
  ["in a net namespace", (argv) => ["unshare", "--net", "--", ...argv]],
  ["as another user", asUser],
  ["without BTF", (argv) => [
    "unshare",
    "--mount",
    "sh",
    "-c",
    'if [ -e /sys/kernel/btf/vmlinux ]; then mount --bind /dev/null /sys/kernel/btf/vmlinux; fi; exec "$@"',
    "sh",
    ...argv,
  ]],
  [
    "in all of them",
    (argv) => ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--net", "--", ...argv],
  ],
];

for (const [where, wrap] of PLACES) {
  test(`It never hangs ${where}, and reports its capabilities`, [...NEEDS, "user"], async () => {
    const args = ["watch", "--json", "--duration", "0.7", "--interval", "0.1"];
    const { code, stdout, stderr } = await sh(["timeout", "120", ...wrap([penne(), ...args])], { cwd: "/" });
    assertEquals(code, 0, stderr);
    const emitted = stdout.trim().split("\n").map((line) => JSON.parse(line));
    assertEquals(emitted[0].event, "capabilities");
    for (const { reason } of emitted[0].refused) assertMatch(reason, /^cannot (watch|observe)/);
    for (const backend of ["ebpf", "proc", "poll"]) {
      const argv = ["timeout", "120", ...wrap([penne(), "watch", "--duration", "0.1", "--backend", backend])];
      const forced = await sh(argv, { cwd: "/" });
      if (forced.code === 0) assertMatch(forced.stdout, new RegExp(`^capabilities: backend=${backend} `));
      else {
        assertEquals(forced.code, 1, forced.stderr);
        assertMatch(forced.stderr, /^penne: cannot (watch|observe)/);
      }
    }
  });
}

test(
  "An unprivileged user sees their own namespaces, their births and deaths",
  [...HANDLES, "user"],
  () =>
    lasting("poll", async (seconds) => {
      await using lab = new NetLab();
      const watcher = await watchJson(lab, OFTEN, { user: true });
      const [{ denied }] = watcher.emitted() as [Emitted];
      assert(denied > 0);
      const daemon = lab.start(
        asUser(["sh", "-c", `sleep ${seconds}; unshare --user --map-root-user --net sleep ${seconds}; true`]),
      );
      const birth = await watcher.first("its birth", (emitted) => emitted.event === "birth" && emitted.type === "net");
      await daemon.ended;
      const death = await watcher.first(
        "its death",
        (emitted) => emitted.event === "death" && follows(emitted, birth),
      );
      assertEquals(death.id, birth.id);
      await watcher.end();
    }),
);

test("ebpf: on a kernel without ids and lists of namespaces, as before Linux 6.18", [...NEEDS, "ebpf"], async () => {
  await using lab = new NetLab();
  // The kernel's BTF, without the names of the new fields.
  const btf = await Deno.readFile("/sys/kernel/btf/vmlinux");
  const text = new TextDecoder("latin1").decode(btf);
  for (const name of ["ns_id", "ns_type", "ns_list_node", "ns_list_entry"]) {
    for (let at = -1; (at = text.indexOf(`\0${name}\0`, at + 1)) >= 0;) btf[at + 1] = "x".charCodeAt(0);
  }
  const path = await Deno.makeTempFile({ prefix: "penne-btf-" });
  lab.defer(() => Deno.remove(path));
  await Deno.writeFile(path, btf);
  const script = 'mount --bind "$0" /sys/kernel/btf/vmlinux && exec "$@"';
  const wrap = ["unshare", "--mount", "sh", "-c", script, path];
  const watcher = await watchJson(lab, ["--backend", "ebpf", "--type", "uts"], { wrap });
  const daemon = lab.start(["unshare", "--uts", "sleep", "0.2"]);
  const { pid } = daemon.child;
  const change = await watcher.first("its change", (emitted) => emitted.event === "ns" && emitted.pid === pid);
  assertEquals([change.reason, change.old], ["unshare", { inum: idOf(Deno.pid, "uts").inum, id: null }]);
  const birth = await watcher.first("its birth", (emitted) => emitted.event === "birth" && emitted.pid === pid);
  assertEquals([birth.inum, birth.id, birth.exact], [change.new.inum, null, true]);
  await daemon.ended;
  const death = await watcher.first(
    "its end",
    (emitted) => emitted.event === "death" && follows(emitted, birth),
  );
  assertEquals([death.cause, death.exact], ["exit", false]); // its end cannot be confirmed
});

test(
  "ebpf: a reader that is behind at the end gets the number of lost events: emitted and lost add up to all events",
  ["root", "ebpf", "package:gcc"],
  async () => {
    const directory = await Deno.makeTempDir({ prefix: "penne-behind-" });
    try {
      const storm = `${directory}/storm`;
      await must(["gcc", "-O1", "-o", storm, `${ROOT}tests/bench/programs/storm.c`]);
      const args = ["watch", "--json", "--backend", "ebpf", "--event", "ns", "--type", "uts"];
      const count = 30_000;
      const watcher = new Deno.Command(penne(), {
        args: [
          ...args,
          "--",
          "sh",
          "-c",
          '"$0" "$@" </dev/null >/dev/null; : >"$0.done"',
          storm,
          "uts",
          `${count}`,
          "0",
        ],
        stdin: "null",
        stdout: "piped",
      }).spawn();
      await until("the command has ended", () => [...Deno.readDirSync(directory)].length > 1);
      await pause(700);
      const { code, stdout } = await watcher.output();
      assertEquals(code, 0);
      const all: Emitted[] = new TextDecoder().decode(stdout).trim().split("\n").map((line) => JSON.parse(line));
      const emitted = all.filter(({ event, source }) => event === "ns" && source !== "resync").length;
      const lost = all.filter(({ event }) => event === "lost").reduce((sum, { count }) => sum + count, 0);
      assert(lost > 0);
      assertEquals([emitted + lost, all.at(-1)?.event], [count, "summary"]);
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  },
);

test("The polling back end polls at its interval", NEEDS, async () => {
  await using lab = new NetLab();
  // In its own mount namespace, mounts of other tests do not cause a reading.
  const args = ["--backend", "poll", "--event", "fork,death", "--interval", "1"];
  const watcher = await watchJson(lab, args, { wrap: ["unshare", "--mount"] });
  const pids = new Set<number>();
  let last = 0;
  for (let i = 0; i < 30; i++) {
    pids.add(last = lab.start(["sleep", "1000"]).child.pid);
    await pause(100);
  }
  await watcher.first("the last one", ({ pid }) => pid === last);
  const all = watcher.emitted();
  const momentsOf = (chosen: Emitted[]) =>
    chosen.map(({ mono_ns }) => mono_ns / 1e6).filter((time, i, times) => i === 0 || time - times[i - 1]! > 100);
  const forks = all.filter(({ pid }) => pids.has(pid));
  assertEquals(forks.length, pids.size);
  const looks = momentsOf(forks);
  // Before it reports that a namespace of another program has ended, it reads once more: the cause comes first.
  const ends = momentsOf(all.filter(({ event }) => event === "death"));
  const seconds = (looks.at(-1)! - looks[0]!) / 1000;
  assert(looks.length - ends.length <= seconds + 3, `${looks.join(" ")}; ends: ${ends.join(" ")}`);
});

test("It ends quietly when its reader goes away, also while nothing happens", NEEDS, async () => {
  const script = `"$0" watch --event name --type cgroup | head -n 1; echo "\${PIPESTATUS[0]}"`;
  const { stdout, stderr } = await sh(["timeout", "120", "bash", "-c", script, penne()]);
  assertMatch(stdout, /^capabilities: .*\n0\n$/);
  assertEquals(stderr, "");
});

test("The exit code is the command's, or a shell's if it cannot be executed", NEEDS, async () => {
  for (
    const [argv, code] of [
      [["sh", "-c", "exit 3"], 3],
      [["sh", "-c", "kill -KILL $$"], 137],
      [["/penne-no-such-program"], 127],
      [["/etc/passwd"], 126],
    ] as const
  ) {
    assertEquals((await watchText(["--event", "exit", "--", ...argv])).code, code, argv.join(" "));
  }
});

test("A command inherits penne's descriptors, signals and limits", NEEDS, async () => {
  const script =
    'exec 9</etc/hostname; exec "$0" watch -o /dev/null -- sh -c "cat <&9 >/dev/null && trap | grep -c PIPE; ulimit -n"';
  const { stdout } = await sh(["bash", "-c", `ulimit -n 999; ${script}`, penne()]);
  assertEquals(stdout, "0\n999\n");
});

test("With --output, stdout is left to the command", NEEDS, async () => {
  const file = await Deno.makeTempFile();
  const { stdout, code } = await sh([penne(), "watch", "-o", file, "--", "echo", "hello"]);
  assertEquals([stdout, code], ["hello\n", 0]);
  const text = await Deno.readTextFile(file);
  await Deno.remove(file);
  assertMatch(text, /^capabilities: .*\nexec: pid=\d+\n(.*\n)*exit: pid=\d+\n(.*\n)*summary: born=0 alive=0\n$/);
});

test("A signal ends it, and is its exit status", NEEDS, async () => {
  await using lab = new NetLab();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    const daemon = lab.start([penne(), "watch"]);
    await until("it runs", () => daemon.output().includes("capabilities"));
    daemon.child.kill(signal);
    assertEquals((await daemon.ended).signal, signal);
  }
});

test("Wrong command lines are usage errors, and nothing is done", async () => {
  for (
    const args of [
      ["x"],
      ["--event", "forks"],
      ["--event", ""],
      ["--type", "network"],
      ["--pid", "x"],
      ["--pid", "1,"],
      ["--uid", "penne-no-such-user"],
      ["--cgroup", "/penne/no/such"],
      ["--backend", "magic"],
      ["--interval", "0"],
      ["--interval", "often"],
      ["--duration", "-1"],
      ["--format", "xml"],
      ["--json", "--format", "text"],
      ["--"],
      ["--tree", "1", "--", "true"],
    ]
  ) {
    const { code, stdout, stderr } = await sh([penne(), "watch", ...args]);
    assertEquals([code, stdout], [2, ""], `${args.join(" ")}: ${stderr}`);
    assertMatch(stderr, /^penne: cannot /);
  }
});
