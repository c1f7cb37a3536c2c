// Addresses and routes inside follow those of the host, under a running penne.

import { assert, assertEquals, assertMatch } from "@std/assert";
import { AT_ONCE } from "../../lib/end.ts";
import { test, until } from "../../lib/helpers.ts";
import { textOf } from "../../lib/leaks.ts";
import { becomes, must } from "../../lib/netlab.ts";
import { FollowLab, NEEDS, type Served } from "./lab.ts";

/** The ways to serve a namespace. */
const WAYS: Record<string, (follow: FollowLab) => Promise<Served>> = {
  "penne run of a user": (follow) => follow.run(false),
  "penne run of root": (follow) => follow.run(true),
  "penne run --unshare net of root": (follow) => follow.run(true, "--unshare net"),
  "penne attach PID of a user": (follow) => follow.attach(false, "pid"),
  "penne attach fd:N of a user": (follow) => follow.attach(false, "fd"),
  "penne attach PID of root": (follow) => follow.attach(true, "pid"),
  "penne attach fd:N of root": (follow) => follow.attach(true, "fd"),
};

/** The warnings of penne until now. */
function warningsOf({ daemon }: Served): string[] {
  return daemon.errors().split("\n").filter((line) => line.includes("warning"));
}

/** The children of the main thread of a process. */
function childrenOf(pid: number): number[] {
  return Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`).trim().split(" ").filter(Boolean).map(Number);
}

/** Sends a signal to a process; returns whether there is one. */
function signal(pid: number, name: Deno.Signal): boolean {
  try {
    Deno.kill(pid, name);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Makes a second interface, which leads to the peer too, as that of a VPN. */
async function openVpn({ lab }: FollowLab): Promise<void> {
  await lab.ip(lab.host, "link", "add", "wg0", "type", "veth", "peer", "name", "wg1", "netns", lab.peer);
  await lab.ip(lab.peer, "link", "set", "wg1", "up");
  await lab.ip(lab.host, "link", "set", "wg0", "addrgenmode", "none");
  for (
    const line of [
      "link set wg0 up",
      "addr add 10.8.0.2/32 dev wg0",
      "route add 0.0.0.0/1 dev wg0",
      "route add 128.0.0.0/1 dev wg0",
    ]
  ) await lab.ip(lab.host, ...line.split(" "));
}

/** Changes of the host, each with what the inside is then copied from. */
const CHANGES: [string, (follow: FollowLab) => Promise<void>, { 4: string | null; 6: string | null }?][] = [
  ["an address is added", (f) => f.host("addr add 198.51.100.9/24 dev up0", "addr add 2001:db8::9/64 dev up0 nodad")],
  ["an address is removed", (f) => f.host("addr del 198.51.100.9/24 dev up0", "addr del 2001:db8::2/64 dev up0")],
  ["a prefix changes", (f) =>
    f.host(
      "addr del 192.0.2.2/24 dev up0",
      "addr add 192.0.2.2/28 dev up0",
      "route replace default via 192.0.2.1",
    )],
  ["the host is renumbered", (f) =>
    f.host(
      "addr del 192.0.2.2/28 dev up0",
      "addr add 203.0.113.7/25 dev up0",
      "route add default via 203.0.113.1 metric 50",
      "route add 10.0.0.0/8 via 203.0.113.2 src 203.0.113.7",
    )],
  ["the MTU of a route changes", (f) => f.host("route change default via 203.0.113.1 metric 50 mtu 1300")],
  [
    "a route has two gateways",
    (f) => f.host("route add 172.16.0.0/12 nexthop via 203.0.113.1 dev up0 nexthop via 203.0.113.2 dev up0 weight 2"),
  ],
  ["a prefix has no route", (f) => f.host("route del 203.0.113.0/25 dev up0", "addr add 10.1.0.1/24 dev up0")],
  ["a VPN comes up", openVpn, { 4: "wg0", 6: "up0" }],
  ["a VPN goes down", (f) => f.host("link del wg0")],
  ["the link goes down", (f) => f.host("link set up0 down"), { 4: null, 6: null }],
  ["the link comes up", (f) => f.host("link set up0 up", "route add default dev up0"), { 4: "up0", 6: null }],
  ["IPv6 comes later", (f) => f.host("addr add 2001:db8:1::2/64 dev up0 nodad", "route add default via 2001:db8:1::1")],
  ["the MTU falls below what IPv6 needs", (f) => f.host("link set up0 mtu 1200"), { 4: "up0", 6: null }],
  ["the MTU rises again", (f) =>
    f.host(
      "link set up0 mtu 9000",
      "addr add 2001:db8:2::2/64 dev up0 nodad",
      "route add default via 2001:db8:2::1",
    )],
  ["all goes", (f) => f.host("link del up0"), { 4: null, 6: null }],
];

for (const [way, start] of Object.entries(WAYS)) {
  test(`The inside follows each change of the host: ${way}`, NEEDS, async (t) => {
    await using follow = await FollowLab.open();
    const served = await start(follow);
    await follow.equal(served);
    for (const [what, change, templates] of CHANGES) {
      await t.step(what, async () => {
        await change(follow);
        const elapsed = await follow.equal(served, templates);
        if (Deno.env.has("PENNE_FOLLOW_TIMES")) console.log(`${way}: ${what}: ${elapsed.toFixed(0)} ms`);
      });
    }
    assertEquals(warningsOf(served), []);
    const last = () => served.daemon.output().split("\n").findLast((line) => line.includes('"event":"network"'));
    const local = { host: null, addresses: ["169.254.2.1/16"], gateway: "169.254.2.2" };
    await until("the last change is reported", () => !!last()?.includes(`"ipv4":${JSON.stringify(local)}`));
  });
}

test(
  "With --no-follow the inside keeps its first network, and what is done inside stays in any case",
  NEEDS,
  async () => {
    await using follow = await FollowLab.open();
    const still = await follow.run(false, "--no-follow");
    const served = await follow.run(false);
    await follow.equal(still);
    const before = await follow.picture(follow.inside(still, []), 4, "up0");
    // Who may configure the network inside has added an address and a route, and removed the default route of IPv6.
    const lines = ["addr add 10.9.9.9/24 dev up0", "route add 10.7.0.0/16 dev up0", "-6 route del default"];
    // Addresses in prefixes that the host is going to leave.
    for (const line of [...lines, "addr add 192.0.2.77/24 dev up0", "addr add 2001:db8::77/64 dev up0 nodad"]) {
      const { code, stderr } = await new Deno.Command("nsenter", {
        args: [`--net=/proc/${served.pid}/ns/net`, "--", "ip", ...line.split(" ")],
      }).output();
      assertEquals(code, 0, new TextDecoder().decode(stderr));
    }
    await follow.host("addr add 2001:db8:5::2/64 dev up0 nodad", "addr del 2001:db8::2/64 dev up0");
    await follow.host("addr add 198.51.100.9/24 dev up0", "addr del 192.0.2.2/24 dev up0");
    await follow.host("route replace default via 198.51.100.1");
    await until("the last change is reported", () => /198\.51\.100\.1"/.test(served.daemon.output()));
    const inside = await follow.picture(follow.inside(served, []), 4, "up0");
    assertEquals(inside.filter((line) => /^\d/.test(line)), ["10.9.9.9/24", "192.0.2.77/24", "198.51.100.9/24"]);
    assertEquals(inside.filter((line) => line.includes("192.0.2.0/24")), [
      JSON.stringify({ dst: "192.0.2.0/24", prefsrc: "192.0.2.77" }),
    ]);
    assertEquals(inside.filter((line) => line.includes("10.7.0.0/16")).length, 1, inside.join("\n"));
    const six = await follow.picture(follow.inside(served, []), 6, "up0");
    assertEquals(six.filter((line) => line.includes("default")), []);
    assertEquals(six.filter((line) => /^\d/.test(line)), ["2001:db8:5::2/64", "2001:db8::77/64"]);
    assertEquals(six.filter((line) => line.includes('"2001:db8::/64"')).length, 1, six.join("\n"));
    assertEquals(await follow.picture(follow.inside(still, []), 4, "up0"), before);
    assertEquals(still.daemon.output().includes('"event":"network"'), false);
  },
);

test(
  "A connection goes on while other addresses change, and while the host loses the one that it has inside",
  NEEDS,
  async () => {
    await using follow = await FollowLab.open();
    const { lab } = follow;
    await follow.secondNetwork();
    const echo = lab.start(lab.in(lab.peer, ["socat", "TCP-LISTEN:7000,fork", "EXEC:cat"]));
    await becomes(echo, "socat");
    const served = await follow.run(false);
    await follow.equal(served);
    const client = lab.start(follow.inside(served, ["socat", "-", "TCP:10.3.0.1:7000,retry=50,interval=0.1"]), {
      stdin: "piped",
    });
    const writer = client.child.stdin.getWriter();
    let said = "";
    const say = async (text: string) => {
      said += `${text}\n`;
      await writer.write(new TextEncoder().encode(`${text}\n`));
      await until(`"${text}" comes back`, () => client.output() === said);
    };
    await say("at first");
    await follow.host("addr add 198.51.100.9/24 dev up0");
    await follow.equal(served);
    await say("after another address has come");
    await follow.host("addr del 192.0.2.2/24 dev up0", "route replace default via 198.51.100.1");
    await until("the change is made", () => /198\.51\.100\.1"/.test(served.daemon.output()));
    await say("after the host has lost the address");
    const kept = await lab.json(lab.host, "addr", "show", "dev", "up0");
    assertEquals(JSON.stringify(kept).includes("192.0.2.2"), false);
    const [{ addr_info }] = JSON.parse(
      new TextDecoder().decode(
        (await new Deno.Command("nsenter", {
          args: [`--net=/proc/${served.pid}/ns/net`, "--", "ip", "-4", "-j", "addr", "show", "dev", "up0"],
        }).output()).stdout,
      ),
    );
    const shown = addr_info.map((
      one: Record<string, unknown>,
    ) => [one["local"], one["prefixlen"], !!one["deprecated"]]);
    assertEquals(shown, [["198.51.100.9", 24, false], ["192.0.2.2", 32, true]]);
    await follow.host("link set up0 down");
    await until("the interface is given up", () => served.daemon.output().includes('"host":"eth1"'));
    await say("while the interface is down");
    await writer.close();
    await client.ended;
    await follow.host("link set up0 up", "route add default via 198.51.100.1");
    await follow.equal(served, { 4: "up0", 6: null }); // the address of the connection has gone with it
    const logged = "info: the host's network has changed: up0 has 198.51.100.9/24 as up0";
    await until("the log says so", () => served.daemon.errors().includes(logged));
  },
);

for (const asRoot of [false, true]) {
  test(
    `A namespace whose own end is awaited ends while the host changes all the time, as ${asRoot ? "root" : "a user"}`,
    NEEDS,
    async () => {
      await using follow = await FollowLab.open();
      const { lab } = follow;
      const served = await follow.attach(asRoot, "fd");
      const script =
        "while :; do ip addr add 10.5.0.1/24 dev up0; sleep 0.05; ip addr del 10.5.0.1/24 dev up0; sleep 0.05; done";
      const changes = lab.start(lab.in(lab.host, ["sh", "-c", script]));
      await until("changes are followed", () => served.daemon.output().split('"event":"network"').length > 5);
      const start = performance.now();
      Deno.kill(served.pid, "SIGKILL");
      const { code } = await served.daemon.ended;
      const elapsed = performance.now() - start;
      if (Deno.env.has("PENNE_FOLLOW_TIMES")) console.log(`ended after ${elapsed.toFixed(0)} ms`);
      changes.child.kill("SIGKILL");
      assertEquals(code, 0, served.daemon.errors());
      assertMatch(served.daemon.output(), /"event":"detached","target":"fd:9","cause":"namespace ended"/);
      assert(elapsed < AT_ONCE, `it took ${elapsed} ms`); // for ever if something held the namespace
      assertEquals(warningsOf(served), []);
    },
  );

  test(
    `An agent that is stopped inside is ended, and another one follows, as ${asRoot ? "root" : "a user"}`,
    NEEDS,
    async () => {
      await using follow = await FollowLab.open();
      const { lab } = follow;
      const served = await follow.attach(asRoot, "fd");
      const { pid } = served.daemon.child;
      // Those that enter the namespace exist for some milliseconds.
      await until("it has agents, or keeps one", () => !asRoot || childrenOf(pid).length === 1);
      const keepers = childrenOf(pid);
      const script =
        "while :; do ip addr add 10.5.0.1/24 dev up0; sleep 0.05; ip addr del 10.5.0.1/24 dev up0; sleep 0.05; done";
      const changes = lab.start(lab.in(lab.host, ["sh", "-c", script]));
      const end = performance.now() + AT_ONCE;
      // Before it has that name, penne waits for it in vfork(2), and nobody inside could stop it.
      const isFollowing = (one: number) => textOf(`/proc/${one}/comm`) === "penne-follow\n";
      // One that was stopped between its last answer and its end goes on at once; one that owes an answer is waited for.
      for (let lasted = 0; lasted < 900;) {
        assert(performance.now() < end, "no agent was met");
        await new Promise((resolve) => setTimeout(resolve, 0));
        const start = performance.now();
        let agent: number | undefined;
        while (agent === undefined && performance.now() - start < 50) {
          agent = childrenOf(pid).find((one) => !keepers.includes(one) && isFollowing(one));
        }
        if (agent === undefined || !signal(agent, "SIGSTOP")) continue;
        await until("it has ended", () => !childrenOf(pid).includes(agent));
        lasted = performance.now() - start;
      }
      changes.child.kill("SIGKILL");
      await changes.ended;
      await follow.host("addr add 198.51.100.9/24 dev up0");
      await follow.equal(served);
      await until("all that were stopped are gone", () => childrenOf(pid).every((one) => keepers.includes(one)));
      Deno.kill(served.pid, "SIGKILL");
      assertEquals((await served.daemon.ended).code, 0, served.daemon.errors());
    },
  );
}

test(
  "Without the agent that has the rights, penne says so once, serves on, and ends with the namespace",
  NEEDS,
  async () => {
    await using follow = await FollowLab.open();
    const served = await follow.attach(true, "fd");
    const { pid } = served.daemon.child;
    await follow.host("addr add 198.51.100.9/24 dev up0");
    await follow.equal(served);
    await until("it has one agent", () => childrenOf(pid).length === 1);
    const [keeper] = childrenOf(pid);
    // It is never inside.
    assertEquals(Deno.readLinkSync(`/proc/${keeper}/ns/net`), Deno.readLinkSync(`/proc/${pid}/ns/net`));
    Deno.kill(keeper!, "SIGKILL");
    await follow.host("addr add 203.0.113.9/24 dev up0");
    await until("it says so", () => warningsOf(served).length > 0);
    await follow.host("addr del 203.0.113.9/24 dev up0");
    const peer = follow.lab.start(follow.lab.in(follow.lab.peer, ["socat", "TCP-LISTEN:7000,fork", "EXEC:cat"]));
    await becomes(peer, "socat");
    const script = "echo hello | socat -t 20 - TCP:192.0.2.1:7000,retry=50,interval=0.1";
    assertEquals(await must(follow.inside(served, ["sh", "-c", script])), "hello\n");
    Deno.kill(served.pid, "SIGKILL");
    assertEquals((await served.daemon.ended).code, 0, served.daemon.errors());
    const [warning, ...others] = warningsOf(served);
    assertMatch(warning!, /changes of the host's network are not followed any more: The agent has ended/);
    assertEquals(others, []);
  },
);

test("A target that goes at any time leaves the others served, and followed", NEEDS, async (t) => {
  await using follow = await FollowLab.open();
  const { lab } = follow;
  // The code that follows is loaded after 50 ms.
  for (const [i, delay] of [0, 20, 40, 60, 100].entries()) {
    await t.step(`after ${delay} ms`, async () => {
      const guests = [await lab.netns("a"), await lab.netns("b")];
      const [first, second] = guests as [string, string];
      const daemon = await lab.attach(guests);
      await new Promise((resolve) => setTimeout(resolve, delay));
      await must(["ip", "netns", "del", first]);
      await follow.host(`addr add 10.6.0.${i + 1}/24 dev up0`);
      const wanted = `10.6.0.${i + 1}/24`;
      const named = (line: string) => line.includes(`"target":"${second}"`) && line.includes(wanted);
      await until("the other one is followed", () => daemon.output().split("\n").some(named));
      await must(["ip", "netns", "del", second]);
      assertEquals((await daemon.ended).code, 0, daemon.errors());
      assertEquals(daemon.errors(), "");
    });
  }
});

test("A template that was asked for is waited for when it has gone, and no other one is taken", NEEDS, async () => {
  await using follow = await FollowLab.open();
  await openVpn(follow);
  const served = await follow.run(false, "-i up0");
  await follow.equal(served);
  await follow.host("link del up0");
  await follow.equal(served, { 4: null, 6: null });
  await follow.lab.ip(follow.lab.host, ..."link add up0 type veth peer name down2".split(" "));
  await follow.host("link set down2 up");
  await follow.host("link set up0 addrgenmode none", "link set up0 up", "addr add 192.0.2.2/24 dev up0");
  await follow.host("route add default via 192.0.2.1");
  await follow.equal(served, { 4: "up0", 6: null });
});

/** The ways of pasta(1), which has no status. */
const AS_PASTA: typeof WAYS = {
  "pasta PID of a user": (follow) => follow.pasta(false, "pid"),
  "pasta PID of root": (follow) => follow.pasta(true, "pid"),
  "pasta COMMAND of a user": (follow) => follow.pasta(false, "command"),
  "pasta COMMAND of root": (follow) => follow.pasta(true, "command"),
};

for (const [way, start] of Object.entries({ ...WAYS, ...AS_PASTA })) {
  test(`Started offline, it comes online with the host, and goes back with it: ${way}`, NEEDS, async () => {
    await using follow = await FollowLab.open(false);
    const served = await start(follow);
    await follow.equal(served, { 4: null, 6: null });
    const [begun] = [performance.now(), await follow.lab.usual()];
    const elapsed = await follow.equal(served);
    if (Deno.env.has("PENNE_FOLLOW_TIMES")) {
      console.log(`${way}: online after ${elapsed.toFixed(0)} ms, ${(performance.now() - begun).toFixed(0)} in all`);
    }
    const peer = follow.lab.start(follow.lab.in(follow.lab.peer, ["socat", "TCP-LISTEN:7000,fork", "EXEC:cat"]));
    await becomes(peer, "socat");
    // As pasta has it, the gateway stands for the host's loopback, so another address of the peer is asked.
    await follow.lab.ip(follow.lab.peer, "addr", "add", "198.51.100.1/32", "dev", "lo");
    const said = await must([
      ...follow.inside(served, ["sh", "-c", "echo hello | socat -t 20 - TCP:198.51.100.1:7000,retry=50,interval=0.1"]),
    ]);
    assertEquals(said, "hello\n");
    await follow.host("link set up0 down");
    await follow.equal(served, { 4: null, 6: null });
  });
}

test("A host that does not change wakes nobody", NEEDS, async () => {
  await using follow = await FollowLab.open();
  const served = await follow.run(true);
  const pids = [served.daemon.child.pid];
  await follow.host("addr add 198.51.100.9/24 dev up0");
  await until("it follows", () => served.daemon.output().includes('"event":"network"'));
  const switches = () =>
    pids.map((pid) => /^voluntary_ctxt_switches:\t(\d+)/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`))![1]);
  // What is left of the change: neighbours are asked for addresses, and answer, for some seconds.
  let [before, quiet] = [switches(), performance.now()];
  const start = performance.now();
  while (performance.now() - quiet < 3000) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    const now = switches();
    if (`${now}` !== `${before}`) [before, quiet] = [now, performance.now()];
    assert(performance.now() - start < AT_ONCE, "it is not quiet for three seconds in a minute");
  }
});
