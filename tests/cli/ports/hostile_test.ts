// The control socket of a running penne: whose it is, and clients that are many, silent, wrong or killed.

import "../../lib/preload.ts";
import { assert, assertEquals, assertMatch } from "@std/assert";
import { penne, test, until } from "../../lib/helpers.ts";
import { type Daemon, must } from "../../lib/netlab.ts";
import { userIds } from "../../lib/user.ts";
import { CLIENT, NEEDS, PortsLab } from "./lab.ts";

/** Times that something is killed; PENNE_KILLS sets more. */
const KILLS = Number(Deno.env.get("PENNE_KILLS") ?? 10);

test("the socket is the user's alone, also where its file would let others in", NEEDS, async () => {
  await using lab = await PortsLab.open(false);
  const { id, target } = await lab.run();
  const path = `${lab.place}/${id}`;
  assertEquals(Deno.statSync(lab.place).mode! & 0o777, 0o700);
  assertEquals(Deno.statSync(path).mode! & 0o777, 0o600);
  // A copy of the file's name that everybody reaches.
  const open = `${lab.runtime}/open`;
  Deno.chmodSync(lab.runtime, 0o755);
  Deno.linkSync(path, open);
  Deno.chmodSync(open, 0o666);
  const { uid, gid } = userIds();
  const script = "import socket,sys; s=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET); s.settimeout(9); " +
    's.connect(sys.argv[1]); s.send(b\'{"call":"ports.list"}\'); print(len(s.recv(99)))';
  const stranger = ["setpriv", "--reuid", `${uid}`, "--regid", `${gid}`, "--clear-groups", "--inh-caps=-all", "env"];
  const { stdout, stderr } = await lab.sh([...stranger, "python3", "-c", script, open]);
  assertMatch(stdout + stderr, /^0\n$|ConnectionResetError|BrokenPipeError/);
  assertEquals(await must(["python3", "-c", script, open]), "22\n");
  Deno.removeSync(open);
  const asked = await lab.sh(lab.on([...stranger, penne(), "ports", "ls", `/proc/${target}/ns/net`]));
  assertEquals(asked.code, 1, asked.stderr);
});

test("what another penne left behind, and what others put there, is no obstacle", NEEDS, async () => {
  await using lab = await PortsLab.open();
  const name = `${lab.host}n`;
  const owner = lab.start(lab.on(["unshare", "--user", "--map-root-user", "--net", "sleep", "1000"]));
  // It has those of the test and of the host before.
  await until("the namespace is there", () => {
    const comm = Deno.readTextFileSync(`/proc/${owner.child.pid}/comm`);
    return comm === "sleep\n";
  });
  await must(["ip", "netns", "attach", name, `${owner.child.pid}`]);
  try {
    const attach = async () => {
      const daemon = lab.start(lab.on([penne(), "attach", "--ready-fd", "1", name]));
      let over = false;
      daemon.ended.then(() => over = true);
      await until("penne is ready", () => over || daemon.output() !== "");
      assertEquals(daemon.errors(), "");
      return daemon;
    };
    // The interface of a penne that was killed goes a moment later.
    const kill = async (daemon: Daemon) => {
      daemon.child.kill("SIGKILL");
      await daemon.ended;
      while ((await must(["ip", "-n", name, "-o", "link"])).trim().split("\n").length > 1);
    };
    const first = await attach();
    await lab.must("add", name, "-t", "8001");
    const [file] = [...Deno.readDirSync(lab.place)];
    const path = `${lab.place}/${file!.name}`;
    await kill(first);
    assertEquals(Deno.lstatSync(path).isSocket, true);
    // Whoever asks next finds nobody, and removes the file.
    assertMatch((await lab.ports(["ls", name])).stderr, /^penne: cannot find a penne that serves .*\nhint: /);
    assertEquals([...Deno.readDirSync(lab.place)], []);
    const kinds: readonly [string, () => void | Promise<void>][] = [
      ["a socket", async () => await kill(await attach())],
      ["a link", () => Deno.symlinkSync("/etc/passwd", path)],
      ["a file", () => Deno.writeTextFileSync(path, "")],
    ];
    for (const [kind, make] of kinds) {
      await make();
      const daemon = await attach();
      assertEquals([kind, await lab.must("ls", name)], [kind, ""]);
      daemon.child.kill("SIGTERM");
      assertEquals((await daemon.ended).code, 0);
      assertEquals([...Deno.readDirSync(lab.place)], []);
    }
    // A directory at its place cannot be removed: penne serves without a socket.
    Deno.mkdirSync(path);
    const daemon = await attach();
    assertEquals((await lab.ports(["ls", name])).code, 1);
    daemon.child.kill("SIGTERM");
    assertEquals((await daemon.ended).code, 0);
  } finally {
    await new Deno.Command("ip", { args: ["netns", "del", name], stderr: "null" }).output();
  }
});

