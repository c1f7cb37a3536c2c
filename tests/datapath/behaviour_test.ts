// How connections fail, end and wait: what the application inside sees, and what is left afterwards.

import "../lib/preload.ts";
import { assert, assertEquals, assertMatch } from "@std/assert";
import { test } from "../lib/helpers.ts";
import { HOST4, listening, makeNetwork, must, type Network, PEER4, PEER6, runUntil, until } from "./lab/network.ts";

const needs = [
  ...["root", "tun", "package:iproute2", "package:socat", "package:coreutils"] as const,
  ...["package:curl", "package:procps"] as const,
];
const TOOL = `${import.meta.dirname}/lab/tool.ts`;

function tool(...args: string[]): string[] {
  return ["timeout", "300", Deno.execPath(), "run", "-A", "--quiet", "--no-check", TOOL, ...args];
}

/** Runs a body and checks that no flow or descriptor is left. */
async function leavesNothing(network: Network, body: () => Promise<void>): Promise<void> {
  const before = network.descriptors;
  await body();
  await until("no flow is left", () => network.flows === 0);
  await until("no descriptor is left", () => network.descriptors === before);
}

/** A file of random bytes. */
async function randomFile(size: number): Promise<{ path: string; hash: string } & AsyncDisposable> {
  const path = await Deno.makeTempFile();
  const { success } = await new Deno.Command("sh", { args: ["-c", `head -c ${size} /dev/urandom > ${path}`] }).output();
  assert(success);
  const { stdout } = await new Deno.Command("sha256sum", { args: [path] }).output();
  const hash = new TextDecoder().decode(stdout).split(" ")[0]!;
  return { path, hash, [Symbol.asyncDispose]: () => Deno.remove(path) };
}

test("refusal, an unreachable network and silence look the same inside as outside", needs, async () => {
  await using network = await makeNetwork({});
  const { host, guest } = network;
  await network.must(host, ["ip", "route", "add", "unreachable", "203.0.113.0/25"]);
  await network.must(host, ["ip", "route", "add", "prohibit", "203.0.113.128/25"]);
  await network.must(host, ["ip", "route", "add", "198.18.0.0/24", "via", PEER4]); // where it is dropped
  await network.must(host, ["ip", "-6", "route", "add", "unreachable", "2001:db8:2::/64"]);
  const connect = async (address: string, seconds = 60) => {
    const target = address.includes(":") ? `TCP6:[${address}]:81` : `TCP4:${address}:81`;
    const { stderr } = await network.run(guest, ["socat", "-u", "/dev/null", `${target},connect-timeout=${seconds}`]);
    return stderr;
  };
  await leavesNothing(network, async () => {
    const silence = connect("198.18.0.1", 1.5);
    for (
      const [address, text] of [
        [PEER4, /Connection refused/],
        [PEER6, /Connection refused/],
        ["203.0.113.1", /No route to host/],
        ["203.0.113.129", /(No route to host|Permission denied)/],
        ["2001:db8:2::1", /No route to host/],
      ] as const
    ) {
      assertMatch(await connect(address), text); // long before it would time out
    }
    assertMatch(await silence, /timed out/);
  });
});

test("either side may close first and still receives what the other side sends", needs, async () => {
  await using network = await makeNetwork({ mtu: 1500 });
  await using file = await randomFile(20_000_000);
  await leavesNothing(network, async () => {
    // The namespace closes first; the answer to what it has sent comes afterwards.
    network.spawn(network.peer, [
      "socat",
      "-t60",
      "TCP4-LISTEN:3000,reuseaddr",
      "SYSTEM:sleep 1; sha256sum; sleep 1; echo end",
    ]);
    await listening(network, network.peer, 3000);
    const first = await network.run(network.guest, ["sh", "-c", `socat -t60 - TCP4:${PEER4}:3000 < ${file.path}`]);
    assertEquals(first.stdout, `${file.hash}  -\nend\n`);
    // The peer closes first.
    const peer = network.spawn(network.peer, [
      "sh",
      "-c",
      `socat -t60 TCP4-LISTEN:3001,reuseaddr - < ${file.path}`,
    ], { stdout: "piped" });
    const said = new Response(peer.stdout).text();
    await listening(network, network.peer, 3001);
    const command = ["socat", "-t60", `TCP4:${PEER4}:3001`, "SYSTEM:sleep 1; sha256sum; sleep 1; echo end"];
    await network.run(network.guest, command);
    assertEquals(await said, `${file.hash}  -\nend\n`);
  });
});

