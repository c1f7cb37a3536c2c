// Datagrams that come from elsewhere than the namespace has sent to: what gets in, and what does not.

import "../lib/preload.ts";
import { assert, assertEquals } from "@std/assert";
import { test } from "../lib/helpers.ts";
import { HOST4, HOST6, listening, makeNetwork, type Network, PEER4, PEER6, until } from "./lab/network.ts";

const needs = ["root", "tun", "package:iproute2", "package:python3"] as const;
const script = ["python3", `${import.meta.dirname}/lab/programs.py`];
const OTHER4 = "198.51.100.77";
const OTHER6 = "2001:db8:1::77";
/** A link to which nobody has asked anything. */
const HIDDEN4 = "203.0.113.9";
/** An address of the host beside its first one, and the peer on the link. */
const SECOND6 = "2001:db8:1::9";
const LINK6 = "fe80::77";

async function python(network: Network, netns: string, ...args: string[]): Promise<unknown> {
  const { stdout, stderr } = await network.run(netns, [...script, ...args]);
  assert(stdout !== "", stderr);
  return JSON.parse(stdout);
}

/** Asks, again while the answers are not all: on a machine that is loaded, one may be late. */
async function answers(network: Network, address: string, expected: unknown[]): Promise<void> {
  let seen: unknown;
  for (let tries = 0; tries < 6; tries++) {
    seen = await python(network, network.guest, "ask", address, "69", "3");
    if (JSON.stringify(seen) === JSON.stringify(expected)) return;
  }
  assertEquals(seen, expected);
}

/** Starts a server that answers from other ports and addresses. */
async function multihomed(network: Network): Promise<void> {
  const { peer } = network;
  await network.must(peer, ["ip", "addr", "add", `${OTHER4}/24`, "dev", "veth0"]);
  await network.must(peer, ["ip", "addr", "add", `${OTHER6}/64`, "dev", "veth0", "nodad", "preferred_lft", "0"]);
  network.spawn(peer, [...script, "tftp", "69", OTHER4, OTHER6]);
  await listening(network, peer, 69, true);
}

test("an unconnected socket gets answers from other ports and addresses, a connected one does not", needs, async () => {
  await using network = await makeNetwork({});
  await multihomed(network);
  for (const [address, other] of [[PEER4, OTHER4], [PEER6, OTHER6]] as const) {
    await answers(network, address, [["q0", address, false], ["q1", other, false]]);
    assertEquals(await python(network, network.guest, "ask", address, "69", "1", "connected"), []);
  }
});

test("excluded strangers, and the host's loopback, do not get in", needs, async () => {
  const options = ["--exclude", `${OTHER4}/32`, "--exclude", `${OTHER6}/128`, "--map-guest-addr", HIDDEN4];
  await using network = await makeNetwork({ options });
  await multihomed(network);
  await network.must(network.host, ["ip", "addr", "add", "192.0.2.1/32", "dev", "lo"]);
  await network.must(network.peer, ["ip", "addr", "add", `${HIDDEN4}/32`, "dev", "lo"]);
  for (const [address, host, loopback] of [[PEER4, HOST4, "127.0.0.1"], [PEER6, HOST6, "::1"]] as const) {
    // The first datagram of all goes where nothing may go.
    assertEquals(await python(network, network.guest, "ask", address === PEER4 ? OTHER4 : OTHER6, "69", "1"), []);
    await answers(network, address, [["q0", address, false]]);
    // The port is open for the outside, and for the host's own addresses, but not for loopback.
    const holder = network.spawn(network.guest, [...script, "hold", address, "9", "5555", "300"], { stdout: "piped" });
    const said = new Response(holder.stdout).text();
    await listening(network, network.guest, 5555, true);
    await listening(network, network.host, 5555, true);
    await network.must(network.host, [...script, "send", loopback, loopback, "5555", "loopback"]);
    if (host === HOST4) {
      await network.must(network.host, [...script, "send", "192.0.2.1", host, "5555", "on lo"]);
      await network.must(network.peer, [...script, "send", HIDDEN4, host, "5555", "as the host"]);
    }
    await network.must(network.host, [...script, "send", host, host, "5555", "host"]);
    await network.must(network.peer, [...script, "send", address, host, "5555", "stranger"]);
    const lines = (await said).trim().split("\n");
    assertEquals(JSON.parse(lines[1]!), [["host", host], ["stranger", address]]);
  }
});

test("flows beside an unconnected socket on one port keep their own answers", needs, async () => {
  await using network = await makeNetwork({});
  for (let port = 7000; port < 7008; port++) {
    network.spawn(network.peer, [...script, "echo", `${port}`]);
    await listening(network, network.peer, port, true);
  }
  for (const address of [PEER4, PEER6]) {
    assertEquals(await python(network, network.guest, "many", address, "7000", "600"), [600, 0]);
  }
});

