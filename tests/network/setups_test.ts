// Compares the network inside a namespace with that of the host, as `ip` shows them, for many kinds of hosts.

// deno-lint-ignore-file no-explicit-any -- the JSON of iproute2

import { assert, assertEquals, assertMatch } from "@std/assert";
import { penne, sh, test } from "../lib/helpers.ts";
import { type Daemon, must, NetLab } from "../lib/netlab.ts";

const NEEDS = ["root", "tun", "package:iproute2", "package:procps", "package:util-linux"] as const;

/** A host's network. */
interface SetUp {
  name: string;
  /** Whether up0 has an address and a default route of each family. */
  usual?: true;
  /** Whether there is a second uplink, up1. */
  second?: true;
  /** Commands of ip(8), one per line. */
  ip?: string;
  /** The interfaces that are copied for IPv4 and IPv6; null for local mode. */
  template: [string | null, string | null];
  /** Turns the host's routes into those that are expected inside. */
  expect?: (routes: Route[]) => Route[];
  /** The warning that is expected. */
  warns?: RegExp;
  /** Addresses that Debian's pasta of 2023 sets, but neither penne nor later versions of pasta do. */
  pastaAlone?: string[];
}

/** The properties of a route that must be equal inside. */
interface Route {
  dst: string;
  gateway?: string;
  via?: unknown;
  metric?: number;
  protocol?: string;
  scope?: string;
  prefsrc?: string;
  onlink: boolean;
  metrics?: unknown;
  pref?: string;
  nexthops?: { gateway?: string; weight: number; dev?: string; onlink: boolean }[];
}

const SECOND_UPLINK = `
  link set up1 up
  addr add 198.51.100.2/24 dev up1
  addr add 2001:db8:1::2/64 dev up1 nodad
`;

/** Makes the network of a host. */
async function prepare(lab: NetLab, { usual, second, ip = "" }: SetUp): Promise<void> {
  if (usual) await lab.usual();
  if (second) {
    const other = await lab.netns("other");
    await lab.ip(lab.host, "link", "add", "up1", "type", "veth", "peer", "name", "down1", "netns", other);
    await lab.ip(other, "link", "set", "down1", "up");
  }
  const lines = `${second ? SECOND_UPLINK : ""}${ip}`.split("\n").map((line) => line.trim()).filter(Boolean);
  for (const line of lines) await lab.ip(lab.host, ...line.split(" "));
}

