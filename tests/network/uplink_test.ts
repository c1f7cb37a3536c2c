// What the host would do decides: where it reaches another machine, whatever rules and tables lead there, so does the inside.

import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { asUser, penne, ROOT, sh, test, TEST_USER, until } from "../lib/helpers.ts";
import { NetLab } from "../lib/netlab.ts";

const NEEDS = [
  ...["root", "user", "user namespaces", "tun"] as const,
  ...["package:iproute2", "package:python3", "package:util-linux"] as const,
];
/** Another machine, behind a gateway of either uplink. */
const FAR = { 4: "203.0.113.80", 6: "2001:db8:80::80" };

/** A host whose default route is not simply in the main table. */
interface Host {
  name: string;
  /** Commands of ip(8) on the host, one per line. */
  ip: string;
  /** Settings of the host's namespace. */
  sysctl?: string;
  /** The interface whose addresses the inside has, for IPv4 and IPv6; null for local mode. */
  template: [string | null, string | null];
  /** Whether the other machine is reached by IPv4 and by IPv6. */
  reached?: [boolean, boolean];
  options?: string[];
  /** Who runs penne; the rules may depend on that. */
  user?: boolean;
}

const [UP0, UP1] = ["via 192.0.2.1 dev up0", "via 198.51.100.1 dev up1"];
const [SIX0, SIX1] = ["via 2001:db8::1 dev up0", "via 2001:db8:1::1 dev up1"];
const WG_QUICK = `
  -4 route add default ${UP1} table 51820
  -6 route add default ${SIX1} table 51820
  -4 rule add not fwmark 51820 table 51820
  -4 rule add table main suppress_prefixlength 0
  -6 rule add not fwmark 51820 table 51820
  -6 rule add table main suppress_prefixlength 0
`;

const HOSTS: Host[] = [
  { name: "a VPN of wg-quick, and no default route in the main table", ip: WG_QUICK, template: ["up1", "up1"] },
  {
    name: "a VPN of wg-quick over another default route",
    ip: `${WG_QUICK}
      route add default ${UP0}
      -6 route add default ${SIX0}`,
    template: ["up1", "up1"],
  },
  {
    name: "two halves of the Internet over a default route, as by OpenVPN",
    ip: `
      route add default ${UP0}
      route add 0.0.0.0/1 ${UP1}
      route add 128.0.0.0/1 ${UP1}
      -6 route add default ${SIX0}
      -6 route add 2000::/4 ${SIX1}
      -6 route add 3000::/4 ${SIX1}`,
    template: ["up1", "up1"],
  },
  {
    name: "default routes in the table default",
    ip: `
      route add default ${UP0} table default
      -6 route add default ${SIX0} table 253
      -6 rule add priority 40000 table 253`,
    template: ["up0", "up0"],
  },
  {
    name: "a rule for one user",
    ip: `
      route add default ${UP1} table 77
      rule add uidrange UID-UID table 77
      -6 route add default ${SIX1} table 77
      -6 rule add uidrange UID-UID table 77`,
    template: ["up1", "up1"],
    user: true,
  },
  {
    name: "a rule for another user",
    ip: `
      route add default ${UP1} table 77
      rule add uidrange UID-UID table 77`,
    template: ["up0", "up0"],
    reached: [false, false],
  },
  {
    name: "IPv6 routes that depend on the source",
    ip: `
      -6 route add default from 2001:db8::/64 ${SIX0}
      -6 route add default from 2001:db8:1::/64 ${SIX1}`,
    template: ["up0", null],
    reached: [false, true],
  },
  {
    name: "a realm",
    ip: `route add default ${UP1} realm 5`,
    template: ["up1", "up0"],
    reached: [true, false],
  },
  {
    name: "nexthop objects that the kernel does not expand",
    sysctl: "net.ipv4.nexthop_compat_mode=0",
    ip: `
      nexthop add id 1 ${UP1}
      nexthop add id 2 ${SIX1}
      route add default nhid 1
      -6 route add default nhid 2`,
    template: ["up1", "up1"],
  },
  {
    name: "a part of the Internet in a table of its own, and no default route",
    ip: `
      route add 203.0.113.0/24 ${UP1} table 88
      rule add to 203.0.113.0/24 table 88
      -6 route add 2001:db8:80::/48 ${SIX1} table 88
      -6 rule add to 2001:db8:80::/48 table 88`,
    template: ["up1", "up1"],
    options: ["-i", "up1"],
  },
  {
    name: "an interface whose default route is for its own addresses",
    ip: `
      route add default ${UP0}
      route add default ${UP1} table 99
      rule add from 198.51.100.2 table 99
      -6 route add default ${SIX0}
      -6 route add default ${SIX1} table 99
      -6 rule add from 2001:db8:1::2 table 99`,
    template: ["up1", "up1"],
    options: ["-i", "up1"],
  },
  {
    name: "a rule that forbids everything",
    ip: `
      route add default ${UP0}
      rule add priority 100 prohibit
      -6 route add default ${SIX0}
      -6 rule add priority 100 prohibit`,
    template: ["up0", "up0"],
    reached: [false, false],
  },
];

