// What outlives its program inside: connections that the peer never closes, and pings that the host does not allow.

import "../lib/preload.ts";
import { assert, assertEquals, assertMatch } from "@std/assert";
import { test } from "../lib/helpers.ts";
import { listening, makeNetwork, PEER4, PEER6, until } from "./lab/network.ts";

const needs = ["root", "tun", "package:iproute2", "package:python3", "package:procps"] as const;
const script = ["python3", `${import.meta.dirname}/lab/programs.py`];

test("a connection that is closed inside and never outside ends when the kernel inside forgets it", needs, async () => {
  await using network = await makeNetwork({});
  const { guest, peer } = network;
  await network.must(guest, ["sysctl", "-qw", "net.ipv4.tcp_fin_timeout=3"]);
  network.spawn(peer, [...script, "never", "20"]);
  await listening(network, peer, 20);
  await listening(network, peer, 21);
  const client = network.spawn(guest, [...script, "half", PEER4, "20", "40"], { stdout: "piped" });
  const said = new Response(client.stdout).text();
  await until("there are connections", () => network.flows >= 41);
  // A half-closed connection with a program behind it stays.
  await until("the abandoned connections have ended", () => network.flows === 1, 18);
  assertEquals(await said, 'closed\n"late"\n');
  await until("no connection is left", () => network.flows === 0, 10);
});

for (const root of [true, false]) {
  const title = root
    ? "pings use raw sockets where ping sockets are not allowed"
    : "pings that are not allowed are refused";
  test(title, [...needs, "package:iputils-ping"], async () => {
    await using network = await makeNetwork({ root, pingGroups: "1 0" });
    for (const address of [PEER4, PEER6]) {
      const start = performance.now();
      const both = [1, 2].map(() => network.run(network.guest, ["ping", "-c3", "-i0.2", "-W2", "-s", "100", address]));
      for (const { stdout } of await Promise.all(both)) {
        assertMatch(
          stdout,
          root ? /3 packets transmitted, 3 received, 0% packet loss/ : / 0 received, (\+3 errors, )?100%/,
        );
        if (!root) assertMatch(stdout, /(Packet filtered|dministratively prohibited)/);
      }
      assert(performance.now() - start < 4000);
    }
  });
}
