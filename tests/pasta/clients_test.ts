// The command lines by which podman, buildah, RootlessKit and Nix start pasta, each with what its client relies on: at exit
// code 0 all is usable, nothing of the caller's is held, and the end comes by itself.

import { assert, assertEquals, assertMatch } from "@std/assert";
import { asUser, killIfAlive, sh, test, until } from "../lib/helpers.ts";
import { must, NetLab } from "../lib/netlab.ts";
import { call, type Called, Engine, pasta, running } from "./lib.ts";

const NEEDS = ["root", "user", "user namespaces", "tun", "package:iproute2", "package:util-linux"] as const;
const WITH_SOCAT = [...NEEDS, "package:socat"] as const;

const NONE = ["-t", "none", "-u", "none", "-T", "none", "-U", "none"];
const NO_NS_PORTS = ["-T", "none", "-U", "none"];

/** Addresses and routes in a namespace, without link-local ones. */
async function network(engine: Engine, netns: string) {
  const json = async (...args: string[]) => JSON.parse(await must(engine.inside(netns, ["ip", "-j", ...args])) || "[]");
  const links: { ifname: string; mtu: number; flags: string[]; addr_info: Record<string, unknown>[] }[] = await json(
    "addr",
  );
  const all = links.filter(({ ifname }) => ifname !== "lo").flatMap(({ addr_info }) => addr_info);
  const routes: { dst: string; gateway?: string }[] = [
    ...await json("-4", "route"),
    ...await json("-6", "route"),
  ].filter(({ dst }) => !dst.startsWith("fe80"));
  return {
    names: links.map(({ ifname }) => ifname),
    loopbackIsUp: links[0]!.flags.includes("UP"),
    addresses: all.filter(({ scope }) => scope === "global").map(({ local, prefixlen }) => `${local}/${prefixlen}`),
    unusable: all.filter(({ tentative }) => tentative),
    routes: routes.map(({ dst, gateway }) => gateway ? `${dst} via ${gateway}` : dst),
  };
}

/** What all clients rely on when pasta has exited. */
function assertReady(called: Called, output: RegExp = /^$/): void {
  assertEquals(called.code, 0, called.stderr);
  assertEquals(called.stdout, "");
  assertMatch(called.stderr, output);
  // Not a moment later: a client reads to the end of file, and has nothing else to wait for.
  assertEquals(called.held, []);
}

async function gone(words: readonly string[]): Promise<void> {
  await until("pasta has ended", () => running(words).length === 0);
}

/** What a namespace gets of the host of {@linkcode NetLab.usual}. */
const COPIED = {
  names: ["lo", "up0"],
  loopbackIsUp: true,
  addresses: ["192.0.2.2/24", "2001:db8::2/64"],
  unusable: [],
  routes: ["default via 192.0.2.1", "192.0.2.0/24", "2001:db8::/64", "default via 2001:db8::1"],
};

async function open(): Promise<{ lab: NetLab; engine: Engine }> {
  const lab = await NetLab.open();
  await lab.usual();
  return { lab, engine: await Engine.open(lab) };
}

/** The words of podman's library, in its order. */
function podman(ports: readonly string[], more: readonly string[], netns: string): string[] {
  const none = NONE.filter((_, i) => !ports.includes(NONE[i & ~1]!));
  return [
    pasta(),
    "--config-net",
    ...ports,
    "--dns-forward",
    "169.254.1.1",
    ...none,
    "--no-map-gw",
    "--quiet",
    ...more,
    "--netns",
    netns,
  ];
}

test("podman, and buildah, without published ports", NEEDS, async () => {
  const { lab, engine } = await open();
  await using _ = lab;
  const byName = await engine.named("netns-1");
  const container = await engine.alone(["sleep", "1000"]);
  for (const netns of [byName, `/proc/${container.pid}/ns/net`]) {
    const words = podman([], ["--map-guest-addr", "169.254.1.2"], netns);
    assertReady(await call(engine.argv(words)));
    assertEquals(await network(engine, netns), COPIED);
    assertEquals(running(words).length, 1);
    if (netns === byName) await must(engine.argv(["umount", netns]));
    else container.child.kill("SIGKILL");
    await gone(words);
  }
});

