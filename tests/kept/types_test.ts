// Keeps, opens and drops each kind of namespace: as root, rootless, by root for a user, by several users.

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { namespaceIdOf } from "../../mod/namespaces/id.ts";
import { NAMESPACE_TYPES, namespaceFile, type NamespaceType } from "../../mod/namespaces/types.ts";
import { openKept } from "../../mod/kept/open.ts";
import { command, penne, processes, sh, test, TEST_USER, until } from "../lib/helpers.ts";
import { as, firstOutput, Place } from "./place.ts";

/** A set-up command that prints the namespaces it is in. */
const printing = (types: readonly NamespaceType[]) => [
  "readlink",
  ...types.map((type) => `/proc/self/ns/${type === "time" ? "time" : namespaceFile(type)}`),
];

function inums(text: string): Map<string, number> {
  return new Map([...text.matchAll(/^(\w+):\[(\d+)\]$/gm)].map(([, type, inum]) => [type!, Number(inum)]));
}

/** The combinations to keep: each kind alone (with a user namespace if it needs one), and all. */
const alone = (root: boolean): NamespaceType[][] => [
  ...NAMESPACE_TYPES.map((type): NamespaceType[] => root || type === "user" ? [type] : ["user", type]),
  [...NAMESPACE_TYPES],
];

test(
  "each kind of namespace is kept, opened and dropped, alone and all together, as root",
  ["root"],
  async (t) => {
    using place = new Place();
    for (const types of alone(true)) {
      await t.step(types.join(), async () => {
        const said = inums(await place.must("keep", "one", "--unshare", types.join(), "--", ...printing(types)));
        assertEquals(said.size, types.length);
        {
          using open = openKept("one", { directory: place.directory });
          assertEquals([...open.namespaces.keys()], types);
          for (const [type, fd] of open.namespaces) assertEquals(namespaceIdOf(fd).inum, said.get(type), type);
          // Only a pid namespace needs a process, its PID 1.
          assertEquals(open.holder !== null, types.includes("pid"));
        }
        const seen = await place.inspect("one");
        assertEquals([seen?.complete, seen?.occupants], [true, []]);
        for (const type of types) assertEquals(seen?.namespaces[type]?.file, `${place.ns}/one.${type}`);
        const enter = types.map((type) => `--${type === "mnt" ? "mount" : type}=${place.ns}/one.${type}`);
        const entered = await sh(["nsenter", ...enter, ...printing(types.filter((type) => type !== "pid"))]);
        for (const [type, inum] of inums(entered.stdout)) assertEquals(inum, said.get(type), type);
        await place.must("drop", "one");
        assertEquals(place.files(), []);
        assertEquals(processes().filter(({ cmdline }) => cmdline.includes(`${place.ns}/one`)), []);
      });
    }
  },
);

test("each kind of namespace is kept, opened and dropped without privilege", ["root", "user"], async (t) => {
  using place = new Place(TEST_USER);
  for (const types of alone(false)) {
    await t.step(types.join(), async () => {
      const said = inums(await place.must("keep", "one", "--unshare", types.join(), "--", ...printing(types)));
      const seen = await place.inspect("one");
      assertEquals([seen?.complete, seen?.holder?.alive, seen?.occupants], [true, true, []]);
      for (const type of types) {
        assertEquals([seen?.namespaces[type]?.by, seen?.namespaces[type]?.inum], ["holder", said.get(type)], type);
      }
      const pid = seen!.holder!.pid;
      // The user can open them, since the holder is executed inside.
      const links = await sh(as(TEST_USER, types.length ? ["sh", "-c", `readlink /proc/${pid}/ns/*`] : []));
      for (const [type, inum] of said) assertStringIncludes(links.stdout, `${type}:[${inum}]`);
      const status = Deno.readTextFileSync(`/proc/${pid}/status`);
      assert(Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) <= 512, status);
      await place.must("drop", "one");
      assertEquals(place.files(), []);
      await until("the holder has ended", () => !processes().some((one) => one.pid === pid));
    });
  }
});