const SETUPS: SetUp[] = [
  {
    name: "one uplink",
    template: ["up0", "up0"],
    usual: true,
  },
  {
    name: "two uplinks, the second with the lower metric",
    template: ["up1", "up1"],
    second: true,
    ip: `
      addr add 192.0.2.2/24 dev up0
      addr add 2001:db8::2/64 dev up0 nodad
      route add default via 192.0.2.1 metric 200
      route add default via 198.51.100.1 metric 50
      -6 route add default via 2001:db8::1 metric 200
      -6 route add default via 2001:db8:1::1 metric 50
    `,
  },
  {
    name: "IPv4 by one uplink, IPv6 by another",
    template: ["up0", "up1"],
    second: true,
    ip: `
      addr add 192.0.2.2/24 dev up0
      route add default via 192.0.2.1
      -6 route add default via 2001:db8:1::1
    `,
  },
  {
    name: "several default routes",
    template: ["up0", "up0"],
    ip: `
      addr add 192.0.2.2/24 dev up0
      addr add 2001:db8::2/64 dev up0 nodad
      route add default via 192.0.2.1 metric 10
      route add default via 192.0.2.9 metric 20
      -6 route add default via 2001:db8::1 metric 10
      -6 route add default via 2001:db8::9 metric 20
    `,
  },
  {
    name: "multipath",
    template: ["up0", "up0"],
    ip: `
      addr add 192.0.2.2/24 dev up0
      addr add 2001:db8::2/64 dev up0 nodad
      route add default nexthop via 192.0.2.1 weight 3 nexthop via 192.0.2.9 weight 1
      -6 route add default nexthop via 2001:db8::1 weight 2 nexthop via 2001:db8::9 weight 5
    `,
  },
  {
    name: "multipath over two uplinks, of which that with the greater weight is copied",
    template: ["up1", "up1"],
    second: true,
    ip: `
      addr add 192.0.2.2/24 dev up0
      route add default nexthop via 192.0.2.1 weight 1 nexthop via 198.51.100.1 weight 9
    `,
    expect: (routes) =>
      routes.map((route) => {
        const ways = route.nexthops?.filter(({ dev }) => dev === "up1");
        if (!ways) return route;
        const { nexthops: _, ...rest } = route;
        return { ...rest, gateway: ways[0]!.gateway! };
      }),
    warns: /only the next hops through the template/,
  },
  {
    name: "a gateway that is marked as on the link",
    template: ["up0", "up0"],
    ip: `
      addr add 192.0.2.2/32 dev up0
      addr add 2001:db8::2/128 dev up0 nodad
      route add default via 203.0.113.1 dev up0 onlink
      -6 route add default via 2001:db8:ffff::1 dev up0 onlink
    `,
  },
  {
    name: "a gateway that a route puts on the link",
    template: ["up0", null],
    ip: `
      addr add 192.0.2.2/32 dev up0
      route add 203.0.113.1 dev up0 scope link
      route add default via 203.0.113.1
      route add 10.20.0.0/16 via 203.0.113.1
    `,
  },
  {
    name: "a point-to-point interface without MAC address",
    template: ["ptp0", "ptp0"],
    ip: `
      tuntap add mode tun name ptp0
      addr add 10.8.0.2 peer 10.8.0.1 dev ptp0
      addr add 2001:db8:8::2 peer 2001:db8:8::1 dev ptp0 nodad
      link set ptp0 up
      route add default dev ptp0
      -6 route add default dev ptp0
    `,
  },
  {
    name: "secondary addresses",
    template: ["up0", "up0"],
    usual: true,
    ip: `
      addr add 192.0.2.3/24 dev up0
      addr add 192.0.2.130/25 brd + dev up0
      addr add 10.1.1.1/8 brd 10.255.255.255 dev up0
      addr add 2001:db8::3/64 dev up0 nodad
      addr add 2001:db8:2::1/48 dev up0 nodad
    `,
  },
  {
    name: "static routes; those that lead elsewhere or nowhere are left out",
    template: ["up0", "up0"],
    usual: true,
    second: true,
    ip: `
      route add 10.1.0.0/16 via 192.0.2.7
      route add 10.2.0.0/16 dev up0 src 192.0.2.2 metric 33
      route add 10.3.0.0/16 via 10.1.0.1 dev up0 onlink proto static
      route add 10.4.0.0/16 via 198.51.100.7
      route add unreachable 10.5.0.0/16
      -6 route add 2001:db8:a::/48 via 2001:db8::7
      -6 route add 2001:db8:b::/48 dev up0 metric 77
      -6 route add blackhole 2001:db8:c::/48
    `,
  },
  {
    name: "IPv4 only",
    template: ["up0", null],
    ip: `
      addr add 192.0.2.2/24 dev up0
      route add default via 192.0.2.1
    `,
  },
  {
    name: "IPv6 only",
    template: [null, "up0"],
    ip: `
      addr add 2001:db8::2/64 dev up0 nodad
      -6 route add default via fe80::1 dev up0
    `,
  },
  {
    name: "no network: local mode",
    template: [null, null],
  },
  {
    name: "metrics",
    template: ["up0", "up0"],
    ip: `
      addr add 192.0.2.2/24 dev up0 metric 100
      addr add 2001:db8::2/64 dev up0 nodad metric 300
      route add default via 192.0.2.1 metric 100 mtu 1400 advmss 1300 initcwnd 20
      route add 10.1.0.0/16 via 192.0.2.1 mtu lock 1200 window 60000 rtt 50ms
      -6 route add default via 2001:db8::1 metric 300 mtu 1380 hoplimit 33 pref high
    `,
  },
  {
    name: "addresses without prefix routes, and routes instead",
    template: ["up0", "up0"],
    ip: `
      addr add 192.0.2.2/24 dev up0 noprefixroute
      addr add 2001:db8::2/64 dev up0 nodad noprefixroute
      route add 192.0.2.0/25 dev up0 proto static scope link
      route add default via 192.0.2.1
      -6 route add 2001:db8::/80 dev up0
      -6 route add default via 2001:db8::1
    `,
  },
  {
    name: "a prefix route that was deleted",
    template: ["up0", null],
    ip: `
      addr add 192.0.2.2/24 dev up0
      route del 192.0.2.0/24 dev up0
      route add default dev up0 scope link
    `,
  },
  {
    name: "deprecated addresses; they are left out",
    template: ["up0", "up0"],
    usual: true,
    ip: `
      addr add 2001:db8::dead/64 dev up0 nodad preferred_lft 0
      addr add 192.0.2.66/32 dev up0 preferred_lft 0 valid_lft 1000
    `,
    pastaAlone: ["2001:db8::dead"],
  },
  {
    name: "IPv4 by an IPv6 gateway",
    template: ["up0", "up0"],
    ip: `
      addr add 192.0.2.2/32 dev up0
      addr add 2001:db8::2/64 dev up0 nodad
      -4 route add default via inet6 2001:db8::1 dev up0
      -6 route add default via 2001:db8::1
    `,
  },
  {
    name: "addresses that expire, and a route by router advertisement",
    template: ["up0", "up0"],
    ip: `
      addr add 192.0.2.2/24 dev up0 valid_lft 4000 preferred_lft 3000
      addr add 2001:db8::2/64 dev up0 nodad valid_lft 4000 preferred_lft 3000
      route add default via 192.0.2.1 proto dhcp metric 1024
      -6 route add default via fe80::1 dev up0 proto ra metric 1024 expires 1800
    `,
  },
];