test("podman with published ports, which are usable when pasta has exited", WITH_SOCAT, async () => {
  const { lab, engine } = await open();
  await using _ = lab;
  const netns = await engine.named("netns-2");
  await must(engine.inside(netns, ["ip", "link", "set", "lo", "up"]));
  const serve = (listen: string) =>
    lab.start(engine.inside(netns, ["socat", "-d", "-d", `${listen},fork`, "SYSTEM:echo $SOCAT_PEERADDR"]), {
      cwd: "/",
    });
  const servers = [
    serve("TCP6-LISTEN:80,ipv6only=0"),
    lab.start(engine.inside(netns, ["socat", "-d", "-d", "UDP-RECVFROM:53,fork", "EXEC:cat"]), { cwd: "/" }),
  ];
  await until("the servers listen", () => servers.every((server) => /listening|receiving on/.test(server.errors())));
  const ports = ["-t", "8080-8080:80-80", "-t", "192.0.2.2/8081-8082:80-81", "-t", "::/8083-8083:80-80"];
  const words = podman([...ports, "-u", "5353-5353:53-53"], ["--map-guest-addr", "169.254.1.2"], netns);
  assertReady(await call(engine.argv(words)));
  for (const to of ["192.0.2.2]:8080", "2001:db8::2]:8080", "192.0.2.2]:8081", "2001:db8::2]:8083"]) {
    const kind = to.includes("::") ? "TCP6:[" : "TCP4:";
    const address = `${kind}${kind.endsWith("[") ? to : to.replace("]", "")}`;
    const { stdout, stderr } = await lab.run(lab.peer, ["socat", "-u", address, "-"]);
    assertMatch(
      stdout,
      to.includes("::") ? /2001:0?db8:.*:0*1\]?$/m : /(192\.0\.2\.1|:ffff:c000:0201\])$/m,
      `${to}: ${stderr}`,
    );
  }
  // socat cannot know that an answer over UDP was the whole one, and waits.
  const question = ["sh", "-c", "echo question | socat -t 1 - UDP4:192.0.2.2:5353"];
  let asked = "";
  for (const end = Date.now() + 20_000; asked === "" && Date.now() < end;) {
    asked = (await lab.run(lab.peer, question)).stdout;
  }
  assertEquals(asked, "question\n");
  await must(engine.argv(["umount", netns]));
  await gone(words);
});

test("podman's rootless bridge: IPv4 copied, IPv6 fixed, and a pid file that stays", NEEDS, async () => {
  const { lab, engine } = await open();
  await using _ = lab;
  const netns = await engine.named("rootless-netns");
  const pidFile = `${Engine.directory}/rootless-netns-conn.pid`;
  const fixed = ["--map-guest-addr", "169.254.1.2", "--map-guest-addr", "fc00::2"];
  const more = ["--pid", pidFile, ...fixed, "--address", "fc00::3", "--gateway", "fc00::1"];
  const words = podman([], more, netns);
  assertReady(await call(engine.argv(words)));
  assertEquals(await network(engine, netns), {
    ...COPIED,
    addresses: ["192.0.2.2/24", "fc00::3/64"],
    routes: ["default via 192.0.2.1", "192.0.2.0/24", "fc00::/64", "default via fc00::1"],
  });
  const [pid] = running(words);
  const told = await must(engine.argv(["cat", pidFile]));
  assertEquals(told, `${pid}\n`);
  assertEquals(Deno.readTextFileSync(`/proc/${pid}/comm`), "pasta\n");
  assertEquals(await must(engine.argv(["stat", "-c", "%a", pidFile])), "600\n");
  // The way by which podman ends it.
  Deno.kill(pid!, "SIGTERM");
  await gone(words);
  assertEquals(await must(engine.argv(["cat", pidFile])), told);
});

