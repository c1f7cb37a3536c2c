// Which network a namespace gets, by requests and the networks of hosts.

import { assertEquals, assertThrows } from "@std/assert";
import { AF } from "../../ffi/net/constants.ts";
import { formatIp, inPrefix, parseIp } from "../../mod/inet/ip.ts";
import { PenneError } from "../../mod/base/errors.ts";
import type { Address } from "../../mod/netlink/address.ts";
import type { NextHop, Route } from "../../mod/netlink/route.ts";
import { configOf } from "../../mod/network/apply.ts";
import type { Network } from "../../mod/network/host.ts";
import { planNetwork } from "../../mod/network/plan.ts";
import { checkRequest } from "../../mod/network/request.ts";
import { test } from "../lib/helpers.ts";

const ip = (text: string) => parseIp(text)!;

function address(index: number, local: string, prefix: number): Address {
  return {
    family: local.includes(":") ? AF.INET6 : AF.INET,
    index,
    local: ip(local),
    peer: null,
    prefix,
    scope: 0,
    flags: 0x80,
    broadcast: null,
    metric: null,
  };
}

function route(hops: Partial<NextHop>[], details: Partial<Route> = {}): Route {
  return {
    family: AF.INET,
    destination: null,
    prefix: 0,
    tos: 0,
    table: 254,
    protocol: 3,
    scope: 0,
    type: 1,
    priority: null,
    source: null,
    hops: hops.map((hop) => ({ index: 2, gateway: null, flags: 0, weight: 1, ...hop })),
    metrics: null,
    preference: null,
    odd: null,
    ...details,
  };
}

function host(addresses: Address[], routes: Route[]): Network {
  const links = ["lo", "eth0", "eth1"].map((name, i) => ({
    index: i + 1,
    name,
    altNames: [],
    alias: "",
    flags: i === 0 ? 9 : 1,
    mac: new Uint8Array(6),
    mtu: 1500,
  }));
  return { links, ipv4: { addresses, routes }, ipv6: null };
}

test("The template is the interface of the default route with the lowest metric", () => {
  const network = host([address(2, "192.0.2.2", 24), address(3, "198.51.100.2", 24)], [
    route([{ index: 2, gateway: ip("192.0.2.1") }], { priority: 100 }),
    route([{ index: 3, gateway: ip("198.51.100.1") }], { priority: 50 }),
  ]);
  const plan = planNetwork({}, network);
  assertEquals([plan.ifname, plan.families[0]?.templates], ["eth1", ["eth1"]]);
  assertEquals(planNetwork({ interfaces: ["eth0"] }, network).ifname, "eth0");
});

test(
  "Of several next hops the one with the greatest weight counts, and those through other interfaces give a warning",
  () => {
    const network = host([address(3, "198.51.100.2", 24)], [
      route([{ index: 2, gateway: ip("192.0.2.1") }, { index: 3, gateway: ip("198.51.100.1"), weight: 5 }]),
    ]);
    const plan = planNetwork({}, network);
    assertEquals(plan.families[0]?.templates, ["eth1"]);
    assertEquals(plan.families[0]?.routes[0]?.hops.map(({ gateway }) => formatIp(gateway!)), ["198.51.100.1"]);
    assertEquals(plan.warnings.length, 1);
  },
);

test("Routes through loopback, and those to link-local addresses, make no template", () => {
  const network = host([], [
    route([{ index: 1 }]),
    route([{ index: 2 }], { destination: ip("169.254.0.0"), prefix: 16 }),
  ]);
  const plan = planNetwork({}, network);
  assertEquals([plan.ifname, plan.families[0]?.templates], ["tap0", []]);
  assertEquals(formatIp(plan.families[0]!.routes[0]!.hops[0]!.gateway!), "169.254.2.2");
});

