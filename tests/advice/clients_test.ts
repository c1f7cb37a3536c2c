// Real DHCP clients against penne.

import "../lib/preload.ts";
import { assertEquals, assertMatch } from "@std/assert";
import { penne, sh, test, until } from "../lib/helpers.ts";
import { must } from "../lib/netlab.ts";
import { AdviceLab, bringUp, DEVICE, privately, says } from "./lab.ts";

const needs = ["root", "tun", "package:iproute2"] as const;

test("dhclient drops a lease of elsewhere, configures a namespace as penne would, renews its lease, and gives it up", [
  ...needs,
  "package:isc-dhcp-client",
], async () => {
  await using advice = await AdviceLab.open();
  const { lab } = advice;
  const [netns, set] = await Promise.all([advice.blank(), advice.configured()]);
  const place = await advice.place();
  const files = ["-pf", `${place}/pid`, "-lf", `${place}/leases`, "-cf", `${place}/conf`];
  const requested = "subnet-mask, broadcast-address, routers, domain-name-servers, domain-search, interface-mtu";
  await Deno.writeTextFile(
    `${place}/conf`,
    `option rfc3442-classless-static-routes code 121 = array of unsigned integer 8;
     request ${requested}, rfc3442-classless-static-routes;
     send dhcp-lease-time 10;\n`,
  );
  const until2037 = ["renew", "rebind", "expire"].map((word) => `${word} 4 2037/01/01 00:00:00;`).join(" ");
  await Deno.writeTextFile(
    `${place}/leases`,
    `lease { interface "${DEVICE}"; fixed-address 10.1.2.3; option subnet-mask 255.255.255.0; ${until2037} }\n`,
  );
  const client = lab.start(lab.in(netns, privately(place, ["dhclient", "-4", "-v", "-d", ...files, DEVICE])), {
    cwd: "/",
  });
  await says(client, /bound to 192\.0\.2\.2/);
  await advice.equals(netns, set, 4);
  const conf = await Deno.readTextFile(`${place}/etc/resolv.conf`);
  assertEquals(conf.split("\n").filter((line) => /^(nameserver|search)/.test(line)).sort(), [
    "nameserver 192.0.2.53",
    "search one.example. two.example.",
  ]);
  await says(client, /DHCPACK of 192\.0\.2\.2/, 2); // the lease is renewed
  await advice.equals(netns, set, 4);
  assertMatch(client.errors(), /DHCPREQUEST for 10\.1\.2\.3[^]*DHCPNAK from 192\.0\.2\.1/);
  assertMatch(client.errors(), /DHCPREQUEST for 192\.0\.2\.2 on up0 to 192\.0\.2\.1 port 67/);
  await must(lab.in(netns, privately(place, ["dhclient", "-4", "-r", ...files, DEVICE])));
  assertEquals((await advice.setup(netns, 4)).addresses, []);
});

test("udhcpc gets a lease, renews it, and releases it", [
  ...needs,
  "package:udhcpc",
], async () => {
  await using advice = await AdviceLab.open();
  const { lab } = advice;
  const netns = await advice.blank();
  const place = await advice.place();
  await bringUp(netns);
  const argv = ["udhcpc", "-f", "-R", "-i", DEVICE, "-x", "lease:600"];
  const client = lab.start(lab.in(netns, privately(place, argv)), { cwd: "/" });
  await says(client, /lease of 192\.0\.2\.2 obtained from 192\.0\.2\.1, lease time 600/);
  await until("its script has run", () => Deno.readTextFileSync(`${place}/etc/resolv.conf`).includes("192.0.2.53"));
  assertEquals((await advice.setup(netns, 4)).addresses, ["192.0.2.2/24"]);
  client.child.kill("SIGUSR1");
  await says(client, /lease of 192\.0\.2\.2 obtained/, 2);
  client.child.kill("SIGUSR2");
  await says(client, /entering released state/);
  client.child.kill("SIGTERM");
  await client.ended;
});

test("systemd-networkd configures IPv4 of a namespace by DHCP", [...needs, "package:systemd"], async () => {
  await using advice = await AdviceLab.open();
  const { lab } = advice;
  const netns = await advice.blank();
  const place = await advice.place();
  const network = `[Match]\nName=${DEVICE}\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n` +
    `[DHCPv4]\nUseMTU=yes\n`;
  const client = lab.start(advice.networkd(netns, place, network), { cwd: "/" });
  await says(client, /DHCPv4 address 192\.0\.2\.2\/24/);
  const wanted = ["10.9.0.0/16 192.0.2.9", "default 192.0.2.1"];
  let routes: string[] = [];
  const end = performance.now() + 60_000;
  while (!wanted.every((route) => routes.includes(route)) && performance.now() < end) {
    routes = (await advice.setup(netns, 4)).routes;
  }
  assertEquals(wanted.filter((route) => !routes.includes(route)), []);
  assertEquals((await advice.setup(netns, 4)).mtu, 65520);
});

