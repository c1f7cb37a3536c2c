// Members of given sources; and routers on the link, and kernels inside, that speak old versions of IGMP and MLD.

import { assertEquals } from "@std/assert";
import { test, until } from "../lib/helpers.ts";
import { must } from "../lib/netlab.ts";
import { FAMILIES, GroupLab, NEEDS, untilAsync } from "./lab.ts";

const PORT = 21_000;

/** Groups of given sources, two sources, and both as /proc/net/mcfilter has them. */
const SOURCES = {
  4: {
    group: "232.77.1.9",
    sources: ["192.0.2.7", "192.0.2.8"],
    hex: "0xe84d0109",
    hexes: ["0xc0000207", "0xc0000208"],
  },
  6: {
    group: "ff3e::77:9",
    sources: ["2001:db8::7", "2001:db8::8"],
    hex: "ff3e0000000000000000000000770009",
    hexes: ["20010db8000000000000000000000007", "20010db8000000000000000000000008"],
  },
} as const;

/** Receives one source, then two, then the other one, then none. */
async function sources(lab: GroupLab, family: 4 | 6): Promise<void> {
  const { inside, peer, follow: { lab: net } } = lab;
  const { group, sources: [first, second], hex, hexes } = SOURCES[family];
  const [socket, other] = [`ssm${family}`, `other${family}`];
  /** Waits until the host asks its routers for these sources of the group, and no others. */
  const untilFilter = (...wanted: string[]) =>
    untilAsync(`the host wants ${wanted} of ${group}`, async () => {
      const { stdout } = await net.run(net.host, ["cat", `/proc/net/mcfilter${family === 6 ? "6" : ""}`]);
      const lines = stdout.split("\n").filter((line) => line.includes(hex));
      const found = lines.map((line) => line.trim().split(/\s+/)).filter(([, , , , included]) => included === "1");
      return found.map(([, , , source]) => source).sort().join() === wanted.join();
    });
  await inside.open(socket, family);
  await inside.bind(socket, family, PORT);
  await inside.join(socket, group, first);
  await lab.reach(family, group, PORT, socket);
  await untilFilter(hexes[0]);
  await peer.open(other, family);
  await peer.bind(other, family, 0, second);
  await peer.send(other, group, PORT, "unwanted");
  await peer.send(`sender${family}`, group, PORT, "wanted");
  await inside.untilText(socket, "wanted");
  assertEquals((await inside.texts(socket)).includes("unwanted"), false);
  await inside.join(socket, group, second);
  await untilAsync("the second source comes in", async () => {
    await peer.send(other, group, PORT, "second");
    return (await inside.texts(socket)).includes("second");
  });
  await untilFilter(...hexes);
  await inside.leave(socket, group, first);
  await untilFilter(hexes[1]);
  await inside.leave(socket, group, second);
  await lab.untilMember(group, false);
}

test("Sources are asked for, and old versions of IGMP and MLD are spoken outside and inside", [
  ...NEEDS,
  "package:tcpdump",
], async () => {
  await using lab = await GroupLab.open((follow) => follow.run(false));
  const { follow: { lab: net }, follow, served, inside, peer } = lab;
  await net.ip(net.peer, "addr", "add", "192.0.2.8/24", "dev", "down0");
  await net.ip(net.peer, "addr", "add", "2001:db8::8/64", "dev", "down0", "nodad");
  await net.ip(net.peer, "addr", "add", "fe80::7/64", "dev", "down0", "nodad");
  for (const { family } of FAMILIES) await sources(lab, family);

  // Reports of MLD have a hop-by-hop header.
  const reports = ["tcpdump", "-l", "-n", "-v", "-i", "down0", "igmp or (ip6 and ip6[6] == 0)"];
  const capture = net.start(net.in(net.peer, reports));
  await until("the capture begins", () => capture.errors().includes("listening on"));
  const untilSeen = (pattern: RegExp) => until(`${pattern} is captured`, () => pattern.test(capture.output()));
  /** Joins a group with a new socket, which is received; `meanwhile` comes before that is tried once more. */
  const join = async (family: number, group: string, meanwhile?: () => Promise<void>) => {
    await inside.open(group, family);
    await inside.bind(group, family, PORT);
    await inside.join(group, group);
    await lab.reach(family, group, PORT, group);
    if (!meanwhile) return;
    await meanwhile();
    await peer.send(`sender${family}`, group, PORT, "again");
    await inside.untilText(group, "again");
  };

  await join(4, "239.77.2.1", async () => {
    await peer.do("query", 2, peer.device);
    await untilSeen(/igmp v2 report 239\.77\.2\.1\b/);
  });
  await inside.leave("239.77.2.1", "239.77.2.1");
  await untilSeen(/igmp leave 239\.77\.2\.1\b/);
  await join(6, "ff05::77:21", async () => {
    await peer.do("query", 0, peer.device);
    await untilSeen(/multicast listener report ?max resp delay: \d+ addr: ff05::77:21\b/);
  });
  await inside.leave("ff05::77:21", "ff05::77:21");
  await untilSeen(/multicast listener done ?max resp delay: \d+ addr: ff05::77:21\b/);
  await peer.do("query", 1, peer.device);
  await untilAsync("the host speaks version 1 of IGMP", async () => {
    return /\bup0\b.*V1/.test((await net.run(net.host, ["cat", "/proc/net/igmp"])).stdout);
  });
  await join(4, "239.77.2.2");
  await untilSeen(/igmp v1 report 239\.77\.2\.2\b/);
  await inside.leave("239.77.2.2", "239.77.2.2");
  await lab.untilMember("239.77.2.2", false);

  for (const [family, setting, version] of [[4, "force_igmp", 2], [4, "force_igmp", 1], [6, "force_mld", 1]] as const) {
    const path = `/proc/sys/net/ipv${family}/conf/all/${setting}_version`;
    await must(follow.inside(served, ["sh", "-c", `echo ${version} >${path}`]));
    const group = family === 4 ? `239.77.3.${version}` : `ff05::77:3${version}`;
    await join(family, group);
    // Who speaks version 1 of IGMP reports no leave.
    if (setting === "force_igmp" && version === 1) continue;
    await inside.leave(group, group);
    await lab.untilMember(group, false);
  }
});