test("a reset inside is a reset outside, and vice versa", needs, async () => {
  await using network = await makeNetwork({});
  await leavesNothing(network, async () => {
    // Closing with unread data also resets.
    for (const how of ["abort", "leave"]) {
      for (const inside of [true, false]) {
        const server = network.spawn(network.peer, tool("serve", inside ? "suffer" : how, PEER4, "3100"), {
          stdout: "piped",
        });
        const said = server.stdout.pipeThrough(new TextDecoderStream()).getReader();
        assertEquals((await said.read()).value, "ready\n");
        const { stdout } = await network.run(network.guest, tool("connect", inside ? how : "suffer", PEER4, "3100"));
        const outside = (await said.read()).value;
        assertEquals([how, inside, inside ? outside : stdout], [how, inside, "ECONNRESET\n"]);
        await said.cancel();
        await network.stop();
      }
    }
  });
});

test("data sent before a reset arrives before the reset", needs, async () => {
  await using network = await makeNetwork({});
  await leavesNothing(network, async () => {
    const server = network.spawn(network.peer, tool("serve", "pour", PEER4, "3110"), { stdout: "piped" });
    const outside = server.stdout.pipeThrough(new TextDecoderStream()).getReader();
    assertEquals((await outside.read()).value, "ready\n");
    const client = network.spawn(network.guest, tool("connect", "late", PEER4, "3110"), {
      stdin: "piped",
      stdout: "piped",
    });
    const inside = client.stdout.pipeThrough(new TextDecoderStream()).getReader();
    assertEquals((await inside.read()).value, "connected\n");
    assertEquals((await outside.read()).value, "poured\n"); // more than fits the namespace's socket
    await server.status;
    const writer = client.stdin.getWriter();
    await writer.write(new Uint8Array(1));
    assertEquals((await inside.read()).value, "all ECONNRESET\n");
    await writer.close();
    await Promise.all([inside.cancel(), outside.cancel()]);
  });
});

test(
  "a reader that stops for a while loses nothing, on either side, and delays no other connection",
  needs,
  async () => {
    await using network = await makeNetwork({});
    await using file = await randomFile(100_000_000);
    const copy = await Deno.makeTempFile();
    const go = `${copy}.go`;
    const hash = async () => (await must(["sha256sum", copy])).split(" ")[0];
    const size = () => Deno.statSync(copy).size;
    try {
      await leavesNothing(network, async () => {
        for (const up of [true, false]) {
          await Deno.truncate(copy);
          const [listen, connect] = ["TCP4-LISTEN:3200,reuseaddr", `TCP4:${PEER4}:3200`];
          const read = ["socat", "-u", up ? listen : connect, `OPEN:${copy}`];
          const wait = `while [ ! -e ${go} ]; do sleep 0.05; done`;
          const pieces = `(head -c 1000000 ${file.path}; ${wait}; tail -c +1000001 ${file.path})`;
          const write = ["sh", "-c", `${pieces} | socat -u - ${up ? connect : listen}`];
          const server = network.spawn(network.peer, up ? read : write);
          await listening(network, network.peer, 3200);
          const client = network.spawn(network.guest, up ? write : read);
          const [reader, writer] = up ? [server, client] : [client, server];
          await until("the reader has begun", () => size() >= 500_000);
          reader.kill("SIGSTOP");
          await until("the reader is stopped", () => / T /.test(Deno.readTextFileSync(`/proc/${reader.pid}/stat`)));
          const before = size();
          await Deno.writeTextFile(go, "");
          let written = false;
          writer.status.then(() => written = true);
          // Meanwhile another connection is served at once.
          network.spawn(network.peer, ["socat", "TCP4-LISTEN:3201,reuseaddr", "SYSTEM:echo hello"]);
          await listening(network, network.peer, 3201);
          const hello = await network.run(network.guest, ["socat", "-u", `TCP4:${PEER4}:3201`, "-"]);
          assertEquals(hello.stdout, "hello\n");
          await new Promise((resolve) => setTimeout(resolve, 1500));
          assertEquals([written, size()], [false, before]);
          reader.kill("SIGCONT");
          // Then stop penne itself in the middle of the transfer.
          await until("it goes on", () => size() > before);
          Deno.kill(network.pid, "SIGSTOP");
          await new Promise((resolve) => setTimeout(resolve, 500));
          Deno.kill(network.pid, "SIGCONT");
          await Promise.all([reader.status, writer.status]);
          await Deno.remove(go);
          assertEquals([up, await hash()], [up, file.hash]);
        }
      });
    } finally {
      await Deno.remove(copy);
      await Deno.remove(go).catch(() => {});
    }
  },
);

