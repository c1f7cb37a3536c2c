// Connections from the host's loopback, which penne passes on by splice(2): their ends, slow readers, many at once, and the
// pipes for their bytes.

import "../lib/preload.ts";
import { assert, assertEquals, assertNotStrictEquals, assertStrictEquals } from "@std/assert";
import { E } from "../../ffi/core/errno.ts";
import { Block } from "../../ffi/core/quick.ts";
import { readAt, writeAt } from "../../ffi/net/socket.ts";
import { closePipe, type Pipe } from "../../ffi/net/splice.ts";
import { PipePool } from "../../mod/datapath/splice/pipes.ts";
import { ROOT, test } from "../lib/helpers.ts";
import { GUEST4, listening, makeNetwork, type Network, until } from "./lab/network.ts";

/** What pipe(7) allows a user does not hold for root. */
const UNLIMITED = ["root"] as const;
const needs = ["root", "tun", "package:iproute2", "package:python3", "package:procps"] as const;
const PORTS = `${ROOT}tests/datapath/lab/ports.py`;
const TOOL = `${ROOT}tests/datapath/lab/tool.ts`;
const LOCAL = ["--host-lo-to-ns-lo", "-t"];
const DENO = [Deno.execPath(), "run", "-A", "--quiet", "--no-check", "--v8-flags=--single-threaded"];

const tool = (side: string, role: string, port: string) => [...DENO, TOOL, side, role, "127.0.0.1", port];

/** Starts a program that writes lines; returns what reads the next one. */
function lines(network: Network, netns: string, argv: string[], options: Deno.CommandOptions = {}) {
  const child = network.spawn(netns, argv, { stdout: "piped", stderr: "inherit", ...options });
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  return { child, next: async () => (await reader.read()).value, done: () => reader.cancel() };
}

for (const without of [undefined, "large pipes"] as const) {
  const suffix = without ? ", where no large pipe can be had" : "";

  test(`spliced connections that are half-closed, reset or slow end right, many at once${suffix}`, needs, async () => {
    await using network = await makeNetwork({ options: [...LOCAL, "8001"], without });
    network.spawn(network.guest, ["python3", PORTS, "serve", "8001"], { stderr: "inherit" });
    await listening(network, network.guest, 8001);
    const idle = network.flows;
    for (const address of ["127.0.0.1", "::1"]) {
      const said = await network.must(network.host, ["python3", PORTS, "odd", address, "8001", "40"]);
      const right = [40, ["True"]];
      assertEquals(JSON.parse(said), { "closed": right, "reset": right, "slow": right, "at once": right });
    }
    // Sockets that were opened ahead stay.
    await until("the connections are gone", () => network.flows <= idle + 64);
  });

  test(`an urgent byte of a spliced connection stays one, and stops nothing${suffix}`, needs, async () => {
    await using network = await makeNetwork({ options: [...LOCAL, "8002"], without });
    network.spawn(network.guest, ["python3", PORTS, "serve-urgent", "8002"], { stderr: "inherit" });
    await listening(network, network.guest, 8002);
    const idle = network.flows;
    const heard = JSON.parse(await network.must(network.host, ["python3", PORTS, "urgent", "127.0.0.1", "8002"]));
    const said = Array(8).fill([[3, 3], [0, 3], [3, 0], [0, 0], [300_000, 300_000]]).flat();
    assertEquals(
      heard,
      said.flatMap(([before, after]) => Array(2).fill([before, true, before + after, true])),
    );
    // Sockets that were opened ahead stay, which are fewer than the connections had.
    await until("the connections are gone", () => network.flows <= idle + 64);
  });

  test(`a reset of a spliced connection is passed on behind all that came before it${suffix}`, needs, async (t) => {
    await using network = await makeNetwork({ options: [...LOCAL, "3110-3119"], without });
    const { host, guest } = network;
    let port = 3110;
    for (const inside of [true, false]) {
      for (const how of ["abort", "leave"]) {
        await t.step(`${how} ${inside ? "inside" : "outside"}`, async () => {
          const at = `${port++}`;
          const server = lines(network, guest, tool("serve", inside ? how : "suffer", at));
          assertEquals(await server.next(), "ready\n");
          const client = lines(network, host, tool("connect", inside ? "suffer" : how, at));
          assertEquals(await (inside ? client : server).next(), "ECONNRESET\n");
          await Promise.all([server.done(), client.done()]);
        });
      }
    }
    await t.step("poured inside, read late outside", async () => {
      const at = `${port++}`;
      const server = lines(network, guest, tool("serve", "pour", at));
      assertEquals(await server.next(), "ready\n");
      const client = lines(network, host, tool("connect", "late", at), { stdin: "piped" });
      assertEquals(await client.next(), "connected\n");
      assertEquals(await server.next(), "poured\n");
      const writer = client.child.stdin.getWriter();
      await writer.write(new Uint8Array(1));
      assertEquals(await client.next(), "all ECONNRESET\n");
      await writer.close();
      await Promise.all([server.done(), client.done()]);
    });
  });
}

