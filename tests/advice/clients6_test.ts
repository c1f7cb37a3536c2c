// Real DHCPv6 clients against penne.

import "../lib/preload.ts";
import { assertEquals, assertMatch } from "@std/assert";
import { penne, sh, test, until } from "../lib/helpers.ts";
import { associationsOf, encodeDhcp6, OPTION6, optionOf, parseDhcp6, TYPE6 } from "../../mod/advice/dhcp6_message.ts";
import { encodeDhcp, OP, OPTION, TYPE } from "../../mod/advice/dhcp_message.ts";
import { decodeNames } from "../../mod/advice/names.ts";
import { formatIp } from "../../mod/inet/ip.ts";
import { AdviceLab, DEVICE, prepare, privately, says } from "./lab.ts";

const needs = ["root", "tun", "package:iproute2"] as const;
const ROUTER = "fe80::9855:9aff:fe55:9a55";
/** Messages with an answer are repeated for as long as anybody may need. */
const TRIES = 60;

/** The lease file of dhclient as if the lease had been for seconds, maybe of another server. */
function shortened(leases: string, renew: number, rebind: number, isElse: boolean): string {
  const times: [RegExp, number][] = [
    [/starts \d+/g, Math.floor(Date.now() / 1000)],
    [/renew \d+/g, renew],
    [/rebind \d+/g, rebind],
    [/(preferred|max)-life \d+/g, 600],
  ];
  const text = times.reduce(
    (all, [pattern, value]) => all.replace(pattern, (found) => `${found.split(" ")[0]} ${value}`),
    leases,
  );
  return isElse ? text.replace(/server-id [0-9a-f:]+/g, "server-id 0:3:0:1:2:2:2:2:2:2") : text;
}

test("dhclient -6 gets an address and names, confirms, renews and rebinds them, and gives them up", [
  ...needs,
  "package:isc-dhcp-client",
], async () => {
  await using advice = await AdviceLab.open();
  const { lab } = advice;
  const netns = await advice.blank();
  const place = await advice.place();
  await prepare(netns, false);
  const leases = `${place}/leases`;
  const files = ["-pf", `${place}/pid`, "-lf", leases, "-cf", `${place}/conf`];
  await Deno.writeTextFile(`${place}/conf`, "request dhcp6.name-servers, dhcp6.domain-search;\n");
  const start = () =>
    lab.start(lab.in(netns, privately(place, ["dhclient", "-6", "-v", "-d", ...files, DEVICE])), { cwd: "/" });
  const first = start();
  await says(first, /PRC: Bound to lease/);
  await until("it has written the lease", () => Deno.readTextFileSync(leases).includes("max-life"));
  assertMatch(first.errors(), new RegExp(`RCV: Advertise message on ${DEVICE} from ${ROUTER}`));
  await advice.becomes(netns, 6, { addresses: ["2001:db8::2/128"], routes: ["2001:db8::2 "], mtu: 65520 });
  const names = () =>
    Deno.readTextFileSync(`${place}/etc/resolv.conf`).split("\n").map((line) => line.trim()).filter((line) => line);
  await until("its script has written the names", () => names().length > 1);
  assertEquals(names().toSorted(), ["nameserver 2001:db8::53", "search one.example. two.example."]);
  first.child.kill("SIGKILL");
  await first.ended;
  for (const isElse of [false, true]) {
    await Deno.writeTextFile(leases, shortened(await Deno.readTextFile(leases), 1, isElse ? 2 : 500, isElse));
    const again = start();
    await says(again, isElse ? /XMT: Forming Rebind[^]*RCV: Reply/ : /XMT: Forming Renew[^]*RCV: Reply/);
    assertMatch(again.errors(), /XMT: Forming Confirm[^]*RCV: Reply/);
    await says(again, /RCV: {2}\| \| X-- IAADDR 2001:db8::2/);
    again.child.kill("SIGKILL");
    await again.ended;
  }
  const released = await lab.run(netns, privately(place, ["dhclient", "-6", "-v", "-r", ...files, DEVICE]));
  assertMatch(released.stderr, /XMT: Release on/); // it does not wait for the answer
  assertEquals((await advice.setup(netns, 6)).addresses, []);
});

