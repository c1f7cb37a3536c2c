// Who asks `penne flows`: many at once, slow ones, wrong words, and those that leave; and what kinds of targets there are.

import "../../lib/preload.ts";
import { assert, assertEquals, assertMatch } from "@std/assert";
import { asUser, penne, ROOT, test, until } from "../../lib/helpers.ts";
import { must } from "../../lib/netlab.ts";
import { NEEDS, PortsLab, type Served } from "../ports/lab.ts";

const TRAFFIC = `${ROOT}tests/cli/flows/traffic.py`;
const ASK = `${ROOT}tests/cli/flows/ask.py`;
const PEER = "192.0.2.1";
/** Connections that are listed, and clients at once; PENNE_FLOWS and PENNE_CLIENTS set more. */
const FLOWS = Number(Deno.env.get("PENNE_FLOWS") ?? 100) * 5;
const CLIENTS = Number(Deno.env.get("PENNE_CLIENTS") ?? 100);

// deno-lint-ignore no-explicit-any -- as it is printed
type Json = any;

function lines(text: string): Json[] {
  return text.split("\n").filter((line) => line !== "").map((line) => JSON.parse(line));
}

/** Starts a program, and waits for its first line. */
async function begin(lab: PortsLab, argv: string[]) {
  const daemon = lab.start(argv, { stdin: "piped" });
  lab.defer(() => daemon.child.stdin.close().catch(() => {}));
  let over = false;
  daemon.ended.then(() => over = true);
  await until(`${argv.join(" ")} has begun`, () => over || daemon.output().includes("\n"));
  assert(!over, daemon.errors());
  return daemon;
}

function inside({ target }: Served, ...args: string[]): string[] {
  return ["nsenter", `--net=/proc/${target}/ns/net`, "python3", TRAFFIC, ...args];
}

async function serve(lab: PortsLab): Promise<void> {
  await begin(lab, ["nsenter", `--net=/run/netns/${lab.peer}`, "python3", TRAFFIC, "serve", "7000", "2"]);
}

/** Asks until something is so. */
async function become(what: string, ask: () => Promise<boolean>): Promise<void> {
  let [is, asking] = [false, false];
  let failure: unknown = null;
  await until(what, () => {
    if (failure) throw failure;
    if (!asking && !is) {
      asking = true;
      ask().then((so) => is = so, (error) => failure = error).finally(() => asking = false);
    }
    return is;
  });
}

/** Runs `penne flows`, which must succeed. */
async function flows(lab: PortsLab, ...args: string[]): Promise<string> {
  return await must(lab.on([penne(), "flows", ...args]));
}

test("many flows are listed whole while a transfer goes on, to many readers at once", NEEDS, async () => {
  await using lab = await PortsLab.open();
  await serve(lab);
  const served = await lab.run();
  await begin(lab, inside(served, "hold", PEER, "7000", `${FLOWS}`));
  const stream = await begin(lab, inside(served, "stream", PEER, "7001"));
  const list = JSON.parse(await flows(lab, "--json", served.target));
  const open = list.flows.filter(({ reached, state }: Json) => reached.port === 7000 && state === "open");
  assertEquals(open.length, FLOWS);
  assertEquals(new Set(open.map(({ inside }: Json) => inside.port)).size, FLOWS);
  const [total] = list.destinations.filter(({ port }: Json) => port === 7000);
  assertEquals([total.flows, total.active, total.refused], [FLOWS, FLOWS, 0]);
  const table = (await flows(lab, served.target)).split("\n");
  assertEquals(table.filter((line) => line.includes(`${PEER}:7000 `)).length, FLOWS + 1);
  const head = await must(lab.on(["bash", "-c", `set -o pipefail; ${penne()} flows ${served.target} | head -1`]));
  assertMatch(head, /^PROTO +DIR +INSIDE .*\n$/);

  // Each of many gets all of it; readers that take nothing, say nothing or leave in the middle stop nobody.
  const path = `${lab.place}/${served.id}`;
  const [whole, other] = lines(await must(lab.on(["python3", ASK, path, `${CLIENTS}`])));
  assertEquals(whole, Array(CLIENTS).fill(FLOWS + 1));
  assertEquals(other, "done");
  const again = JSON.parse(await flows(lab, "--json", served.target));
  assertEquals(again.flows.length, FLOWS + 1);
  const [before, after] = [list, again].map(({ flows }) =>
    flows.find(({ reached }: Json) => reached.port === 7001).sent
  );
  assert(after > before, `${after} bytes after ${before}`);
  await stream.child.stdin.close();
  await stream.ended;
  const { sent } = lines(stream.output().replace("begun\n", ""))[0];
  await become("all of it is counted", async () => {
    const { destinations } = JSON.parse(await flows(lab, "--json", served.target));
    return destinations.find(({ port }: Json) => port === 7001).sent === sent;
  });
});