test("the namespaces of a process are kept beyond its end", ["root", "user"], async (t) => {
  for (const user of [null, TEST_USER]) {
    await t.step(user ?? "root", async () => {
      using place = new Place(user);
      const argv = [
        "unshare",
        "-rmuin",
        "sh",
        "-c",
        "hostname kept; mount -t tmpfs none /mnt; echo up; exec sleep 100",
      ];
      const [program, ...args] = as(user, argv);
      const child = new Deno.Command(program!, { args, cwd: "/", stdout: "piped" }).spawn();
      await firstOutput(child);
      await place.must("keep", "proc", "--pid", `${child.pid}`);
      const seen = await place.inspect("proc");
      assertEquals(Object.keys(seen!.namespaces), ["user", "mnt", "ipc", "uts", "net"]);
      assertEquals(seen!.source, `process ${child.pid} (sleep)`);
      assertEquals(seen!.occupants, [{ pid: child.pid, comm: "sleep" }]);
      const busy = await place.run("drop", "proc");
      assertEquals([busy.code, busy.stderr.includes(`in use by ${child.pid} (sleep)`)], [1, true]);
      child.kill("SIGKILL");
      await child.status;
      using open = user === null ? openKept("proc", { directory: place.directory }) : null;
      const pid = user === null ? null : seen!.holder!.pid;
      const uts = user === null ? `/proc/${Deno.pid}/fd/${open!.namespaces.get("uts")!.number}` : `/proc/${pid}/ns/uts`;
      assertEquals((await sh(["nsenter", `--uts=${uts}`, "hostname"])).stdout, "kept\n");
      assertEquals((await place.inspect("proc"))?.complete, true);
      await place.must("drop", "proc");
    });
  }
});

test("keep --pid keeps the kinds of --type, and without it none that are penne's own", ["root"], async () => {
  using place = new Place();
  const same = new Deno.Command("sleep", { args: ["100"] }).spawn();
  const other = new Deno.Command("unshare", { args: ["-uin", "sleep", "100"] }).spawn();
  try {
    await until("it is in its own", () => {
      const link = (pid: number) => Deno.readLinkSync(`/proc/${pid}/ns/net`);
      return link(other.pid) !== link(same.pid);
    });
    const refused = await place.run("keep", "a", "--pid", `${same.pid}`);
    assertEquals([refused.code, refused.stderr.includes("in none but penne's own")], [1, true], refused.stderr);
    await place.must("keep", "a", "--pid", `${same.pid}`, "--type", "net");
    await place.must("keep", "b", "--pid", `${other.pid}`, "--type", "net,uts");
    assertEquals(place.files(), ["a.info", "a.net", "b.info", "b.net", "b.uts"]);
    const own = await place.run("keep", "c", "--pid", `${same.pid}`, "--type", "mnt");
    assertEquals([own.code, own.stderr.includes("only in an older one")], [1, true], own.stderr);
    const gone = await place.run("keep", "c", "--pid", "4194304");
    assertEquals([gone.code, gone.stderr.includes("(ESRCH)")], [1, true], gone.stderr);
  } finally {
    for (const child of [same, other]) {
      child.kill("SIGKILL");
      await child.status;
    }
  }
});

