// Keeping, opening and dropping each kind of namespace: as root, rootless, by root for a user, by several users.

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { namespaceIdOf } from "../../mod/namespaces/id.ts";
import { NAMESPACE_TYPES, namespaceFile, type NamespaceType } from "../../mod/namespaces/types.ts";
import { openKept } from "../../mod/kept/open.ts";
import { command, penne, processes, sh, test, TEST_USER, until } from "../lib/helpers.ts";
import { as, Place } from "./place.ts";

/** A set-up command that tells which namespaces it is in. */
const tells = (types: readonly NamespaceType[]) => [
  "readlink",
  ...types.map((type) => `/proc/self/ns/${type === "time" ? "time" : namespaceFile(type)}`),
];

function inums(text: string): Map<string, number> {
  return new Map([...text.matchAll(/^(\w+):\[(\d+)\]$/gm)].map(([, type, inum]) => [type!, Number(inum)]));
}

/** Which lists of kinds are kept: each one alone (with a user namespace where that takes one), and all. */
const alone = (root: boolean): NamespaceType[][] => [
  ...NAMESPACE_TYPES.map((type): NamespaceType[] => root || type === "user" ? [type] : ["user", type]),
  [...NAMESPACE_TYPES],
];

test(
  "each kind of namespace is kept, opened and dropped, alone and all together, as root",
  { root: true },
  async (t) => {
    using place = new Place();
    for (const types of alone(true)) {
      await t.step(types.join(), async () => {
        const said = inums(await place.must("keep", "one", "--unshare", types.join(), "--", ...tells(types)));
        assertEquals(said.size, types.length);
        {
          using open = openKept("one", { directory: place.directory });
          assertEquals([...open.namespaces.keys()], types);
          for (const [type, fd] of open.namespaces) assertEquals(namespaceIdOf(fd).inum, said.get(type), type);
          // Only PID 1 of a pid namespace has to be there.
          assertEquals(open.holder !== null, types.includes("pid"));
        }
        const told = await place.tell("one");
        assertEquals([told?.complete, told?.occupants], [true, []]);
        for (const type of types) assertEquals(told?.namespaces[type]?.file, `${place.ns}/one.${type}`);
        const enter = types.map((type) => `--${type === "mnt" ? "mount" : type}=${place.ns}/one.${type}`);
        const entered = await sh(["nsenter", ...enter, ...tells(types.filter((type) => type !== "pid"))]);
        for (const [type, inum] of inums(entered.stdout)) assertEquals(inum, said.get(type), type);
        await place.must("drop", "one");
        assertEquals(place.files(), []);
        assertEquals(processes().filter(({ cmdline }) => cmdline.includes(`${place.ns}/one`)), []);
      });
    }
  },
);

test("each kind of namespace is kept, opened and dropped without privilege", { root: true, user: true }, async (t) => {
  using place = new Place(TEST_USER);
  for (const types of alone(false)) {
    await t.step(types.join(), async () => {
      const said = inums(await place.must("keep", "one", "--unshare", types.join(), "--", ...tells(types)));
      const told = await place.tell("one");
      assertEquals([told?.complete, told?.holder?.alive, told?.occupants], [true, true, []]);
      for (const type of types) {
        assertEquals([told?.namespaces[type]?.by, told?.namespaces[type]?.inum], ["holder", said.get(type)], type);
      }
      const pid = told!.holder!.pid;
      // The user can open them, and only he and root: that is what the holder is executed inside for.
      const links = await sh(as(TEST_USER, types.length ? ["sh", "-c", `readlink /proc/${pid}/ns/*`] : []));
      for (const [type, inum] of said) assertStringIncludes(links.stdout, `${type}:[${inum}]`);
      const status = Deno.readTextFileSync(`/proc/${pid}/status`);
      assert(Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) <= 64, status);
      await place.must("drop", "one");
      assertEquals(place.files(), []);
      await until("the holder has ended", () => !processes().some((one) => one.pid === pid));
    });
  }
});

