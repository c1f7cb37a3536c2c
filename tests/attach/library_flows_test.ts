// Flows of library programs: listed and followed, of a namespace that the program itself serves.

import "../lib/preload.ts";
import { assertEquals } from "@std/assert";
import { sh, test, until } from "../lib/helpers.ts";
import { NetLab } from "../lib/netlab.ts";
import { fromFileUrl } from "../lib/paths.ts";

const MOD = new URL("../../mod/mod.ts", import.meta.url).href;
const TRAFFIC = fromFileUrl(new URL("../cli/flows/traffic.py", import.meta.url));
const NEEDS = ["root", "tun", "package:iproute2", "package:util-linux", "package:python3"] as const;

test("flows() lists, and followFlows() tells of starts and ends until the namespace is left", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  const guest = await lab.netns("guest");
  const server = lab.start(lab.in(lab.peer, ["python3", TRAFFIC, "serve", "7000", "1"]));
  await until("the server listens", () => server.output().includes("\n"));
  const directory = await Deno.makeTempDir({ prefix: "penne-library-" });
  lab.defer(() => Deno.remove(directory, { recursive: true }));
  const ask = (...kind: string[]) =>
    JSON.stringify(lab.in(guest, ["python3", TRAFFIC, "ask", "192.0.2.1", "7000", ...kind]));
  await Deno.writeTextFile(
    `${directory}/program.ts`,
    `
    import { attach, flows, followFlows } from ${JSON.stringify(MOD)};
    const run = async ([program, ...args]) => {
      const { success } = await new Deno.Command(program, { args, stdin: "null" }).output();
      if (!success) throw new Error(program + " " + args.join(" "));
    };
    const failure = async (body) => {
      try { await body(); return null; } catch (error) { return error.name + ": " + error.message; }
    };
    const before = await failure(() => flows("${guest}"));
    const attachment = attach(["${guest}"]);
    const told = [];
    const following = (async () => {
      for await (const { event, protocol, how } of followFlows("${guest}")) told.push([event, protocol, how ?? null]);
    })();
    // One that is left before its first event, and one in the middle.
    await followFlows("${guest}").return();
    const other = (async () => {
      for await (const { event } of followFlows("${guest}")) return event;
    })();
    const aborted = new AbortController();
    const late = failure(async () => {
      for await (const { event } of followFlows("${guest}", { signal: aborted.signal })) if (event === "end") aborted.abort("late");
    });
    await run(${ask()});
    await run(${ask("udp")});
    let list;
    do list = await flows("${guest}"); while (list.flows.length > 1);
    const { destinations, other: others } = list;
    const first = await other;
    await late;
    attachment.close();
    await following;
    const after = await failure(() => flows("${guest}"));
    console.log(JSON.stringify({ before, told, first, list: list.flows, destinations, others, after }));
    `,
  );
  const config = fromFileUrl(new URL("../../deno.json", import.meta.url));
  const argv = [Deno.execPath(), "run", "-A", "--no-check", "--config", config, `${directory}/program.ts`];
  const { code, stdout, stderr } = await sh(lab.in(lab.host, ["timeout", "120", ...argv]));
  assertEquals(code, 0, stderr);
  const { before, told, first, list, destinations, others, after } = JSON.parse(stdout.trim().split("\n").at(-1)!);
  const unserved = `PenneError: cannot find a penne that serves "${guest}": there is none that you may ask`;
  assertEquals([before, after], [unserved, unserved]);
  assertEquals(told.toSorted(), [
    ["end", "tcp", "closed"],
    ["end", "udp", "stopped"],
    ["start", "tcp", null],
    ["start", "udp", null],
  ]);
  assertEquals(first, "start");
  // deno-lint-ignore no-explicit-any -- as it is printed
  const short = ({ protocol, direction, sent, received, name }: any) => [protocol, direction, sent, received, name];
  assertEquals(list.map(short), [["udp", "out", 7, 100, null]]);
  assertEquals(destinations.map(short), [["tcp", "out", 7, 100, null], ["udp", "out", 7, 100, null]]);
  assertEquals(others, { flows: 0, active: 0, refused: 0, sent: 0, received: 0 });
});