test("A preferred source that is not copied is left out", () => {
  const network = host([address(2, "192.0.2.2", 24), address(3, "198.51.100.2", 24)], [
    route([{ gateway: ip("192.0.2.1") }], { source: ip("198.51.100.2") }),
    route([{}], { destination: ip("10.0.0.0"), prefix: 8, source: ip("192.0.2.2") }),
  ]);
  const sources = planNetwork({}, network).families[0]!.routes.map(({ source }) => source && formatIp(source));
  assertEquals(sources, ["192.0.2.2", null]);
});

test("A gateway that is in no prefix is marked as on the link", () => {
  const flags = (gateway: string) =>
    planNetwork({ addresses: [{ address: ip("10.0.0.5"), prefix: 24 }], gateways: [ip(gateway)] }, host([], []))
      .families[0]!.routes[0]!.hops[0]!.flags;
  assertEquals([flags("10.0.0.1"), flags("10.0.1.1")], [0, 4]);
});

test("The broadcast address follows from the prefix, up to 30 bits", () => {
  const broadcast = (prefix: number) => {
    const request = { addresses: [{ address: ip("10.1.2.3"), prefix }] };
    const found = planNetwork(request, host([], [])).families[0]!.addresses[0]!.broadcast;
    return found && formatIp(found);
  };
  assertEquals([8, 20, 24, 30, 31, 32].map(broadcast), [
    "10.255.255.255",
    "10.1.15.255",
    "10.1.2.255",
    "10.1.2.3",
    null,
    null,
  ]);
});

test("Requests that contradict themselves are usage errors", () => {
  const addresses = [{ address: ip("10.0.0.5"), prefix: 24 }];
  for (
    const request of [
      { mtu: 67 },
      { mtu: 65522 },
      { mtu: 1500.5 },
      { version: 6 as const, mtu: 1000 },
      { version: 6 as const, addresses },
      { addresses: [...addresses, ...addresses] },
      { addresses, netmask: 24 },
      { netmask: 24 },
      { addresses, gateways: [ip("10.0.0.5")] },
      { gateways: [ip("0.0.0.0")] },
      { addresses: [{ address: ip("::ffff:10.0.0.1"), prefix: 64 }] },
      { nsIfname: "" },
      { nsIfname: ".." },
      { nsIfname: "ümlaut-of-16-by" },
      { nsMac: new Uint8Array(6) },
    ]
  ) {
    const error = assertThrows(() => checkRequest(request), PenneError);
    assertEquals(error.usage, true, JSON.stringify(request));
  }
});

test("parseIp() and formatIp() convert valid addresses, and parseIp() refuses others", () => {
  for (
    const text of ["0.0.0.0", "255.255.255.255", "::", "::1", "1::", "fe80::1", "1:2:3:4:5:6:7:8", "::ffff:192.0.2.1"]
  ) {
    assertEquals(formatIp(ip(text)), text);
  }
  assertEquals(formatIp(ip("2001:DB8:0:0:0:0:2:1")), "2001:db8::2:1");
  assertEquals(formatIp(ip("2001:db8:0:1:1:1:1:1")), "2001:db8:0:1:1:1:1:1", "one zero is not shortened");
  assertEquals(formatIp(ip("2001:0:0:1:0:0:0:1")), "2001:0:0:1::1");
  assertEquals(formatIp(ip("64:ff9b::192.0.2.33")), "64:ff9b::c000:221");
  for (
    const text of [
      ...["", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "1.2.3.4 ", "0x1.2.3.4", "1.2.3.-4", "a.b.c.d"],
      ...[
        ":",
        ":::",
        "1::2::3",
        "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9",
        "12345::",
        "::g",
        "::1%eth0",
        "[::1]",
        "1.2.3.4::",
      ],
      ...["1:2:3:4:5:6:7::8", "::1.2.3", "::1.2.3.4:5"],
    ]
  ) assertEquals(parseIp(text), null, text);
});