function addressesOf(links: any[]): unknown[] {
  return links.flatMap(({ addr_info }) => addr_info as any[])
    .filter((info) => info.scope !== "link" && !info.deprecated)
    .map(({ family, local, prefixlen, broadcast, address, scope, noprefixroute }) => ({
      family,
      local,
      prefixlen,
      broadcast,
      address,
      scope,
      noprefixroute,
    }))
    .map((info) => JSON.stringify(info)).sort();
}

function routesOf(routes: any[], device: string): Route[] {
  return routes
    .filter((route) =>
      route.type === undefined && route.dst !== "fe80::/64" && !route.dst.startsWith("ff00") &&
      (route.dev === device || route.nexthops?.some((hop: any) => hop.dev === device))
    )
    .map(({ dst, gateway, via, metric, protocol, scope, prefsrc, flags = [], metrics, pref, nexthops }) => ({
      dst,
      gateway,
      via,
      metric,
      protocol,
      scope,
      prefsrc,
      onlink: flags.includes("onlink"),
      metrics,
      pref,
      nexthops: nexthops?.map(({ gateway, weight, dev, flags = [] }: any) => ({
        gateway,
        weight,
        dev,
        onlink: flags.includes("onlink"),
      })),
    }));
}

function sorted(routes: readonly Route[]): string[] {
  return routes.map((route) => JSON.stringify({ ...route, nexthops: route.nexthops?.map(({ dev: _, ...hop }) => hop) }))
    .sort();
}

/** The addresses and gateways that Debian's pasta sets, run by the test user on the host; null if it refuses. */
async function pastaView(lab: NetLab): Promise<{ addresses: string[]; defaults: string[] } | null> {
  const script = "ip -j addr; echo; ip -j -4 route; echo; ip -j -6 route";
  const { code, stdout } = await lab.run(lab.host, [
    ...["timeout", "-k", "1", "10", "pasta", "--config-net", "-t", "none", "-u", "none", "-T", "none", "-U", "none"],
    ...["--", "sh", "-c", script],
  ], { user: true });
  if (code !== 0) return null;
  const parts = stdout.split("\n").filter(Boolean).map((line) => JSON.parse(line));
  const links = parts[0].filter((link: any) => link.ifname !== "lo");
  return {
    addresses: addressesOf(links).map((text) => JSON.parse(text as string).local),
    defaults: parts.slice(1).flat().filter((r: any) => r.dst === "default" && r.gateway).map((r: any) => r.gateway),
  };
}

/** Ends penne; returns all its warnings. */
async function warningsOf(daemon: Daemon): Promise<string> {
  daemon.child.kill("SIGTERM");
  assertEquals((await daemon.ended).code, 0);
  return daemon.errors();
}

let pastaAccepted = 0;

