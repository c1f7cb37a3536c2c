// What the inside reaches follows the host, too: names, the host by an address of its own, and transfers that go on.

import { assertEquals } from "@std/assert";
import { test, until } from "../../lib/helpers.ts";
import { becomes, hasPort, must } from "../../lib/netlab.ts";
import { FollowLab, NEEDS, type Served } from "./lab.ts";

/** Where the host's resolver is inside. */
const RESOLVER = "169.254.1.1";

/** The name servers of the peer, each of which answers with its own address. */
const SERVERS = ["192.0.2.11", "192.0.2.12", "192.0.2.13"] as const;

const conf = (address: string) => `nameserver ${address}`;

/** How programs change a resolv.conf, as shell commands; each has the next server. */
const CHANGES: [string, string][] = [
  ["a file takes its place", `echo ${conf(SERVERS[1])} >/etc/new; mv /etc/new /etc/resolv.conf`],
  ["it is rewritten", `echo ${conf(SERVERS[2])} >/etc/resolv.conf`],
  [
    "a link to another file takes its place",
    `mkdir -p /etc/a /etc/b; echo ${conf(SERVERS[0])} >/etc/a/stub; echo ${conf(SERVERS[1])} >/etc/b/stub
    ln -s a /etc/now; ln -sf /etc/now/stub /etc/resolv.conf`,
  ],
  ["a directory on the way is another one", "ln -sfn b /etc/now"],
  ["it is removed, and comes back", `rm /etc/resolv.conf; echo ${conf(SERVERS[2])} >/etc/resolv.conf`],
];

/** The server that each change leads to. */
const ANSWERS = [SERVERS[1], SERVERS[2], SERVERS[0], SERVERS[1], SERVERS[2]] as const;

for (
  const [way, start] of [
    ["penne run", (follow: FollowLab) => follow.run(false)],
    ["penne attach", (follow: FollowLab) => follow.attach(false, "fd", "--dns-forward", RESOLVER)],
    ["pasta PID of root", (follow: FollowLab) => follow.pasta(true, "pid", "--dns-forward", RESOLVER)],
  ] as const
) {
  test(`Names are found by the name server that the host has at the moment: ${way}`, [
    ...NEEDS,
    "package:dnsmasq-base",
    "package:bind9-dnsutils",
  ], async (t) => {
    await using follow = await FollowLab.open();
    const { lab } = follow;
    for (const address of SERVERS) {
      await lab.ip(lab.peer, "addr", "add", `${address}/24`, "dev", "down0");
      const server = lab.start(lab.in(lab.peer, [
        ...["dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces", "--pid-file="],
        ...["--conf-file=/dev/null", `--listen-address=${address}`, `--address=/name.example/${address}`],
      ]));
      await becomes(server, "dnsmasq");
      await hasPort(server, "udp", 53);
    }
    const change = await follow.ownEtc();
    await change(`rm -f /etc/resolv.conf; echo ${conf(SERVERS[0])} >/etc/resolv.conf`);
    const served = await start(follow);
    const ask = async () =>
      (await must(follow.inside(served, ["dig", "+short", "+tries=20", "+timeout=1", `@${RESOLVER}`, "name.example"])))
        .trim();
    assertEquals(await ask(), SERVERS[0]);
    for (const [i, [what, commands]] of CHANGES.entries()) {
      await t.step(what, async () => {
        await change(commands);
        assertEquals(await ask(), ANSWERS[i]); // the file is looked at for each question
      });
    }
  });
}

/** The address of the host at which the inside arrives, as a program there sees it. */
async function arrival(follow: FollowLab, served: Served, address: string): Promise<string> {
  const connect = ["socat", "-T", "20", "-", `TCP:${address}:7000,retry=50,interval=0.1`];
  return (await must(follow.inside(served, connect))).trim();
}

test("--map-guest-addr leads to the address that the host has at the moment", NEEDS, async () => {
  await using follow = await FollowLab.open(false);
  const { lab } = follow;
  const echo = lab.start(lab.in(lab.host, ["socat", "TCP-LISTEN:7000,fork,reuseaddr", "SYSTEM:echo $SOCAT_SOCKADDR"]));
  await becomes(echo, "socat");
  await hasPort(echo, "tcp", 7000);
  const served = await follow.attach(false, "fd", "--map-guest-addr", "10.0.2.3");
  await follow.equal(served, { 4: null, 6: null });
  await lab.usual();
  await follow.equal(served);
  assertEquals(await arrival(follow, served, "10.0.2.3"), "192.0.2.2");
  await follow.host("addr add 203.0.113.7/24 dev up0", "addr del 192.0.2.2/24 dev up0");
  await follow.host("route replace default via 203.0.113.1");
  await until("the change is made", () => /203\.0\.113\.1"/.test(served.daemon.output()));
  assertEquals(await arrival(follow, served, "10.0.2.3"), "203.0.113.7");
});

test("Transfers in both directions go on, whole, while everything else of the host changes", NEEDS, async () => {
  await using follow = await FollowLab.open();
  const { lab } = follow;
  await follow.secondNetwork();
  const slowly = "for i in $(seq 40); do head -c 1000000 /dev/zero; sleep 0.05; done";
  const count = lab.start(lab.in(lab.peer, ["sh", "-c", "socat -u TCP-LISTEN:7001 - | wc -c"]));
  const send = lab.start(lab.in(lab.peer, ["socat", "-u", `SYSTEM:${slowly}`, "TCP-LISTEN:7002"]));
  const served = await follow.run(false);
  await follow.equal(served);
  const to = (port: number) => `TCP:10.3.0.1:${port},retry=100,interval=0.1`;
  const up = lab.start(follow.inside(served, ["sh", "-c", `(${slowly}) | socat -u - ${to(7001)}`]));
  const down = lab.start(follow.inside(served, ["sh", "-c", `socat -u ${to(7002)} - | wc -c`]));
  let over = false;
  Promise.all([up, down, count, send].map(({ ended }) => ended)).then(() => over = true);
  const restless = (async () => {
    for (let i = 0; !over; i++) {
      await follow.host(
        `addr add 10.5.0.${i % 200 + 1}/24 dev up0`,
        `link set eth1 mtu ${[1500, 1400, 9000][i % 3]}`,
        "route replace default via 192.0.2.9",
        `addr del 10.5.0.${i % 200 + 1}/24 dev up0`,
        "route replace default via 192.0.2.1",
      );
    }
  })();
  await until("the transfers are done", () => over);
  await restless;
  assertEquals([count.output().trim(), down.output().trim()], ["40000000", "40000000"], served.daemon.errors());
  await until("the changes were followed", () => served.daemon.output().includes('"event":"network"'));
  await follow.equal(served);
});