/** A host with two uplinks, and a machine behind both that accepts connections. */
async function open({ ip, sysctl }: Host): Promise<NetLab> {
  const lab = await NetLab.open();
  try {
    const { host, peer } = lab;
    const uid = (await sh(["id", "-u", TEST_USER])).stdout.trim();
    await lab.ip(host, "link", "add", "up1", "type", "veth", "peer", "name", "down1", "netns", peer);
    for (const [netns, device, last] of [[host, "up", 2], [peer, "down", 1]] as const) {
      for (const [i, four, six] of [[0, "192.0.2", "2001:db8:"], [1, "198.51.100", "2001:db8:1:"]] as const) {
        await lab.ip(netns, "link", "set", `${device}${i}`, "up");
        await lab.ip(netns, "addr", "add", `${four}.${last}/24`, "dev", `${device}${i}`);
        await lab.ip(netns, "addr", "add", `${six}:${last}/64`, "dev", `${device}${i}`, "nodad");
      }
    }
    for (const address of [`${FAR[4]}/32`, `${FAR[6]}/128`]) await lab.ip(peer, "addr", "add", address, "dev", "lo");
    if (sysctl) assertEquals((await sh(lab.in(host, ["sysctl", "-qw", sysctl]))).stderr, "");
    for (const line of ip.replaceAll("UID", uid).split("\n").map((one) => one.trim()).filter(Boolean)) {
      await lab.ip(host, ...line.split(" "));
    }
    const server = lab.start(lab.in(peer, [
      ...["python3", "-c"],
      'import socket\ns = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True)\n' +
      'print("ready", flush=True)\nwhile True:\n  c = s.accept()[0]\n  c.sendall(b"far")\n  c.close()',
    ]));
    await until("the machine listens", () => server.output().includes("ready"));
    return lab;
  } catch (error) {
    await lab[Symbol.asyncDispose]();
    throw error;
  }
}

/** Tries to reach the machine, by IPv4 and by IPv6; then shows the addresses. */
const TRY = `import socket, subprocess
for address in "${FAR[4]}", "${FAR[6]}":
    try:
        with socket.create_connection((address, 80), 3) as s: print(s.recv(9) == b"far")
    except OSError as error: print(False)
print(subprocess.check_output(["ip", "-br", "addr"], text=True))`;

for (const host of HOSTS) {
  test(`The inside reaches what the host reaches: ${host.name}`, NEEDS, async () => {
    await using lab = await open(host);
    const { reached = [true, true], template, options = [], user = false } = host;
    const argv = ["python3", "-c", TRY];
    const run = (line: string[]) =>
      lab.run(lab.host, line, { user, cwd: "/", env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" } });
    const there = await run(argv);
    const outside = there.stdout.split("\n").slice(0, 2);
    assertEquals(there.stderr, "");
    assertEquals(outside, reached.map((one) => one ? "True" : "False"));
    const { stdout, stderr, code } = await run([penne(), "run", ...options, "--", ...argv]);
    assertEquals([code, stderr], [0, ""]);
    assertEquals(stdout.split("\n").slice(0, 2), outside, stdout);
    const has = (device: string | null, zero: string, one: string) =>
      device === null ? [false, false] : [device === "up0", device === "up1"].map((is, i) => is && [zero, one][i]!);
    for (const address of [...has(template[0], "192.0.2.2/24", "198.51.100.2/24")].filter((one) => one !== false)) {
      assertStringIncludes(stdout, address as string);
    }
    for (const address of [...has(template[1], "2001:db8::2/64", "2001:db8:1::2/64")].filter((one) => one !== false)) {
      assertStringIncludes(stdout, address as string);
    }
  });
}

test("-i and the interfaces to leave by take alternative names", NEEDS, async (t) => {
  await using lab = await open({ name: "", ip: `route add default ${UP0}`, template: ["up0", null] });
  const long = "an-alternative-name-of-more-than-fifteen-bytes";
  for (const name of ["uplink1", long]) {
    await lab.ip(lab.host, "link", "property", "add", "dev", "up1", "altname", name);
  }
  const shown = async (...options: string[]) => {
    const { stdout, stderr } = await sh(
      lab.in(lab.host, asUser([penne(), "run", ...options, "--", "ip", "-br", "-4", "addr", "show", "dev", "up1"])),
      { cwd: "/" },
    );
    return stdout + stderr;
  };
  for (const name of ["up1", "uplink1", long]) {
    await t.step(`-i ${name}`, async () => assertMatch(await shown("-i", name), /^up1 .*198\.51\.100\.2\/24/));
  }
  await t.step("the names of an error", async () => {
    assertStringIncludes(await shown("-i", "uplink9"), 'cannot use the interface "uplink9": it does not exist');
  });
  await t.step("--outbound-if4", async () => {
    await lab.ip(lab.host, "route", "add", "default", "via", "198.51.100.1", "dev", "up1", "metric", "500");
    for (const name of ["up1", "uplink1", long]) {
      const connect = ["python3", "-c", TRY];
      const { stdout, stderr } = await sh(
        lab.in(lab.host, asUser([penne(), "run", "--outbound-if4", name, "--", ...connect])),
        { cwd: ROOT },
      );
      assertEquals([stdout.split("\n")[0], stderr], ["True", ""], name);
    }
  });
});