for (const setUp of SETUPS) {
  test(`A namespace gets the network of the host: ${setUp.name}`, NEEDS, async () => {
    await using lab = await NetLab.open();
    await prepare(lab, setUp);
    const guest = await lab.netns("guest");
    const penneProcess = await lab.attach([guest]);
    const template = setUp.template[0] ?? setUp.template[1];
    const name = template ?? "tap0";
    assert(penneProcess.output().includes(`"interface":"${name}"`), penneProcess.output());

    for (const family of [4, 6] as const) {
      const device = setUp.template[family === 4 ? 0 : 1];
      const inside = {
        addresses: addressesOf(await lab.json(guest, `-${family}`, "addr", "show", "dev", name)),
        routes: sorted(routesOf(await lab.json(guest, `-${family}`, "route", "show", "table", "main"), name)),
      };
      if (device === null) {
        const [gateway, address] = family === 4 ? ["169.254.2.2", "169.254.2.1"] : ["fe80::1", null];
        assert(
          inside.routes.some((text) => text.includes(`"dst":"default","gateway":"${gateway}"`)),
          `${inside.routes}`,
        );
        assertEquals(inside.addresses.length, address ? 1 : 0);
        if (address) assert(`${inside.addresses}`.includes(address));
        continue;
      }
      const addresses = addressesOf(await lab.json(lab.host, `-${family}`, "addr", "show", "dev", device));
      const routes = routesOf(await lab.json(lab.host, `-${family}`, "route", "show", "table", "main"), device);
      assertEquals(inside.addresses, addresses);
      assertEquals(inside.routes, sorted(setUp.expect?.(routes) ?? routes));
    }
    const warning = await warningsOf(penneProcess);
    if (setUp.warns) assert(setUp.warns.test(warning), warning);
    else assertEquals(warning, "");
  });

  test(
    `A namespace gets all that Debian's pasta sets: ${setUp.name}`,
    [...NEEDS, "user", "package:passt", "package:coreutils"],
    async () => {
      await using lab = await NetLab.open();
      await prepare(lab, setUp);
      const theirs = await pastaView(lab);
      if (!theirs) return; // pasta refuses this host
      pastaAccepted++;
      const { stdout, code } = await lab.run(lab.host, [
        ...[penne(), "run", "--net=tap", "--", "sh", "-c"],
        "ip -j addr; echo; ip -j -4 route; echo; ip -j -6 route",
      ], { user: true });
      assertEquals(code, 0);
      const parts = stdout.split("\n").filter(Boolean).map((line) => JSON.parse(line));
      const ours = addressesOf(parts[0]).map((text) => JSON.parse(text as string).local);
      const common = theirs.addresses.filter((address) => !setUp.pastaAlone?.includes(address));
      for (const address of common) assert(ours.includes(address), `${address} is missing in ${ours}`);
      const gateways = JSON.stringify(parts.slice(1).flat().filter((route) => route.dst === "default"));
      for (const gateway of theirs.defaults) {
        assert(gateways.includes(`"${gateway}"`), `${gateway} is not in ${gateways}`);
      }
    },
  );
}

test("Debian's pasta accepts most of these hosts", [...NEEDS, "user", "package:passt"], () => {
  assert(pastaAccepted >= SETUPS.length / 2, `it accepted ${pastaAccepted} of ${SETUPS.length}`);
});

test("Options replace the properties of the host", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  const view = async (...options: string[]) => {
    const guest = await lab.netns("guest");
    const daemon = await lab.attach([...options, guest]);
    const links = await lab.json(guest, "addr");
    const link = links.find(({ ifname }) => ifname !== "lo");
    const routes = [...await lab.json(guest, "-4", "route"), ...await lab.json(guest, "-6", "route")];
    assertEquals(await warningsOf(daemon), "");
    const addresses = (family: string) =>
      link.addr_info.filter((a: any) => a.family === family && a.scope !== "link").map((a: any) =>
        `${a.local}/${a.prefixlen}`
      );
    return {
      link,
      inet: addresses("inet"),
      inet6: addresses("inet6"),
      defaults: routes.filter(({ dst }) => dst === "default").map(({ gateway }) => gateway),
    };
  };
  const given = await view(..."-a 10.0.2.100 -n 255.255.255.0 -g 10.0.2.2 -4 -I eth7 -m 1500".split(" "));
  assertEquals([given.link.ifname, given.link.mtu], ["eth7", 1500]);
  assertEquals([given.inet, given.inet6, given.defaults], [["10.0.2.100/24"], [], ["10.0.2.2"]]);
  assertEquals(given.link.addr_info.length, 1, "with -4 there is no IPv6 link-local address either");

  const classes = await view("-a", "172.20.1.1", "-a", "2001:db8:7::5");
  assertEquals([classes.inet, classes.inet6], [["172.20.1.1/16"], ["2001:db8:7::5/64"]]);
  assertEquals(classes.defaults, ["192.0.2.1", "2001:db8::1"], "routes are still the host's");

  const outside = await view("--address=10.9.0.1/24", "--gateway=203.0.113.9", "--gateway", "2001:db8:f::1");
  assertEquals(outside.defaults, ["203.0.113.9", "2001:db8:f::1"]);

  const six = await view("-6", "--ns-mac-addr", "02:00:00:00:00:07");
  assertEquals([six.inet, six.inet6, six.link.address], [[], ["2001:db8::2/64"], "02:00:00:00:00:07"]);

  const bare = await view("--no-config-net", "--ns-mac-addr", "02:00:00:00:00:08");
  assertEquals([bare.inet, bare.inet6, bare.link.operstate], [[], [], "DOWN"]);
  assertEquals(bare.link.address, "02:00:00:00:00:08");
});

