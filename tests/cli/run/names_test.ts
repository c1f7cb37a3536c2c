// Names are found inside wherever they are found on the host, whatever its resolv.conf looks like.

import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { asUser, type Need, penne, type Result, ROOT, sh, test, until } from "../../lib/helpers.ts";
import { NetLab } from "../../lib/netlab.ts";

const NEEDS: readonly Need[] = [
  ...["root", "user", "user namespaces", "tun"] as const,
  ...["package:iproute2", "package:util-linux", "package:libc-bin", "package:python3"] as const,
];

/** A host and a peer, with name servers at the addresses given. */
async function openNames(servers: { host?: string[]; peer?: string[] }): Promise<NetLab> {
  const lab = await NetLab.open();
  try {
    await lab.usual();
    await lab.ip(lab.peer, "addr", "add", "fe80::53/64", "dev", "down0", "nodad");
    await lab.ip(lab.host, "addr", "add", "fe80::2/64", "dev", "up0", "nodad");
    await lab.ip(lab.host, "link", "property", "add", "dev", "up0", "altname", "uplink0");
    for (const place of ["host", "peer"] as const) {
      if (!servers[place]) continue;
      const server = lab.start(lab.in(lab[place], ["python3", `${ROOT}tests/cli/run/lab/dns.py`, ...servers[place]]));
      let over = false;
      server.ended.then(() => over = true);
      await until("the name server is ready", () => over || server.output().includes("ready"));
      assertEquals(server.errors(), "");
    }
    return lab;
  } catch (error) {
    await lab[Symbol.asyncDispose]();
    throw error;
  }
}

/** Runs a command as the test user on the host, whose /etc/resolv.conf is made by shell commands. */
async function onHost(lab: NetLab, make: string, argv: string[]): Promise<Result> {
  const script = `set -e; mount -t tmpfs none /mnt; mkdir /mnt/u /mnt/w
    mount -t overlay none -o lowerdir=/etc,upperdir=/mnt/u,workdir=/mnt/w /etc; rm -f /etc/resolv.conf; ${make}; exec "$@"`;
  return await sh(lab.in(lab.host, ["unshare", "--mount", "sh", "-c", script, "sh", ...asUser(argv)]), { cwd: "/" });
}

const GETENT = ["getent", "ahostsv4", "a.example"];

/** Looks a name up inside; returns whether it was found, and what penne said. */
async function lookUpInside(lab: NetLab, make: string, ...options: string[]): Promise<[penne: boolean, string]> {
  const { stdout, stderr } = await onHost(lab, make, [penne(), "run", ...options, "--", ...GETENT]);
  return [stdout.includes("192.0.2.1"), stderr];
}

/** Looks a name up on the host and inside; returns whether it was found, and what penne said. */
async function lookUp(lab: NetLab, make: string): Promise<[host: boolean, penne: boolean, string]> {
  const outside = await onHost(lab, make, GETENT);
  return [outside.stdout.includes("192.0.2.1"), ...await lookUpInside(lab, make)];
}

/** Formats the commands that make a file. */
const file = (text: string) =>
  `printf '${text.replaceAll("%", "%%").replaceAll("\n", "\\n").replaceAll("\r", "\\r")}' >/etc/resolv.conf`;