test("RootlessKit, by the PID of its child and by paths, with addresses of its own", NEEDS, async () => {
  const { lab, engine } = await open();
  await using _ = lab;
  for (const detection of [["--version"], ["--host-lo-to-ns-lo", "--version"]]) {
    assertEquals((await sh([pasta(), ...detection])).code, 0);
  }
  const ipv4 = ["--address=10.0.2.100", "--netmask=24", "--gateway=10.0.2.2", "--dns-forward=10.0.2.3"];
  const ipv6 = ["--address=fd00::100", "--gateway=fd00::2", "--dns-forward=fd00::3"];
  const child = await engine.alone(["sleep", "1000"]);
  const path = await engine.named("netns");
  const userns = `--userns=/proc/${engine.pid}/ns/user`;
  const usual = ["--stderr", "--ns-ifname=tap0", "--mtu=65520", "--config-net"];
  for (const target of [[`${child.pid}`], [userns, `--netns=${path}`]]) {
    const ports = ["--no-map-gw", "--tcp-ports=auto", "--udp-ports=auto", "--host-lo-to-ns-lo"];
    const words = [pasta(), ...usual, ...ipv4, ...ipv6, ...ports, ...target];
    assertReady(await call(engine.argv(words)), /^--stderr will be dropped soon\n$/);
    const netns = target.length === 1 ? `/proc/${child.pid}/ns/net` : path;
    assertEquals(await network(engine, netns), {
      ...COPIED,
      names: ["lo", "tap0"],
      addresses: ["10.0.2.100/24", "fd00::100/64"],
      routes: ["default via 10.0.2.2", "10.0.2.0/24", "fd00::/64", "default via fd00::2"],
    });
    if (target.length === 1) child.child.kill("SIGKILL");
    else await must(engine.argv(["umount", path]));
    await gone(words);
  }
});

test("RootlessKit with a path through its child, which is gone with the child, also where nobody waits for that", [
  ...NEEDS,
  "package:perl",
], async () => {
  const { lab, engine } = await open();
  await using _ = lab;
  const fork = 'my $child = fork; exec @ARGV if !$child; $| = 1; print "$child\\n"; sleep 1000';
  const script = 'mount -t tmpfs none /mnt && touch /mnt/netns && unshare --net=/mnt/netns true && exec "$@"';
  const child = ["unshare", "--mount", "sh", "-c", script, "sh", "sleep", "1000"];
  const parent = lab.start(engine.argv(["perl", "-e", fork, ...child]), { cwd: "/" });
  let pid = 0;
  await until("the child is ready", () => {
    pid = Number(parent.output());
    return pid > 0 && Deno.readTextFileSync(`/proc/${pid}/comm`) === "sleep\n";
  });
  lab.defer(() => void killIfAlive(pid));
  const paths = [`--userns=/proc/${pid}/ns/user`, `--netns=/proc/${pid}/root/mnt/netns`];
  const words = [pasta(), "--config-net", ...NONE, ...paths];
  assertReady(await call(lab.in(lab.host, asUser(words))));
  Deno.kill(pid, "SIGKILL");
  await gone(words);
  assertMatch(Deno.readTextFileSync(`/proc/${pid}/stat`), /\) Z /); // still there
});

test("RootlessKit with IPv4 alone, and ports that follow listeners", WITH_SOCAT, async () => {
  const { lab, engine } = await open();
  await using _ = lab;
  const child = await engine.alone(["socat", "TCP-LISTEN:8080,fork,reuseaddr", "SYSTEM:echo hello"]);
  const ipv4 = ["--address=10.0.2.100", "--netmask=24", "--gateway=10.0.2.2", "--dns-forward=10.0.2.3", "--ipv4-only"];
  const ports = ["--no-map-gw", "--tcp-ports=auto", "--udp-ports=auto"];
  const words = [pasta(), "--ns-ifname=tap0", "--mtu=65520", "--config-net", ...ipv4, ...ports, `${child.pid}`];
  assertReady(await call(engine.argv(words)));
  const found = await network(engine, `/proc/${child.pid}/ns/net`);
  assertEquals(found.addresses, ["10.0.2.100/24"]);
  let answer = "";
  for (const end = Date.now() + 120_000; answer === "" && Date.now() < end;) {
    answer = (await lab.run(lab.peer, ["socat", "-u", "TCP4:192.0.2.2:8080", "-"])).stdout;
  }
  assertEquals(answer, "hello\n");
  child.child.kill("SIGKILL");
  await gone(words);
});