test(
  "a user finds, owns and enters what root keeps for it, and cannot drop it",
  ["root", "user"],
  async () => {
    using place = new Place();
    const uid = Number((await sh(["id", "-u", TEST_USER])).stdout);
    await place.must("keep", "mine", "--user", TEST_USER, "--", "sh", "-c", "hostname for-$(id -u); touch /dev/null");
    assertEquals(place.files(), [
      `mine.${uid}.info`,
      ...["ipc", "mnt", "net", "pid", "user", "uts"].map((type) => `mine.${uid}.${type}`),
    ]);
    const user = place.for(TEST_USER);
    const seen = await user.inspect("mine");
    assertEquals([seen?.user, seen?.complete, seen?.creator], [uid, true, 0]);
    const file = (type: string) => `${place.ns}/mine.${uid}.${type}`;
    const argv = ["nsenter", `--user=${file("user")}`, `--uts=${file("uts")}`, "--preserve-credentials", "hostname"];
    assertEquals((await sh(as(TEST_USER, argv), { cwd: "/" })).stdout, "for-0\n");
    const refused = await user.run("drop", "mine");
    assertEquals([refused.code, refused.stderr.includes("root has made them for you")], [1, true], refused.stderr);
    const other = await place.for("games").inspect("mine");
    assertEquals(other, null);
    const forged = await user.run("keep", "mine", "--user", "0", "--", "true");
    assertEquals([forged.code, forged.stderr.includes("only root can")], [2, true], forged.stderr);
    await place.must("drop", "mine", "--user", `${uid}`);
    assertEquals(place.files(), []);
  },
);

test("several users keep different sets under the same name", ["root", "user"], async () => {
  using root = new Place();
  using one = new Place(TEST_USER);
  using two = new Place("games");
  const keep = (place: Place, host: string, ...args: string[]) =>
    place.must("keep", "same", ...args, "--unshare", "user,uts", "--", "hostname", host);
  await Promise.all([
    keep(root, "root"),
    keep(root, "for-one", "--user", TEST_USER),
    keep(root, "for-two", "--user", "games"),
    keep(one, "one"),
    keep(two, "two"),
  ]);
  const host = async (place: Place, ...args: string[]) => {
    const seen = await place.inspect("same", ...args);
    const uts = seen!.namespaces.uts!.file ?? `/proc/${seen!.holder!.pid}/ns/uts`;
    const { code, stdout, stderr } = await sh(["nsenter", `--uts=${uts}`, "hostname"]);
    assertEquals([code, stderr], [0, ""], JSON.stringify(seen));
    return stdout.trim();
  };
  assertEquals(
    await Promise.all([
      host(root),
      host(root, "--user", TEST_USER),
      host(root, "--user", "games"),
      host(one),
      host(two),
    ]),
    ["root", "for-one", "for-two", "one", "two"],
  );
  await one.must("drop", "same");
  await root.must("drop", "same", "--user", "games");
  assertEquals(await host(two), "two");
  assertEquals(await host(root, "--user", TEST_USER), "for-one");
  assertEquals(await host(root), "root");
});

test(
  "a holder ends by TERM from outside only, and stays with the processes in its pid namespace",
  ["root"],
  async () => {
    using place = new Place();
    await place.must("keep", "box", "--", "sh", "-c", "kill -TERM 1; kill -USR1 1; kill -KILL 1; sleep 0.05");
    const seen = await place.inspect("box");
    assertEquals([seen?.complete, seen?.holder?.alive], [true, true]);
    // It inherits no descriptor, session or directory from the process that made it.
    const { pid: own } = seen!.holder!;
    assertEquals([...Deno.readDirSync(`/proc/${own}/fd`)], []);
    const [group, session] = Deno.readTextFileSync(`/proc/${own}/stat`).split(") ")[1]!.split(" ").slice(2, 4);
    assertEquals([group, session], [`${own}`, `${own}`]);
    assertEquals((await sh(["readlink", `/proc/${own}/cwd`])).stdout, "/\n");
    const enter = ["user", "mount", "pid"].map((type) =>
      `--${type}=${place.ns}/box.${type === "mount" ? "mnt" : type}`
    );
    const inside = new Deno.Command("nsenter", { args: [...enter, "sleep", "100"] }).spawn();
    try {
      const sleeper = () => processes().find(({ ppid, cmdline }) => ppid === inside.pid && cmdline[0] === "sleep");
      await until("it is inside", () => sleeper() !== undefined);
      const { pid } = sleeper()!;
      assertEquals((await place.inspect("box"))?.occupants.map((one) => one.pid).includes(pid), true);
      assertEquals((await place.run("drop", "box")).code, 1);
      await place.must("drop", "box", "--force");
      assertEquals(place.files(), []);
      assertEquals(sleeper()?.pid, pid);
      const holder = () => processes().some((one) => one.pid === seen!.holder!.pid);
      assertEquals(holder(), true);
      Deno.kill(pid, "SIGKILL");
      await until("the holder has ended too", () => !holder());
    } finally {
      await inside.status;
    }
    await place.must("keep", "box", "--", "true");
    const { holder } = (await place.inspect("box"))!;
    Deno.kill(holder!.pid, "SIGTERM");
    await until("TERM from outside has ended it", () => !processes().some((one) => one.pid === holder!.pid));
    const broken = await place.inspect("box");
    assertEquals([broken?.complete, broken?.problems[0]?.includes("has ended")], [false, true]);
    await place.must("keep", "box", "--", "true");
    assertEquals((await place.inspect("box"))?.complete, true);
  },
);

