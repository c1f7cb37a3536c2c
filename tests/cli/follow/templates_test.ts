// The inside follows several interfaces of the host: what each of them gets and loses, and interfaces that appear and go.

import { assertEquals } from "@std/assert";
import { AT_ONCE } from "../../lib/end.ts";
import { test, until } from "../../lib/helpers.ts";
import { FollowLab, NEEDS, type Served } from "./lab.ts";

/** Interfaces of the host as it is before each change; those that are not there count for nothing. */
const DEVICES = ["up0", "eth1", "wg0", "br0"];

/** Changes of the host, and what the main table inside has in its place where it is not that of the host. */
const CHANGES: [what: string, lines: string[], other?: (host: string[]) => string[]][] = [
  ["another interface gets an address", [
    "addr add 10.3.0.9/24 dev eth1",
    "-6 addr add 2001:db8:3::2/64 dev eth1 nodad",
  ]],
  ["another default route comes first", [
    "route add default via 10.3.0.1 dev eth1 metric 5",
    "-6 route add default via 2001:db8:3::1 dev eth1 metric 5",
  ]],
  ["an interface appears", [
    "link add wg0 type veth peer name wg1",
    "link set wg0 addrgenmode none",
    "link set wg0 up",
  ]],
  ["it gets an address and a network", ["addr add 10.8.0.2/32 dev wg0", "route add 10.20.0.0/16 dev wg0 src 10.8.0.2"]],
  ["one that has no address gets routes", [
    "link add br0 type veth peer name br1",
    "link set br1 up",
    "link set br0 addrgenmode none",
    "link set br0 up",
  ]],
  ["a network moves to it", ["route replace 10.20.0.0/16 dev br0 src 10.8.0.2"]],
  ["an address of each goes", ["addr del 10.3.0.9/24 dev eth1", "addr del 192.0.2.2/24 dev up0"]],
  ["one of them goes down", ["link set up0 down"]],
  ["one of them goes away", ["link del wg0"]],
  ["it comes up again", [
    "link set up0 up",
    "addr add 192.0.2.7/24 dev up0",
    "route add default via 192.0.2.1 metric 50",
  ]],
  ["a rule takes a part by another table", [
    "route add 10.40.0.0/16 via 10.3.0.1 dev eth1 table 88",
    "rule add to 10.40.0.0/16 table 88",
  ], (host) => [...host, "10.40.0.0/16 10.3.0.1 -"]],
  ["the rule depends on a port instead", ["rule del to 10.40.0.0/16 table 88", "rule add dport 80 table 88"]],
  ["there is no default route any more, but that rule", [
    "route del default via 10.3.0.1 dev eth1 metric 5",
    "route del default via 192.0.2.1 metric 50",
  ], (host) => [...host, "default 169.254.2.2 2147483647"]],
  ["the rule goes", ["rule del dport 80 table 88"]],
];

/** The addresses and the routes of IPv4 and IPv6 that some interfaces have together. */
async function together(follow: FollowLab, where: string[], devices: readonly string[]): Promise<string[]> {
  const pictures = devices.flatMap((device) =>
    ([4, 6] as const).map((family) => follow.picture(where, family, device))
  );
  const lines = (await Promise.all(pictures)).flat().map((line) => {
    if (!line.startsWith("{")) return line;
    const { dst, gateway = "-", metric = "-" } = JSON.parse(line);
    return `${dst} ${gateway} ${metric}`;
  });
  // The way to the resolver is there whatever the host has.
  return [...new Set(lines)].filter((line) => !line.startsWith("169.254.1.1 ")).sort();
}

async function interfaces(follow: FollowLab): Promise<string[]> {
  const links = await follow.lab.json(follow.lab.host, "link", "show", "up");
  return links.map(({ ifname }) => ifname).filter((name) => DEVICES.includes(name));
}

test("The inside follows several interfaces of the host", NEEDS, async (t) => {
  await using follow = await FollowLab.open();
  await follow.host("link set lo up");
  await follow.secondNetwork();
  await follow.host("link set eth1 addrgenmode none");
  const all = [await follow.run(false, "--all-interfaces"), await follow.attach(true, "pid", "--all-interfaces")];
  const two = await follow.run(true, "-i up0", "-i eth1");
  const warned = () => [...all, two].map(({ daemon }) => daemon.errors()).join("").includes("warning");
  const equal = async (served: Served, other: (host: string[]) => string[], only?: string[]) => {
    const start = performance.now();
    for (;;) {
      const devices = (await interfaces(follow)).filter((name) => !only || only.includes(name));
      const wanted = other(await together(follow, follow.lab.in(follow.lab.host, []), devices)).sort();
      const found = await together(follow, follow.inside(served, []), [await follow.name(served)]);
      if (found.join("\n") === wanted.join("\n")) return;
      if (performance.now() - start > AT_ONCE) assertEquals(found, wanted, served.daemon.errors());
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  for (const served of all) await equal(served, (host) => host);
  for (const [what, lines, other = (host: string[]) => host] of CHANGES) {
    await t.step(what, async () => {
      await follow.host(...lines);
      for (const served of all) await equal(served, other);
    });
  }
  await t.step("those that were named are waited for", async () => {
    await equal(two, (host) => host, ["up0", "eth1"]);
    await follow.host("link del eth1");
    await equal(two, (host) => [...host, "default fe80::1 1024"], ["up0"]); // IPv6 is as without a network
  });
  assertEquals(warned(), false, all[0]!.daemon.errors());
  const last = () => all[0]!.daemon.output().split("\n").findLast((line) => line.includes('"event":"network"'));
  await until("the templates are reported", () => !!last()?.includes('"host":"up0","hosts":["up0"'));
});