for (const [times, sockets] of [[1, 1], [2, 10]] as const) {
  const what = times === 1 ? "share the socket of their port" : "that have another one get sockets of their own";
  test(`flows of one datagram ${what}, and errors find them`, needs, async () => {
    for (const address of [PEER4, PEER6]) {
      await using network = await makeNetwork({});
      for (let port = 7000; port < 7008; port++) {
        network.spawn(network.peer, [...script, "echo", `${port}`]);
        await listening(network, network.peer, port, true);
      }
      // Flows go on for a while when their program has ended.
      const answers = await python(network, network.guest, "once", address, "7000", "8", `${times}`);
      assertEquals([answers, network.flows], [[8 * times, [8]], sockets]);
    }
  });
}

test("an answer that IPv4 cannot express is dropped, and makes no malformed packet", needs, async () => {
  await using network = await makeNetwork({ options: ["--dns-forward", "10.77.0.53", "--dns-host", "::1"] });
  network.spawn(network.host, [...script, "long", "53", "65520"]);
  await listening(network, network.host, 53, true);
  assertEquals(await python(network, network.guest, "ask", "10.77.0.53", "53", "1"), []);
  const errors = await network.must(network.guest, ["nstat", "-asz", "IpInHdrErrors", "IpExtInTruncatedPkts"]);
  for (const name of ["IpInHdrErrors", "IpExtInTruncatedPkts"]) assert(new RegExp(`${name} +0 `).test(errors), errors);
});

test("a datagram to port 0 is ignored, also where its port is in use", needs, async () => {
  await using network = await makeNetwork({});
  await multihomed(network);
  for (const address of [PEER4, PEER6]) {
    const answer = await python(network, network.guest, "portless", address, "69");
    assert(typeof answer === "string" && answer.startsWith("q"), `${answer}`);
  }
});

test("what the host refuses at once is told to who has sent one datagram", needs, async () => {
  await using network = await makeNetwork({});
  const [EACCES, EHOSTUNREACH] = [13, 113];
  for (const address of ["203.0.113.0/24", "2001:db8:77::/64"]) {
    await network.must(network.host, ["ip", "route", "add", "prohibit", address]);
  }
  for (const address of ["203.0.113.1", "2001:db8:77::1"]) {
    const error = await python(network, network.guest, "single", address, "9");
    assert(error === EHOSTUNREACH || error === EACCES, `${error}`);
  }
});

test("--outbound is the source of first datagrams too, wherever the first of its port has gone", needs, async () => {
  await using network = await makeNetwork({ copy: true, options: ["--outbound", SECOND6, "--interface", "veth0"] });
  const { host, peer, guest } = network;
  await network.must(host, ["ip", "addr", "add", `${SECOND6}/64`, "dev", "veth0", "nodad", "preferred_lft", "0"]);
  await network.must(peer, ["ip", "addr", "add", `${LINK6}/64`, "dev", "veth0", "nodad"]);
  network.spawn(peer, [...script, "who", "69"]);
  await listening(network, peer, 69, true);
  for (const netns of [host, peer, guest]) {
    const tentative = ["ip", "-6", "addr", "show", "tentative"];
    await until("addresses can be used", async () => await network.must(netns, tentative) === "");
  }
  const [link] = JSON.parse(await network.must(guest, ["ip", "-j", "link", "show", "tap0"]));
  for (const [first, second] of [[LINK6, PEER6], [PEER6, LINK6]] as const) {
    const args = ["am", "69", `${link.ifindex}`, HOST6, first, second, first, second];
    const seen = await python(network, guest, ...args) as string[];
    assertEquals(seen.length, 4, `${seen}`);
    for (const [i, address] of [first, second, first, second].entries()) {
      assert((address === PEER6) === (seen[i] === SECOND6), `${seen}`);
    }
  }
});

test("what a router says about a datagram comes from the router", needs, async () => {
  await using network = await makeNetwork({});
  const { peer, guest } = network;
  await network.must(peer, ["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]);
  for (
    const [prefix, address, router] of [["203.0.113.0/24", "203.0.113.1", PEER4], [
      "2001:db8:77::/64",
      "2001:db8:77::1",
      PEER6,
    ]] as const
  ) {
    await network.must(peer, ["ip", "route", "add", "unreachable", prefix]);
    assertEquals(await python(network, guest, "offender", address, "9"), router);
    assertEquals(await python(network, guest, "offender", router, "9"), router);
  }
});