test("The tap has a longer queue, and loopback is up", NEEDS, async () => {
  await using lab = await NetLab.open();
  const guest = await lab.netns("guest");
  await lab.attach([guest]);
  const [lo, tap] = await lab.json(guest, "-d", "link");
  assert(lo.flags.includes("UP"));
  assertEquals([tap.linkinfo.info_kind, tap.txqlen, tap.mtu], ["tun", 10000, 65520]);
  assertEquals(tap.linkinfo.info_data.vnet_hdr, true);
  const features = await sh(lab.in(guest, ["ethtool", "-k", "tap0"])).catch(() => null);
  if (features?.code === 0) assert(/tcp-segmentation-offload: on/.test(features.stdout), features.stdout);
});

test("An MTU that is too small for IPv6 gives IPv4 alone, and a warning", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  const guest = await lab.netns("guest");
  const daemon = await lab.attach(["-m", "1000", guest]);
  assertEquals((await lab.json(guest, "-6", "addr", "show", "dev", "up0")).length, 0);
  assertMatch(await warningsOf(daemon), /IPv6 is off: it needs an MTU of at least 1280 bytes/);
});

test("IPv6 that the namespace has disabled stays disabled, with a warning", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  const guest = await lab.netns("guest");
  await must(lab.in(guest, ["sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6"]));
  const daemon = await lab.attach([guest]);
  assertEquals(addressesOf(await lab.json(guest, "-4", "addr", "show", "dev", "up0")).length, 1);
  assertMatch(await warningsOf(daemon), /IPv6 is off: it is disabled in the namespace/);
});

test("A route that the kernel refuses inside gives a warning, and all others exist", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.ip(lab.host, "addr", "add", "10.50.0.2/16", "dev", "up0");
  await lab.ip(lab.host, "route", "add", "default", "via", "10.50.7.255");
  await lab.ip(lab.host, "route", "add", "10.7.0.0/16", "via", "10.50.1.1");
  const guest = await lab.netns("guest");
  // With this address, the host's gateway is a broadcast address.
  const daemon = await lab.attach(["-a", "10.50.7.1/24", guest]);
  const routes = await lab.json(guest, "-4", "route");
  assert(routes.some(({ dst }) => dst === "10.7.0.0/16"), JSON.stringify(routes));
  assertMatch(
    await warningsOf(daemon),
    /cannot add the route default via 10\.50\.7\.255: Invalid argument: Nexthop has invalid gateway \(EINVAL\)/,
  );
});

test("A route with a property that only the host needs is copied without it", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  await lab.ip(lab.host, "route", "add", "10.7.0.0/16", "via", "192.0.2.9", "realm", "5");
  await lab.ip(lab.host, "-6", "route", "add", "2001:db8:7::/48", "from", "2001:db8::/64", "via", "2001:db8::9");
  const guest = await lab.netns("guest");
  const daemon = await lab.attach([guest]);
  const routes = [...await lab.json(guest, "-4", "route"), ...await lab.json(guest, "-6", "route")];
  const found = routes.filter(({ dst }) => /^10\.7|:7::/.test(dst)).map((
    { dst, gateway, realm, from },
  ) => [dst, gateway, realm, from]);
  assertEquals(found, [
    ["10.7.0.0/16", "192.0.2.9", undefined, undefined],
    ["2001:db8:7::/48", "2001:db8::9", undefined, undefined],
  ]);
  assertEquals(await warningsOf(daemon), "");
});

test("A route that cannot be read is left out with a warning", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  await must(lab.in(lab.host, ["sysctl", "-qw", "net.ipv4.nexthop_compat_mode=0"]));
  await lab.ip(lab.host, "nexthop", "add", "id", "7", "via", "192.0.2.9", "dev", "up0");
  await lab.ip(lab.host, "route", "add", "10.7.0.0/16", "nhid", "7");
  const guest = await lab.netns("guest");
  const daemon = await lab.attach([guest]);
  assert(!(await lab.json(guest, "-4", "route")).some(({ dst }) => dst === "10.7.0.0/16"));
  assertMatch(await warningsOf(daemon), /the route 10\.7\.0\.0\/16 is left out: it uses a nexthop object/);
});