test("systemd-networkd configures IPv6 of a namespace by DHCPv6 and advertisements", [
  ...needs,
  "package:systemd",
], async () => {
  await using advice = await AdviceLab.open();
  const { lab } = advice;
  await lab.ip(lab.host, "route", "replace", "default", "via", "fe80::1", "dev", DEVICE);
  const [netns, set] = await Promise.all([advice.blank(), advice.configured()]);
  const place = await advice.place();
  const network = `[Match]\nName=${DEVICE}\n[Network]\nDHCP=ipv6\nLinkLocalAddressing=ipv6\nIPv6AcceptRA=yes\n` +
    `[IPv6AcceptRA]\nUseAutonomousPrefix=no\n`;
  const client = lab.start(advice.networkd(netns, place, network), { cwd: "/" });
  await says(client, /DHCPv6 address 2001:db8::2\/128/);
  const wanted = await advice.setup(set, 6);
  // Addresses of DHCPv6 have no prefix: that is told by advertisements.
  await advice.becomes(netns, 6, { ...wanted, addresses: ["2001:db8::2/128"] });
});

/** Switches, and what they leave of the addresses that dhcpcd gets; `*` stands for one that it has made itself. */
const SWITCHES: readonly [string[], string[]][] = [
  [[], ["192.0.2.2/24", "2001:db8::2/128", "2001:db8::*/64"]],
  [["--no-dhcp"], ["2001:db8::2/128", "2001:db8::*/64"]],
  [["--no-dhcpv6"], ["192.0.2.2/24", "2001:db8::*/64"]],
  [["--no-ra"], ["192.0.2.2/24", "2001:db8::2/128"]],
  [["--no-dhcpv6", "--no-ra"], ["192.0.2.2/24"]],
];

test(
  "a namespace that dhcpcd has configured is like a configured one, but for what a switch turns off",
  [...needs, "package:dhcpcd-base"],
  async () => {
    await using advice = await AdviceLab.open();
    const { lab } = advice;
    await lab.ip(lab.host, "route", "replace", "default", "via", "fe80::1", "dev", DEVICE);
    const set = await advice.configured(["--mtu", "1400"]);
    const wanted = { 4: await advice.setup(set, 4), 6: await advice.setup(set, 6) };
    await Promise.all(SWITCHES.map(async ([options, addresses]) => {
      const netns = await advice.blank(["--mtu", "1400", ...options]);
      const place = await advice.place();
      await prepare(netns, false);
      await Deno.writeTextFile(
        `${place}/conf`,
        "duid\nslaac hwaddr\nnoipv4ll\nnoarp\nia_na 1\noption interface_mtu,classless_static_routes\n" +
          "option domain_name_servers,domain_search,dhcp6_name_servers,dhcp6_domain_search,dhcp6_rapid_commit\n",
      );
      const script = `mkdir -p /run/dhcpcd && mount -t tmpfs none /var/lib/dhcpcd && mount -t sysfs -o ro none /sys &&
        exec dhcpcd -B -d -f "$1" ${DEVICE}`;
      lab.start(lab.in(netns, privately(place, ["sh", "-c", script, "sh", `${place}/conf`])), { cwd: "/" });
      const isMade = (address: string) => address.startsWith("2001:db8::") && address.endsWith("/64");
      for (const family of [4, 6] as const) {
        const own = addresses.filter((address) => address.includes(":") === (family === 6));
        const hasRoutes = family === 4 ? own.length > 0 : !options.includes("--no-ra");
        await advice.becomes(netns, family, {
          addresses: own,
          routes: hasRoutes ? wanted[family].routes : [],
          mtu: 1400,
        }, (address) => isMade(address) ? "2001:db8::*/64" : address);
      }
      const names = [
        ...options.includes("--no-dhcp") ? [] : ["nameserver 192.0.2.53"],
        ...options.length > 1 ? [] : ["nameserver 2001:db8::53"],
        "search one.example two.example",
      ].join();
      const lines = () => Deno.readTextFileSync(`${place}/etc/resolv.conf`).split("\n");
      const found = () => lines().filter((line) => /^(nameserver|search)/.test(line)).toSorted().join();
      await until(`${names} with ${options}`, () => found() === names);
    }));
  },
);

/** What is heard of DHCPv6: the addresses, and what else is told; null for no answer. */
function heardBy(stdout: string): Record<string, string> | null {
  const [bytes = "", sender] = stdout.trim().split(" ");
  if (!bytes) return null;
  assertEquals(sender, ROUTER);
  const answer = parseDhcp6(Uint8Array.from(bytes.match(/../g)!, (pair) => parseInt(pair, 16)))!;
  assertEquals(answer.type, TYPE6.REPLY);
  const [association] = associationsOf(answer)!;
  const known: [string, string | undefined][] = [
    ["ip", association!.addresses.map(formatIp).join(" ")],
    ["dns", optionOf(answer, OPTION6.DNS) && formatIp(optionOf(answer, OPTION6.DNS)!)],
    ["search", optionOf(answer, OPTION6.SEARCH) && decodeNames(optionOf(answer, OPTION6.SEARCH)!).join(" ")],
    ["fqdn", optionOf(answer, OPTION6.FQDN) && decodeNames(optionOf(answer, OPTION6.FQDN)!.subarray(1)).join(" ")],
  ];
  return Object.fromEntries(known.filter(([, value]) => value !== undefined)) as Record<string, string>;
}

