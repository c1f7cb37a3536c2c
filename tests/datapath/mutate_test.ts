// Invalid frames, beside a transfer that they must not affect.

import "../lib/preload.ts";
import { assert, assertEquals } from "@std/assert";
import { test } from "../lib/helpers.ts";
import { listening, makeNetwork, PEER4, until } from "./lab/network.ts";

/** Number of frames; PENNE_FRAMES sets more. */
const FRAMES = Number(Deno.env.get("PENNE_FRAMES") ?? 40_000);

test(`${FRAMES} mutated frames cause no crash, no growth and no packet outside, and a transfer beside them completes`, [
  "root",
  "tun",
  "package:iproute2",
  "package:socat",
  "package:tcpdump",
  "package:coreutils",
], async () => {
  await using network = await makeNetwork({ mtu: 1500 });
  const capture = network.spawn(network.host, [
    "tcpdump",
    "-lni",
    "veth0",
    "not tcp port 6100 and not arp and not icmp6 and not ip6 multicast",
  ], { stdout: "piped", stderr: "piped" });
  const seen = new Response(capture.stdout).text();
  const errors = capture.stderr.getReader();
  await errors.read(); // "listening on": tcpdump captures from now on
  const file = await Deno.makeTempFile();
  try {
    const { stdout } = await new Deno.Command("sh", {
      args: ["-c", `head -c 20000000 /dev/urandom > ${file}; sha256sum < ${file}`],
    }).output();
    const expected = new TextDecoder().decode(stdout).split(" ")[0];
    const server = network.spawn(network.peer, ["sh", "-c", "socat -u TCP4-LISTEN:6100,reuseaddr - | sha256sum"], {
      stdout: "piped",
    });
    const served = new Response(server.stdout).text();
    await listening(network, network.peer, 6100);
    // Slow enough to last as long as the frames are sent.
    const pieces = `for i in $(seq 0 99); do dd if=${file} bs=200000 skip=$i count=1 status=none; sleep 0.02; done`;
    const transfer = network.run(network.guest, ["sh", "-c", `(${pieces}) | socat -u - TCP4:${PEER4}:6100`]);
    const script = `${import.meta.dirname}/lab/mutate.ts`;
    const deno = [Deno.execPath(), "run", "-A", "--quiet", "--no-check", script];
    const mutate = async (count: number, seed: number) => {
      const { code, stdout, stderr } = await network.run(network.guest, [...deno, `${count}`, `${seed}`]);
      assertEquals([code, stderr], [0, ""]);
      assert(Number(stdout) > count / 2); // the kernel inside refuses some
    };
    await mutate(FRAMES / 4, 1);
    const before = network.memory;
    await mutate(FRAMES, 12345);
    assert(network.memory < before + FRAMES / 2, `memory grew from ${before} to ${network.memory} kB`);
    await transfer;
    assertEquals((await served).split(" ")[0], expected);
    assert(await network.statistic("tx_packets") > FRAMES / 2); // penne has received that many
    await until("the flow of the transfer has ended, and no other was opened", () => network.flows === 0);
    await errors.cancel();
    capture.kill("SIGTERM");
    assertEquals((await seen).trim(), "");
  } finally {
    await Deno.remove(file);
  }
});
