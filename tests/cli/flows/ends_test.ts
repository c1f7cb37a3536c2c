// What is told of flows at their end, and while their readers are slow: on the control socket, and of connections that are
// passed on between loopbacks.

import "../../lib/preload.ts";
import { assert, assertEquals } from "@std/assert";
import { receivePacket } from "../../../ffi/agent/channel.ts";
import { E } from "../../../ffi/core/errno.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { Block } from "../../../ffi/core/quick.ts";
import { MSG, SOCK } from "../../../ffi/net/constants.ts";
import { accept, openListener, type Peer } from "../../../ffi/net/listener.ts";
import { connect, localPort, resetOnClose, sendAt, socket } from "../../../ffi/net/socket.ts";
import { send } from "../../../ffi/net/unix.ts";
import { readAll } from "../../../ffi/sys/file.ts";
import { encode } from "../../../mod/control/message.ts";
import { ControlPlace } from "../../../mod/control/place.ts";
import { ControlServer } from "../../../mod/control/server.ts";
import { PIPES } from "../../../mod/datapath/splice/pipes.ts";
import { Splices } from "../../../mod/datapath/splice/splices.ts";
import { type Counted, END } from "../../../mod/flows/contract.ts";
import { Ledger } from "../../../mod/flows/ledger.ts";
import { followFlows } from "../../../mod/flows/stream.ts";
import { PROTOCOL } from "../../../mod/inet/header.ts";
import { ipWords } from "../../../mod/inet/ip_words.ts";
import { Reactor } from "../../../mod/reactor/reactor.ts";
import { test } from "../../lib/helpers.ts";

const LOOPBACK = ipWords(4, 0, 0, 0xffff, 0x7f000001);

/** Begins to count a flow of UDP. */
function begin(ledger: Ledger, port: number): Counted {
  const facts = { inside: LOOPBACK, insidePort: 1, outside: LOOPBACK, outsidePort: port, state: null };
  const flow: Counted = { slot: 0, facts: { protocol: PROTOCOL.UDP, inward: false, ...facts } };
  ledger.begin(flow, PROTOCOL.UDP, LOOPBACK, port, false, performance.now());
  return flow;
}

test("a follower that has not read all when penne stops gets the rest, or is told how much is missing", async () => {
  const directory = Deno.makeTempDirSync({ prefix: "penne-flows-" });
  using owned = new DisposableStack();
  owned.defer(() => Deno.removeSync(directory, { recursive: true }));
  const place = owned.use(ControlPlace.open(directory, true)!);
  const reactor = owned.use(new Reactor());
  for (const count of [1, 1000, 20_000]) {
    const ledger = new Ledger();
    const server = new ControlServer(reactor, place, "flows", {
      answer: () => ({ ok: true }),
      stream: (_, onMore) => ({ follows: true, open: () => Promise.resolve(followFlows(ledger, onMore)) }),
    });
    const clients = [0, 1].map(() => owned.use(place.connect("flows", 10_000)!));
    for (const client of clients) send(client, encode({ call: "flows.follow" }));
    const followers = () => (ledger.observer as { all?: Set<unknown> } | null)?.all?.size;
    for (let turns = 0; turns < 500 && followers() !== 2; turns++) {
      reactor.turn(10);
      await reactor.settle();
    }
    assertEquals(followers(), 2);
    const flows = Array.from({ length: count }, (_, i) => begin(ledger, i + 1));
    for (let turns = 0; turns < 100; turns++) reactor.turn(0);
    ledger.stopping = true;
    for (const flow of flows) ledger.end(flow, performance.now());
    server[Symbol.dispose]();
    // One takes the pipe that comes at the end, and the other one does not.
    for (const [i, client] of clients.entries()) {
      const buffer = new Uint8Array(1 << 18);
      const lines: { event?: string; how?: string; count?: number }[] = [];
      for (let received; (received = receivePacket(client, true, Infinity, buffer)) !== "ended";) {
        if (received === "late" || received === "malformed") throw new Error(received);
        using pipe = received.fd;
        const bytes = pipe && i === 0 ? readAll(pipe) : received.packet;
        lines.push(...new TextDecoder().decode(bytes).trim().split("\n").map((line) => JSON.parse(line)));
      }
      assertEquals<object | undefined>(lines.shift(), { ok: true });
      const told = lines.filter(({ event }) => event !== "lost").length;
      const lost = lines.reduce((sum, { count = 0 }) => sum + count, 0);
      assertEquals(told + lost, 2 * count);
      const missing = count > 1000 || count > 1 && i === 1;
      assertEquals([lost > 0, lines.at(-1)!.event === "lost", lines.at(-1)!.how], [
        missing,
        missing,
        missing ? undefined : "stopped",
      ]);
    }
  }
});

