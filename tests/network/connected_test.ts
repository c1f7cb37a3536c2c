// What the kernel derives from the addresses that were asked for stays: prefix routes, in whatever way they were asked for.

// deno-lint-ignore-file no-explicit-any -- the JSON of iproute2

import { assertEquals } from "@std/assert";
import { penne, test } from "../lib/helpers.ts";
import { NetLab } from "../lib/netlab.ts";

const NEEDS = ["root", "tun", "package:iproute2", "package:util-linux"] as const;

/** The routes of all tables that the kernel has made for an interface, as text; IPv6's own link-local ones left out. */
function derived(routes: any[], device: string): string[] {
  return routes.filter(({ dev, protocol, dst }) =>
    dev === device && protocol === "kernel" && !/^(fe80|ff00|multicast)/.test(dst)
  )
    .map(({ dst, type = "unicast", table = "main", metric, prefsrc, scope }) =>
      JSON.stringify({ dst, type, table, metric, prefsrc, scope })
    ).sort();
}

/** What the kernel derives from addresses that nobody but it and `ip` deals with. */
async function reference(lab: NetLab, addresses: readonly string[]): Promise<string[]> {
  const plain = await lab.netns("plain");
  await lab.ip(plain, "link", "add", "up0", "type", "veth", "peer", "name", "down0");
  await lab.ip(plain, "link", "set", "down0", "up");
  await lab.ip(plain, "link", "set", "up0", "up");
  for (const address of addresses) {
    const extra = address.includes(":") ? ["nodad"] : ["brd", "+"];
    await lab.ip(plain, "addr", "add", address, ...extra, "dev", "up0");
  }
  return derived(await allRoutes(lab, plain), "up0");
}

async function allRoutes(lab: NetLab, netns: string): Promise<any[]> {
  const families = ["-4", "-6"].map((family) => lab.json(netns, family, "route", "show", "table", "all"));
  return (await Promise.all(families)).flat();
}

/** Words of `penne attach`, and the addresses inside that they lead to. */
const REQUESTS: [words: string, addresses: string[]][] = [
  ["-4 -a 10.0.2.100/24 -g 10.0.2.2", ["10.0.2.100/24"]],
  ["-4 -a 10.0.2.100/24", ["10.0.2.100/24"]],
  ["-4 -a 10.0.2.100 -n 255.255.0.0 -g 203.0.113.1", ["10.0.2.100/16"]],
  ["-4 -a 192.0.2.77/24", ["192.0.2.77/24"]],
  ["-4 -a 192.0.2.77/25 -g 192.0.2.1", ["192.0.2.77/25"]],
  ["-4 -g 192.0.2.1", ["192.0.2.2/24"]],
  ["-6 -a fd77::100/64 -g fd77::2", ["fd77::100/64"]],
  ["-6 -a fd77::100", ["fd77::100/64"]],
  ["-6 -a 2001:db8::77/64", ["2001:db8::77/64"]],
  ["-6 -g 2001:db8::1", ["2001:db8::2/64"]],
  ["-6 -g fe80::1", ["2001:db8::2/64"]],
  ["-a 10.0.2.100/24 -g 10.0.2.2 -a fd77::100/64 -g fd77::2", ["10.0.2.100/24", "fd77::100/64"]],
  ["-a 10.0.2.100/24", ["10.0.2.100/24", "2001:db8::2/64"]],
];

for (const [words, addresses] of REQUESTS) {
  test(`What the kernel derives from the addresses stays: ${words}`, NEEDS, async () => {
    await using lab = await NetLab.open();
    await lab.usual();
    const expected = await reference(lab, addresses);
    const guest = await lab.netns("guest");
    await lab.attach([...words.split(" "), guest]);
    const found = derived(await allRoutes(lab, guest), "up0");
    // Where the host's routes are copied, its prefix route is among them.
    const missing = expected.filter((route) => !found.includes(route));
    assertEquals(missing, [], `there are only ${found.join("\n")}`);
  });
}

test(
  "An unprivileged `penne run` with an address and a gateway has the connected routes",
  [...NEEDS, "user"],
  async () => {
    await using lab = await NetLab.open();
    await lab.usual();
    const words = ["-a", "10.0.2.100/24", "-g", "10.0.2.2", "-a", "fd77::100/64", "-g", "fd77::2"];
    const show = ["sh", "-c", "ip -4 route; ip -6 route"];
    const { stdout } = await lab.run(lab.host, [penne(), "run", ...words, "--", ...show], { user: true });
    const lines = stdout.split("\n").map((line) => line.trim()).filter((line) => line && !line.startsWith("fe80::/64"));
    assertEquals(lines, [
      "default via 10.0.2.2 dev up0",
      "10.0.2.0/24 dev up0 proto kernel scope link src 10.0.2.100",
      "fd77::/64 dev up0 proto kernel metric 256 pref medium",
      "default via fd77::2 dev up0 metric 1024 pref medium",
    ]);
  },
);

test(
  "A prefix route that the host does not have is not made of a copied address, also with a gateway",
  NEEDS,
  async () => {
    await using lab = await NetLab.open();
    await lab.usual();
    await lab.ip(lab.host, "route", "del", "192.0.2.0/24", "dev", "up0");
    const prefixes = async (...words: string[]) => {
      const guest = await lab.netns("guest");
      await lab.attach(["-4", ...words, guest]);
      const routes = await lab.json(guest, "-4", "route");
      return routes.filter(({ protocol }) => protocol === "kernel").map(({ dst }) => dst);
    };
    assertEquals(await prefixes("-g", "192.0.2.1"), []);
    assertEquals(await prefixes("-a", "192.0.2.77/24", "-g", "192.0.2.1"), ["192.0.2.0/24"]);
  },
);

test("The routes that the kernel makes late have been made, or deleted, when penne is ready", NEEDS, async () => {
  await using lab = await NetLab.open();
  const { host } = lab;
  // The host has no route to the peer: the interface was down when it got its address.
  await lab.ip(host, "tuntap", "add", "mode", "tun", "name", "ptp0");
  await lab.ip(host, "addr", "add", "2001:db8:8::2", "peer", "2001:db8:8::1", "dev", "ptp0", "nodad");
  await lab.ip(host, "link", "set", "ptp0", "up");
  await lab.ip(host, "-6", "route", "add", "default", "dev", "ptp0");
  const guests = await Promise.all(Array.from({ length: 16 }, (_, i) => lab.netns(`guest${i}`)));
  await lab.attach(guests);
  for (const guest of guests) {
    const routes = await lab.json(guest, "-6", "route", "show", "table", "all", "dev", "ptp0");
    const own = routes.filter(({ dst }) => /^2001:db8:8:/.test(dst)).map(({ dst, type = "unicast" }) =>
      `${type} ${dst}`
    );
    assertEquals(own.sort(), ["local 2001:db8:8::2", "unicast 2001:db8:8::2"]);
    assertEquals(routes.filter(({ dst, type }) => type === "local" && dst.startsWith("fe80:")).length, 1);
  }
});