test("the namespaces of a process are kept beyond its end", { root: true, user: true }, async (t) => {
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
      const reader = child.stdout.getReader();
      await reader.read();
      await place.must("keep", "proc", "--pid", `${child.pid}`);
      const told = await place.tell("proc");
      assertEquals(Object.keys(told!.namespaces), ["user", "mnt", "ipc", "uts", "net"]);
      assertEquals(told!.source, `process ${child.pid} (sleep)`);
      assertEquals(told!.occupants, [{ pid: child.pid, comm: "sleep" }]);
      const busy = await place.run("drop", "proc");
      assertEquals([busy.code, busy.stderr.includes(`in use by ${child.pid} (sleep)`)], [1, true]);
      child.kill("SIGKILL");
      await child.status;
      await reader.cancel();
      using open = user === null ? openKept("proc", { directory: place.directory }) : null;
      const pid = user === null ? null : told!.holder!.pid;
      const uts = user === null ? `/proc/${Deno.pid}/fd/${open!.namespaces.get("uts")!.number}` : `/proc/${pid}/ns/uts`;
      assertEquals((await sh(["nsenter", `--uts=${uts}`, "hostname"])).stdout, "kept\n");
      assertEquals((await place.tell("proc"))?.complete, true);
      await place.must("drop", "proc");
    });
  }
});