test("a flow that was answered is none that never was open, whatever the host has said of it", () => {
  const ledger = new Ledger();
  const ends: unknown[] = [];
  ledger.observer = { began: () => {}, ended: (_, how) => ends.push(how) };
  for (const how of [END.REFUSED, END.UNREACHABLE, END.NO_ROOM]) {
    for (const received of [0, 7]) {
      const flow = begin(ledger, 9);
      ledger.how[flow.slot] = how;
      ledger.received[flow.slot]! += received;
      ledger.end(flow, performance.now());
    }
  }
  assertEquals(ends, [END.REFUSED, END.TIMED_OUT, END.UNREACHABLE, END.TIMED_OUT, END.NO_ROOM, END.NO_ROOM]);
  assertEquals([...ledger.totals.kept.values()].map(({ flows, refused }) => [flows, refused]), [[6, 3]]);
});

test("a connection whose reader is slow is open, and one that its own side resets was not refused", () => {
  using owned = new DisposableStack();
  const opened = (s: number) => (assert(s >= 0, `${s}`), owned.use(new Fd(s)));
  const binding = { address: LOOPBACK, dual: false, port: 0, interface: null, freebind: false };
  const [port, target] = [0, 1].map(() => opened(openListener(SOCK.STREAM, binding))) as [Fd, Fd];
  const reactor = owned.use(new Reactor());
  const ledger = new Ledger();
  owned.defer(() => PIPES[Symbol.dispose]());
  const splices = owned.use(new Splices(reactor, ledger));
  /** Connects, does something with the connection, and has it passed on. */
  const passOn = (act: (client: Fd) => void = () => {}) => {
    const client = opened(socket(4, SOCK.STREAM));
    assert([0, -E.EINPROGRESS].includes(connect(client.number, LOOPBACK, localPort(port.number))));
    const peer: Peer = { address: ipWords(), port: 0, scope: 0 };
    const accepted = opened(accept(port.number, peer));
    act(client);
    assertEquals(splices.accept(accepted, socket, LOOPBACK, localPort(target.number), peer, false), 0);
    return client;
  };
  const client = passOn();
  const data = new Block(1 << 16);
  // Nobody takes it, so it fills all buffers.
  for (let idle = 0; idle < 5;) {
    const { progress } = splices;
    let sent = 0;
    while (sendAt(client.number, data.at, data.bytes.length, MSG.DONTWAIT | MSG.NOSIGNAL) > 0) sent++;
    reactor.turn(20);
    idle = sent > 0 || splices.progress > progress ? 0 : idle + 1;
  }
  assertEquals(ledger.flows[1]!.facts.state, "open");
  passOn((hasty) => {
    resetOnClose(hasty.number);
    hasty.close();
  });
  const [total] = [...ledger.totals.kept.values()];
  for (let turns = 0; turns < 100 && total!.active > 1; turns++) reactor.turn(100);
  assertEquals([total!.flows, total!.active, total!.refused], [2, 1, 0]);
});

test("thousands of destinations that do not answer take no room from those that do, and nothing is lost", () => {
  const ledger = new Ledger();
  const [known, open] = [begin(ledger, 7), begin(ledger, 8)];
  ledger.received[known.slot]! += 5;
  ledger.end(known, 1);
  for (let i = 0; i < 30_000; i++) ledger.end(begin(ledger, 100 + i), 2 + i);
  const late = begin(ledger, 9);
  ledger.received[late.slot]! += 6;
  ledger.end(late, 50_000);
  const { kept, other } = ledger.totals;
  const ports = new Set([...kept.values()].map(({ port }) => port));
  assertEquals([7, 8, 9, 100, 100 + 29_999].map((port) => ports.has(port)), [true, true, true, false, true]);
  assert(kept.size <= 8192);
  assertEquals([...kept.values(), other].reduce((sum, { flows }) => sum + flows, 0), 30_003);
  ledger.end(open, 50_001);
  assertEquals(other.active, 0);
  // While all flows go on, there is no room for more.
  const many = Array.from({ length: 8192 }, (_, i) => begin(ledger, 40_000 + i));
  begin(ledger, 50_000);
  assertEquals([other.active, kept.size], [1, 8192]);
  for (const flow of many) ledger.end(flow, 60_000);
});

test("where few destinations have ended, room is not made with each new one", () => {
  const ledger = new Ledger();
  const { kept, other } = ledger.totals;
  for (let i = 1; i < 8192; i++) begin(ledger, i);
  const last = () => [...kept.values()].at(-1)!.port;
  // The first one has room, and the second one gets it.
  for (let i = 0; i < 513; i++) ledger.end(begin(ledger, 10_000 + i), i);
  assertEquals([last(), kept.size, other.flows], [10_001, 8192, 512]);
  ledger.end(begin(ledger, 20_000), 600);
  assertEquals([last(), kept.size, other.flows], [20_000, 8192, 513]);
});

test("thousands of strangers take no room from what is reached", () => {
  const ledger = new Ledger();
  for (let i = 0; i < 10_000; i++) ledger.stranger(PROTOCOL.UDP, ipWords(4, 0, 0, 0xffff, 0x0a000000 + i), 9, 1, 0);
  const { kept, other } = ledger.totals;
  assert(kept.size < 8192 && kept.size + other.received === 10_000);
  ledger.end(begin(ledger, 7), performance.now());
  assertEquals([...kept.values()].at(-1)!.port, 7);
});
