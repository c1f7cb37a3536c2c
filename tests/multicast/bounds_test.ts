// What multicast groups may cost, and where nothing of them is received.

import { assertEquals, assertMatch } from "@std/assert";
import { test, until } from "../lib/helpers.ts";
import { GROUPS_MAX } from "../../mod/datapath/multicast/memberships.ts";
import { MIRRORS_MAX } from "../../mod/datapath/multicast/mirrors.ts";
import { GroupLab, NEEDS, socketsIn, untilAsync } from "./lab.ts";

const PORT = 23_000;
/** Groups that are joined at once. */
const FLOOD = 5000;

/** Descriptors of a process, and kibibytes of memory. */
async function cost(pid: number): Promise<[number, number]> {
  const status = await Deno.readTextFile(`/proc/${pid}/status`);
  return [[...Deno.readDirSync(`/proc/${pid}/fd`)].length, Number(/VmRSS:\s+(\d+)/.exec(status)![1])];
}

test("Thousands of groups cost little, and end with their sockets; --no-multicast joins none", NEEDS, async () => {
  await using lab = await GroupLab.open((follow) => follow.run(false));
  const { follow, inside, served } = lab;
  const pid = served.daemon.child.pid;
  const member = async (where: typeof inside, name: string, group: string, port: number) => {
    await where.open(name, 4);
    await where.bind(name, 4, port);
    await where.join(name, group);
  };
  const off = await socketsIn(follow, await follow.run(false, "--no-multicast"));
  await member(off, "off", "239.77.4.1", PORT);
  await member(inside, "on", "239.77.4.2", PORT);
  await lab.reach(4, "239.77.4.2", PORT, "on");
  // Both are told to penne with the join; this one came first.
  const groups = async () => await lab.groups(follow.lab.host, "up0");
  assertEquals((await groups()).includes("239.77.4.1"), false);

  const warnings = () => served.daemon.errors().split("\n").filter((line) => line.includes("warning"));
  await member(inside, "low", "239.77.4.3", 137);
  await until("there is a warning", () => warnings().length > 0);
  assertMatch(
    warnings()[0]!,
    /at port 137 does not come in: the port is privileged or reserved on the host/,
  );

  const [descriptors, memory] = await cost(pid);
  // Any of these sockets may be for any group: the groups that are there take all the room, and make it for others.
  await inside.do("bind many", FLOOD / 20, PORT + 1);
  await inside.join("on", "239.77.4.5");
  await untilAsync("each group has many ports", async () => {
    return Number(/239\.77\.4\.2 users (\d+)/.exec(await groups())?.[1]) > 50;
  });
  await inside.do("flood", inside.device, FLOOD, PORT + 1);
  const joined = async () => (await groups()).split("\n").filter((line) => line.includes("239.80.")).length;
  await untilAsync("the host is in many groups", async () => await joined() > 50);
  // The kernel inside reports them one after the other.
  await until("penne says that there are too many", () => {
    return warnings().join("\n").includes(`more than ${GROUPS_MAX} multicast groups`);
  });
  await lab.reach(4, "239.77.4.2", PORT, "on");
  const [descriptorsNow, memoryNow] = await cost(pid);
  const many = await joined();
  assertEquals(many <= GROUPS_MAX, true, `${many} groups`);
  assertEquals(descriptorsNow - descriptors <= MIRRORS_MAX + 20, true, `${descriptorsNow - descriptors} descriptors`);
  assertEquals(memoryNow - memory < 100_000, true, `${memoryNow - memory} kB`);
  await inside.do("close all", "flood ");
  await untilAsync("the host is in none of them", async () => await joined() === 0);
  await untilAsync("descriptors are closed", async () => (await cost(pid))[0] <= descriptors + 20);
  // It goes on.
  await member(inside, "later", "239.77.4.4", PORT + 1);
  await lab.reach(4, "239.77.4.4", PORT + 1, "later");
  assertEquals(warnings().length <= 8, true, warnings().join("\n"));
});