test("a slow follower stops nothing, and is told how much it has lost", NEEDS, async () => {
  await using lab = await PortsLab.open(false);
  await serve(lab);
  const served = await lab.run(["--exclude", "192.0.2.66/32"]);
  const slow = lab.start(lab.on(["python3", ASK, `${lab.place}/${served.id}`, "slow"]), { stdin: "piped" });
  await until("it follows", () => slow.output().includes("following\n"));
  // One that is killed while it is told takes nobody with it.
  const killed = lab.start(lab.on([penne(), "flows", "--follow", served.target]));
  lab.start(inside(served, "drive", PEER, "7000", "2", "1"));
  await until("it is told", () => killed.output().includes("start: "));
  killed.child.kill("SIGKILL");
  await killed.ended;
  // Each datagram to a forbidden address is a flow that is refused at once.
  const count = 5000;
  await must(inside(served, "spray", "192.0.2.66", "9", `${count}`));
  await slow.child.stdin.close();
  assertEquals((await slow.ended).code, 0, slow.errors());
  const { starts, ends, lost } = lines(slow.output().replace("following\n", ""))[0];
  assert(lost > 0, "nothing was lost");
  const list = JSON.parse(await flows(lab, "--json", served.target));
  const [spray] = list.destinations.filter(({ port }: Json) => port === 9);
  assertEquals([spray.flows, spray.refused, spray.active], [count, count, 0]);
  // Three more flows, two of which go on; and the line that says what is lost counts itself what it says.
  assertEquals(starts + ends + lost, 2 * count + 3 + 1);

  const wrong: readonly [string[], number, RegExp][] = [
    [[], 2, /^penne: cannot use flows: TARGET is missing\nhint: /],
    [[served.target, "2"], 2, /^penne: cannot use flows with more than one target\n/],
    [["--folow", served.target], 2, /^penne: cannot use --folow: .*\nhint: did you mean --follow\?\n/],
    [["no-such-name"], 1, /^penne: cannot open "no-such-name": /],
    [["--follow", `${Deno.pid}`], 1, /^penne: cannot find a penne that serves .*\nhint: /],
  ];
  for (const [args, code, message] of wrong) {
    const result = await lab.sh(lab.on([penne(), "flows", ...args]));
    assertEquals([args, result.code, result.stdout], [args, code, ""]);
    assertMatch(result.stderr, message);
  }
});

