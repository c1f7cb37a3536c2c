// `penne ls`: that it finds every namespace, whatever holds it, invents none, and says what it could not see.

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import type { Holder, ListedNamespace, Listing } from "../../../mod/list/listing.ts";
import { asUser, type How, type Need, penne, sh, test, until } from "../../lib/helpers.ts";
import { must, NetLab } from "../../lib/netlab.ts";
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
const OCCUPIED: readonly string[] = ["process", "thread", "zombie"];

async function holderIsFound(kind: string, how: How): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "penne-ls-" });
  try {
    await using held = await hold([kind, ...["mount", "path"].includes(kind) ? [`${directory}/ns`] : []], how);
    const { namespaces, complete } = await ls(["--holders", held.name], how);
    assertEquals(namespaces.map(({ type, inum }) => `${type}:[${inum}]`), [held.name]);
    const [found] = namespaces as [ListedNamespace];
    // A mount is in every mount namespace that has got it by propagation, and in those that were copied since.
    assertEquals([...new Set(found.holders!.map(words))], held.holder === "" ? [] : [held.holder], kind);
    assertEquals(found.processes + found.threads > 0, OCCUPIED.includes(kind), kind);
    const orphans = await ls(["--orphans"], how);
    const isThere = ({ type, inum, id }: ListedNamespace) =>
      type === found.type && inum === found.inum && id === found.id;
    assertEquals(orphans.namespaces.some(isThere), !OCCUPIED.includes(kind), kind);
    assertEquals(complete, orphans.complete);
    await held.release();
    const end = Date.now() + 60_000;
    while ((await ls([], how)).namespaces.some(isThere)) {
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
  test(`A namespace that only ${what} holds is found, and ends with it`, [...NEEDS, "root", "package:mount"], () => {
    return holderIsFound(kind, {});
  });
}

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
