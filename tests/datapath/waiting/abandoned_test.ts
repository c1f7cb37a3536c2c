// What ends though nobody closes it: connections that the peer never closes, and those whose peer vanishes (keepalive and
// TCP_USER_TIMEOUT inside). And pings that the host does not allow.

import "../../lib/preload.ts";
import { assert, assertEquals } from "@std/assert";
import { penne, test } from "../../lib/helpers.ts";
import { HOST4, HOST6, listening, makeNetwork, type Network, PEER4, PEER6, runUntil, until } from "../lab/network.ts";

const needs = ["root", "tun", "package:iproute2", "package:python3", "package:procps"] as const;
const script = ["python3", `${import.meta.dirname}/../lab/programs.py`];

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
  await until("the abandoned connections have ended", () => network.flows === 1);
  assertEquals(await said, 'closed\n"late"\n');
  await until("no connection is left", () => network.flows === 0);
});

test(
  "a connection whose peer takes nothing ends when the kernel inside has given up a killed program's data",
  needs,
  async () => {
    await using network = await makeNetwork({});
    const { guest, peer } = network;
    await network.must(guest, ["sysctl", "-qw", "net.ipv4.tcp_orphan_retries=1", "net.ipv4.tcp_rto_max_ms=1000"]);
    network.spawn(peer, [...script, "never", "20"]);
    await listening(network, peer, 20);
    const client = network.spawn(guest, [...script, "stuff", PEER4, "20"], { stdout: "piped" });
    assertEquals(await new Response(client.stdout).text(), "stuffed\n");
    assertEquals(network.flows, 1);
    await until("the abandoned connection has ended", () => network.flows === 0, 60);
  },
);

/** Starts a program with something to say after each of some events; `next` is its next line. */
function talk(network: Network, netns: string, argv: string[]) {
  const child = network.spawn(netns, [...script, ...argv], { stdin: "piped", stdout: "piped" });
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let said = "";
  return {
    child,
    async next(): Promise<string> {
      while (!said.includes("\n")) {
        const { value, done } = await reader.read();
        if (done) throw new Error(`${argv.join(" ")} has ended: ${said}`);
        said += value;
      }
      const line = said.slice(0, said.indexOf("\n"));
      said = said.slice(line.length + 1);
      return line;
    },
    async go(): Promise<void> {
      const writer = child.stdin.getWriter();
      await writer.write(new TextEncoder().encode("\n"));
      await writer.close();
    },
  };
}

for (const cookies of [1, 2]) {
  const how = cookies === 1 ? "with a queue of requests" : "with SYN cookies";
  test(`a connection that no program inside accepts ends when the kernel forgets it, ${how}`, needs, async () => {
    await using network = await makeNetwork({ options: ["-t", "8001-8002"] });
    const { guest, peer } = network;
    await network.must(guest, ["sysctl", "-qw", "net.ipv4.tcp_synack_retries=1", `net.ipv4.tcp_syncookies=${cookies}`]);
    // The queue has room for eleven: the backlog, and one.
    const server = talk(network, guest, ["full", "10", "8001", "8002"]);
    assertEquals(await server.next(), "ready");
    const clients = (count: number, resets: number) =>
      [HOST4, HOST6].map((to, i) => talk(network, peer, ["wait", to, `${8001 + i}`, `${count}`, `${resets}`]));
    const first = clients(10, 0);
    for (const one of first) assertEquals([await one.next(), await one.next()], ["connected", "0"]);
    // Those that come at once get a SYN-ACK while there is room for one of them.
    Deno.kill(network.pid, "SIGSTOP");
    const then = clients(6, 5);
    try {
      for (const one of then) assertEquals(await one.next(), "connected");
    } finally {
      Deno.kill(network.pid, "SIGCONT");
    }
    for (const one of then) assertEquals(await one.next(), "5");
    // Those in the queue wait for as long as it takes.
    await server.go();
    for (const one of [...first, ...then]) await one.go();
    for (const one of first) assertEquals(await one.next(), "10");
    for (const one of then) assertEquals(await one.next(), "1");
  });
}

test("who waits for a silent end of a spliced connection learns that nobody is there any more", needs, async () => {
  await using network = await makeNetwork({ options: ["--host-lo-to-ns-lo", "-t", "8001-8005", "-T", "8006-8010"] });
  const { host, guest } = network;
  await network.must(guest, ["sysctl", "-qw", "net.ipv4.tcp_fin_timeout=3"]);
  let port = 8001;
  const waiting: Promise<void>[] = [];
  for (const [server, client] of [[guest, host], [host, guest]] as const) {
    for (const leaver of [guest, host]) {
      for (const [how, count] of [["abort", 20], ["much", 2], ["killed", 20]] as const) {
        // What ends outside without a reset is for the program inside to close.
        if (leaver === host && how === "killed") continue;
        const at = `${port++}`;
        const start = (netns: string, side: string) =>
          talk(network, netns, [netns === leaver ? "leave" : "stay", side, "127.0.0.1", at, `${count}`, how]);
        const accepting = start(server, "accept");
        await listening(network, server, Number(at));
        const connecting = start(client, "connect");
        const stays = leaver === server ? connecting : accepting;
        waiting.push(
          stays.next().then((said) => assertEquals(said, `[${count}, ${count}]`, `${leaver === guest} ${how}`)),
        );
      }
    }
    port = 8006;
  }
  await Promise.all(waiting);
});

