// The network of `penne run` and `penne attach`, as an unprivileged user meets it.

import { assertEquals, assertMatch } from "@std/assert";
import { asUser, penne, type Result, sh, test, until } from "../../lib/helpers.ts";
import { type Daemon, hasPort, must, NetLab } from "../../lib/netlab.ts";

const NEEDS = [
  "root",
  "user",
  "user namespaces",
  "tun",
  "package:iproute2",
  "package:util-linux",
  "package:curl",
  "package:bind9-dnsutils",
  "package:dnsmasq-base",
  "package:socat",
  "package:iputils-ping",
  "package:nginx-light",
] as const;
const NAME = "peer.example";

/** A host and a peer with a web server and a name server. */
async function openWeb(): Promise<NetLab & { directory: string }> {
  const lab = await NetLab.open() as NetLab & { directory: string };
  try {
    await lab.usual();
    lab.directory = await Deno.makeTempDir({ prefix: "penne-web-" });
    await Deno.chmod(lab.directory, 0o755);
    lab.defer(() => Deno.remove(lab.directory, { recursive: true }));
    await must(lab.in(lab.host, ["sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647"])); // as on any desktop
    await Deno.writeTextFile(`${lab.directory}/index.html`, "hello from the peer\n");
    await must(["dd", "if=/dev/urandom", `of=${lab.directory}/large`, "bs=1M", "count=10", "status=none"]);
    await Deno.chmod(`${lab.directory}/large`, 0o644);
    await Deno.writeTextFile(
      `${lab.directory}/nginx.conf`,
      `daemon off; master_process off; pid ${lab.directory}/nginx.pid; error_log ${lab.directory}/error.log; events {}
       http { access_log off; server { listen 80; listen [::]:80; root ${lab.directory}; dav_methods PUT;
         client_body_temp_path ${lab.directory}/tmp; client_max_body_size 100m; } }`,
    );
    lab.start(lab.in(lab.peer, ["nginx", "-p", lab.directory, "-c", `${lab.directory}/nginx.conf`]));
    const names = resolver(lab, lab.peer, "192.0.2.1");
    for (const family of ["tcp", "tcp6"] as const) await hasPort(lab.daemons[0]!, family, 80);
    await hasPort(names, "udp", 53);
    return lab;
  } catch (error) {
    await lab[Symbol.asyncDispose]();
    throw error;
  }
}

/** Starts a name server for the peer's name. */
function resolver(lab: NetLab, netns: string, address: string): Daemon {
  return lab.start(lab.in(netns, [
    ...["dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces", "--conf-file=/dev/null"],
    ...["--pid-file=", `--listen-address=${address}`, "--port=53", `--address=/${NAME}/192.0.2.1`],
    ...[
      `--address=/${NAME}/2001:db8::1`,
      `--txt-record=long.example,${"x".repeat(200)},${"y".repeat(200)},${"z".repeat(200)}`,
    ],
  ]));
}

/** Runs a command as the test user on the host, which has a resolv.conf of its own. */
async function onHost(lab: NetLab & { directory: string }, conf: string, argv: string[]): Promise<Result> {
  const file = `${lab.directory}/resolv.conf`;
  await Deno.writeTextFile(file, conf);
  const script = `mount --bind ${file} /etc/resolv.conf; shift 0; exec "$@"`;
  return await sh(lab.in(lab.host, ["unshare", "--mount", "sh", "-ec", script, "sh", ...asUser(argv)]), { cwd: "/" });
}

for (const [where, address] of [["on another address", "192.0.2.1"], ["on 127.0.0.53", "127.0.0.53"]] as const) {
  test(`penne run -- curl http://name/ works without options, with the host's resolver ${where}`, NEEDS, async () => {
    await using lab = await openWeb();
    if (address === "127.0.0.53") {
      await hasPort(resolver(lab, lab.host, address), "udp", 53);
    }
    const conf = `nameserver ${address}\noptions edns0\nsearch example\n`;
    const page = await onHost(lab, conf, [penne(), "run", "--", "curl", "-sS", "--max-time", "60", `http://${NAME}/`]);
    assertEquals([page.code, page.stdout, page.stderr], [0, "hello from the peer\n", ""]);
    const six = await onHost(lab, conf, [penne(), "run", "--", "curl", "-6sS", "--max-time", "60", `http://${NAME}/`]);
    assertEquals([six.code, six.stdout], [0, "hello from the peer\n"], six.stderr);
    const short = await onHost(lab, conf, [penne(), "run", "--", "curl", "-sS", "--max-time", "60", "http://peer/"]);
    assertEquals([short.code, short.stdout], [0, "hello from the peer\n"], short.stderr);
    const dig = ["dig", "+time=10", "+tries=2", "+short"];
    const [udp, tcp] = [
      await onHost(lab, conf, [penne(), "run", "--", ...dig, NAME]),
      await onHost(lab, conf, [penne(), "run", "--", ...dig, "+tcp", "long.example", "TXT"]),
    ];
    assertEquals(udp.stdout, "192.0.2.1\n");
    assertEquals(tcp.stdout.length > 600, true, tcp.stdout);
  });
}