/** A Solicit with rapid commit of a client that wants to know everything. */
const SOLICIT = encodeDhcp6({
  type: TYPE6.SOLICIT,
  transaction: 7,
  options: [
    [OPTION6.CLIENT, Uint8Array.of(0, 3, 0, 1, 2, 0, 0, 0, 0, 7)],
    [OPTION6.ADDRESSES, new Uint8Array(12)],
    [OPTION6.RAPID, new Uint8Array(0)],
    [OPTION6.WANTED, Uint8Array.of(0, OPTION6.DNS, 0, OPTION6.SEARCH, 0, OPTION6.FQDN)],
  ],
});

/** A DISCOVER of DHCP, to be answered by broadcast. */
const DISCOVER = encodeDhcp({
  op: OP.REQUEST,
  hardwareType: 1,
  hardwareLength: 6,
  transaction: 7,
  broadcast: true,
  client: new Uint8Array(4),
  yours: new Uint8Array(4),
  relay: new Uint8Array(4),
  hardware: Uint8Array.of(2, 0, 0, 0, 0, 7, ...new Uint8Array(10)),
  options: new Map([[OPTION.TYPE, Uint8Array.of(TYPE.DISCOVER)]]),
}, 576);

function hex(message: Uint8Array): string {
  return [...message].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A command line that asks; where nothing is to be heard, until what is asked by DHCP after that is answered. */
function asking(silent: boolean): string[] {
  const script = `${import.meta.dirname}/lab/ask6.py`;
  return ["python3", script, DEVICE, `${TRIES}`, hex(SOLICIT), ...silent ? [hex(DISCOVER)] : []];
}

const BASE = { ip: "2001:db8::2" };

/** Options of pasta, and what a client hears then. */
const CASES: readonly [string[], Record<string, string> | null][] = [
  [[], BASE],
  [["--no-udp", "--no-icmp", "--no-dhcp", "--config-net"], BASE],
  [["--no-dhcpv6"], null],
  [["-4"], null],
  [["--dhcp-dns"], { ...BASE, dns: "2001:db8::53" }],
  [["--dhcp-dns", "-D", "10.1.1.1", "-D", "fd00::53"], { ...BASE, dns: "fd00::53" }],
  [["--dhcp-search"], { ...BASE, search: "one.example two.example" }],
  [["--dhcp-search", "-S", "a.example", "--fqdn", "box.example"], {
    ...BASE,
    search: "a.example",
    fqdn: "box.example",
  }],
  [["-a", "fd00::7"], { ip: "fd00::7" }],
];

test("under the name pasta a DHCPv6 client hears what the options say", [...needs, "package:python3"], async () => {
  await using advice = await AdviceLab.open();
  await Promise.all(CASES.map(async ([options, wanted]) => {
    const netns = await advice.pasta(options);
    await prepare(netns, false);
    const { code, stdout, stderr } = await sh(["nsenter", `--net=/run/netns/${netns}`, "--", ...asking(!wanted)]);
    assertEquals([code, stderr, heardBy(stdout)], [0, "", wanted], options.join(" "));
  }));
});

test("a command of penne run may ask by DHCPv6 what it has already, unless that is off", [
  ...needs,
  "user",
  "user namespaces",
  "package:python3",
], async () => {
  await using advice = await AdviceLab.open();
  const { lab } = advice;
  const place = await Deno.makeTempDir({ prefix: "penne-advice-" });
  lab.defer(() => Deno.remove(place, { recursive: true }));
  await Deno.chmod(place, 0o755);
  await Deno.copyFile(`${import.meta.dirname}/lab/ask6.py`, `${place}/ask6.py`);
  const client = (silent: boolean) => asking(silent).map((word) => word.endsWith(".py") ? `${place}/ask6.py` : word);
  const argv = [penne(), "run", "--search", "a.example"];
  const on = await lab.run(lab.host, [...argv, "--", ...client(false)], { user: true });
  assertEquals([on.code, on.stderr, heardBy(on.stdout)], [0, "", {
    ...BASE,
    dns: "64:ff9b:1::35",
    search: "a.example",
  }]);
  const off = await lab.run(lab.host, [...argv, "--no-dhcpv6", "--", ...client(true)], { user: true });
  assertEquals([off.code, off.stderr, heardBy(off.stdout)], [0, "", null]);
});