test("keepalive inside finds a dead peer, and keeps a connection to one that is there", needs, async () => {
  await using network = await makeNetwork({});
  const { guest, peer } = network;
  network.spawn(peer, [...script, "never", "20"]);
  await listening(network, peer, 20);
  await listening(network, peer, 21);
  // The peer says nothing for 20 seconds, but answers probes.
  const patient = network.run(guest, [...script, "keepalive", PEER4, "21"]);
  assertEquals((await patient).stdout, 'connected\n["data", "late"]\n');
  const client = network.spawn(guest, [...script, "keepalive", PEER4, "20"], { stdout: "piped" });
  const said = new Response(client.stdout).text();
  await until("the connection is there", () => network.flows >= 1);
  await new Promise((resolve) => setTimeout(resolve, 1500));
  await network.must(peer, ["ip", "link", "set", "veth0", "down"]);
  // Without keepalive this would take two hours.
  assertEquals(await said, `connected\n["TimeoutError", 110]\n`);
});

/** A program with a connection. Once `go` is called, it sends, and says how it ends: an error, or data, and the seconds. */
async function patient(network: Network, port: number, ms: number, what: string) {
  const argv = [...script, "patience", PEER4, `${port}`, `${ms}`, what];
  const child = network.spawn(network.guest, argv, { stdin: "piped", stdout: "piped" });
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const line = async () => {
    for (let said = "";;) {
      const { value, done } = await reader.read();
      said += value ?? "";
      if (done || said.endsWith("\n")) return said;
    }
  };
  assertEquals(await line(), "ready\n");
  return {
    async go(): Promise<[string, number | string, number]> {
      const writer = child.stdin.getWriter();
      await writer.write(new TextEncoder().encode("\n"));
      await writer.close();
      return JSON.parse(await line());
    },
  };
}

/** Seconds that a time-out may take longer: the retransmissions that it is noticed at come ever later, and the machine is loaded. */
const LATE = 10;

for (const ms of [1000, 5000]) {
  test(`a peer that vanishes is found by a TCP_USER_TIMEOUT of ${ms} ms, whatever was sent`, needs, async () => {
    await using network = await makeNetwork({});
    network.spawn(network.peer, [...script, "reluctant", "20", "300"]);
    await listening(network, network.peer, 20);
    const kinds = ["little", "much", "stream", "half"];
    const programs = await Promise.all(kinds.map((what) => patient(network, 20, ms, what)));
    await network.must(network.peer, ["ip", "link", "set", "veth0", "down"]);
    for (const [i, [name, errno, took]] of (await Promise.all(programs.map((program) => program.go()))).entries()) {
      assertEquals([kinds[i], name, errno], [kinds[i], "TimeoutError", 110]);
      assert(took >= ms / 1000 - 0.5 && took < ms * 2 / 1000 + LATE, `${kinds[i]}: ${took} s`);
    }
  });
}

test("a peer that is there but takes nothing is found by TCP_USER_TIMEOUT", needs, async () => {
  await using network = await makeNetwork({});
  network.spawn(network.peer, [...script, "reluctant", "20", "300"]);
  await listening(network, network.peer, 20);
  const [name, errno, took] = await (await patient(network, 20, 2000, "much")).go();
  assertEquals([name, errno], ["TimeoutError", 110]);
  assert(took >= 1.5 && took < 4 + LATE, `${took} s`);
  await until("penne has given up the connection too", () => network.flows === 0);
});

test("a peer that takes what it gets slowly is not taken for one that vanished", needs, async () => {
  await using network = await makeNetwork({});
  network.spawn(network.peer, [...script, "reluctant", "20", "0", "0.1"]);
  await listening(network, network.peer, 20);
  const [kind, data, took] = await (await patient(network, 20, 2000, "much")).go();
  assertEquals([kind, data], ["data", "300000"]);
  assert(took > 2, `${took} s`);
});

test("a peer that takes nothing for a while keeps a connection without TCP_USER_TIMEOUT", needs, async () => {
  await using network = await makeNetwork({});
  await network.must(network.guest, ["sysctl", "-qw", "net.ipv4.tcp_retries2=3"]);
  network.spawn(network.peer, [...script, "reluctant", "20", "8"]);
  await listening(network, network.peer, 20);
  const [kind, data] = await (await patient(network, 20, 0, "much")).go();
  assertEquals([kind, data], ["data", "300000"]);
});

const pings = [...needs, "package:iputils-ping"] as const;

test("pings use raw sockets where ping sockets are not allowed", pings, async () => {
  await using network = await makeNetwork({ pingGroups: "1 0" });
  for (const address of [PEER4, PEER6]) {
    const ping = [penne(), "run", "--", "ping", "-c3", "-i0.2", "-W2", "-s", "100", address];
    const all = /3 packets transmitted, 3 received, 0% packet loss/;
    await Promise.all([1, 2].map(() => runUntil(network, network.host, ping, all)));
  }
});

// `attach` keeps CAP_NET_RAW, if it has it, where it is needed for that.
for (
  const [who, root, answer] of [["root", true, /1 received/], ["a user", false, /iltered|dministratively/]] as const
) {
  const what = root ? "use raw sockets" : "are refused";
  test(`pings where ping sockets are not allowed ${what}, attached by ${who}`, pings, async () => {
    await using network = await makeNetwork({ root, pingGroups: "1 0" });
    for (const address of [PEER4, PEER6]) {
      await runUntil(network, network.guest, ["ping", "-c1", "-W2", address], answer);
    }
  });
}
