// Router advertisements: the kernel and rdisc6 against penne.

import "../lib/preload.ts";
import { assert, assertEquals, assertMatch } from "@std/assert";
import { sh, test } from "../lib/helpers.ts";
import { must } from "../lib/netlab.ts";
import { AdviceLab, DEVICE, prepare } from "./lab.ts";

const needs = ["root", "tun", "package:iproute2"] as const;

test(
  "the kernel configures IPv6 by advertisements: a prefix, an address in it, the default route of a configured one, and the MTU",
  needs,
  async () => {
    await using advice = await AdviceLab.open();
    const { lab } = advice;
    await lab.ip(lab.host, "route", "replace", "default", "via", "fe80::1", "dev", DEVICE);
    const [netns, set] = await Promise.all([advice.blank(["--mtu", "1400"]), advice.configured(["--mtu", "1400"])]);
    await prepare(netns, true);
    const wanted = await advice.setup(set, 6);
    assertEquals(wanted.routes, ["2001:db8::/64 ", "default fe80::1"]);
    let found = await advice.setup(netns, 6);
    const end = performance.now() + 60_000;
    while (!(found.addresses.length > 0 && found.routes.length > 1) && performance.now() < end) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      found = await advice.setup(netns, 6);
    }
    assertEquals([found.routes, found.mtu], [wanted.routes, 1400]);
    const [address = ""] = found.addresses;
    assert(address.startsWith("2001:db8:") && address.endsWith("/64"), address);
  },
);

test("a router that no configured gateway is stays a router when it is asked for its MAC address", [
  ...needs,
  "package:iputils-ping",
], async () => {
  await using advice = await AdviceLab.open(); // whose host has a gateway with a global address
  const { lab } = advice;
  const netns = await advice.blank();
  await prepare(netns, true);
  const router = "fe80::9855:9aff:fe55:9a55";
  const routes = async () => (await advice.setup(netns, 6)).routes;
  const end = performance.now() + 60_000;
  const inTime = () => performance.now() < end;
  while (!(await routes()).includes(`default ${router}`) && inTime());
  let neighbour = "";
  while (!/lladdr \S+ router/.test(neighbour) && inTime()) {
    await must(["ip", "-n", netns, "neigh", "flush", "dev", DEVICE]);
    await sh(["nsenter", `--net=/run/netns/${netns}`, "--", "ping", "-c", "1", "-W", "1", `${router}%${DEVICE}`]);
    neighbour = await lab.ip(netns, "-6", "neigh", "show", "dev", DEVICE);
  }
  assertMatch(neighbour, /^fe80::9855:9aff:fe55:9a55 lladdr 9a:55:9a:55:9a:55 router/m);
  assert((await routes()).includes(`default ${router}`));
});

/** What rdisc6 hears of penne, a line for each fact; null if it hears nothing. */
async function heard(netns: string, silent: boolean): Promise<string[] | null> {
  const tries = silent ? ["-r", "2", "-w", "500"] : ["-r", "20", "-w", "1000"];
  const { code, stdout, stderr } = await sh([
    "nsenter",
    `--net=/run/netns/${netns}`,
    "--",
    "rdisc6",
    "-1",
    ...tries,
    DEVICE,
  ]);
  if (code !== 0) {
    assertMatch(stdout + stderr, /Timed out|No response/);
    return null;
  }
  const facts = stdout.matchAll(
    /^ *(MTU|Prefix|Route|Recursive DNS server|DNS search list|from)(?: *:|(?<=from)) +(\S.*)$/gm,
  );
  return [...facts].map(([, name, value]) => `${name} ${value!.replace(/ bytes.*/, "").trim()}`);
}

const BASE = ["MTU 65520", "Prefix 2001:db8::/64", "from fe80::1"];
const withFact = (...facts: string[]) => [...BASE.slice(0, 2), ...facts, "from fe80::1"];

/** Options of pasta, and what rdisc6 hears then. */
const CASES: readonly [string[], string[] | null][] = [
  [[], BASE],
  [["--no-ra"], null],
  [["--no-ndp"], null],
  [["--no-icmp"], null],
  [["--config-net"], null],
  [["-4"], null],
  [["--no-dhcp", "--no-dhcpv6", "--no-udp", "--no-tcp"], BASE],
  [["--mtu", "0"], BASE.slice(1)],
  [["--mtu", "1400"], ["MTU 1400", ...BASE.slice(1)]],
  [["--dhcp-dns"], withFact("Recursive DNS server 2001:db8::53")],
  [["--dhcp-dns", "-D", "none"], BASE],
  [["--dhcp-search"], withFact("DNS search list one.example two.example")],
  [["-a", "fd00::7", "-g", "fe80::5"], ["MTU 65520", "Prefix fd00::/64", "from fe80::5"]],
];

test("under the name pasta rdisc6 hears what the options say", [...needs, "package:ndisc6"], async () => {
  await using advice = await AdviceLab.open();
  const { lab } = advice;
  await lab.ip(lab.host, "route", "replace", "default", "via", "fe80::1", "dev", DEVICE);
  for (const [options, wanted] of CASES) {
    const netns = await advice.pasta(options);
    await prepare(netns, false);
    assertEquals(await heard(netns, wanted === null), wanted, options.join(" "));
  }
});