test("without a directory of its own penne has no socket, and works", NEEDS, async (t) => {
  await using lab = await PortsLab.open();
  const { uid, gid } = userIds();
  const shared = `${lab.runtime}/shared`;
  const linked = `${lab.runtime}/linked`;
  Deno.mkdirSync(shared);
  Deno.chownSync(shared, uid, gid);
  Deno.chmodSync(shared, 0o777);
  Deno.symlinkSync(lab.runtime, linked);
  for (const runtime of [shared, linked, "/root", "/nonexistent", "relative", ""]) {
    await t.step(runtime, async () => {
      const argv = ["env", `XDG_RUNTIME_DIR=${runtime}`, penne(), "run", "--", "sh", "-c", "echo ok"];
      const result = await lab.sh(lab.on(argv));
      assertEquals([result.code, result.stdout, result.stderr], [0, "ok\n", ""]);
      const asked = await lab.sh(lab.on(["env", `XDG_RUNTIME_DIR=${runtime}`, penne(), "ports", "ls", "1"]));
      assertEquals(asked.code, 1);
      assertEquals([...Deno.readDirSync(shared)], []);
    });
  }
});

test("clients that are many, silent, deaf or wrong stop neither others nor the network", NEEDS, async () => {
  await using lab = await PortsLab.open();
  const served = await lab.run(["-t", "8080:80"]);
  await lab.serve(served, 80);
  const path = `${lab.place}/${served.id}`;
  const held = await lab.begin(lab.peer, "hold", "tcp", "192.0.2.2", "8080");
  const writer = held.child.stdin.getWriter();
  let said = "begun\n";
  const goesOn = async (word: string) => {
    await writer.write(new TextEncoder().encode(`${word}\n`));
    said += `${word}\n`;
    await until(`the network works: ${word}`, () => held.output() === said);
  };
  // Sockets alone: penne begins to watch files some moments after its start.
  const descriptors = () => {
    const place = `/proc/${served.child.pid}/fd`;
    const isSocket = ({ name }: Deno.DirEntry) => {
      try {
        return Deno.readLinkSync(`${place}/${name}`).startsWith("socket:");
      } catch {
        return false; // it has just been closed
      }
    };
    return [...Deno.readDirSync(place)].filter(isSocket).length;
  };
  const before = descriptors();
  const python = (...args: string[]) => must(lab.on(["python3", CLIENT, ...args]));

  assertEquals(await python("garbage", path), "refused\n");
  await goesOn("garbage");
  assertEquals(await python("deaf", path), "disconnected\n");
  await goesOn("deaf");
  await until("the connections are closed", () => descriptors() === before);

  const silent = lab.start(lab.on(["python3", CLIENT, "silent", path, "1000"]), { stdin: "piped" });
  await until("1000 have tried", () => silent.output() !== "");
  await goesOn("silent");
  // They hold what places there are, and lose them to whoever speaks.
  assert(Number(silent.output()) >= 64, silent.output());
  assert(descriptors() <= before + 64);
  assertEquals(await lab.must("ls", served.target), "TCP [*]:8080  =>  80\n");
  await goesOn("others");
  await silent.child.stdin.close();
  await silent.ended;
  await until("the connections are closed", () => descriptors() === before);

  // Many at once that mean well: each is answered, and the rules are right at the end.
  const ports = Array.from({ length: 24 }, (_, i) => 20_000 + i);
  await Promise.all(ports.map((port) => lab.must("add", served.target, "-t", `${port}`)));
  const listed = (await lab.must("ls", served.target)).trim().split("\n").sort();
  assertEquals(listed, ["TCP [*]:8080  =>  80", ...ports.map((port) => `TCP [*]:${port}  =>  ${port}`)].sort());
  await goesOn("end");
  await writer.close();
});

test("whoever is killed in the middle of a change leaves all of it or nothing", NEEDS, async () => {
  await using lab = await PortsLab.open();
  let served = await lab.run(["-t", "8080:80"]);
  for (let i = 0; i < KILLS; i++) {
    const client = lab.start(lab.on([penne(), "ports", "add", served.target, "-t", "20000-20499"]));
    await new Promise((resolve) => setTimeout(resolve, 40 + Math.random() * 80));
    const server = i % 2 === 1;
    try {
      (server ? served : client).child.kill("SIGKILL");
    } catch {
      // The client was faster.
    }
    const { code } = await client.ended;
    if (server) {
      await served.ended;
      // The client is told of the end, was just too late, or had been faster.
      assert(code === 0 || code === 1, client.errors());
      for (let n = 0; n < 500 && (await lab.open()).length > 0; n++) await new Promise((go) => setTimeout(go, 10));
      assertEquals(await lab.open(), []);
      served = await lab.run(["-t", "8080:80"]);
      continue;
    }
    // The answer comes after a change that was under way.
    const rules = (await lab.must("ls", served.target)).trim().split("\n");
    const open = await lab.open();
    assertEquals(open.length, rules.length === 1 ? 1 : 501);
    if (rules.length > 1) await lab.must("del", served.target, "-t", "20000-20499");
  }
});