test(
  "a signal forged inside to look like one from outside does not end a holder",
  ["root", "package:perl"],
  async () => {
    using place = new Place();
    await place.must("keep", "box", "--unshare", "user,pid", "--", "true");
    const { pid } = (await place.inspect("box"))!.holder!;
    const enter = ["user", "pid"].map((type) => `--${type}=${place.ns}/box.${type}`);
    const number = { x86_64: 129, aarch64: 138 }[Deno.build.arch]; // rt_sigqueueinfo
    // siginfo_t: signo, errno, code SI_QUEUE, padding, pid 0, uid
    const forge = `my $info = pack("iiix4iix104", 15, 0, -1, 0, 0); exit(syscall(${number}, 1, 15, $info) ? 1 : 0)`;
    assertEquals((await sh(["nsenter", ...enter, "perl", "-e", forge])).code, 0);
    // TERM is the third bit of its digit; an ignored CHLD may stay pending.
    const taken = () =>
      /^(State:\tZ|ShdPnd:\t[0-9a-f]{12}[0-389ab][0-9a-f]{3}$)/m.test(Deno.readTextFileSync(`/proc/${pid}/status`));
    await until("it has taken the signal", taken);
    await until(
      "it waits again, or has ended",
      () => /^State:\t[SZ]/m.test(Deno.readTextFileSync(`/proc/${pid}/status`)),
    );
    assertEquals((await place.inspect("box"))?.complete, true);
  },
);

test(
  "a holder that joined a user namespace runs with ids that are mapped there",
  ["root", "user"],
  async () => {
    using place = new Place(TEST_USER);
    const ids = ["uid", "gid"].map((kind) =>
      new RegExp(`^${TEST_USER}:(\\d+)`, "m").exec(
        Deno.readTextFileSync(`/etc/sub${kind}`),
      )![1]!
    );
    const sandbox = command(as(TEST_USER, ["unshare", "-U", "sh", "-c", "echo; exec sleep 100"]), { cwd: "/" }, {
      stdout: "piped",
    }).spawn();
    try {
      await firstOutput(sandbox);
      const map = `newuidmap ${sandbox.pid} 0 ${ids[0]} 9 && newgidmap ${sandbox.pid} 0 ${ids[1]} 9`;
      assertEquals((await sh(as(TEST_USER, ["sh", "-c", map]), { cwd: "/" })).code, 0);
      await place.must("keep", "box", "--pid", `${sandbox.pid}`);
      const { holder, complete } = (await place.inspect("box"))!;
      assertEquals(complete, true);
      const status = Deno.readTextFileSync(`/proc/${holder!.pid}/status`);
      const four = (id: string) => Array(4).fill(id).join("\t");
      assertStringIncludes(status, `Uid:\t${four(ids[0]!)}\nGid:\t${four(ids[1]!)}\n`);
      assertEquals(/^Groups:\s*$/m.test(status), true, status);
      await place.must("drop", "box", "--force");
      await until("the holder has ended", () => !processes().some(({ pid }) => pid === holder!.pid));
    } finally {
      sandbox.kill("SIGKILL");
      await sandbox.status;
    }
  },
);

