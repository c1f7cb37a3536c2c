// Several interfaces of the host as templates: a program inside gets the source addresses and the ways that one on the host
// gets, as another machine sees them.

import "../lib/preload.ts";
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Agent } from "../../ffi/agent/agent.ts";
import { CLONE, O } from "../../ffi/core/consts.ts";
import { call, self } from "../../ffi/core/task.ts";
import { open as openFile } from "../../ffi/sys/file.ts";
import { AF } from "../../ffi/net/constants.ts";
import { NetlinkSocket } from "../../mod/netlink/socket.ts";
import { readNetwork, readRoutes } from "../../mod/network/host.ts";
import { readDecision } from "../../mod/network/policy.ts";
import { penne, sh, test, until } from "../lib/helpers.ts";
import { must, NetLab } from "../lib/netlab.ts";

const NEEDS = [
  ...["root", "user", "user namespaces", "tun"] as const,
  ...["package:iproute2", "package:python3", "package:util-linux"] as const,
];

/** Addresses of another machine, which all ways lead to. */
const FAR = ["203.0.113.80", "198.18.0.80", "10.20.0.80", "10.30.0.80", "2001:db8:80::80", "fd00:80::80"];

/** Routes of a host that has very many. */
const MANY = 16000;

/** The host's interfaces beside loopback, and a machine that is at the other end of each. */
const LINKS = ["up0", "up1", "wg0"];
const HOST = `
  addr add 192.0.2.2/24 dev up0
  addr add 198.51.100.2/24 dev up1
  addr add 10.8.0.2/32 dev wg0
  -6 addr add 2001:db8::2/64 dev up0 nodad
  -6 addr add 2001:db8:1::2/64 dev up1 nodad`;
const [UP0, UP1] = ["via 192.0.2.1 dev up0", "via 198.51.100.1 dev up1"];
const [SIX0, SIX1] = ["via 2001:db8::1 dev up0", "via 2001:db8:1::1 dev up1"];

/** A host with several interfaces. */
interface Host {
  name: string;
  /** Commands of ip(8) on the host, one a line. */
  ip: string;
  /** What penne gets; all interfaces by default. */
  options?: string[];
  user?: boolean;
  /**
   * Destinations of routes that are not there inside. What the kernel inside chooses as the source is not what the host
   * sends from, and it cannot be told from an address that a program has chosen.
   */
  elsewhere?: string[];
  /** Words of what the log says. */
  says?: string[];
}

const HOSTS: Host[] = [
  {
    name: "default routes by their metrics, a point-to-point link and a network behind one of them",
    ip: `${HOST}
      route add default ${UP0} metric 100
      route add default ${UP1} metric 600
      route add 203.0.113.0/24 ${UP1}
      route add 10.20.0.0/16 dev wg0
      -6 route add default ${SIX1} metric 100
      -6 route add default ${SIX0} metric 600
      -6 route add 2001:db8:80::/48 ${SIX0}`,
    user: true,
  },
  {
    name: "two of them by name, one of which twice",
    options: ["-i", "wg0", "-i", "up0", "-i", "wg0"],
    ip: `${HOST}
      route add default ${UP0}
      route add 203.0.113.0/24 ${UP1}
      route add 10.20.0.0/16 dev wg0
      -6 route add default ${SIX0}`,
    elsewhere: ["203.0.113.80"],
    says: ["203.0.113.0/24 via 198.51.100.1 (up1)"],
  },
  {
    name: "IPv4 on one and IPv6 on another",
    ip: `
      addr add 192.0.2.2/24 dev up0
      -6 addr add 2001:db8:1::2/64 dev up1 nodad
      route add default ${UP0}
      -6 route add default ${SIX1}`,
    user: true,
  },
  {
    name: "rules by the destination, by the source, and for a protocol",
    ip: `${HOST}
      route add default ${UP0}
      route add 10.20.0.0/16 dev wg0 table 88
      rule add to 10.20.0.0/16 table 88
      route add default ${UP1} table 99
      rule add from 198.51.100.2 table 99
      rule add to 203.0.113.0/24 ipproto tcp table 99
      -6 route add default ${SIX0}
      -6 route add default ${SIX1} table 99
      -6 rule add from 2001:db8:1::2 table 99
      -6 rule add to 2001:db8:80::/48 ipproto tcp table 99`,
    elsewhere: ["203.0.113.80", "2001:db8:80::80"],
    says: [
      "default via 198.51.100.1 (table 99)",
      "default via 2001:db8:1::1 metric 1024 (table 99)",
      "served by the default route",
    ],
  },
  {
    name: "no default route, and a rule that no route can express",
    ip: `${HOST}
      route add 203.0.113.0/24 ${UP1} table 88
      rule add to 203.0.113.0/24 ipproto tcp table 88
      -6 route add 2001:db8:80::/48 ${SIX1} table 88
      -6 rule add to 2001:db8:80::/48 ipproto tcp table 88`,
    elsewhere: FAR,
    says: ["203.0.113.0/24 via 198.51.100.1 (table 88)", "by a default route that the host does not have"],
    user: true,
  },
  {
    name: "a VPN of wg-quick over other default routes",
    ip: `${HOST}
      -6 addr add fd00:8::2/128 dev wg0 nodad
      route add default ${UP0}
      -6 route add default ${SIX0}
      -4 route add default dev wg0 table 51820
      -6 route add default dev wg0 table 51820
      -4 rule add not fwmark 51820 table 51820
      -4 rule add table main suppress_prefixlength 0
      -6 rule add not fwmark 51820 table 51820
      -6 rule add table main suppress_prefixlength 0
      route add 203.0.113.0/24 ${UP1}`,
    says: ["default via 192.0.2.1 (not taken by the host)"],
  },
  {
    name: "one prefix on two interfaces, one address on two, and a route without an address of its own",
    ip: `
      addr add 192.0.2.2/24 dev up0
      addr add 192.0.2.3/24 dev up1
      addr add 192.0.2.2/32 dev wg0
      -6 addr add 2001:db8::2/64 dev up0 nodad
      -6 addr add 2001:db8::2/128 dev wg0 nodad
      route add default ${UP0}
      route add 203.0.113.0/24 via 192.0.2.1 dev up1
      route add 10.20.0.0/16 dev wg0
      -6 route add default via 2001:db8::1 dev up0
      -6 route add fd00:80::/64 dev wg0`,
    user: true,
  },
  {
    name: "one link that is down, several addresses on one, and both kinds of addresses of IPv6",
    ip: `${HOST}
      addr add 192.0.2.9/24 dev up0
      addr add 10.9.0.9/24 dev up0
      -6 addr add fd00:9::2/64 dev up0 nodad
      route add default ${UP0}
      route add 10.30.0.0/16 via 10.9.0.1 dev up0
      -6 route add default ${SIX0}
      link set up1 down`,
  },
  { name: "no network", ip: "", user: true, elsewhere: FAR },
];

