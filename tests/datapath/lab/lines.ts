// Transfers over a line that delays, reorders, repeats and drops packets, on either side of penne: each completes intact. Part
// of waiting/many_test.ts.

import { assert, assertEquals } from "@std/assert";
import { GUEST4, listening, makeNetwork, type Network, PEER4, PEER6, type Plan } from "./network.ts";

async function transfers(network: Network, size: number): Promise<void> {
  const file = await Deno.makeTempFile();
  const shell = async (command: string) => {
    const { stdout } = await new Deno.Command("sh", { args: ["-c", command] }).output();
    return new TextDecoder().decode(stdout).split(" ")[0]!;
  };
  try {
    const expected = await shell(`head -c ${size} /dev/urandom > ${file}; sha256sum < ${file}`);
    let port = 6000;
    for (const address of [PEER4, PEER6]) {
      const family = address.includes(":") ? "6" : "4";
      const target = address.includes(":") ? `[${address}]` : address;
      for (const up of [true, false]) {
        const reader = (end: string) => `socat -u ${end} - | sha256sum`;
        const writer = (end: string) => `socat -u - ${end} < ${file}`;
        const [outside, inside] = [`TCP${family}-LISTEN:${port},reuseaddr`, `TCP${family}:${target}:${port}`];
        const server = network.spawn(network.peer, ["sh", "-c", (up ? reader : writer)(outside)], { stdout: "piped" });
        const served = new Response(server.stdout).text();
        await listening(network, network.peer, port++);
        const { stdout } = await network.run(network.guest, ["sh", "-c", (up ? writer : reader)(inside)]);
        assertEquals([address, up, (up ? await served : stdout).split(" ")[0]], [address, up, expected]);
      }
    }
  } finally {
    await Deno.remove(file);
  }
}

async function datagrams(network: Network): Promise<void> {
  const script = `${import.meta.dirname}/blocks.ts`;
  const deno = [Deno.execPath(), "run", "-A", "--quiet", "--no-check", "--unstable-net", script];
  for (const way of ["up", "down"]) {
    const server = network.spawn(network.peer, [...deno, "serve", PEER4, "9000"], { stdout: "piped" });
    const reader = server.stdout.getReader();
    await reader.read();
    const { stdout, stderr } = await network.run(network.guest, [...deno, way, PEER4, "9000", "100", GUEST4.address]);
    assertEquals(stderr, "");
    const { sent, received } = JSON.parse(stdout);
    assertEquals(received, sent);
    await reader.cancel();
    await network.stop(server);
  }
}

const lines: Record<string, Omit<NonNullable<Plan["relay"]>, "where">> = {
  "delays by 20 ms": { delay: 10, jitter: 0, loss: 0, repeat: 0 },
  "reorders and repeats": { delay: 2, jitter: 8, loss: 0, repeat: 0.02 },
  "drops 1 %": { delay: 1, jitter: 0, loss: 0.01, repeat: 0 },
  "does all of it": { delay: 3, jitter: 6, loss: 0.02, repeat: 0.02 },
};

/** Steps of a test, one for each line. */
export async function lineSteps(t: Deno.TestContext): Promise<void> {
  for (const where of ["inside", "outside"] as const) {
    for (const [name, line] of Object.entries(lines)) {
      await t.step(`a line ${where} that ${name}`, async () => {
        for (const mtu of where === "inside" && line.loss > 0 ? [1500, 65520] : [1500]) {
          await using network = await makeNetwork({ mtu, relay: { where, ...line } });
          await transfers(network, 5_000_000);
          await datagrams(network);
          // A loss leaves a gap for a while.
          if (where === "inside" && line.loss > 0) assert(await network.tcpStatistic("TCPOFOQueue") > 0);
        }
      });
    }
  }

  await t.step(
    "a line inside that drops, with a kernel without SO_PEEK_OFF for TCP",
    async () => {
      const relay = { where: "inside", delay: 1, jitter: 2, loss: 0.01, repeat: 0.01 } as const;
      await using network = await makeNetwork({ mtu: 1500, relay, without: "peek offset" });
      await transfers(network, 5_000_000);
    },
  );

  await t.step("a good line, with a kernel without SO_PEEK_OFF for TCP", async () => {
    await using network = await makeNetwork({ mtu: 1500, without: "peek offset" });
    await transfers(network, 100_000_000);
  });
}
