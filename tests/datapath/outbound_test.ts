// Ports inside that lead to the host: contents, addresses, and ports that follow what listens on the host.

import "../lib/preload.ts";
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { ROOT, test } from "../lib/helpers.ts";
import { listening, makeNetwork, Network, until } from "./lab/network.ts";

const needs = ["root", "tun", "package:iproute2", "package:python3"] as const;
const PORTS = `${ROOT}tests/datapath/lab/ports.py`;

type Call = readonly [protocol: "tcp" | "udp", address: string, port: number, size: number];
interface Answer {
  own: [string, number];
  peer: [string, number];
  local?: [string, number];
  whole: boolean;
  error?: string;
}

async function ask(network: Network, from: string, calls: readonly Call[]): Promise<Answer[]> {
  return JSON.parse(await network.must(from, ["python3", PORTS, "ask", JSON.stringify(calls)]));
}

/** Ports in a namespace that are open, "tcp 80". */
async function openPorts(network: Network, netns: string): Promise<string[]> {
  const lines = (await network.must(netns, ["ss", "-Htuln"])).split("\n").filter(Boolean);
  return lines.map((line) => line.split(/\s+/)).map(([kind, , , , local]) => `${kind} ${local!.split(":").at(-1)}`)
    .sort();
}

/** Ports inside, by what is asked for, and where they lead. */
const FORMS: Record<string, { spec: string; port: number; there: number }> = {
  "a port": { spec: "8001", port: 8001, there: 8001 },
  "a range": { spec: "8002-8003", port: 8003, there: 8003 },
  "a translated port": { spec: "9001:8001", port: 9001, there: 8001 },
  "a translated range": { spec: "9002-9003:8002-8003", port: 9003, there: 8003 },
};

test("what comes to a port inside arrives on the host's loopback whole, and from there", needs, async () => {
  const options = Object.values(FORMS).flatMap(({ spec }) => ["-T", spec, "-U", spec]);
  await using network = await makeNetwork({ options });
  network.spawn(network.host, ["python3", PORTS, "serve", "8001", "8002", "8003"], { stderr: "inherit" });
  for (const port of [8001, 8002, 8003]) await listening(network, network.host, port, true);
  for (const [name, { port, there }] of Object.entries(FORMS)) {
    for (const address of ["127.0.0.1", "::1"]) {
      const large = name === "a port" ? 10_000_000 : 100_000;
      const sizes = [["tcp", 1], ["tcp", large], ["udp", 1], ["udp", 1400], ["udp", 60_000]] as const;
      const answers = await ask(network, network.guest, sizes.map(([kind, size]) => [kind, address, port, size]));
      for (const [i, { peer, local, whole, error }] of answers.entries()) {
        assertEquals([error, whole, peer?.[0]], [undefined, true, address], `${name}, ${sizes[i]}`);
        if (local) assertEquals(local, [address, there]);
      }
    }
  }
  const [own] = await ask(network, network.guest, [["tcp", "10.77.0.2", 8001, 100]]);
  assertMatch(own!.error!, /^Connection(Reset|Refused)Error/);
});

test("a port inside that a program there has is an error, and nothing is open then", needs, async () => {
  await using network = new Network({ options: ["-t", "8001", "-T", "8002"] });
  await network.make();
  network.spawn(network.guest, ["python3", PORTS, "serve", "8002"], { stderr: "inherit" });
  await listening(network, network.guest, 8002);
  const error = await assertRejects(() => network.serve());
  assertMatch(`${error}`, /penne has ended/);
  assertEquals(await openPorts(network, network.host), []);
});

test("spliced connections out of a namespace end as they should, many at once", needs, async () => {
  await using network = await makeNetwork({ options: ["-T", "8001"] });
  network.spawn(network.host, ["python3", PORTS, "serve", "8001"], { stderr: "inherit" });
  await listening(network, network.host, 8001);
  const idle = network.flows;
  for (const address of ["127.0.0.1", "::1"]) {
    const said = await network.must(network.guest, ["python3", PORTS, "odd", address, "8001", "40"]);
    const right = [40, ["True"]];
    assertEquals(JSON.parse(said), { "closed": right, "reset": right, "slow": right, "at once": right });
  }
  await until("the connections are gone", () => network.flows <= idle + 64);
});

test(
  "auto opens ports inside while something listens on the host, and neither way follows the other",
  needs,
  async () => {
    await using network = await makeNetwork({ options: ["-t", "auto", "-u", "auto", "-T", "auto", "-U", "auto"] });
    const { host, guest } = network;
    const server = network.spawn(host, ["python3", PORTS, "serve", "8001"], { stderr: "inherit" });
    const local = network.spawn(host, ["python3", "-m", "http.server", "--bind", "127.0.0.1", "8005"]);
    const inside = ["tcp 8001", "tcp 8005", "udp 8001", "udp 8005"];
    await until("the ports are open", async () => (await openPorts(network, guest)).join() === inside.join(), 10);
    const [answer] = await ask(network, guest, [["tcp", "127.0.0.1", 8001, 1000]]);
    assertEquals(answer!.whole, true);
    const all = await openPorts(network, host);
    assertEquals(all, ["tcp 8001", "tcp 8005", "udp 8001"]); // of the servers alone
    await network.stop(server);
    await network.stop(local);
    await until("the ports are closed", async () => (await openPorts(network, guest)).length === 0, 10);
  },
);