/** Tells each connection and each sender of a datagram which address it has come from. */
const SERVER = `import selectors, socket, sys
ready = selectors.DefaultSelector()
def shown(address): return address[0].replace("::ffff:", "").encode()
def connection(s):
    c, a = s.accept(); c.sendall(shown(a)); c.close()
def datagram(s):
    _, a = s.recvfrom(99); s.sendto(shown(a), a)
s = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
ready.register(s, selectors.EVENT_READ, connection)
for address in sys.argv[1:]:
    s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((address, 80))
    ready.register(s, selectors.EVENT_READ, datagram)
print("ready", flush=True)
while True:
    for key, _ in ready.select(): key.data(key.fileobj)`;

/**
 * Connects to each address, from no address and from each one that there is; says what was chosen, and what was seen. Then
 * sends datagrams to all of them by one socket.
 */
const CLIENT = `import socket, sys
far, own = sys.argv[1].split(), sys.argv[2].split()
def of(family, addresses): return [a for a in addresses if (":" in a) == (family == socket.AF_INET6)]
for family in socket.AF_INET, socket.AF_INET6:
    for to in of(family, far):
        with socket.socket(family, socket.SOCK_DGRAM) as u:
            try: u.connect((to, 9)); chosen = u.getsockname()[0]
            except OSError: chosen = "none"
        print(to, chosen)
        for source in ["", *of(family, own)]:
            with socket.socket(family) as s:
                s.settimeout(30)
                try:
                    if source: s.bind((source, 0))
                    s.connect((to, 80)); seen = s.recv(99).decode()
                except OSError: seen = "refused"
            print(to, source or "any", seen)
    for source in ["", *of(family, own)]:
        with socket.socket(family, socket.SOCK_DGRAM) as u:
            u.settimeout(30)
            u.setsockopt(*((41, 25) if family == socket.AF_INET6 else (0, 11)), 1) # a refusal is an error
            if source: u.bind((source, 0))
            for to in of(family, far) * 2:
                try: u.sendto(b"?", (to, 80)); seen = u.recv(99).decode()
                except OSError: seen = "refused"
                print(to, source or "any", seen, "by a datagram")`;

/** A host, and a machine at the other end of all its links. */
async function open(): Promise<NetLab> {
  const lab = await NetLab.open();
  try {
    const { host, peer } = lab;
    const lines = ["up1 down1", "wg0 wg1"].map((pair) => pair.split(" "));
    for (const [near, far] of lines) {
      await lab.ip(host, "link", "add", near!, "type", "veth", "peer", "name", far!, "netns", peer);
    }
    for (const netns of [host, peer]) {
      await must(
        lab.in(netns, ["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0"]),
      );
    }
    for (const link of ["down0", "down1", "wg1"]) await lab.ip(peer, "link", "set", link, "up", "arp", "on");
    // The other machine answers for every address on its links, and knows where the host's are.
    const addresses = [
      ...["192.0.2.1/24 dev down0", "198.51.100.1/24 dev down1", "10.9.0.1/24 dev down0"],
      ...["2001:db8::1/64 dev down0 nodad", "2001:db8:1::1/64 dev down1 nodad", "fd00:9::1/64 dev down0 nodad"],
      ...FAR.map((address) => address.includes(":") ? `${address}/128 dev wg1 nodad` : `${address}/32 dev lo`),
    ];
    for (const address of addresses) await lab.ip(peer, "addr", "add", ...address.split(" "));
    for (const route of ["10.8.0.2/32", "fd00:8::2/128"]) await lab.ip(peer, "route", "add", route, "dev", "wg1");
    const server = lab.start(lab.in(peer, ["python3", "-c", SERVER, ...FAR]));
    await until("the machine listens", () => server.output().includes("ready"));
    return lab;
  } catch (error) {
    await lab[Symbol.asyncDispose]();
    throw error;
  }
}