test("penne enter joins a set of the caller's own", ["root", "user"], async (t) => {
  for (const user of [null, TEST_USER]) {
    await t.step(user ?? "root", async () => {
      using place = new Place(user);
      const enter = (...args: string[]) =>
        sh(as(user, [penne(), "enter", "--dir", place.directory, ...args]), { cwd: "/" });
      const all = [...NAMESPACE_TYPES];
      await place.must("keep", "all", "--unshare", "all", "--key", "a", "--", "true");
      const seen = (await place.inspect("all"))!;
      const entered = await enter("--key", "a", "all", "--", ...printing(all));
      assertEquals(entered.code, 0, entered.stderr);
      for (const [type, inum] of inums(entered.stdout)) {
        assertEquals(inum, seen.namespaces[type as NamespaceType]?.inum, type);
      }
      assertEquals(inums(entered.stdout).size, all.length);
      const stale = await enter("--key", "b", "all", "--", "echo", "in");
      assertEquals([stale.code, stale.stdout], [125, ""]);
      assertStringIncludes(stale.stderr, 'it is stale: its key is "a", not "b"');
      // If a kind that was asked for is not kept, the command does not run in our namespace instead.
      await place.must("keep", "some", "--unshare", "user,uts", "--", "true");
      const missing = await enter("--type", "user,net", "some", "--", "echo", "in");
      assertEquals([missing.code, missing.stdout], [125, ""]);
      assertStringIncludes(missing.stderr, "no net namespace is kept");
      await place.must("drop", "all");
      assertEquals((await enter("all", "--", "echo", "in")).code, 125);
    });
  }
});

test("a process that a set-up command leaves running occupies the set", ["root", "user"], async (t) => {
  for (
    const [user, unshare] of [[null, "user,pid,mnt"], [TEST_USER, "user,pid,mnt"], [TEST_USER, "user,uts"]] as const
  ) {
    await t.step(`${user ?? "root"}: ${unshare}`, async () => {
      using place = new Place(user);
      await place.must("keep", "busy", "--unshare", unshare, "--", "sh", "-c", "sleep 100 >/dev/null 2>&1 & true");
      const seen = await place.inspect("busy");
      assertEquals(seen?.occupants.map(({ comm }) => comm), ["sleep"]);
      assertEquals((await place.run("drop", "busy")).code, 1);
      Deno.kill(seen!.occupants[0]!.pid, "SIGKILL");
      await until("no process is in it", () => !processes().some(({ pid }) => pid === seen!.occupants[0]!.pid));
      await place.must("drop", "busy");
    });
  }
});

test("a sandbox with a second user namespace is kept without privilege", ["root", "user"], async () => {
  using place = new Place(TEST_USER);
  // As bubblewrap makes them: the processes' user namespace owns none of the others.
  const inner = "mount -t tmpfs none /mnt; hostname nested; exec unshare -Ur sh -c 'echo; exec sleep 100'";
  const sandbox = command(as(TEST_USER, ["unshare", "-Urnum", "sh", "-c", inner]), { cwd: "/" }, {
    stdout: "piped",
  }).spawn();
  try {
    await firstOutput(sandbox);
    await place.must("keep", "box", "--pid", `${sandbox.pid}`);
    const seen = (await place.inspect("box"))!;
    assertEquals([seen.complete, Object.keys(seen.namespaces)], [true, ["user", "mnt", "uts", "net"]]);
    const enter = [penne(), "enter", "--dir", place.directory, "box", "--", "hostname"];
    const { stdout, stderr } = await sh(as(TEST_USER, enter), { cwd: "/" });
    assertEquals(stdout, "nested\n", stderr);
  } finally {
    sandbox.kill("SIGKILL");
    await sandbox.status;
  }
  await place.must("drop", "box");
});