test("Prefixes are compared bit by bit", () => {
  const cases: [string, string, number, boolean][] = [
    ["10.0.0.1", "10.0.0.2", 30, true],
    ["10.0.0.1", "10.0.0.4", 30, false],
    ["10.0.0.1", "11.0.0.0", 7, true],
    ["1.2.3.4", "9.9.9.9", 0, true],
    ["2001:db8::1", "2001:db8::2", 126, true],
    ["2001:db8::1", "2001:db8::2", 127, false],
    ["10.0.0.1", "::", 0, false],
  ];
  for (const [a, b, bits, expected] of cases) assertEquals(inPrefix(ip(a), ip(b), bits), expected, `${a} ${b}/${bits}`);
});

test("one address alone, or a default route alone, are copied if that is asked for", () => {
  const addresses = [address(2, "192.0.2.2", 24), address(2, "198.51.100.2", 24)];
  const routes = [
    route([{}], { destination: ip("192.0.2.0"), prefix: 24, scope: 253 }),
    route([{ gateway: ip("192.0.2.9") }], { destination: ip("203.0.113.0"), prefix: 24 }),
    route([{ index: 3, gateway: ip("10.0.0.1") }], { priority: 50 }),
    route([{ gateway: ip("192.0.2.8") }], { priority: 200 }),
    route([{ gateway: ip("192.0.2.1") }], { priority: 100 }),
  ];
  const plan = (request: Parameters<typeof planNetwork>[0]) =>
    planNetwork({ interfaces: ["eth0"], ...request }, host(addresses, routes)).families[0]!;
  const own = (request: Parameters<typeof planNetwork>[0]) =>
    plan(request).addresses.map(({ local }) => formatIp(local));
  const gateways = (request: Parameters<typeof planNetwork>[0]) =>
    plan(request).routes.map(({ prefix, hops }) => [prefix, hops[0]!.gateway && formatIp(hops[0]!.gateway)]);
  assertEquals(own({}), ["192.0.2.2", "198.51.100.2"]);
  assertEquals(own({ copyAddresses: false }), ["192.0.2.2"]);
  assertEquals(gateways({ copyRoutes: false }), [[0, "192.0.2.1"]]);
  assertEquals(gateways({}).length, 4);
  // Without a gateway, there is no such route.
  const flat = planNetwork({ copyRoutes: false }, host([addresses[0]!], [route([{}])])).families[0]!;
  assertEquals(flat.routes.map(({ prefix }) => prefix), [0]);
});

test("Several templates give what all have, each thing once, with the source that the host takes", () => {
  const both = host(
    [
      address(2, "192.0.2.2", 24),
      address(2, "192.0.2.3", 24),
      address(3, "198.51.100.2", 24),
      address(3, "192.0.2.2", 24),
    ],
    [
      route([{ index: 2, gateway: ip("192.0.2.1") }], { priority: 100 }),
      route([{ index: 3, gateway: ip("198.51.100.1") }], { priority: 600 }),
      route([{ index: 2 }], { destination: ip("10.1.0.0"), prefix: 16 }),
      route([{ index: 3 }], { destination: ip("10.2.0.0"), prefix: 16 }),
      route([{ index: 2 }], { destination: ip("10.3.0.0"), prefix: 16 }),
      route([{ index: 3 }], { destination: ip("10.3.0.0"), prefix: 16 }),
    ],
  );
  const shown = (request: Parameters<typeof planNetwork>[0]) => {
    const { families, ifname, notes } = planNetwork(request, both);
    const { templates, addresses, routes } = families[0]!;
    return {
      ...{ ifname, templates, notes },
      addresses: addresses.map(({ local }) => formatIp(local)),
      routes: routes.map(({ destination, hops, source }) => {
        const gateway = hops[0]!.gateway;
        const from = source ? ` from ${formatIp(source)}` : "";
        return `${destination ? formatIp(destination) : "default"} ${gateway ? formatIp(gateway) : "-"}${from}`;
      }),
    };
  };
  const all = shown({ allInterfaces: true });
  assertEquals([all.ifname, all.templates, all.notes], ["eth0", ["eth0", "eth1"], []]);
  assertEquals(all.addresses, ["192.0.2.2", "192.0.2.3", "198.51.100.2"]);
  // One address beside the gateway is taken by itself; otherwise the choice would depend on the order of the addresses.
  const links = [[1, "192.0.2.2"], [3, "192.0.2.2"], [2, "198.51.100.2"], [3, "198.51.100.2"]]
    .map(([network, source]) => `10.${network}.0.0 - from ${source}`);
  const ways = ["default 192.0.2.1 from 192.0.2.2", "default 198.51.100.1"];
  assertEquals(all.routes.toSorted(), [...links, ...ways].toSorted());
  assertEquals(shown({ interfaces: ["eth1", "eth0", "eth1"] }).templates, ["eth1", "eth0"]);
  assertEquals(shown({ interfaces: ["eth1", "eth1"] }).templates, ["eth1"]);
  assertThrows(() => shown({ interfaces: ["eth0", "eth9"] }), PenneError, 'the interface "eth9": it does not exist');
  assertThrows(() => shown({ interfaces: ["eth0", "lo"] }), PenneError, "loopback");
  assertThrows(() => shown({ interfaces: ["eth0"], allInterfaces: true }), PenneError, "choose one of");
  assertEquals(shown({ allInterfaces: true, copyAddresses: false }).addresses, ["192.0.2.2"]);
});