test("the command has its own resolv.conf, which the options for names change", NEEDS, async () => {
  await using lab = await openWeb();
  const conf = "nameserver 192.0.2.1\nsearch a.example b.example\n";
  const cat = async (...options: string[]) =>
    (await onHost(lab, conf, [penne(), "run", ...options, "--", "cat", "/etc/resolv.conf"])).stdout;
  assertEquals(await cat(), "nameserver 169.254.1.1\nsearch a.example b.example\n");
  assertEquals(await cat("-6"), "nameserver 64:ff9b:1::35\nsearch a.example b.example\n");
  assertEquals(await cat("--dns", "192.0.2.1", "--search", "c.example"), "nameserver 192.0.2.1\nsearch c.example\n");
  assertEquals(await cat("--search", "none"), "nameserver 169.254.1.1\n");
  assertEquals(await cat("--dns", "none"), conf);
  assertEquals(await cat("--dns-forward", "10.9.9.9"), "nameserver 10.9.9.9\nsearch a.example b.example\n");
  const direct = await onHost(lab, "nameserver 203.0.113.99\n", [
    ...[penne(), "run", "--dns", "192.0.2.1", "--", "curl", "-sS", "--max-time", "60", `http://${NAME}/`],
  ]);
  assertEquals(direct.stdout, "hello from the peer\n", direct.stderr);
  const given = await onHost(lab, "nameserver 203.0.113.99\n", [
    ...[penne(), "run", "--dns-host", "192.0.2.1", "--", "curl", "-sS", "--max-time", "60", `http://${NAME}/`],
  ]);
  assertEquals(given.stdout, "hello from the peer\n", given.stderr);
});

test("the command's resolv.conf follows changes of the host's", NEEDS, async () => {
  await using lab = await openWeb();
  const file = `${lab.directory}/resolv.conf`;
  await Deno.writeTextFile(file, "nameserver 203.0.113.99\nsearch old.example\n");
  const script =
    `mount --bind ${lab.directory} /etc/resolvconf-test 2>/dev/null; mount --bind ${file} /etc/resolv.conf; exec "$@"`;
  const inside =
    `while ! grep -q new.example /etc/resolv.conf; do sleep 0.05; done; curl -sS --max-time 60 http://${NAME}/`;
  const daemon = lab.start(
    lab.in(lab.host, [
      "unshare",
      "--mount",
      "sh",
      "-c",
      script,
      "sh",
      ...asUser([penne(), "run", "--", "sh", "-c", inside]),
    ]),
    { cwd: "/" },
  );
  await new Promise((resolve) => setTimeout(resolve, 500));
  await Deno.writeTextFile(file, "nameserver 192.0.2.1\nsearch new.example\n"); // in place, as the mount has that file
  let over = false;
  daemon.ended.then(() => over = true);
  await until("the command has seen the change", () => over);
  assertEquals(daemon.output(), "hello from the peer\n", daemon.errors());
});