test(
  "RootlessKit 2.0, which makes the tap, configures it itself, and keeps pasta in the foreground",
  WITH_SOCAT,
  async () => {
    const { lab, engine } = await open();
    await using _ = lab;
    const child = await engine.alone(["socat", "TCP-LISTEN:8080,fork,reuseaddr", "SYSTEM:echo hello"]);
    const netns = `/proc/${child.pid}/ns/net`;
    const ip = (...args: string[]) => must(engine.inside(netns, ["ip", ...args]));
    await ip("tuntap", "add", "name", "tap0", "mode", "tap");
    await ip("link", "set", "tap0", "up");
    const options = ["--foreground", "--stderr", "--ns-ifname=tap0", "--mtu=65520", "--no-dhcp", "--no-ra"];
    const ipv4 = [
      "--address=10.0.2.100",
      "--netmask=24",
      "--gateway=10.0.2.2",
      "--dns-forward=10.0.2.3",
      "--no-map-gw",
    ];
    const ports = ["--ipv4-only", "--tcp-ports=auto", "--udp-ports=auto"];
    const words = [pasta(), ...options, ...ipv4, ...ports, `${child.pid}`];
    const daemon = lab.start(engine.argv(words), { cwd: "/" });
    await ip("address", "add", "10.0.2.100/24", "dev", "tap0");
    await ip("route", "add", "default", "via", "10.0.2.2", "dev", "tap0");
    let answer = "";
    for (const end = Date.now() + 20_000; answer === "" && Date.now() < end;) {
      answer = (await lab.run(lab.peer, ["socat", "-u", "TCP4:192.0.2.2:8080", "-"])).stdout;
    }
    assertEquals(answer, "hello\n", daemon.errors());
    const [link] = JSON.parse(await ip("-j", "link", "show", "tap0"));
    assertEquals(link.mtu, 65520);
    child.child.kill("SIGKILL");
    assertEquals((await daemon.ended).code, 0, daemon.errors());
  },
);

test("Nix, with namespaces as stdin and stdout", NEEDS, async () => {
  const { lab, engine } = await open();
  await using _ = lab;
  const build = await engine.alone(["sleep", "1000"]);
  const [ipv4, ipv6] = ["169.254.1.", "64:ff9b:1:4b8e:472e:a5c8:a9fe:010"];
  const addresses = [
    ["--gateway", `${ipv4}1`, "--address", `${ipv4}2`, "--netmask", "16", "--dns-forward", `${ipv4}1`],
    ["--gateway", `${ipv6}1`, "--address", `${ipv6}2`, "--dns-forward", `${ipv6}1`],
  ].flat();
  const fds = ["--ns-ifname", "eth0", "--netns", "/proc/self/fd/0", "--userns", "/proc/self/fd/1"];
  for (const ports of [[], NONE]) {
    const words = [pasta(), "--quiet", "--config-net", ...addresses, ...ports, ...fds];
    const script = `exec 3>&1; exec "$@" 3>&- </proc/${build.pid}/ns/net 1</proc/${build.pid}/ns/user`;
    assertReady(await call(engine.argv(["sh", "-c", script, "sh", ...words])));
    assertEquals(await network(engine, `/proc/${build.pid}/ns/net`), {
      ...COPIED,
      names: ["lo", "eth0"],
      addresses: ["169.254.1.2/16", "64:ff9b:1:4b8e:472e:a5c8:a9fe:102/64"],
      routes: [
        "default via 169.254.1.1",
        "169.254.0.0/16",
        "64:ff9b:1:4b8e::/64",
        "default via 64:ff9b:1:4b8e:472e:a5c8:a9fe:101",
      ],
    });
    const [pid] = running(words);
    // Nothing is left of the namespaces that would keep them in use by their descriptors.
    const held = [...Deno.readDirSync(`/proc/${pid}/fd`)].map(({ name }) =>
      Deno.readLinkSync(`/proc/${pid}/fd/${name}`)
    );
    assertEquals(held.filter((link) => /^(net|user):/.test(link)), []);
    if (ports.length) build.child.kill("SIGKILL"); // the namespace ends with its last process
    else Deno.kill(pid!, "SIGTERM");
    await gone(words);
  }
});

test("nixpak: a PID behind -- is a PID; one that is gone, and one too large, are refused", NEEDS, async () => {
  const { lab, engine } = await open();
  await using _ = lab;
  const child = await engine.alone(["sleep", "1000"]);
  const words = [pasta(), "--config-net", ...NO_NS_PORTS, "-t", "none", "-u", "none", "--", `${child.pid}`];
  assertReady(await call(engine.argv(words)));
  assertEquals((await network(engine, `/proc/${child.pid}/ns/net`)).addresses, COPIED.addresses);
  assert(await killIfAlive(child.pid));
  await gone(words);
  const late = await call(engine.argv(words));
  assertEquals(late.code, 1);
  assertEquals(late.stderr, `Couldn't open user namespace /proc/${child.pid}/ns/user: No such file or directory\n`);
});