test("a spliced connection that nobody accepts inside is reset", needs, async () => {
  await using network = await makeNetwork({ options: [...LOCAL, "8001"] });
  const before = network.descriptors;
  const call = JSON.stringify(Array.from({ length: 20 }, () => ["tcp", "127.0.0.1", 8001, 100]));
  const answers = JSON.parse(await network.must(network.host, ["python3", PORTS, "ask", call]));
  for (const { error } of answers) assert(error?.startsWith("ConnectionResetError"), error);
  assert(network.descriptors <= before + 64);
});

/** Connections at once; PENNE_FLOWS sets more. */
const FLOWS = Number(Deno.env.get("PENNE_FLOWS") ?? 1000);

test(`${FLOWS} flows from the host's loopback at once echo at the start and at the end`, needs, async () => {
  await using network = await makeNetwork({ options: [...LOCAL, "7000", "-u", "7000"] });
  const script = `${ROOT}tests/datapath/lab/flood.ts`;
  const server = lines(network, network.guest, [...DENO, script, "serve", "127.0.0.1", "7000"]);
  await server.next();
  const idle = network.flows;
  for (const kind of ["tcp", "udp"]) {
    const client = lines(network, network.host, [...DENO, script, "flows", kind, "127.0.0.1", "7000", `${FLOWS}`], {
      stdin: "piped",
    });
    const writer = client.child.stdin.getWriter();
    assertEquals(JSON.parse((await client.next())!), { "echo 0": FLOWS });
    assert(network.flows >= 2 * FLOWS);
    await writer.write(new TextEncoder().encode("go\n"));
    assertEquals(JSON.parse((await client.next())!), { "echo 0": FLOWS, "echo 1": FLOWS });
    await writer.close();
    await client.done();
    await client.child.status;
    if (kind === "tcp") await until("the connections have ended", () => network.flows <= idle + 64);
  }
  await server.done();
});

test("when the agent inside is killed or stopped, what comes from loopback takes the interface", needs, async (t) => {
  for (const signal of ["SIGKILL", "SIGSTOP"] as const) {
    await t.step(signal, async () => {
      await using network = await makeNetwork({ options: ["-t", "8001", "-u", "8001"] });
      network.spawn(network.guest, ["python3", PORTS, "serve", "8001"], { stderr: "inherit" });
      await listening(network, network.guest, 8001, true);
      const pids = await network.must(network.host, ["pgrep", "-P", `${network.pid}`, "-x", "penne-ports"]);
      Deno.kill(Number(pids), signal);
      const call = JSON.stringify(["tcp", "tcp", "udp"].map((kind) => [kind, "127.0.0.1", 8001, 1000]));
      const answers = JSON.parse(await network.must(network.host, ["python3", PORTS, "ask", call]));
      for (const { whole, peer, error } of answers) {
        assertEquals([error, whole, peer?.[0]], [undefined, true, GUEST4.gateway]);
      }
    });
  }
});

test("a pipe that is given back with bytes in it is lent again without them", UNLIMITED, () => {
  const pool = new PipePool();
  const block = new Block(40_000);
  const pipe = pool.borrow()!;
  assertEquals(writeAt(pipe.writer, block.at, 40_000), 40_000);
  pool.giveBack(pipe, 40_000);
  const again = pool.borrow();
  assertStrictEquals(again, pipe);
  assertEquals(readAt(pipe.reader, block.at, 1), -E.EAGAIN);
  const other = pool.borrow()!;
  assertNotStrictEquals(other, pipe);
  for (const one of [pipe, other]) closePipe(one);
});

test("more pipes than the pool keeps are lent, and no more are kept", UNLIMITED, () => {
  const pool = new PipePool();
  const borrowed = (): Pipe[] => Array.from({ length: 20 }, () => pool.borrow()!);
  const pipes = borrowed();
  for (const pipe of pipes) {
    assert(pipe.slots >= 16, `${pipe.slots}`);
    pool.giveBack(pipe, 0);
  }
  const again = borrowed();
  assertEquals(again.filter((pipe) => pipes.includes(pipe)).length, 8);
  for (const pipe of again) closePipe(pipe);
});

test("a pool that is disposed of has no pipe open but those that are lent", UNLIMITED, () => {
  const pool = new PipePool();
  const open = ({ reader }: Pipe): boolean => {
    try {
      return Deno.readLinkSync(`/proc/self/fd/${reader}`).startsWith("pipe:");
    } catch {
      return false;
    }
  };
  const [lent, kept] = [pool.borrow()!, pool.borrow()!];
  pool.giveBack(kept, 0);
  assertEquals([lent, kept].map(open), [true, true]);
  pool[Symbol.dispose]();
  assertEquals([lent, kept].map(open), [true, false]);
  closePipe(lent);
});
