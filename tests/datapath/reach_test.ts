// What of the host and its networks can be reached, and DNS.

import "../lib/preload.ts";
import { assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { test } from "../lib/helpers.ts";
import {
  GUEST4,
  GUEST6,
  HOST4,
  HOST6,
  listening,
  makeNetwork,
  type Network,
  PEER4,
  PEER6,
  runUntil,
  until,
} from "./lab/network.ts";

const needs = [
  "root",
  "tun",
  "package:iproute2",
  "package:procps",
  "package:socat",
  "package:iputils-ping",
  "package:bind9-dnsutils",
  "package:dnsmasq-base",
] as const;

/** Makes a namespace answer with the output of a command on TCP and UDP port 4000 of all addresses. */
async function answer(network: Network, netns: string, command: string): Promise<void> {
  for (const family of ["4", "6"]) {
    const only = family === "6" ? ",ipv6only=1" : "";
    network.spawn(netns, ["socat", `TCP${family}-LISTEN:4000,fork,reuseaddr${only}`, `SYSTEM:${command}`]);
    network.spawn(netns, ["socat", `UDP${family}-LISTEN:4000,fork,reuseaddr${only}`, `SYSTEM:${command}`]);
  }
  await listening(network, netns, 4000, false, 2);
  await listening(network, netns, 4000, true, 2);
}

/** Makes the host answer "host". */
function answerOnHost(network: Network): Promise<void> {
  return answer(network, network.host, "echo host");
}

/** The answers of an address on TCP and UDP port 4000, as seen inside. */
async function ask(network: Network, address: string): Promise<[tcp: string, udp: string]> {
  const family = address.includes(":") ? "6" : "4";
  const target = address.includes(":") ? `[${address}]` : address;
  const tcp = await network.run(network.guest, ["socat", "-u", `TCP${family}:${target}:4000,connect-timeout=1`, "-"]);
  const command = `echo question | socat -t1.5 -T1.5 - UDP${family}:${target}:4000`;
  const udp = await network.run(network.guest, ["sh", "-c", command]);
  return [tcp.stdout.trim(), udp.stdout.trim()];
}

/** Asks an address until both answers are as expected: on a machine that is loaded, one may be late. */
async function answers(network: Network, address: string, expected: string): Promise<void> {
  let seen: string[] = [];
  for (let tries = 0; tries < 6 && seen.join() !== `${expected},${expected}`; tries++) {
    seen = await ask(network, address);
  }
  assertEquals([address, ...seen], [address, expected, expected]);
}

/** Addresses that mean the host itself. */
const GUISES = [
  "127.0.0.1",
  "127.0.0.53",
  "127.255.255.254",
  "0.0.0.0",
  "0.0.0.1",
  "::1",
  "::",
  "::ffff:127.0.0.1",
  "::127.0.0.1",
];

test("the host's loopback is not reached by any of its addresses or by any protocol", needs, async () => {
  await using network = await makeNetwork({});
  const { guest } = network;
  await answerOnHost(network);
  // These addresses lead to the namespace's own loopback, so make its kernel send them out.
  await network.must(guest, [
    "sysctl",
    "-qw",
    "net.ipv4.conf.all.route_localnet=1",
    "net.ipv4.conf.tap0.route_localnet=1",
  ]);
  await network.must(guest, ["ip", "link", "set", "lo", "down"]);
  await network.must(guest, ["ip", "route", "flush", "table", "local"]);
  await network.must(guest, ["ip", "-6", "route", "flush", "table", "local"]);
  await network.must(guest, ["ip", "route", "add", "local", GUEST4.address, "dev", "tap0", "table", "local"]);
  await network.must(guest, ["ip", "-6", "route", "add", "local", GUEST6.address, "dev", "tap0", "table", "local"]);
  await network.must(guest, [
    "ip",
    "route",
    "add",
    "127.0.0.0/8",
    "via",
    GUEST4.gateway,
    "dev",
    "tap0",
    "onlink",
    "src",
    GUEST4.address,
  ]);
  await network.must(guest, ["ip", "-6", "route", "add", GUEST6.gateway, "dev", "tap0"]);
  await network.must(guest, [
    "ip",
    "-6",
    "route",
    "add",
    "::/64",
    "via",
    GUEST6.gateway,
    "dev",
    "tap0",
    "src",
    GUEST6.address,
  ]);
  const before = await network.statistic("tx_packets");
  for (const address of GUISES) {
    assertEquals([address, ...await ask(network, address)], [address, "", ""]);
    const { stdout } = await network.run(guest, ["ping", "-c1", "-W1", address]);
    assertEquals(stdout.includes(" bytes from "), false);
  }
  // The kernel inside may drop the strangest of them, but the usual ones must have come to penne.
  assertNotEquals(await network.statistic("tx_packets"), before);
  assertEquals(network.flows, 0);
  // The host's other addresses can be reached.
  await answers(network, HOST4, "host");
  await answers(network, HOST6, "host");
});

test("redirects and source routes from inside have no effect", needs, async () => {
  await using network = await makeNetwork({});
  await answerOnHost(network);
  const script = [Deno.execPath(), "run", "-A", "--quiet", "--no-check", `${import.meta.dirname}/lab/raw.ts`];
  const { stdout, stderr, code } = await network.run(network.guest, [...script, "redirect"]);
  assertEquals([code, stderr, stdout], [0, "", "sent\n"]);
  assertEquals(network.flows, 0);
  await answers(network, HOST4, "host");
});

const GATEWAYS = ["--map-host-loopback", GUEST4.gateway, "--map-host-loopback", GUEST6.gateway];

for (const options of [GATEWAYS, ["--map-gw"]]) {
  test(`${options[0]} makes the host's loopback reachable`, needs, () => reachesLoopback(options));
}

async function reachesLoopback(options: readonly string[]): Promise<void> {
  await using network = await makeNetwork({
    options: [...options, "--exclude", HOST4, "--exclude", `${HOST6}/128`],
  });
  for (const [family, address] of [["4", "127.0.0.1"], ["6", "[::1]"]]) {
    network.spawn(network.host, [
      "socat",
      `TCP${family}-LISTEN:4000,fork,reuseaddr,bind=${address}`,
      "SYSTEM:echo host",
    ]);
    network.spawn(network.host, [
      "socat",
      `UDP${family}-LISTEN:4000,fork,reuseaddr,bind=${address}`,
      "SYSTEM:echo host",
    ]);
  }
  await listening(network, network.host, 4000, false, 2);
  await listening(network, network.host, 4000, true, 2);
  await answers(network, GUEST4.gateway, "host");
  await answers(network, GUEST6.gateway, "host");
  await runUntil(network, network.guest, ["ping", "-c1", "-W1", GUEST4.gateway], / bytes from 10\.77\.0\.1/);
  // Excluded addresses are not reached.
  assertEquals(await ask(network, HOST4), ["", ""]);
  assertEquals(await ask(network, HOST6), ["", ""]);
  const { stdout } = await network.run(network.guest, ["ping", "-c1", "-W1", HOST4]);
  assertEquals(stdout.includes(" bytes from "), false);
}

test("--map-guest-addr makes the host itself reachable", needs, async () => {
  await using network = await makeNetwork({
    copy: true,
    options: ["--map-guest-addr", "169.254.1.2", "--map-guest-addr", "fd00:1::2"],
  });
  await answerOnHost(network);
  // The host's own address is the namespace's, where nothing listens.
  assertEquals(await ask(network, HOST4), ["", ""]);
  await answers(network, "169.254.1.2", "host");
  await answers(network, "fd00:1::2", "host");
});

test("--outbound sets the source address", needs, async () => {
  await using network = await makeNetwork({ options: ["--outbound", "198.51.100.11", "-o", "2001:db8:1::11"] });
  await network.must(network.host, ["ip", "addr", "add", "198.51.100.11/24", "dev", "veth0"]);
  await network.must(network.host, ["ip", "addr", "add", "2001:db8:1::11/64", "dev", "veth0", "nodad"]);
  await answer(network, network.peer, "echo $SOCAT_PEERADDR");
  await answers(network, PEER4, "198.51.100.11");
  const six = "[2001:0db8:0001:0000:0000:0000:0000:0011]";
  await answers(network, PEER6, six);
});

test("--outbound-if4 and --outbound-if6 choose the interface", needs, async () => {
  const [behind4, behind6] = ["198.18.5.1", "2001:db8:5::1"];
  await using network = await makeNetwork({ options: ["--outbound-if4", "veth1", "--outbound-if6", "veth1"] });
  const { host, peer } = network;
  // Two routes to the same addresses; without the options the first would be used.
  await network.must(host, ["ip", "link", "add", "veth1", "type", "veth", "peer", "name", "veth1", "netns", peer]);
  for (const [netns, last] of [[host, 1], [peer, 2]] as const) {
    await network.must(netns, ["ip", "link", "set", "veth1", "up"]);
    await network.must(netns, ["ip", "addr", "add", `192.0.2.${last}/24`, "dev", "veth1"]);
    await network.must(netns, ["ip", "addr", "add", `2001:db8:f::${last}/64`, "dev", "veth1", "nodad"]);
  }
  await network.must(host, ["ip", "route", "add", `${behind4}/32`, "via", "192.0.2.2", "metric", "1000"]);
  await network.must(host, ["ip", "route", "add", `${behind4}/32`, "via", PEER4, "metric", "10"]);
  await network.must(host, ["ip", "route", "add", `${behind6}/128`, "via", "2001:db8:f::2", "metric", "1000"]);
  await network.must(host, ["ip", "route", "add", `${behind6}/128`, "via", PEER6, "metric", "10"]);
  await network.must(peer, ["ip", "addr", "add", `${behind4}/32`, "dev", "lo"]);
  await network.must(peer, ["ip", "addr", "add", `${behind6}/128`, "dev", "lo", "nodad"]);
  // Answers must come from the address that was asked.
  await network.must(peer, ["ip", "route", "replace", "192.0.2.0/24", "dev", "veth1", "src", behind4]);
  await network.must(peer, [
    "ip",
    "-6",
    "route",
    "replace",
    "2001:db8:f::/64",
    "dev",
    "veth1",
    "src",
    behind6,
    "metric",
    "256",
  ]);
  await answer(network, network.peer, "echo $SOCAT_PEERADDR");
  await answers(network, behind4, "192.0.2.1");
  const six = "[2001:0db8:000f:0000:0000:0000:0000:0001]";
  await answers(network, behind6, six);
});

test("a link-local address is reached on the host's link", needs, async () => {
  await using network = await makeNetwork({});
  for (const [netns, last] of [[network.host, 1], [network.peer, 2]] as const) {
    await network.must(netns, ["ip", "addr", "add", `fe80::99:${last}/64`, "dev", "veth0", "nodad"]);
  }
  await answer(network, network.peer, "echo peer");
  await answers(network, "fe80::99:2%tap0", "peer");
  await runUntil(network, network.guest, ["ping", "-c1", "-W1", "fe80::99:2%tap0"], / bytes from fe80::99:2/);
});

test("datagrams to groups leave the host, and it does not receive them itself if it is excluded", needs, async () => {
  await using network = await makeNetwork({ options: ["--exclude", "host"] });
  const members = [
    ["4", "239.1.2.3", "ip-add-membership=239.1.2.3:veth0"],
    ["6", "[ff02::77%tap0]", "ipv6-join-group=[ff02::77]:veth0"],
  ];
  for (const [family, group, join] of members) {
    const files = await Promise.all([Deno.makeTempFile(), Deno.makeTempFile()]);
    try {
      for (const [i, netns] of [network.host, network.peer].entries()) {
        network.spawn(netns, ["socat", "-u", `UDP${family}-RECV:4100,${join}`, `OPEN:${files[i]}`]);
        await listening(network, netns, 4100, true);
        const member = family === "4" ? "239.1.2.3" : "ff02::77";
        const groups = ["ip", "maddr", "show", "dev", "veth0"];
        await until("it is a member", async () => (await network.must(netns, groups)).includes(` ${member}\n`));
      }
      await network.must(network.guest, ["sh", "-c", `echo hello | socat -u - UDP${family}-SENDTO:${group}:4100`]);
      await until("the peer has received it", () => Deno.readTextFileSync(files[1]!) === "hello\n");
      // The host would have received it by now.
      await new Promise((resolve) => setTimeout(resolve, 100));
      assertEquals(Deno.readTextFileSync(files[0]!), "");
      await network.stop();
    } finally {
      for (const file of files) await Deno.remove(file);
    }
  }
});

test("datagrams of other senders to a new port do not get in", needs, async () => {
  await using network = await makeNetwork({});
  const script = `${import.meta.dirname}/lab/datagrams.ts`;
  const deno = [Deno.execPath(), "run", "-A", "--quiet", "--no-check", "--v8-flags=--single-threaded", script];
  const stranger = network.spawn(network.peer, [...deno, "pour", HOST4, "5555"], { stdout: "piped" });
  const reader = stranger.stdout.getReader();
  await reader.read();
  const { stdout } = await network.run(network.guest, [...deno, "ask", "5555", PEER4, "10000", "300"]);
  assertEquals(stdout, "0\n");
  await reader.cancel();
});

test("an echo reply is accepted from the address that was asked only", [
  "root",
  "package:iproute2",
  "package:iputils-ping",
  "package:perl",
  "package:procps",
], async () => {
  await using network = await makeNetwork({});
  await network.must(network.peer, ["ip", "addr", "add", "192.0.2.77/24", "dev", "veth0"]);
  await network.must(network.peer, ["sysctl", "-qw", "net.ipv4.icmp_echo_ignore_all=1"]);
  // Echo replies with identifier 4242 and sequence number 1, their checksum the rest.
  const replies =
    `use Socket; $| = 1; socket(S, AF_INET, SOCK_RAW, 1) or die; bind(S, sockaddr_in(0, inet_aton("$ARGV[0]")));
    my $m = pack("CCnnn", 0, 0, 0xffff - 4242 - 1, 4242, 1);
    for (1 .. 1e6) { send(S, $m, 0, sockaddr_in(0, inet_aton("${HOST4}"))); print "." if $_ == 1; select(undef, undef, undef, 0.005) }`;
  for (const [from, received] of [["192.0.2.77", 0], [PEER4, 1]] as const) {
    const strangers = network.spawn(network.peer, ["perl", "-e", replies, from], { stdout: "piped" });
    const reader = strangers.stdout.getReader();
    await reader.read();
    const { stdout } = await network.run(network.guest, ["ping", "-e", "4242", "-c1", `-W${received ? 30 : 1}`, PEER4]);
    assertMatch(stdout, new RegExp(` ${received} received`));
    await reader.cancel();
    strangers.kill("SIGKILL");
    await strangers.status;
  }
});

test(
  "ICMP errors of a mapped address come from that address",
  ["root", "tun", "package:iproute2", "package:traceroute", "package:dnsmasq-base"],
  async () => {
    await using network = await makeNetwork({
      copy: true,
      options: [
        ...["--map-guest-addr", "169.254.1.2", "--map-guest-addr", "fd00:1::2"],
        ...["--map-host-loopback", "169.254.1.3", "--map-host-loopback", "fd00:1::3"],
      ],
    });
    for (const address of ["169.254.1.2", "169.254.1.3", "fd00:1::2", "fd00:1::3"]) {
      const family = address.includes(":") ? "-6" : "-4";
      const route = ["traceroute", family, "-n", "-q1", "-w1", "-m2", address];
      await runUntil(network, network.guest, route, new RegExp(`\n 1 +${address} `));
    }
  },
);

/** Starts a name server in a namespace; it resolves `name.example` to an address. */
async function nameServer(network: Network, netns: string, bind: string, answer: string): Promise<void> {
  network.spawn(netns, [
    "dnsmasq",
    "--keep-in-foreground",
    "--no-resolv",
    "--no-hosts",
    "--bind-interfaces",
    "--conf-file=/dev/null",
    "--user=root",
    "--pid-file=",
    `--listen-address=${bind}`,
    `--address=/name.example/${answer}`,
    "--txt-record=long.example," + Array.from({ length: 12 }, (_, i) => `${i}`.repeat(200)).join(","),
  ]);
  await listening(network, netns, 53, true);
}

test("DNS uses the host's current resolver, over UDP and TCP", needs, async () => {
  // A private /etc, where the file is replaced as programs do it.
  const etc = await Deno.makeTempDir();
  await Deno.chmod(etc, 0o755);
  for (const name of ["passwd", "group"]) await Deno.copyFile(`/etc/${name}`, `${etc}/${name}`);
  const file = `${etc}/resolv.conf`;
  const resolvers = async (...addresses: string[]) => {
    await Deno.writeTextFile(`${file}.new`, addresses.map((address) => `nameserver ${address}\n`).join(""));
    await Deno.rename(`${file}.new`, file);
  };
  await resolvers(PEER4);
  await using network = await makeNetwork({
    options: ["--dns-forward", GUEST4.gateway, "--dns-forward", GUEST6.gateway],
    etc,
  });
  try {
    const dig = async (server: string, ...options: string[]) => {
      const command = ["dig", "+short", "+time=10", "+tries=3", ...options, `@${server}`];
      return (await network.run(network.guest, command)).stdout.trim();
    };
    await nameServer(network, network.peer, PEER4, "192.0.2.7");
    await nameServer(network, network.host, "127.0.0.53", "192.0.2.8");
    for (const server of [GUEST4.gateway, GUEST6.gateway]) { // a question over IPv6 goes to an IPv4 resolver too
      assertEquals(await dig(server, "name.example"), "192.0.2.7");
      assertEquals(await dig(server, "+tcp", "name.example"), "192.0.2.7");
      const long = await dig(server, "long.example", "TXT"); // truncated at first, then asked again over TCP
      assertEquals(long.length > 2400, true);
    }
    await resolvers("127.0.0.53", PEER4);
    await until("the other resolver answers", async () => await dig(GUEST4.gateway, "name.example") === "192.0.2.8");
    assertEquals(await dig(GUEST4.gateway, "+tcp", "name.example"), "192.0.2.8");
    // Other ports of the resolver's address cannot be reached that way.
    network.spawn(network.host, ["socat", "TCP4-LISTEN:4000,fork,reuseaddr,bind=127.0.0.53", "SYSTEM:echo host"]);
    await listening(network, network.host, 4000);
    assertEquals(await ask(network, GUEST4.gateway), ["", ""]);
  } finally {
    await Deno.remove(etc, { recursive: true });
  }
});