/** Gives the host what a case has, and nothing else. */
async function prepare({ host }: NetLab, lines: string): Promise<void> {
  const batch = [
    ...LINKS.flatMap((link) => [`link set ${link} down`, `addr flush dev ${link}`, `link set ${link} up`]),
    ...["rule flush", "-6 rule flush", "rule add table main priority 32766", "-6 rule add table main priority 32766"],
    ...["88", "99", "51820"].flatMap((table) => [`route flush table ${table}`, `-6 route flush table ${table}`]),
    ...lines.split("\n"),
  ];
  for (const line of batch.map((one) => one.trim()).filter(Boolean)) await sh(["ip", "-n", host, ...line.split(/\s+/)]);
}

test("Sources and ways inside are those of the host with several templates", NEEDS, async (t) => {
  await using lab = await open();
  const how = { cwd: "/", env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" } };
  for (const { name, ip, options = ["--all-interfaces"], user = false, elsewhere = [], says = [] } of HOSTS) {
    await t.step(name, async () => {
      await prepare(lab, ip);
      const links = await lab.json(lab.host, "addr", "show", "up");
      const used = LINKS.filter((link) => !options.includes("-i") || options.includes(link));
      const own = links.flatMap(({ ifname, addr_info }) => used.includes(ifname) ? addr_info : [])
        .flatMap(({ local, scope }: { local: string; scope: string }) => scope === "global" ? [local] : []);
      const argv = ["python3", "-c", CLIENT, FAR.join(" "), [...new Set(own)].join(" ")];
      const there = await lab.run(lab.host, argv, { ...how, user });
      assertEquals(there.stderr, "");
      const line = [penne(), "run", "--log-level", "info", ...options, "--", ...argv];
      const { stdout, stderr } = await lab.run(lab.host, line, { ...how, user });
      const chosen = new Map(
        stdout.split("\n").map((one) => one.split(" ")).filter(({ length }) => length === 2) as [string, string][],
      );
      const compared = (text: string) =>
        text.split("\n").filter((one) => {
          const [to, source, seen] = one.split(" ");
          return !elsewhere.includes(to!) || seen !== undefined && source !== chosen.get(to!);
        });
      assertEquals(compared(stdout), compared(there.stdout), stderr);
      for (const words of says) assertStringIncludes(stderr, words);
    });
  }
  await t.step("very many routes, and a rule", async () => {
    await prepare(lab, `${HOST}\nroute add 203.0.113.0/24 ${UP1} table 88\nrule add to 203.0.113.0/24 table 88`);
    const lines = `for i in range(${MANY}): print(f"route add 10.{i >> 8}.{i & 255}.0/24 via 192.0.2.1 dev up0")`;
    const batch = `python3 -c '${lines}' | ip -batch -`;
    await must(lab.in(lab.host, ["sh", "-c", batch]));
    using agent = Agent.spawn();
    {
      using netns = openFile(self, `/run/netns/${lab.host}`, O.RDONLY);
      call(agent, "setns", netns, CLONE.NEWNET);
    }
    const start = performance.now();
    const { ipv4 } = readNetwork({ allInterfaces: true }, agent);
    const took = performance.now() - start;
    assert(ipv4!.routes.length > MANY, `${ipv4!.routes.length}`);
    // It takes a hundredth of that; comparing each with each takes twice as long as that.
    assert(took < 6000, `${took} ms`);
  });
  await t.step("many routes by nexthop objects that the kernel does not expand", async () => {
    await prepare(lab, HOST);
    await must(lab.in(lab.host, ["sysctl", "-qw", "net.ipv4.nexthop_compat_mode=0"]));
    const lines = `for i in range(2000): print(f"route add 10.{i >> 8}.{i & 255}.0/24 nhid 7")`;
    const batch = `ip nexthop add id 7 via 192.0.2.1 dev up0 && python3 -c '${lines}' | ip -batch -`;
    await must(lab.in(lab.host, ["sh", "-c", batch]));
    using agent = Agent.spawn();
    {
      using netns = openFile(self, `/run/netns/${lab.host}`, O.RDONLY);
      call(agent, "setns", netns, CLONE.NEWNET);
    }
    using socket = new NetlinkSocket(agent);
    const main = readRoutes(socket, AF.INET);
    let questions = 0;
    const get = socket.get.bind(socket);
    socket.get = (...args) => (questions++, get(...args));
    const { routes } = readDecision(socket, agent, AF.INET, main);
    assert(routes.length >= 2000 && routes.some(({ prefix, hops }) => prefix === 24 && hops.length > 0));
    assert(questions < 2000, `${questions} questions`);
  });
});