test("files arrive whole in both directions, pings are answered, and refused connections fail", NEEDS, async () => {
  await using lab = await openWeb();
  const conf = "nameserver 192.0.2.1\n";
  const inside = (script: string, ...options: string[]) =>
    onHost(lab, conf, [penne(), "run", ...options, "--", "sh", "-c", script]);
  const sum = (await must(["sha256sum", `${lab.directory}/large`])).split(" ")[0]!;
  for (const options of [[], ["-m", "1500"]]) {
    for (const version of ["-4", "-6"]) {
      const down = await inside(`curl ${version} -sS --max-time 60 http://${NAME}/large | sha256sum`, ...options);
      assertEquals(down.stdout.split(" ")[0], sum, down.stderr);
    }
  }
  const sink = lab.start(lab.in(lab.peer, ["socat", "-u", "TCP-LISTEN:4000,reuseaddr", "EXEC:sha256sum"]));
  await hasPort(sink, "tcp", 4000);
  const up = await inside(`socat -u FILE:${lab.directory}/large TCP:192.0.2.1:4000`);
  assertEquals(up.code, 0, up.stderr);
  await sink.ended;
  assertMatch(sink.output(), new RegExp(`^${sum} `));
  // An answer may be late on a machine that is loaded.
  const ping = (address: string) => `for i in 1 2 3 4 5; do ! ping -c 2 -i 0.2 -W 2 ${address} || exit 0; done; exit 1`;
  const pings = await inside(`(${ping("192.0.2.1")}) && (${ping("2001:db8::1")})`);
  assertEquals(pings.code, 0, pings.stdout + pings.stderr);
  const refused = await inside("curl -sS --max-time 60 http://192.0.2.1:81/");
  assertEquals(refused.code, 7);
  assertMatch(refused.stderr, /refused|Couldn't connect/);
  await lab.ip(lab.host, "route", "add", "unreachable", "203.0.113.0/24");
  const unreachable = await inside(
    "curl -sS --max-time 60 http://203.0.113.5/",
    "-a",
    "10.0.2.100/24",
    "-g",
    "10.0.2.2",
  );
  assertEquals(unreachable.code, 7, unreachable.stderr);
});

test("the host's loopback is not reachable by default", NEEDS, async () => {
  await using lab = await openWeb();
  const four = ["socat", "TCP-LISTEN:8080,bind=127.0.0.1,fork,reuseaddr", "SYSTEM:echo secret"];
  const six = ["socat", "TCP6-LISTEN:8080,bind=[::1],fork,reuseaddr", "SYSTEM:echo secret"];
  await hasPort(lab.start(lab.in(lab.host, four)), "tcp", 8080);
  await hasPort(lab.start(lab.in(lab.host, six)), "tcp6", 8080);
  const ask = async (address: string, ...options: string[]) => {
    const seconds = options.length ? 30 : 2;
    return (await onHost(lab, "nameserver 192.0.2.1\n", [
      ...[penne(), "run", ...options, "--"],
      ...["socat", `-T${seconds}`, "-", `TCP:${address}:8080,connect-timeout=${seconds}`],
    ])).stdout;
  };
  for (
    const address of ["127.0.0.1", "127.1.2.3", "0.0.0.0", "192.0.2.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.1.1"]
  ) {
    assertEquals(await ask(address), "", address);
  }
  assertEquals(await ask("10.0.2.2", "--map-host-loopback", "10.0.2.2"), "secret\n");
  assertEquals(await ask("[2001:db8::99]", "--map-host-loopback", "2001:db8::99"), "secret\n");
  // The gateways, copied and given.
  assertEquals(await ask("192.0.2.1", "--map-gw"), "secret\n");
  assertEquals(await ask("[2001:db8::1]", "--map-gw"), "secret\n");
  assertEquals(await ask("10.9.9.1", "--map-gw", "-4", "-a", "10.9.9.2/24", "-g", "10.9.9.1"), "secret\n");
});

test("excluded addresses are not reachable", NEEDS, async () => {
  await using lab = await openWeb();
  const get = (address: string, ...options: string[]) =>
    onHost(lab, "nameserver 192.0.2.1\n", [
      ...[penne(), "run", ...options, "--", "curl", "-sS", "--max-time", "60", `http://${address}/`],
    ]);
  assertEquals((await get("192.0.2.1")).stdout, "hello from the peer\n");
  for (
    const [address, block] of [["192.0.2.1", "192.0.2.0/24"], ["192.0.2.1", "192.0.2.1"], [
      "[2001:db8::1]",
      "2001:db8::/32",
    ]]
  ) {
    const result = await get(address!, "--exclude", block!);
    assertEquals([result.code, result.stdout], [7, ""], `${address} ${result.stderr}`);
  }
});

test("penne attach gives a namespace of ip netns a network, as root", NEEDS, async () => {
  await using lab = await openWeb();
  const guest = await lab.netns("guest");
  const daemon = await lab.attach(["--dns-forward", "169.254.1.1", "--dns-host", "192.0.2.1", guest]);
  const page = await sh(lab.in(guest, ["curl", "-sS", "--max-time", "60", "http://192.0.2.1/"]));
  assertEquals(page.stdout, "hello from the peer\n", page.stderr);
  const name = await sh(lab.in(guest, ["dig", "+short", "+time=10", "@169.254.1.1", NAME]));
  assertEquals(name.stdout, "192.0.2.1\n");
  await must(["ip", "netns", "del", guest]);
  assertEquals((await daemon.ended).code, 0);
});

test("connections made right at the start work", NEEDS, async () => {
  await using lab = await openWeb();
  for (let i = 0; i < 5; i++) {
    const page = await onHost(lab, "nameserver 192.0.2.1\n", [
      penne(),
      "run",
      "--",
      "curl",
      "-sS",
      "--max-time",
      "60",
      "http://192.0.2.1/",
    ]);
    assertEquals(page.stdout, "hello from the peer\n", page.stderr);
  }
});