test("keep --pid takes the kinds that --type names, and refuses what is penne's own", { root: true }, async () => {
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
  "root keeps for a user, who finds it, owns it and enters it, and cannot drop it",
  { root: true, user: true },
  async () => {
    using place = new Place();
    const uid = Number((await sh(["id", "-u", TEST_USER])).stdout);
    await place.must("keep", "mine", "--user", TEST_USER, "--", "sh", "-c", "hostname for-$(id -u); touch /dev/null");
    assertEquals(place.files(), [
      `mine.${uid}.info`,
      ...["ipc", "mnt", "net", "pid", "user", "uts"].map((type) => `mine.${uid}.${type}`),
    ]);
    const user = place.for(TEST_USER);
    const told = await user.tell("mine");
    assertEquals([told?.user, told?.complete, told?.creator], [uid, true, 0]);
    const file = (type: string) => `${place.ns}/mine.${uid}.${type}`;
    const argv = ["nsenter", `--user=${file("user")}`, `--uts=${file("uts")}`, "--preserve-credentials", "hostname"];
    assertEquals((await sh(as(TEST_USER, argv), { cwd: "/" })).stdout, "for-0\n");
    const refused = await user.run("drop", "mine");
    assertEquals([refused.code, refused.stderr.includes("root has made it for you")], [1, true], refused.stderr);
    const other = await place.for("games").tell("mine");
    assertEquals(other, null);
    const forged = await user.run("keep", "mine", "--user", "0", "--", "true");
    assertEquals([forged.code, forged.stderr.includes("only root can")], [2, true], forged.stderr);
    await place.must("drop", "mine", "--user", `${uid}`);
    assertEquals(place.files(), []);
  },
);

test("several users have the same name without meeting", { root: true, user: true }, async () => {
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
    const told = await place.tell("same", ...args);
    const uts = told!.namespaces.uts!.file ?? `/proc/${told!.holder!.pid}/ns/uts`;
    const { code, stdout, stderr } = await sh(["nsenter", `--uts=${uts}`, "hostname"]);
    assertEquals([code, stderr], [0, ""], JSON.stringify(told));
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
  "a holder minds TERM from outside alone, and stays with whoever is in its pid namespace",
  { root: true },
  async () => {
    using place = new Place();
    await place.must("keep", "box", "--", "sh", "-c", "kill -TERM 1; kill -USR1 1; kill -KILL 1; sleep 0.05");
    const told = await place.tell("box");
    assertEquals([told?.complete, told?.holder?.alive], [true, true]);
    // It has nothing of whoever has made it: no descriptor, no session, no directory.
    const { pid: own } = told!.holder!;
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
      await until("it is in there", () => sleeper() !== undefined);
      const { pid } = sleeper()!;
      assertEquals((await place.tell("box"))?.occupants.map((one) => one.pid).includes(pid), true);
      assertEquals((await place.run("drop", "box")).code, 1);
      await place.must("drop", "box", "--force");
      assertEquals(place.files(), []);
      assertEquals(sleeper()?.pid, pid);
      const holder = () => processes().some((one) => one.pid === told!.holder!.pid);
      assertEquals(holder(), true);
      Deno.kill(pid, "SIGKILL");
      await until("the holder has ended too", () => !holder());
    } finally {
      await inside.status;
    }
    await place.must("keep", "box", "--", "true");
    const { holder } = (await place.tell("box"))!;
    Deno.kill(holder!.pid, "SIGTERM");
    await until("TERM from outside has ended it", () => !processes().some((one) => one.pid === holder!.pid));
    const broken = await place.tell("box");
    assertEquals([broken?.complete, broken?.problems[0]?.includes("has ended")], [false, true]);
    await place.must("keep", "box", "--", "true");
    assertEquals((await place.tell("box"))?.complete, true);
  },
);

test("a signal that is forged inside to look as from outside ends no holder", {
  root: true,
  programs: ["perl"],
}, async () => {
  using place = new Place();
  await place.must("keep", "box", "--unshare", "user,pid", "--", "true");
  const { pid } = (await place.tell("box"))!.holder!;
  const enter = ["user", "pid"].map((type) => `--${type}=${place.ns}/box.${type}`);
  const number = { x86_64: 129, aarch64: 138 }[Deno.build.arch]; // rt_sigqueueinfo
  // siginfo_t: signo, errno, code SI_QUEUE, padding, pid 0, uid
  const forge = `my $info = pack("iiix4iix104", 15, 0, -1, 0, 0); exit(syscall(${number}, 1, 15, $info) ? 1 : 0)`;
  assertEquals((await sh(["nsenter", ...enter, "perl", "-e", forge])).code, 0);
  // TERM is the third bit of its digit; an ignored CHLD may be pending for ever.
  const taken = () =>
    /^(State:\tZ|ShdPnd:\t[0-9a-f]{12}[0-389ab][0-9a-f]{3}$)/m.test(Deno.readTextFileSync(`/proc/${pid}/status`));
  await until("it has taken the signal", taken);
  await until(
    "it waits again, or has ended",
    () => /^State:\t[SZ]/m.test(Deno.readTextFileSync(`/proc/${pid}/status`)),
  );
  assertEquals((await place.tell("box"))?.complete, true);
});

test(
  "a holder in somebody's user namespace is nobody but who exists in there",
  { root: true, user: true },
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
      await sandbox.stdout.getReader().read();
      const map = `newuidmap ${sandbox.pid} 0 ${ids[0]} 9 && newgidmap ${sandbox.pid} 0 ${ids[1]} 9`;
      assertEquals((await sh(as(TEST_USER, ["sh", "-c", map]), { cwd: "/" })).code, 0);
      await place.must("keep", "box", "--pid", `${sandbox.pid}`);
      const { holder, complete } = (await place.tell("box"))!;
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

test("penne enter joins what is kept in a place of one's own", { root: true, user: true }, async (t) => {
  for (const user of [null, TEST_USER]) {
    await t.step(user ?? "root", async () => {
      using place = new Place(user);
      const enter = (...args: string[]) =>
        sh(as(user, [penne(), "enter", "--dir", place.directory, ...args]), { cwd: "/" });
      const all = [...NAMESPACE_TYPES];
      await place.must("keep", "all", "--unshare", "all", "--key", "a", "--", "true");
      const told = (await place.tell("all"))!;
      const entered = await enter("--key", "a", "all", "--", ...tells(all));
      assertEquals(entered.code, 0, entered.stderr);
      for (const [type, inum] of inums(entered.stdout)) {
        assertEquals(inum, told.namespaces[type as NamespaceType]?.inum, type);
      }
      assertEquals(inums(entered.stdout).size, all.length);
      const stale = await enter("--key", "b", "all", "--", "echo", "in");
      assertEquals([stale.code, stale.stdout], [125, ""]);
      assertStringIncludes(stale.stderr, 'it is stale: its key is "a", not "b"');
      // A kind that is asked for and not kept is no reason to run the command in ours.
      await place.must("keep", "some", "--unshare", "user,uts", "--", "true");
      const missing = await enter("--type", "user,net", "some", "--", "echo", "in");
      assertEquals([missing.code, missing.stdout], [125, ""]);
      assertStringIncludes(missing.stderr, "no net namespace is kept");
      await place.must("drop", "all");
      assertEquals((await enter("all", "--", "echo", "in")).code, 125);
    });
  }
});

test("what a set-up command leaves running stays, and occupies the set", { root: true, user: true }, async (t) => {
  for (
    const [user, unshare] of [[null, "user,pid,mnt"], [TEST_USER, "user,pid,mnt"], [TEST_USER, "user,uts"]] as const
  ) {
    await t.step(`${user ?? "root"}: ${unshare}`, async () => {
      using place = new Place(user);
      await place.must("keep", "busy", "--unshare", unshare, "--", "sh", "-c", "sleep 100 >/dev/null 2>&1 & true");
      const told = await place.tell("busy");
      assertEquals(told?.occupants.map(({ comm }) => comm), ["sleep"]);
      assertEquals((await place.run("drop", "busy")).code, 1);
      Deno.kill(told!.occupants[0]!.pid, "SIGKILL");
      await until("nobody is in it", () => !processes().some(({ pid }) => pid === told!.occupants[0]!.pid));
      await place.must("drop", "busy");
    });
  }
});

test("a sandbox with a second user namespace is kept without privilege", { root: true, user: true }, async () => {
  using place = new Place(TEST_USER);
  // As bubblewrap's: its processes are in a user namespace that owns none of the others.
  const inner = "mount -t tmpfs none /mnt; hostname nested; exec unshare -Ur sh -c 'echo; exec sleep 100'";
  const sandbox = command(as(TEST_USER, ["unshare", "-Urnum", "sh", "-c", inner]), { cwd: "/" }, {
    stdout: "piped",
  }).spawn();
  try {
    await sandbox.stdout.getReader().read();
    await place.must("keep", "box", "--pid", `${sandbox.pid}`);
    const told = (await place.tell("box"))!;
    assertEquals([told.complete, Object.keys(told.namespaces)], [true, ["user", "mnt", "uts", "net"]]);
    const enter = [penne(), "enter", "--dir", place.directory, "box", "--", "hostname"];
    const { stdout, stderr } = await sh(as(TEST_USER, enter), { cwd: "/" });
    assertEquals(stdout, "nested\n", stderr);
  } finally {
    sandbox.kill("SIGKILL");
    await sandbox.status;
  }
  await place.must("drop", "box");
});

test("who has ended and was not waited for is nobody in a set", { root: true, programs: ["perl"] }, async () => {
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
    // It is still said to be in its user namespace.
    assertEquals(
      Deno.readLinkSync(`/proc/${children()}/ns/user`),
      `user:[${(await place.tell("box"))!.namespaces.user!.inum}]`,
    );
    await place.must("drop", "box");
  } finally {
    parent.kill("SIGKILL");
    await parent.status;
  }
});

test("a set that was made in another pid namespace is not taken for broken", { root: true, user: true }, async (t) => {
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
      assertEquals((await place.tell("box"))?.complete, true);
      await place.must("drop", "box");
      // What is left of one whose pid namespace has ended goes by force.
      assertEquals((await inside("keep", "box", "--unshare", "user,pid", "--", "true")).code, 0);
      assertEquals((await place.run("drop", "box")).code, 1);
      await place.must("drop", "box", "--force");
      assertEquals(place.files(), []);
    });
  }
});

test("a thread counts as somebody in a set", { root: true }, async () => {
  using place = new Place();
  await place.must("keep", "threads", "--unshare", "uts", "--", "true");
  // An asynchronous call joins on a thread of the pool, and the first thread stays where it is.
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
    await new Promise((resolve) => setTimeout(resolve, 60000));`;
  const child = new Deno.Command(Deno.execPath(), { args: ["eval", script], stdout: "piped" }).spawn();
  try {
    const reader = child.stdout.getReader();
    await reader.read();
    const main = Deno.readLinkSync(`/proc/${child.pid}/ns/uts`);
    const told = await place.tell("threads");
    assert(main !== `uts:[${told?.namespaces.uts?.inum}]`, "its first thread is not in there");
    assertEquals(told?.occupants.map(({ pid }) => pid), [child.pid]);
    await reader.cancel();
  } finally {
    child.kill("SIGKILL");
    await child.status;
  }
  await place.must("drop", "threads");
});
