// The host's own addresses: reached as from any machine beside it, unless they are on its loopback interface or excluded.

import "../lib/preload.ts";
import { assertEquals } from "@std/assert";
import { HOST4, HOST6, listening, makeNetwork, type Network, PEER4 } from "../datapath/lab/network.ts";
import { test } from "../lib/helpers.ts";

const needs = ["root", "tun", "package:iproute2", "package:python3", "package:iputils-ping"] as const;
const script = ["python3", `${import.meta.dirname}/../datapath/lab/programs.py`];
const SECOND = "172.31.0.1";
const LATER = "172.31.5.5";
/** On lo, an address stands for its whole prefix. */
const [ON_LO, BESIDE, LATER_ON_LO, ON_LO6] = ["192.168.77.1", "192.168.77.99", "192.168.78.1", "2001:db8:99::1"];
const CONNECT = `import socket,sys; socket.create_connection((sys.argv[1], 4000), 1); print("open")`;
const LISTEN = "import socket\ns=socket.create_server(('::', 4000), family=socket.AF_INET6, dualstack_ipv6=True)\n" +
  "while True: s.accept()[0].close()";

type Reached = [tcp: boolean, udp: boolean, ping: boolean];

/** What of an address answers: TCP, UDP, and echo requests. */
async function reached(network: Network, address: string): Promise<Reached> {
  const [tcp, udp, ping] = await Promise.all([
    network.run(network.guest, ["python3", "-c", CONNECT, address]),
    network.run(network.guest, [...script, "ask", address, "4000", "1"]),
    network.run(network.guest, ["ping", "-c1", "-W1", address]),
  ]);
  return [tcp.stdout === "open\n", udp.stdout.includes('"q"'), ping.code === 0];
}

/** The same, tried again while it is not what is expected: on a machine that is loaded, an answer may be late. */
async function reachedAs(network: Network, address: string, expected: boolean): Promise<Reached> {
  let seen = await reached(network, address);
  for (let i = 0; i < 5 && seen.includes(!expected); i++) seen = await reached(network, address);
  return seen;
}

async function host(network: Network): Promise<void> {
  const netns = network.host;
  network.spawn(netns, ["python3", "-c", LISTEN]);
  network.spawn(netns, [...script, "echo", "4000"]);
  await network.must(netns, ["ip", "addr", "add", `${SECOND}/24`, "dev", "veth0"]);
  await network.must(netns, ["ip", "addr", "add", `${ON_LO}/24`, "dev", "lo"]);
  await network.must(netns, ["ip", "addr", "add", `${ON_LO6}/128`, "dev", "lo"]);
  await listening(network, netns, 4000);
  await listening(network, netns, 4000, true);
}

test("addresses of the host are reached, but not those on lo, and not after they have moved there", needs, async () => {
  await using network = await makeNetwork({});
  await host(network);
  for (const address of [HOST4, HOST6, SECOND]) {
    assertEquals([address, ...await reachedAs(network, address, true)], [address, true, true, true]);
  }
  await network.must(network.host, ["ip", "addr", "add", `${LATER_ON_LO}/24`, "dev", "lo"]);
  await new Promise((resolve) => setTimeout(resolve, 300));
  for (const address of [ON_LO, BESIDE, ON_LO6, LATER_ON_LO]) {
    assertEquals([address, ...await reachedAs(network, address, false)], [address, false, false, false]);
  }
});

test("--exclude of IPv4 addresses excludes their forms in IPv6 that gateways translate", needs, async () => {
  await using network = await makeNetwork({ options: ["--exclude", "10.0.0.0/8"] });
  const { peer } = network;
  network.spawn(peer, ["python3", "-c", LISTEN]);
  network.spawn(peer, [...script, "echo", "4000"]);
  await listening(network, peer, 4000);
  await listening(network, peer, 4000, true);
  // The peer stands for the gateways, and answers itself.
  const found = async (address: string, expected: boolean) => {
    const [bits, nodad] = address.includes(":") ? [128, ["nodad"]] : [32, []];
    await network.must(peer, ["ip", "addr", "add", `${address}/${bits}`, "dev", "veth0", ...nodad]);
    const answers = expected ? await reachedAs(network, address, true) : await reached(network, address);
    await network.must(peer, ["ip", "addr", "del", `${address}/${bits}`, "dev", "veth0"]);
    return [address, ...answers];
  };
  for (const address of ["64:ff9b::11.1.2.3", "64:ff9b:1::11.1.2.3", "2002:b01:203::1", "11.1.2.3"]) {
    assertEquals(await found(address, true), [address, true, true, true]);
  }
  for (const address of ["10.1.2.3", "64:ff9b::10.1.2.3", "64:ff9b:1::10.1.2.3", "2002:a01:203::1"]) {
    assertEquals(await found(address, false), [address, false, false, false]);
  }
  for (const address of ["::ffff:10.1.2.3", "::10.1.2.3"]) {
    assertEquals([address, ...await reached(network, address)], [address, false, false, false]);
  }
});

test("--exclude host excludes all addresses of the host, and nothing else", needs, async () => {
  const options = ["--exclude", "host", "--map-guest-addr", "10.77.0.99"];
  await using network = await makeNetwork({ options });
  await host(network);
  const found = async (address: string, expected = false) => [
    address,
    ...await reachedAs(network, address, expected),
  ];
  for (const address of [HOST4, HOST6, SECOND, ON_LO]) {
    assertEquals(await found(address), [address, false, false, false]);
  }
  await network.must(network.host, ["ip", "addr", "add", `${LATER}/24`, "dev", "veth0"]);
  await new Promise((resolve) => setTimeout(resolve, 300));
  assertEquals(await found(LATER), [LATER, false, false, false]);
  assertEquals(await found("10.77.0.99", true), ["10.77.0.99", true, true, true]);
  const { code } = await network.run(network.guest, ["ping", "-c1", "-W30", PEER4]);
  assertEquals(code, 0);
});
