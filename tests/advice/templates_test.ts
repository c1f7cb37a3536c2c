// Programs that configure an interface themselves, where it stands for two interfaces of the host.

import "../lib/preload.ts";
import { assert, assertEquals } from "@std/assert";
import { sh, test } from "../lib/helpers.ts";
import { AdviceLab, bringUp, DEVICE, prepare, privately, says } from "./lab.ts";

const needs = ["root", "tun", "package:iproute2"] as const;
const BOTH = ["-i", DEVICE, "-i", "up7"];

/** A host with another interface, behind which are networks of its own. */
async function open(): Promise<AdviceLab> {
  const advice = await AdviceLab.open();
  const { lab } = advice;
  await lab.ip(lab.host, "link", "add", "up7", "type", "veth", "peer", "name", "end7");
  for (const link of ["up7", "end7"]) await lab.ip(lab.host, "link", "set", link, "up");
  await lab.ip(lab.host, "addr", "add", "198.51.100.2/24", "dev", "up7");
  await lab.ip(lab.host, "addr", "add", "2001:db8:7::2/64", "dev", "up7", "nodad");
  await lab.ip(lab.host, "route", "add", "10.7.0.0/16", "via", "198.51.100.7");
  await lab.ip(lab.host, "route", "add", "2001:db8:77::/48", "via", "2001:db8:7::7");
  return advice;
}

test("with two templates, DHCP clients get an address, and the routes of both interfaces", [
  ...needs,
  "package:isc-dhcp-client",
  "package:udhcpc",
], async () => {
  await using advice = await open();
  const { lab } = advice;
  const [set, netns, other] = await Promise.all([
    advice.configured(BOTH),
    advice.blank(BOTH),
    advice.blank(BOTH),
  ]);
  const wanted = await advice.setup(set, 4);
  assertEquals(wanted, {
    addresses: ["192.0.2.2/24", "198.51.100.2/24"],
    routes: [
      "10.7.0.0/16 198.51.100.7",
      "10.9.0.0/16 192.0.2.9",
      "192.0.2.0/24 ",
      "198.51.100.0/24 ",
      "default 192.0.2.1",
    ],
    mtu: 65520,
  });
  const place = await advice.place();
  const files = ["-pf", `${place}/pid`, "-lf", `${place}/leases`, "-cf", `${place}/conf`];
  await Deno.writeTextFile(
    `${place}/conf`,
    `option rfc3442-classless-static-routes code 121 = array of unsigned integer 8;
     request subnet-mask, routers, interface-mtu, rfc3442-classless-static-routes;\n`,
  );
  const argv = privately(place, ["dhclient", "-4", "-v", "-d", ...files, DEVICE]);
  const client = lab.start(lab.in(netns, argv), { cwd: "/" });
  await says(client, /bound to 192\.0\.2\.2/);
  await advice.becomes(netns, 4, { ...wanted, addresses: ["192.0.2.2/24"] });

  const script = `${place}/script`;
  await Deno.writeTextFile(script, `#!/bin/sh\n[ "$1" = bound ] && echo "$ip/$mask $router: $staticroutes"\n:\n`);
  await Deno.chmod(script, 0o755);
  await bringUp(other);
  const asking = ["udhcpc", "-f", "-q", "-n", "-t", "30", "-T", "1", "-i", DEVICE, "-s", script, "-O", "121"];
  const { stdout } = await sh(lab.in(other, asking));
  const [, routes = ""] = /^192\.0\.2\.2\/24 192\.0\.2\.1: (.*)$/m.exec(stdout)!;
  for (const route of ["10.7.0.0/16 198.51.100.7", "10.9.0.0/16 192.0.2.9", "198.51.100.0/24 0.0.0.0"]) {
    assert(routes.includes(route), `${route} is not in ${routes}`);
  }
});

test("with two templates, the kernel gets the prefixes and routes of both interfaces by advertisements", [
  ...needs,
  "package:ndisc6",
], async () => {
  await using advice = await open();
  const { lab } = advice;
  await lab.ip(lab.host, "route", "replace", "default", "via", "fe80::1", "dev", DEVICE);
  const [set, netns] = await Promise.all([advice.configured(BOTH), advice.blank(BOTH)]);
  await prepare(netns, true);
  const wanted = await advice.setup(set, 6);
  assert(["2001:db8::/64 ", "2001:db8:7::/64 "].every((route) => wanted.routes.includes(route)), `${wanted.routes}`);
  let found = await advice.setup(netns, 6);
  const prefixes = () => new Set(found.addresses.map((address) => address.split(":").slice(0, 3).join(":")));
  const end = performance.now() + 60_000;
  while (
    !(prefixes().size > 1 && found.routes.some((route) => route.startsWith("default"))) && performance.now() < end
  ) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    found = await advice.setup(netns, 6);
  }
  assertEquals([...prefixes()].sort(), ["2001:db8:", "2001:db8:7"]);
  const { stdout } = await sh(lab.in(netns, ["rdisc6", "-1", "-q", DEVICE]));
  for (const prefix of ["2001:db8::/64", "2001:db8:7::/64"]) assert(stdout.split("\n").includes(prefix), stdout);
});