/** A command line of udhcpc that prints what it hears, by a script; it soon gives up where nothing is to be heard. */
async function asking(place: string, silent: boolean): Promise<string[]> {
  const script = `${place}/script`;
  await Deno.writeTextFile(script, `#!/bin/sh\n[ "$1" = bound ] || exit 0\nset\n`);
  await Deno.chmod(script, 0o755);
  return ["udhcpc", "-f", "-q", "-n", "-t", silent ? "2" : "30", "-T", "1", "-i", DEVICE, "-s", script, "-O", "81"];
}

/** What udhcpc hears of penne, by its output. */
function heardBy(stdout: string): Record<string, string> {
  const names = ["ip", "mask", "router", "dns", "search", "domain", "hostname", "mtu", "lease", "opt81"];
  const values = [...stdout.matchAll(/^([a-z0-9]+)='?([^'\n]*)'?$/gm)].filter(([, name]) => names.includes(name!));
  return Object.fromEntries(values.map(([, name, value]) => [name!, value!]));
}

/** What udhcpc hears of penne; null if it hears nothing. */
async function heard(netns: string, place: string, silent: boolean): Promise<Record<string, string> | null> {
  await bringUp(netns);
  const argv = await asking(place, silent);
  const { code, stdout } = await sh(["nsenter", `--net=/run/netns/${netns}`, "--", ...argv]);
  return code === 0 ? heardBy(stdout) : null;
}

const BASE = { ip: "192.0.2.2", mask: "24", router: "192.0.2.1", mtu: "65520", lease: "4294967295" };

/** Options of pasta, and what a client hears then. */
const CASES: readonly [string[], Record<string, string> | null][] = [
  [[], BASE],
  [["--no-udp", "--config-net"], BASE],
  [["--no-dhcp"], null],
  [["-6"], null],
  [["--dhcp-dns"], { ...BASE, dns: "192.0.2.53" }],
  [["--dhcp-dns", "-D", "10.1.1.1", "-D", "fd00::53"], { ...BASE, dns: "10.1.1.1" }],
  [["--dhcp-dns", "-D", "none"], BASE],
  [["--dhcp-dns", "--dns-forward", "169.254.1.1"], { ...BASE, dns: "169.254.1.1" }],
  [["--dhcp-search"], { ...BASE, search: "one.example two.example", domain: "one.example" }],
  [["--dhcp-search", "-S", "a.example"], { ...BASE, search: "a.example", domain: "a.example" }],
  [["--dhcp-search", "-S", "none"], BASE],
  [["-H", "box", "--fqdn", "box.example"], { ...BASE, hostname: "box", opt81: "04000003626f78076578616d706c6500" }],
  [["--mtu", "0"], { ip: BASE.ip, mask: BASE.mask, router: BASE.router, lease: BASE.lease }],
  [["--mtu", "1400"], { ...BASE, mtu: "1400" }],
  [["-a", "10.0.2.100", "-n", "26", "-g", "10.0.2.65"], { ...BASE, ip: "10.0.2.100", mask: "26", router: "10.0.2.65" }],
];

test("under the name pasta a client hears what the options say", [...needs, "package:udhcpc"], async () => {
  await using advice = await AdviceLab.open();
  for (const [options, wanted] of CASES) {
    const netns = await advice.pasta(options);
    assertEquals(await heard(netns, await advice.place(), wanted === null), wanted, options.join(" "));
  }
});

test("a command of penne run may ask by DHCP what it has already, unless that is off", [
  ...needs,
  "user",
  "user namespaces",
  "package:udhcpc",
], async () => {
  await using advice = await AdviceLab.open();
  const { lab } = advice;
  const place = await Deno.makeTempDir({ prefix: "penne-advice-" });
  lab.defer(() => Deno.remove(place, { recursive: true }));
  await Deno.chmod(place, 0o755);
  const client = await asking(place, false);
  const argv = [penne(), "run", "--hostname", "box", "--search", "a.example"];
  const { code, stdout, stderr } = await lab.run(lab.host, [...argv, "--", ...client], { user: true });
  assertEquals([code, stderr.replace(/^(udhcpc|penne): .*\n/gm, "")], [0, ""]);
  const names = { dns: "169.254.1.1", search: "a.example", domain: "a.example", hostname: "box" };
  assertEquals(heardBy(stdout), { ...BASE, ...names });
  const off = await lab.run(lab.host, [...argv, "--no-dhcp", "--", ...await asking(place, true)], { user: true });
  assertEquals([off.code, off.stdout], [1, ""]);
});