test("flows of attach and of ports are told, with their direction, and to their user alone", NEEDS, async () => {
  await using lab = await PortsLab.open(false);
  await serve(lab);
  const name = `${lab.host}f`;
  await must(["ip", "netns", "add", name]);
  lab.defer(async () => void await new Deno.Command("ip", { args: ["netns", "del", name], stderr: "null" }).output());
  await begin(lab, lab.on(["python3", TRAFFIC, "serve", "7100", "1"]));
  await begin(lab, ["nsenter", `--net=/run/netns/${lab.peer}`, "python3", TRAFFIC, "names", PEER]);
  const dns = ["--dns-forward", "198.51.100.53", "--dns-host", PEER];
  const attach = lab.start(
    lab.on([
      penne(),
      "attach",
      "--status-fd",
      "1",
      "-t",
      "8000:7000",
      "-T",
      "6000:7100",
      "-U",
      "6000:7100",
      ...dns,
      name,
    ]),
  );
  await until("penne is ready", () => attach.output().includes('"event":"ready"'));
  await begin(lab, ["nsenter", `--net=/run/netns/${name}`, "python3", TRAFFIC, "serve", "7000", "1"]);
  await must(["nsenter", `--net=/run/netns/${lab.peer}`, "python3", TRAFFIC, "ask", "192.0.2.2", "8000"]);
  await must(lab.on(["python3", TRAFFIC, "ask", "127.0.0.1", "8000"]));
  await must(["nsenter", `--net=/run/netns/${name}`, "python3", TRAFFIC, "ask", "127.0.0.1", "6000"]);
  await must(["nsenter", `--net=/run/netns/${name}`, "python3", TRAFFIC, "ask", "127.0.0.1", "6000", "udp"]);
  const within = (...args: string[]) => must(["nsenter", `--net=/run/netns/${name}`, "python3", TRAFFIC, ...args]);
  assertEquals(await within("lookup", "198.51.100.53", "web.example.test"), `${PEER}\n`);
  await within("ask", PEER, "7000");
  const seen = async () => {
    const { destinations } = JSON.parse(await flows(lab, "--json", name));
    return destinations.map(({ protocol, direction, address, port, flows, active, sent, received, name }: Json) =>
      `${protocol} ${direction} ${address} ${port} ${flows} ${
        protocol === "tcp" ? active : 0
      } ${sent} ${received} ${name}`
    );
  };
  const expected = [
    "tcp in 192.0.2.1 7000 1 0 100 7 null",
    "tcp in 127.0.0.1 7000 1 0 100 7 null",
    "tcp out 127.0.0.1 7100 1 0 7 100 null",
    "udp out 127.0.0.1 7100 1 0 7 100 null",
    "udp out 192.0.2.1 53 1 0 34 50 null",
    "tcp out 192.0.2.1 7000 1 0 7 100 web.example.test",
  ];
  await become("all of it has ended", async () => `${await seen()}` === `${expected}`);
  const stranger = await lab.sh(lab.on(asUser([penne(), "flows", name]), true));
  assertEquals([stranger.code, stranger.stdout], [1, ""]);
  // The end of the namespace is the end of the following.
  await begin(lab, ["nsenter", `--net=/run/netns/${name}`, "python3", TRAFFIC, "hold", PEER, "7000", "1"]);
  const follower = lab.start(lab.on([penne(), "flows", "--follow", "--json", name]));
  await until("it follows", () => /"protocol":"tcp".*\n/.test(follower.output()));
  await must(["ip", "netns", "del", name]);
  assertEquals((await follower.ended).code, 0, follower.errors());
  const events = lines(follower.output()).filter(({ protocol }) => protocol === "tcp");
  assertEquals(events.map(({ event, reached, how }) => `${event} ${reached.port} ${how}`), [
    "start 7000 undefined",
    "end 7000 stopped",
  ]);
});

test("flows of penne pasta are told, and those that --allow refuses at ports inside", NEEDS, async () => {
  await using lab = await PortsLab.open();
  await serve(lab);
  const { child: { pid } } = lab.start(lab.on(["unshare", "-Urn", "sleep", "1000"]), { cwd: "/" });
  const own = Deno.readLinkSync("/proc/self/ns/net");
  await until("it has its namespace", () => Deno.readLinkSync(`/proc/${pid}/ns/net`) !== own);
  const pasta = lab.start(lab.on([penne(), "pasta", "-f", "--config-net", "--no-map-gw", `${pid}`]), { cwd: "/" });
  const enters = ["nsenter", `--net=/proc/${pid}/ns/net`];
  await become("it is served", async () => {
    const { stdout } = await lab.sh([...enters, "ip", "route", "show", "default"]);
    return stdout.includes("default") || Boolean(pasta.errors() && assert(false, pasta.errors()));
  });
  await must([...enters, "python3", TRAFFIC, "ask", PEER, "7000"]);
  const reached = async (target: string) => {
    const { destinations } = JSON.parse(await flows(lab, "--json", target));
    return destinations.filter(({ protocol }: Json) => protocol === "tcp").map((total: Json) => {
      const { direction, address, port, flows, refused, sent, received } = total;
      return `${direction} ${address} ${port} ${flows} ${refused} ${sent} ${received}`;
    });
  };
  assertEquals(await reached(`${pid}`), [`out ${PEER} 7000 1 0 7 100`]);

  const served = await lab.run(["--allow", `${PEER}:7000`, "-T", "6000"]);
  for (const [address, port] of [[PEER, "7000"], [PEER, "7001"], ["127.0.0.1", "6000"]] as const) {
    assertEquals((await lab.sh(inside(served, "ask", address, port))).code === 0, port === "7000");
  }
  assertEquals(await reached(served.target), [
    `out ${PEER} 7000 1 0 7 100`,
    `out ${PEER} 7001 1 1 0 0`,
    "out 127.0.0.1 6000 1 1 0 0",
  ]);
});
