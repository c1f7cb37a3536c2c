// `penne ls`: that it finds every namespace, whatever holds it, invents none, and says what it could not see.

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { openPid } from "../../../ffi/sys/process.ts";
import { identify, ownPids, type ProcessIdentity } from "../../../mod/kept/record/identity.ts";
import { encodeInfo } from "../../../mod/kept/record/info.ts";
import type { Holder, ListedNamespace, Listing } from "../../../mod/list/listing.ts";
import { asUser, type How, type Need, penne, sh, test, TEST_USER, until } from "../../lib/helpers.ts";
import { becomes, must, NetLab } from "../../lib/netlab.ts";
import { hold, ls } from "./hold.ts";

const NEEDS = ["package:python3"] as const;

/** What the lab says of a holder. */
function words({ kind, pid, tid, fds, path, namespace }: Holder): string {
  if (namespace) return `${kind} ${namespace.type}:[${namespace.inum}]`;
  return kind === "mount"
    ? `${kind} ${path}`
    : [kind, pid, tid, fds?.join()].filter((part) => part !== undefined).join(" ");
}

/** Whether what holds it shows as a task in it. */
const OCCUPIED: readonly string[] = ["process", "thread", "zombie", "headless"];

async function holderIsFound(kind: string, how: How): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "penne-ls-" });
  try {
    // In a mount namespace of its own: whoever copies one on this machine would hold what is mounted, too.
    const mounted = ["mount", "path"].includes(kind);
    const apart = mounted ? ["unshare", "--mount"] : [];
    await using held = await hold([kind, ...mounted ? [`${directory}/ns`] : []], how, apart);
    const there = mounted ? ["nsenter", "--mount", "-t", `${held.pid}`] : [];
    const { namespaces, complete } = await ls(["--holders", held.name], how, there);
    assertEquals(namespaces.map(({ type, inum }) => `${type}:[${inum}]`), [held.name]);
    const [found] = namespaces as [ListedNamespace];
    // Another penne on this machine may just be asking it.
    const holders = found.holders!.filter(({ comm }) => comm !== "penne");
    assertEquals(holders.map(words), held.holder === "" ? [] : [held.holder], kind);
    assertEquals(found.processes + found.threads > 0, OCCUPIED.includes(kind), kind);
    const orphans = await ls(["--orphans"], how, there);
    const isThere = ({ type, inum, id }: ListedNamespace) =>
      type === found.type && inum === found.inum && id === found.id;
    assertEquals(orphans.namespaces.some(isThere), !OCCUPIED.includes(kind), kind);
    assertEquals(complete, orphans.complete);
    await held.release();
    const end = Date.now() + 60_000;
    while ((await ls([], how, there)).namespaces.some(isThere)) {
      assert(Date.now() < end, `${held.name} ends when its ${kind} does`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

const KINDS: readonly (readonly [kind: string, what: string, ...needs: Need[]])[] = [
  ["process", "a process"],
  ["thread", "a thread"],
  ["children", "a process whose children will be in it"],
  ["descriptor", "a descriptor"],
  ["socket", "a socket"],
  ["tap", "a tap", "tun"],
  ["child", "a user namespace below it"],
  ["owned", "a namespace that it owns"],
  ["zombie", "a process that nobody has waited for"],
];

for (const [kind, what, ...needs] of KINDS) {
  test(`A namespace that only ${what} holds is found, and ends with it`, [...NEEDS, "root", ...needs], () => {
    return holderIsFound(kind, {});
  });
  const forUser: Need[] = ["user", "user namespaces", "kernel:5.10"];
  test(`As a user, a namespace that only ${what} holds is found`, [...NEEDS, ...forUser, ...needs], () => {
    return holderIsFound(kind, { user: true });
  });
}

for (const [kind, what] of [["mount", "a mount"], ["path", "a descriptor opened by a path that is gone"]] as const) {
  const needs: Need[] = ["root", "package:mount", "package:util-linux"];
  test(`A namespace that only ${what} holds is found, and ends with it`, [...NEEDS, ...needs], () => {
    return holderIsFound(kind, {});
  });
}

test(
  "All namespaces of a process whose first thread has ended are found",
  [...NEEDS, "root", "kernel:5.6"],
  async () => {
    await holderIsFound("headless", {});
    await using held = await hold(["headless"]);
    const pid = held.holder.split(" ")[1]!;
    const types = (await ls([pid])).namespaces.map(({ type }) => type);
    assertEquals(types.toSorted(), (await ls([`${Deno.pid}`])).namespaces.map(({ type }) => type).toSorted());
  },
);

test(
  "A namespace holds the one above it once, however often that is asked",
  ["root", "package:util-linux"],
  async () => {
    await using lab = new NetLab();
    // The pid namespace in the middle belongs to a user namespace that does not show from inside, where penne asks.
    const below = "unshare --pid --fork sleep 1000";
    const inner = ["unshare", "--user", "--map-root-user", "sh", "-c", `${below} & ${below} & echo there; wait`];
    const outer = lab.start(["unshare", "--pid", "--fork", "--kill-child", ...inner]);
    await until("it is there", () => outer.output() !== "");
    const children = (pid: number) => Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`).trim().split(" ");
    const shell = Number(children(outer.child.pid)[0]);
    const sleeping = (pid: string): boolean =>
      pid !== "" && (Deno.readTextFileSync(`/proc/${pid}/comm`) === "sleep\n" || children(Number(pid)).some(sleeping));
    await until("all are there", () => children(shell).length === 2 && children(shell).every(sleeping));
    const number = (pid: number) => /\d+/.exec(Deno.readLinkSync(`/proc/${pid}/ns/pid`))![0];
    const inside = ["nsenter", "--user", "--preserve-credentials", "-t", `${shell}`];
    const { namespaces } = await ls(["--holders", `pid:[${number(Deno.pid)}]`], {}, inside);
    const held = namespaces[0]!.holders!.map(words).filter((one) => one === `child pid:[${number(shell)}]`);
    assertEquals(held.length, 1);
  },
);

test("Processes whose descriptors can be counted, but not looked at, are mentioned", [
  "root",
  "user",
  "package:util-linux",
], async () => {
  const denied = async (privileges: string) => {
    const other = `setpriv --reuid ${TEST_USER} --regid ${TEST_USER} --init-groups ${privileges} sleep 1000`;
    const ours = asUser([penne(), "ls", "--json"]).join(" ");
    const script = `${other} & until [ "$(cat /proc/$!/comm)" = sleep ]; do sleep 0.01; done; ${ours}; kill $!`;
    const listing = await must(["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", script], { cwd: "/" });
    return (JSON.parse(listing) as Listing).unseen.descriptors;
  };
  // The shell is of root. The other one is of the user's, but has a right that the user does not.
  assertEquals(await denied("--inh-caps=-all"), 1);
  assertEquals(await denied("--inh-caps=-all,+net_raw --ambient-caps=-all,+net_raw"), 2);
});

test("A process that has ended names no set, though its namespace's number is another one's", [
  "user",
  "user namespaces",
  "root",
], async () => {
  await using lab = new NetLab();
  const directory = await Deno.makeTempDir({ prefix: "penne-ls-" });
  lab.defer(() => Deno.remove(directory, { recursive: true }));
  const there = lab.start(asUser(["unshare", "--user", "--map-root-user", "--uts", "sleep", "1000"]), { cwd: "/" });
  await becomes(there, "sleep");
  using pidfd = openPid(there.child.pid);
  const holder = identify(pidfd)!;
  const inum = Number(/\d+/.exec(Deno.readLinkSync(`/proc/${holder.pid}/ns/uts`))![0]);
  const names = async (recorded: ProcessIdentity) => {
    const uts = { by: "holder", inum, device: "0:4", id: null } as const;
    const info = {
      ...{
        name: "set",
        user: null,
        token: "1f",
        created: "2026-01-01T00:00:00.000Z",
        creator: 0,
        source: "command true",
      },
      ...{
        namespaces: new Map([["uts", uts]] as const),
        holder: recorded,
        init: null,
        pids: ownPids(),
        base: null,
        key: null,
      },
    };
    await Deno.mkdir(`${directory}/penne/ns`, { recursive: true });
    await Deno.writeFile(`${directory}/penne/ns/set.info`, encodeInfo(info));
    await must(["chown", "-R", TEST_USER, directory]);
    const how = { user: true, env: { XDG_RUNTIME_DIR: directory } };
    return (await ls(["--type", "uts", `${holder.pid}`], how)).namespaces.flatMap(({ names }) => names);
  };
  assertEquals(await names(holder), [{ kind: "kept", name: "set" }]);
  assertEquals(await names({ ...holder, start: "1" }), []);
});

test("A namespace that nothing shows is found by its id", [...NEEDS, "root", "kernel:6.18", "ebpf"], () => {
  return holderIsFound("flight", {});
});

/** What `penne ls` lacks, or invents, in comparison with lsns(8). */
async function differences(): Promise<string[]> {
  const lsns = async () => new Set((await sh(["lsns", "-n", "-r", "-o", "TYPE,NS"])).stdout.trim().split("\n"));
  const before = await lsns();
  const { namespaces } = await ls(["--holders"]);
  const after = await lsns();
  const listed = new Set(namespaces.map(({ type, inum }) => `${type} ${inum}`));
  const missing = [...before].filter((one) => after.has(one) && !listed.has(one));
  // What has no process, lsns does not see.
  const invented = namespaces.filter(({ type, inum, processes, pid }) =>
    processes > 0 && !before.has(`${type} ${inum}`) && !after.has(`${type} ${inum}`) && exists(`/proc/${pid}`)
  );
  return [...missing.map((one) => `${one} is missing`), ...invented.map(({ inum }) => `${inum} is invented`)];
}

test("The list has what lsns has, and nothing else", ["root", "package:util-linux"], async () => {
  // Processes of others come and go, and their namespaces have the numbers of those before them: some round has none.
  let found: string[] = [];
  for (let round = 0; round < 20; round++) {
    found = await differences();
    if (!found.length) return;
  }
  throw new Error(found.join(", "));
});

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

test("A user sees what is the user's, and how much is not", ["user", "user namespaces", "root"], async () => {
  await using lab = new NetLab();
  const own = lab.start(asUser(["unshare", "--user", "--map-root-user", "--uts", "sleep", "1000"]), { cwd: "/" });
  const other = lab.start(["unshare", "--uts", "sleep", "1000"]);
  const comm = (pid: number) => Deno.readTextFileSync(`/proc/${pid}/comm`);
  await until("both are there", () => [own, other].every(({ child }) => comm(child.pid) === "sleep\n"));
  const uts = ({ child }: { child: Deno.ChildProcess }) =>
    Number(/\d+/.exec(Deno.readLinkSync(`/proc/${child.pid}/ns/uts`))![0]);
  const { namespaces, complete, unseen } = await ls(["--type", "uts"], { user: true });
  const found = namespaces.find(({ inum }) => inum === uts(own));
  assertEquals([found?.processes, found?.pid, found?.command], [1, own.child.pid, "sleep 1000"]);
  assertEquals(found?.creator, Number((await must(asUser(["id", "-u"]))).trim()));
  assertEquals(namespaces.some(({ inum }) => inum === uts(other)), false);
  assertEquals(complete, false);
  assert(unseen.processes > 0);
  const { stderr, code } = await sh([penne(), "ls"], { user: true });
  assertMatch(stderr, /could not look at \d+ processes.*: namespaces that only those hold are missing/);
  assertEquals(code, 0);
});

test("Processes that /proc hides are mentioned", ["root", "user", "package:mount"], async () => {
  const inside = `mount -t proc -o hidepid=2 proc /proc && exec ${asUser([penne(), "ls", "--json"]).join(" ")}`;
  const { stdout, stderr } = await sh(["unshare", "--mount", "sh", "-c", inside], { cwd: "/" });
  const { unseen, complete }: Listing = JSON.parse(stdout);
  assertEquals([unseen.hidden, complete], [true, false]);
  assertStringIncludes(stderr, "what /proc hides (hidepid=)");
});

test("In a container, it lists what is there", ["root", "package:mount"], async () => {
  const { namespaces, complete }: Listing = JSON.parse(
    await must(["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", penne(), "ls", "--json"]),
  );
  assertEquals(complete, false);
  const pid = namespaces.find(({ type, processes }) => type === "pid" && processes > 0)!;
  assertEquals([pid.pid, pid.processes], [1, 1]);
});

test("Names: of ip netns, of paths, of a container's control group, of kept sets", [
  "root",
  "package:iproute2",
  "pids cgroup",
], async () => {
  await using lab = new NetLab();
  const name = await lab.netns("named");
  await lab.ip(name, "addr", "add", "192.0.2.7/24", "dev", "lo");
  const [netns] = (await ls([name, "-o", "+addresses"])).namespaces;
  assertEquals(netns!.names, [{ kind: "netns", name }]);
  assertEquals(netns!.addresses, [{ interface: "lo", address: "192.0.2.7", prefix: 24 }]);
  for (const word of [`netns:${name}`, `/run/netns/${name}`, `${netns!.inum}`, `net:[${netns!.inum}]`]) {
    assertEquals((await ls([word])).namespaces.map(({ inum }) => inum), [netns!.inum], word);
  }
  const id = "0123456789abcdef".repeat(4);
  const controller = exists("/sys/fs/cgroup/pids") ? "/sys/fs/cgroup/pids" : "/sys/fs/cgroup";
  const group = `${controller}/docker-${id}.scope`;
  await Deno.mkdir(group);
  lab.defer(async () => {
    await until("the group is empty", () => Deno.readTextFileSync(`${group}/cgroup.procs`) === "");
    await Deno.remove(group);
  });
  const container = lab.start(["sh", "-c", `echo $$ >${group}/cgroup.procs && exec unshare --uts sleep 1000`]);
  await until("it is there", () => Deno.readTextFileSync(`/proc/${container.child.pid}/comm`) === "sleep\n");
  const [uts] = (await ls(["--type", "uts", `${container.child.pid}`])).namespaces;
  assertEquals(uts!.names, [{ kind: "docker", name: id.slice(0, 12) }]);
  container.child.kill();
  await container.ended;
});

test("Bytes of others are escaped, and colours are for nobody", ["root", "package:bash"], async () => {
  await using lab = new NetLab();
  const directory = await Deno.makeTempDir({ prefix: "penne-ls-" });
  lab.defer(() => sh(["sh", "-c", `umount ${directory}/*; rm -r ${directory}`]).then(() => {}));
  await must(["bash", "-c", `f=$'${directory}/a\\xff\\e[31mb'; touch "$f"; unshare --uts="$f" true`]);
  const odd = lab.start([
    "bash",
    "-c",
    `exec -a $'sl\\xffeep\\e[31m\\n' unshare --ipc bash -c 'exec -a "\$0" sleep 1000' $'sl\\xff\\e[31m\\n'`,
  ]);
  await until("it is there", () => Deno.readTextFileSync(`/proc/${odd.child.pid}/comm`) === "sleep\n");
  const { stdout } = await sh([penne(), "ls"]);
  assert(!/[^\n\P{C}]/u.test(stdout), "there is no control character");
  assertStringIncludes(stdout, `${directory}/a\\xff\\u001b[31mb`);
  assertStringIncludes(stdout, `sl\\xff\\u001b[31m\\n 1000`);
  const { namespaces } = await ls(["--type", "uts"]);
  assert(namespaces.some(({ names }) => names[0]?.name === `${directory}/a\\xff\x1b[31mb`));
});