test("A default route alone of several templates is that which the host prefers, whatever the first one has", () => {
  const both = host([address(2, "192.0.2.2", 24), address(3, "198.51.100.2", 24)], [
    route([{ index: 3, gateway: ip("198.51.100.1") }], { priority: 100 }),
    route([{ index: 2 }], { destination: ip("10.1.0.0"), prefix: 16 }),
  ]);
  const { routes } = planNetwork({ interfaces: ["eth0", "eth1"], copyRoutes: false }, both).families[0]!;
  assertEquals(routes.map(({ prefix, hops }) => [prefix, hops[0]!.gateway]), [[0, ip("198.51.100.1")]]);
});

test("The gateway of several templates is that of the default route that the host prefers", () => {
  const both = host([address(2, "192.0.2.2", 24), address(3, "10.8.0.2", 32)], [
    route([{ index: 2, gateway: ip("192.0.2.1") }], { priority: 100 }),
    route([{ index: 3 }], { priority: 600 }),
  ]);
  const [family] = planNetwork({ allInterfaces: true }, both).families;
  assertEquals(configOf(family, new Uint8Array(6))?.gateway, ip("192.0.2.1"));
});

test("What cannot be copied gets a default route if there is none, and a sentence", () => {
  const elsewhere = { ...route([{ index: 3 }], { destination: ip("10.2.0.0"), prefix: 16 }), table: 77 };
  const single = host([address(2, "192.0.2.2", 24)], [route([{}], { destination: ip("10.1.0.0"), prefix: 16 })]);
  const network = { ...single, ipv4: { ...single.ipv4!, leftOut: [{ route: elsewhere, reason: "table 77" }] } };
  const { families, notes } = planNetwork({ allInterfaces: true }, network);
  const added = families[0]!.routes.find(({ prefix }) => prefix === 0)!;
  assertEquals([formatIp(added.hops[0]!.gateway!), added.priority, added.hops[0]!.flags], [
    "169.254.2.2",
    0x7fffffff,
    4,
  ]);
  assertEquals(notes, [
    "of IPv4, these routes are not there inside, and served by a default route that the host does not have as the host " +
    "decides: 10.2.0.0/16 (table 77)",
  ]);
  const partly = host(single.ipv4!.addresses as Address[], [route([{ gateway: ip("192.0.2.1") }, { index: 1 }])]);
  assertEquals(planNetwork({ allInterfaces: true }, partly).notes, []);
  // With everything copied the inside has no way that the host has not.
  assertEquals(planNetwork({ allInterfaces: true }, single).families[0]!.routes.length, 1);
});