test("a zombie does not occupy a set", ["root", "package:perl"], async () => {
  using place = new Place();
  await place.must("keep", "box", "--unshare", "user,uts", "--", "true");
  const parent = new Deno.Command("perl", {
    args: ["-e", "fork or exec @ARGV; sleep 100", "nsenter", `--user=${place.ns}/box.user`, "true"],
  }).spawn();
  try {
    const children = () => Deno.readTextFileSync(`/proc/${parent.pid}/task/${parent.pid}/children`).trim();
    await until("it has ended", () => {
      const child = children();
      return child !== "" && Deno.readTextFileSync(`/proc/${child}/stat`).includes(") Z ");
    });
    // /proc still shows it in its user namespace.
    assertEquals(
      Deno.readLinkSync(`/proc/${children()}/ns/user`),
      `user:[${(await place.inspect("box"))!.namespaces.user!.inum}]`,
    );
    await place.must("drop", "box");
  } finally {
    parent.kill("SIGKILL");
    await parent.status;
  }
});

test("a set that was made in another pid namespace is not taken for broken", ["root", "user"], async (t) => {
  for (const user of [null, TEST_USER]) {
    await t.step(user ?? "root", async () => {
      using place = new Place(user);
      const inside = (name: string, ...args: string[]) =>
        sh(["unshare", "-p", "-f", "-m", "--mount-proc", ...place.argv(name, ...args)], { cwd: "/" });
      await place.must("keep", "box", "--unshare", "user,pid", "--", "true");
      for (const words of [["keep", "box", "--", "true"], ["drop", "box"]]) {
        const { stderr } = await inside(words[0]!, ...words.slice(1));
        assertStringIncludes(stderr, "made in another pid namespace");
      }
      assertEquals((await place.inspect("box"))?.complete, true);
      await place.must("drop", "box");
      // --force removes what is left of a set whose pid namespace has ended.
      assertEquals((await inside("keep", "box", "--unshare", "user,pid", "--", "true")).code, 0);
      assertEquals((await place.run("drop", "box")).code, 1);
      await place.must("drop", "box", "--force");
      assertEquals(place.files(), []);
    });
  }
});

test("a thread occupies a set", ["root"], async () => {
  using place = new Place();
  await place.must("keep", "threads", "--unshare", "uts", "--", "true");
  // A nonblocking call joins on a pool thread, and the first thread stays where it is.
  const script = `import { openKept } from "${new URL("../../mod/kept/open.ts", import.meta.url)}";
    import { shim } from "${new URL("../../ffi/core/shim.ts", import.meta.url)}";
    const lib = Deno.dlopen("/proc/self/fd/" + shim().image, {
      shim: { parameters: ["i64", "i64", "i64", "i64", "i64", "i64", "i64"], result: "i64", nonblocking: true },
    });
    using open = openKept("threads", { directory: "${place.directory}" });
    const { NR } = await import("${new URL("../../ffi/core/syscalls.ts", import.meta.url)}");
    const nr = (name) => BigInt(NR[name]);
    await lib.symbols.shim(nr("setns"), BigInt(open.namespaces.get("uts").number), 0n, 0n, 0n, 0n, 0n);
    console.log("joined");
    await new Promise((resolve) => setTimeout(resolve, 1e6));`;
  const child = new Deno.Command(Deno.execPath(), { args: ["eval", script], stdout: "piped" }).spawn();
  try {
    await firstOutput(child);
    const main = Deno.readLinkSync(`/proc/${child.pid}/ns/uts`);
    const seen = await place.inspect("threads");
    assert(main !== `uts:[${seen?.namespaces.uts?.inum}]`, "its first thread is not inside");
    assertEquals(seen?.occupants.map(({ pid }) => pid), [child.pid]);
  } finally {
    child.kill("SIGKILL");
    await child.status;
  }
  await place.must("drop", "threads");
});