test("Names are found inside where the host finds them: the name server of another machine", NEEDS, async (t) => {
  await using lab = await openNames({ peer: ["192.0.2.1", "fe80::53%down0"] });
  const [{ ifindex }] = await lab.json(lab.host, "link", "show", "up0");
  const forms: [address: string, warning: string][] = [
    ["192.0.2.1", ""],
    ["0xc0000201", ""],
    ["192.0.513", ""],
    ["0300.0.2.1", ""],
    ["::ffff:192.0.2.1", ""],
    [`fe80::53%${ifindex}`, ""],
    [`fe80::53%0${ifindex}`, ""],
    ["fe80::53%up0", ""],
    ["fe80::53%uplink0", ""],
    [
      "fe80::53%nosuch",
      'the name server fe80::53%nosuch of /etc/resolv.conf cannot be reached: there is no interface "nosuch"',
    ],
    ["fe80::53%99", 'cannot be reached: there is no interface "99"'],
    ["fe80::53", "an address of a link needs the interface, as in fe80::53%eth0"],
  ];
  for (const [address, warning] of forms) {
    await t.step(address, async () => {
      const [host, inside, stderr] = await lookUp(
        lab,
        file(`nameserver ${address}\n${warning ? "options timeout:1 attempts:1\n" : ""}`),
      );
      assertEquals([host, inside], [warning === "", warning === ""]);
      assertStringIncludes(stderr, warning);
      if (!warning) assertEquals(stderr, "");
    });
  }
});

test("Names are found inside where the host finds them: the name server of this machine", NEEDS, async (t) => {
  await using lab = await openNames({ host: ["127.0.0.1", "::1"] });
  const makes: Record<string, string> = {
    "an empty file": file(""),
    "comments alone": file("# nothing\n; nothing\n"),
    "no valid address": file("nameserver dns.example\nnameserver 300.1.1.1\n"),
    "a keyword that is not at the beginning": file(" nameserver 203.0.113.9\n"),
    "line ends of DOS": file("nameserver 203.0.113.9\r\n"),
    "the unspecified address": file("nameserver 0.0.0.0\n"),
    "the unspecified address of IPv6": file("nameserver ::\n"),
    "a short form of 127.0.0.1": file("nameserver 127.1\n"),
    "options alone": file("options ndots:2\nsearch example\n"),
    "a file that the user may not read": `${file("nameserver 203.0.113.9\n")}; chmod 600 /etc/resolv.conf`,
    "a directory": "mkdir /etc/resolv.conf",
    "a link to itself": "ln -s resolv.conf /etc/resolv.conf",
    "a link that leads nowhere": "ln -s /run/no/such/file /etc/resolv.conf",
    "a link through a file": "ln -s /etc/passwd/x /etc/resolv.conf",
  };
  for (const [what, make] of Object.entries(makes)) {
    await t.step(what, async () => {
      const [host, inside, stderr] = await lookUp(lab, make);
      if (what === "a directory") {
        // A file cannot be mounted there, so there is nothing that could lead to the host.
        assertMatch(stderr, /the command has no \/etc\/resolv.conf of its own: Not a directory|Is a directory/);
        return;
      }
      assertEquals([host, inside], [true, true], stderr);
      const unread =
        /cannot read \/etc\/resolv.conf: .* \(E\w+\); as for the C library, the name server of this machine/;
      if (/not read|itself|through/.test(what)) assertMatch(stderr, unread);
      else assertEquals(stderr, "");
    });
  }
});

test("Names are found inside where the host finds them: the last of three name servers", NEEDS, async (t) => {
  await using lab = await openNames({ peer: ["192.0.2.1"] });
  // A socket that takes questions and never answers, and an address that nobody has.
  const silent = "import socket, time; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('127.0.0.9', 53))";
  const deaf = lab.start(lab.in(lab.host, ["python3", "-c", `${silent}; print('ready', flush=True); time.sleep(600)`]));
  await until("the silent server is there", () => deaf.output().includes("ready"));
  const conf = (...addresses: string[]) =>
    file(`${addresses.map((address) => `nameserver ${address}\n`).join("")}options timeout:1 attempts:1\n`);
  for (const others of [["127.0.0.9"], ["192.0.2.99"], ["127.0.0.9", "192.0.2.99"]]) {
    await t.step(others.join(" "), async () => {
      const [host, inside, stderr] = await lookUp(lab, conf(...others, "192.0.2.1"));
      assertEquals([host, inside], [true, true], stderr);
    });
  }
});

