// `penne flows`: what it tells, beside what a capture on the host has seen.

import "../../lib/preload.ts";
import { assert, assertEquals } from "@std/assert";
import { penne, ROOT, test, until } from "../../lib/helpers.ts";
import { type Daemon, must } from "../../lib/netlab.ts";
import { NEEDS, PortsLab, type Served } from "../ports/lab.ts";

const TRAFFIC = `${ROOT}tests/cli/flows/traffic.py`;
const PEER = "192.0.2.1";
const FIRST = 7000;
const PORTS = 20;
/** Flows of each kind; PENNE_FLOWS sets more. */
const FLOWS = Number(Deno.env.get("PENNE_FLOWS") ?? 500);

// deno-lint-ignore no-explicit-any -- as it is printed
type Json = any;

/** Runs a command of the programs inside, and waits for its end. */
async function inside({ target }: Served, ...args: string[]): Promise<string> {
  return await must(["nsenter", `--net=/proc/${target}/ns/net`, "python3", TRAFFIC, ...args]);
}

/** Starts a command of the programs, and waits for its first line. */
async function begin(lab: PortsLab, argv: string[]): Promise<Daemon> {
  const daemon = lab.start(argv, { stdin: "piped" });
  lab.defer(() => daemon.child.stdin.close().catch(() => {}));
  let over = false;
  daemon.ended.then(() => over = true);
  await until(`${argv.join(" ")} has begun`, () => over || daemon.output().includes("\n"));
  assert(!over, daemon.errors());
  return daemon;
}

async function beginInside(lab: PortsLab, { target }: Served, ...args: string[]): Promise<Daemon> {
  return await begin(lab, ["nsenter", `--net=/proc/${target}/ns/net`, "python3", TRAFFIC, ...args]);
}

async function serve(lab: PortsLab): Promise<void> {
  await begin(lab, ["nsenter", `--net=/run/netns/${lab.peer}`, "python3", TRAFFIC, "serve", `${FIRST}`, `${PORTS}`]);
}

function lines(text: string): Json[] {
  return text.split("\n").filter((line) => line !== "").map((line) => JSON.parse(line));
}

/** What identifies a flow in a capture, and what it has moved. */
function moved({ protocol, address, port, sent, received }: Json): string {
  return `${protocol} ${address} ${port} ${sent} ${received}`;
}

/** Runs `penne flows`, which must succeed. */
async function flows(lab: PortsLab, ...args: string[]): Promise<string> {
  return await must(lab.on([penne(), "flows", ...args]));
}

/** Follows the flows of a namespace, from now on: the start of one that is there has been told. */
async function follow(lab: PortsLab, served: Served, there: number, ...args: string[]): Promise<Daemon> {
  const daemon = lab.start(lab.on([penne(), "flows", "--follow", ...args, served.target]));
  await until("the flows that are there were told", () => daemon.output().split("\n").length > there);
  return daemon;
}

for (const user of [true, false]) {
  const who = user ? "a user" : "root";
  test(`every flow is told, with the bytes that a capture on the host saw, as ${who}`, NEEDS, async () => {
    await using lab = await PortsLab.open(user);
    await serve(lab);
    await must(lab.on(["sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647"], true));
    const served = await lab.run(["--exclude", "192.0.2.66/32"]);
    const held = await beginInside(lab, served, "hold", PEER, `${FIRST}`, "1");
    const sniffer = await begin(lab, lab.on(["python3", TRAFFIC, "sniff", "up0"], true));
    const followers = [await follow(lab, served, 1, "--json"), await follow(lab, served, 1, "--json")];
    await inside(served, "drive", PEER, `${FIRST}`, `${PORTS}`, `${FLOWS}`);
    const list = JSON.parse(await flows(lab, "--json", served.target));
    await sniffer.child.stdin.close();
    await sniffer.ended;
    const [, seen] = lines(sniffer.output().replace("sniffing", "{}"));
    assertEquals(seen.drops, 0);
    assertEquals(seen.flows.length, 3 * FLOWS);

    // The totals are those of the capture, and one connection that was there before.
    const totals = Map.groupBy(seen.flows as Json[], ({ protocol, port }) => `${protocol} ${port}`);
    for (const { protocol, direction, address, port, flows, sent, received, refused } of list.destinations) {
      const own = protocol === "tcp" && port === FIRST ? 1 : 0;
      const there = totals.get(`${protocol} ${port}`)!;
      const sum = (name: string) => there.reduce((sum, flow) => sum + flow[name], 0);
      assertEquals(
        [protocol, direction, address, port, flows, sent, received, refused],
        [protocol, "out", PEER, port, there.length + own, sum("sent"), sum("received"), 0],
      );
      totals.delete(`${protocol} ${port}`);
    }
    assertEquals([...totals.keys()], []);
    assertEquals(list.other.flows, 0);

    // Connections have ended, datagrams may be answered for a while.
    const live = Map.groupBy(list.flows as Json[], ({ protocol }) => protocol);
    for (const kind of ["udp", "icmp"]) assert((live.get(kind)?.length ?? 0) <= FLOWS);
    assert(live.get("tcp")!.some(({ reached, state }) => reached.port === FIRST && state === "open"));

    // Each is told at its start and at its end, the last ones when penne stops; both readers are told the same.
    await held.child.stdin.close();
    await held.ended;
    // A connection ends a moment after its program.
    for (const follower of followers) {
      await until("the ends of all connections were told", () => {
        const whole = follower.output().slice(0, follower.output().lastIndexOf("\n"));
        return lines(whole).filter(({ event, protocol }) => event === "end" && protocol === "tcp").length === FLOWS + 1;
      });
    }
    served.child.kill("SIGTERM");
    const told = await Promise.all(followers.map(async (follower) => {
      assertEquals((await follower.ended).code, 0, follower.errors());
      return lines(follower.output());
    }));
    for (const events of told) {
      const of = (event: string) => events.filter((one) => one.event === event);
      assertEquals([of("start").length, of("end").length, of("lost").length], [3 * FLOWS + 1, 3 * FLOWS + 1, 0]);
      const numbers = (event: string) => new Set(of(event).map(({ flow }) => flow));
      assertEquals(numbers("start").size, 3 * FLOWS + 1);
      assertEquals(numbers("end"), numbers("start"));
      const ends = of("end").filter(({ sent }) => sent > 0);
      assertEquals(
        ends.map(({ protocol, reached, sent, received }) => moved({ protocol, ...reached, sent, received })).sort(),
        seen.flows.map(moved).sort(),
      );
      // On a slow machine, datagrams may be so long ago that their flows have ended by themselves.
      const ways = new Set(of("end").map(({ protocol, how }) => `${protocol} ${how.replace("timed out", "stopped")}`));
      assertEquals([...ways].sort(), ["icmp stopped", "tcp closed", "udp stopped"]);
    }
  });
}