test("tiny windows are slow but correct", needs, async () => {
  await using network = await makeNetwork({});
  await using file = await randomFile(300_000);
  await leavesNothing(network, async () => {
    for (const up of [true, false]) {
      const reader = `socat -u -b512 ${
        up ? "TCP4-LISTEN:3300,reuseaddr,rcvbuf=1024" : `TCP4:${PEER4}:3300,rcvbuf=1024`
      } - | sha256sum`;
      const writer = `socat -u - ${up ? `TCP4:${PEER4}:3300` : "TCP4-LISTEN:3300,reuseaddr"} < ${file.path}`;
      const listener = network.spawn(network.peer, ["sh", "-c", up ? reader : writer], { stdout: "piped" });
      const served = new Response(listener.stdout).text();
      await listening(network, network.peer, 3300);
      const { stdout } = await network.run(network.guest, ["sh", "-c", up ? writer : reader]);
      assertEquals((up ? await served : stdout).split(" ")[0], file.hash);
    }
  });
});

test(
  "a peer that is away for a while is waited for; a vanished one is given up when the kernel does",
  needs,
  async () => {
    await using network = await makeNetwork({});
    await using file = await randomFile(60_000_000);
    await leavesNothing(network, async () => {
      const command = `socat -u TCP4-LISTEN:3400,reuseaddr - | sha256sum`;
      const listener = network.spawn(network.peer, ["sh", "-c", command], { stdout: "piped" });
      const served = new Response(listener.stdout).text();
      await listening(network, network.peer, 3400);
      const go = `${file.path}.go`;
      const wait = `while [ ! -e ${go} ]; do sleep 0.05; done`;
      const pieces = `(head -c 20000000 ${file.path}; ${wait}; tail -c 40000000 ${file.path})`;
      const running = network.run(network.guest, ["sh", "-c", `${pieces} | socat -u - TCP4:${PEER4}:3400`]);
      const established = ["ss", "-Htn", "state", "established", "sport = :3400"];
      await until("they are connected", async () => await network.must(network.peer, established) !== "");
      await network.must(network.peer, ["ip", "link", "set", "veth0", "down"]);
      await Deno.writeTextFile(go, "");
      await new Promise((resolve) => setTimeout(resolve, 1500));
      await network.must(network.peer, ["ip", "link", "set", "veth0", "up"]);
      await running;
      await Deno.remove(go);
      assertEquals((await served).split(" ")[0], file.hash);

      await network.must(network.host, ["sysctl", "-qw", "net.ipv4.tcp_retries2=3"]);
      network.spawn(network.peer, ["socat", "-u", "TCP4-LISTEN:3401,reuseaddr", "/dev/null"]);
      await listening(network, network.peer, 3401);
      const client = network.spawn(network.guest, tool("connect", "insist", PEER4, "3401"), { stdout: "piped" });
      const said = client.stdout.pipeThrough(new TextDecoderStream()).getReader();
      assertEquals((await said.read()).value, "connected\n");
      await network.must(network.peer, ["ip", "link", "set", "veth0", "down"]);
      // A reset is the only thing that a middlebox can send; it cannot signal a time-out.
      assertEquals((await said.read()).value, "ECONNRESET\n");
      await said.cancel();
    });
  },
);

