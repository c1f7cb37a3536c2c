// What a namespace takes from the host's number spaces: UDP ports and identifiers of pings.

import "../lib/preload.ts";
import { assert, assertEquals } from "@std/assert";
import { listening, makeNetwork, type Network, PEER4, PEER6, until } from "../datapath/lab/network.ts";
import { test } from "../lib/helpers.ts";

const needs = ["root", "tun", "package:iproute2", "package:python3", "package:procps", "package:iputils-ping"] as const;
const RESERVED = [53, 67, 68, 123, 500, 623, 1023, 5000];

async function python(network: Network, netns: string, ...args: string[]): Promise<unknown> {
  const { stdout, stderr } = await network.run(netns, [
    "python3",
    `${import.meta.dirname}/../datapath/lab/programs.py`,
    ...args,
  ]);
  assert(stdout !== "", stderr);
  return JSON.parse(stdout);
}

async function echo(network: Network): Promise<void> {
  network.spawn(network.peer, ["python3", `${import.meta.dirname}/../datapath/lab/programs.py`, "echo", "7100"]);
  await listening(network, network.peer, 7100, true);
}

/** Ports of UDP sockets that penne has on the host. */
async function claimed(network: Network): Promise<number[]> {
  const lines = (await network.must(network.host, ["ss", "-Huanp"])).split("\n");
  const own = lines.filter((line) => line.includes(`pid=${network.pid},`));
  return own.map((line) => Number(/:(\d+) /.exec(line)![1]));
}

test(
  "a namespace gets no privileged or reserved port of the host, and its datagrams arrive all the same",
  needs,
  async () => {
    await using network = await makeNetwork({ root: true });
    await network.must(network.host, ["sysctl", "-qw", "net.ipv4.ip_local_reserved_ports=4999-5001"]);
    await echo(network);
    for (const address of [PEER4, PEER6]) {
      for (const port of RESERVED) {
        const answers = await python(network, network.guest, "claim", address, "7100", `${port}`, `${port}`);
        assertEquals([port, answers], [port, [1, 1]]);
      }
    }
    assertEquals((await claimed(network)).filter((port) => port < 1024 || port === 5000), []);
    assertEquals(await python(network, network.host, "take", ...RESERVED.map(String)), [[], 0]);
    // Others are the same outside, where they are free.
    await python(network, network.guest, "claim", PEER4, "7100", "6000", "6000");
    assert((await claimed(network)).includes(6000));
  },
);

test(
  "a namespace takes a share of the host's ports, and goes on with another flow's when that is used up",
  needs,
  async () => {
    await using network = await makeNetwork({ root: true, guests: 2 });
    const { guests: [greedy, modest], host } = network;
    await network.must(host, ["sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 40999"]);
    await echo(network);
    for (const [first, last] of [[40000, 40999], [2000, 3500], [40000, 40999]]) {
      const answers = await python(network, greedy!, "claim", PEER4, "7100", `${first}`, `${last}`);
      assertEquals(answers, [last! - first! + 1, last! - first! + 1]);
      const ports = new Set(await claimed(network));
      assert(ports.size <= 250, `${ports.size} ports`);
      assertEquals(await python(network, host, "take"), [[], 0]);
    }
    assertEquals(await python(network, modest!, "claim", PEER4, "7100", "41000", "41200"), [201, 201]);
    assertEquals(await python(network, greedy!, "claim", PEER4, "7100", "41000", "41200"), [201, 201]);
  },
);

test("a namespace takes a share of the host's ping identifiers", needs, async () => {
  await using network = await makeNetwork({ root: true });
  const script = `${import.meta.dirname}/../datapath/lab/pings.py`;
  const { stdout, stderr } = await network.run(network.guest, ["python3", script, PEER4, "12000"]);
  assertEquals([stdout.trim(), stderr], ["12000", ""]);
  const table = async () => (await network.must(network.host, ["cat", "/proc/net/icmp"])).trim().split("\n").length - 1;
  await until("the share is used", async () => await table() > 7000);
  assert(await table() <= 8192, `${await table()} identifiers`);
  const { code } = await network.run(network.guest, ["ping", "-c1", "-W30", PEER4]);
  assertEquals(code, 0);
});

/** Opens connections in the background, which stay open; returns how many there are. */
async function hold(network: Network, netns: string, address: string, count: number): Promise<number> {
  const script = `${import.meta.dirname}/../datapath/lab/programs.py`;
  const argv = ["python3", script, "connect", address, "7200", `${count}`];
  const reader = network.spawn(netns, argv, { stdout: "piped" }).stdout.pipeThrough(new TextDecoderStream())
    .getReader();
  const { value = "" } = await reader.read();
  await reader.cancel();
  return Number(value);
}

for (const close of [false, true]) {
  const what = close ? "opens and closes" : "holds";
  test(
    `a namespace that ${what} connections to one destination leaves ports to others`,
    [...needs, "kernel:6.3"],
    async () => {
      await using network = await makeNetwork({ root: true, guests: 2 });
      const { guests: [greedy, modest], host } = network;
      await network.must(host, ["sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 40999"]);
      const script = `${import.meta.dirname}/../datapath/lab/programs.py`;
      network.spawn(network.peer, ["python3", script, "accept", "7200"]);
      await listening(network, network.peer, 7200);
      for (const address of [PEER4, PEER6]) {
        const got = close
          ? await python(network, greedy!, "connect", address, "7200", "1100", "close")
          : await hold(network, greedy!, address, 1100);
        assert(Number(got) >= 700 && Number(got) <= 875, `${got} connections`);
        assertEquals(await hold(network, modest!, address, 100), 100);
        assertEquals(await hold(network, host, address, 100), 100);
      }
    },
  );
}
