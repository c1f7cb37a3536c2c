// Datagrams and echo requests that are larger than the MTU: put together on the way out, and cut on the way in.

import "../lib/preload.ts";
import { assert, assertEquals, assertMatch } from "@std/assert";
import { ROOT, test } from "../lib/helpers.ts";
import { HOST4, HOST6, listening, makeNetwork, type Network, PEER4, PEER6, until } from "../datapath/lab/network.ts";

const needs = ["root", "tun", "package:iproute2", "package:iputils-ping", "package:python3"] as const;
const PROGRAM = `${ROOT}tests/fragment/large.py`;
const PORT = 8001;
/** The largest is what an IPv4 packet holds. */
const SIZES = [1, 1472, 1473, 8000, 65507];
/** Number of fragments of packets that never become whole; PENNE_FRAGMENTS sets more. */
const FRAGMENTS = Number(Deno.env.get("PENNE_FRAGMENTS") ?? 20_000);

async function echo(network: Network, netns: string): Promise<void> {
  network.spawn(netns, ["python3", PROGRAM, "echo", `${PORT}`], { stderr: "inherit" });
  await listening(network, netns, PORT, true);
}

async function ask(network: Network, from: string, address: string): Promise<number[]> {
  return JSON.parse(await network.must(from, ["python3", PROGRAM, "ask", address, `${PORT}`, ...SIZES.map(String)]));
}

/** How many packets the kernel inside has put together, of IPv4 and of IPv6. */
async function put(network: Network): Promise<[number, number]> {
  const [four = "", six = ""] = [
    await network.must(network.guest, ["cat", "/proc/net/snmp"]),
    await network.must(network.guest, ["cat", "/proc/net/snmp6"]),
  ];
  const [names, values] = four.split("\n").filter((line) => line.startsWith("Ip:")).map((line) => line.split(" "));
  return [Number(values![names!.indexOf("ReasmOKs")]), Number(/^Ip6ReasmOKs\s+(\d+)/m.exec(six)![1])];
}

for (const mtu of [1280, 1500, 65520]) {
  test(`datagrams and pings of 1 to 65507 bytes go both ways at an MTU of ${mtu}`, needs, async () => {
    await using network = await makeNetwork({ mtu, options: ["-u", `${PORT}`] });
    await Promise.all([echo(network, network.guest), echo(network, network.peer)]);
    const before = await put(network);
    for (const address of [PEER4, PEER6]) assertEquals(await ask(network, network.guest, address), SIZES, address);
    for (const address of [HOST4, HOST6]) assertEquals(await ask(network, network.peer, address), SIZES, address);
    for (const address of [PEER4, PEER6]) {
      for (const size of SIZES) {
        // -W is for each, and the first answer ends it.
        const ping = ["ping", "-n", "-c", "1", "-W", "60", "-s", `${size}`, address];
        assertMatch(await network.must(network.guest, ping), /1 received/, `${size} to ${address}`);
      }
    }
    const after = await put(network);
    // The kernel inside has had fragments of all that exceed its MTU, and of nothing else. Datagrams may be repeated.
    const large = SIZES.filter((size) => size + 28 > mtu).length;
    const large6 = SIZES.filter((size) => size + 48 > mtu).length;
    assert(after[0] - before[0] >= 3 * large && after[1] - before[1] >= 3 * large6, `${before} ${after}`);
  });
}

test(
  `${FRAGMENTS} fragments of packets that never become whole cause no growth, and others are put together`,
  needs,
  async () => {
    await using network = await makeNetwork({ mtu: 1500 });
    const script = `${ROOT}tests/fragment/fragments.ts`;
    const flood = async (count: number) => {
      const argv = [Deno.execPath(), "run", "-A", "--quiet", "--no-check", script, `${count}`];
      assert(Number(await network.must(network.guest, argv)) >= count);
    };
    await flood(5000);
    const before = network.memory;
    await flood(FRAGMENTS);
    // What is kept has its memory, and nothing is allocated for a fragment.
    assert(network.memory < before + 16_000, `memory grew from ${before} to ${network.memory} kB`);
    for (const address of [PEER4, PEER6]) {
      await until(`a ping of 8000 bytes to ${address}`, async () => {
        const { code } = await network.run(network.guest, ["ping", "-n", "-c", "1", "-W", "10", "-s", "8000", address]);
        return code === 0;
      });
    }
  },
);