test("ping, both families; traceroute, unreachable ports and names of ICMP errors", [
  "root",
  "package:iproute2",
  "package:iputils-ping",
  "package:traceroute",
  "package:socat",
], async () => {
  await using network = await makeNetwork({});
  const { guest, host, peer } = network;
  for (const address of [PEER4, PEER6]) {
    for (const size of ["8", "56", "1400", "20000"]) {
      const ping = ["ping", "-c2", "-i0.05", "-W2", "-s", size, address];
      await runUntil(network, guest, ping, /2 packets transmitted, 2 received, 0% packet loss/);
    }
  }
  // A router in between: "peer" forwards to a network behind it.
  await network.must(peer, ["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.icmp_ratelimit=0"]);
  await network.must(peer, ["sysctl", "-qw", "net.ipv6.icmp.ratelimit=0"]);
  await network.must(peer, ["ip", "addr", "add", "198.18.5.1/32", "dev", "lo"]);
  await network.must(peer, ["ip", "route", "add", "198.18.6.0/24", "via", HOST4]);
  await network.must(peer, ["ip", "route", "add", "unreachable", "198.18.7.0/24"]);
  for (const method of [[], ["-I"]]) {
    const route = ["traceroute", "-n", "-q1", "-w1", "-m3", ...method];
    await runUntil(network, guest, [...route, "198.18.5.1"], /\n 1 +198\.18\.5\.1 /);
    await runUntil(network, guest, [...route, "198.18.6.1"], new RegExp(`\\n 1 +${PEER4.replaceAll(".", "\\.")} `));
  }
  await runUntil(network, guest, ["ping", "-c1", "-W2", "-t1", "198.18.6.1"], /Time to live exceeded/);
  // The router reports that once a second.
  await runUntil(network, guest, ["ping", "-c4", "-i0.6", "-W1", "198.18.7.1"], /Destination Host Unreachable/);
  const six = ["traceroute", "-6", "-n", "-q1", "-w1", "-m3", PEER6];
  await runUntil(network, guest, six, new RegExp(`\\n 1 +${PEER6} `));
  // A closed UDP port.
  for (const [family, address] of [["4", PEER4], ["6", `[${PEER6}]`]]) {
    const command = `(echo a; sleep 0.3; echo b; sleep 0.3) | socat -t1 -T1 - UDP${family}:${address}:9`;
    await runUntil(network, guest, ["sh", "-c", command], /Connection refused/);
  }
  // An unreachable destination is tried again, as on any router; a prohibited one is not.
  await network.must(host, ["ip", "route", "add", "prohibit", "203.0.113.0/24"]);
  const twice = "(echo a; sleep 0.3; echo b; sleep 0.3) | socat -t1 -T1 - UDP4:203.0.113.1:9";
  await runUntil(network, guest, ["sh", "-c", twice], /No route to host/);
});

test("ARP answers for any address with the gateway's MAC address, padded with zeros", [
  "root",
  "package:iproute2",
  "package:iputils-ping",
], async () => {
  await using network = await makeNetwork({});
  // Leave a payload of ones in the buffer.
  await network.must(network.guest, ["ping", "-c1", "-W30", "-p", "ff", "-s", "200", PEER4]);
  const script = [Deno.execPath(), "run", "-A", "--quiet", "--no-check", `${import.meta.dirname}/lab/raw.ts`];
  const { stdout } = await network.run(network.guest, [...script, "arp"]);
  const mac = "9a559a559a55";
  const own = (await network.must(network.guest, ["cat", "/sys/class/net/tap0/address"])).trim().replaceAll(":", "");
  // A reply from the gateway's MAC address that 10.77.0.99 is there, then zeros up to the minimum length of a frame.
  const answer = `${own}${mac}0806` + `0001080006040002${mac}0a4d0063${own}0a4d0002`;
  assertEquals(stdout.trim(), answer + "00".repeat(60 - 42));
});