test("Where no name server is named and none listens, penne says so", NEEDS, async () => {
  await using lab = await openNames({});
  const { code, stderr } = await onHost(lab, file("# nothing\n"), [penne(), "run", "--", "true"]);
  const text =
    "penne: warning: /etc/resolv.conf names no name server, and none listens on this machine: no names are found\n";
  assertEquals([code, stderr], [0, text]);
});

test("--dns and --dns-host take addresses in every form of resolv.conf", NEEDS, async (t) => {
  await using lab = await openNames({ host: ["127.0.0.1"], peer: ["192.0.2.1", "fe80::53%down0"] });
  const [{ ifindex }] = await lab.json(lab.host, "link", "show", "up0");
  const unused = file("nameserver 203.0.113.9\noptions timeout:1 attempts:5\n");
  const forms = ["192.0.2.1", "192.0.513", "fe80::53%up0", "fe80::53"];
  for (
    const options of [
      ...forms.map((form) => ["--dns", form]),
      ...[...forms, "127.1", "0.0.0.0", `fe80::53%${ifindex}`, "fe80::53%uplink0"].map((form) => ["--dns-host", form]),
    ]
  ) {
    await t.step(options.join(" "), async () => {
      const [inside, stderr] = await lookUpInside(lab, unused, ...options);
      assertEquals([inside, stderr], [true, ""]);
    });
  }
  await t.step("what cannot be reached", async () => {
    const [inside, stderr] = await lookUpInside(lab, unused, "--dns-host", "fe80::53%nosuch");
    assertEquals(inside, false);
    assertStringIncludes(stderr, 'fe80::53%nosuch of --dns-host cannot be reached: there is no interface "nosuch"');
    const later = 'fe80::53%nosuch of --dns cannot be reached before an interface "nosuch" is made inside';
    assertStringIncludes((await lookUpInside(lab, unused, "--dns", "fe80::53%nosuch"))[1], later);
  });
  const wrong = [["dns.example", "is not an IP address"], ["192.0.2.1%up0", "is not an IP address"], [
    "fe80::53%",
    "cannot be",
  ]];
  wrong.push(["2001:db8::1%up0", "only an address of a link has an interface"]);
  for (const option of ["--dns", "--dns-host"]) {
    for (const [value, reason] of wrong) {
      await t.step(`${option} ${value}`, async () => {
        const { code, stderr } = await onHost(lab, unused, [penne(), "run", option, value!, "--", "true"]);
        assertEquals(code, 2, stderr);
        assertStringIncludes(stderr, reason!);
      });
    }
  }
});

test("A host name without a domain does not cost the domain that the host's name has", NEEDS, async () => {
  await using lab = await openNames({ peer: ["192.0.2.1"] });
  const make = `${file("nameserver 192.0.2.1\n")}; hostname web.corp.example`;
  const script = "hostname; grep ^search /etc/resolv.conf; true";
  const line = (...options: string[]) => [
    "unshare",
    "--uts",
    "sh",
    "-c",
    `${make}; exec "$@"`,
    "sh",
    ...asUser([
      ...[penne(), "run", ...options, "--", "sh", "-c", script],
    ]),
  ];
  const run = async (...options: string[]) => {
    const outer = `set -e; mount -t tmpfs none /mnt; mkdir /mnt/u /mnt/w
      mount -t overlay none -o lowerdir=/etc,upperdir=/mnt/u,workdir=/mnt/w /etc; rm -f /etc/resolv.conf; exec "$@"`;
    const { stdout } = await sh(lab.in(lab.host, ["unshare", "--mount", "sh", "-c", outer, "sh", ...line(...options)]));
    return stdout;
  };
  assertEquals(await run("--hostname", "box"), "box\nsearch corp.example\n");
  assertEquals(await run("--hostname", "box.other.example"), "box.other.example\n");
  assertEquals(await run(), "web.corp.example\n");
});
