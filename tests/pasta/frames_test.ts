// What penne under the name pasta says of frames and events: captures, a line for each frame, statistics.

import { assert, assertEquals, assertMatch } from "@std/assert";
import { type How, sh, test } from "../lib/helpers.ts";
import { must, NetLab } from "../lib/netlab.ts";
import { readPcap } from "../datapath/lab/pcap.ts";
import { pasta } from "./lib.ts";

const NEEDS = ["root", "user", "user namespaces", "tun", "package:iproute2", "package:iputils-ping"] as const;
const USER: How = { user: true };
const NONE = ["-t", "none", "-u", "none", "-T", "none", "-U", "none"];
const PING = ["ping", "-c", "2", "-i", "0.2", "-W", "30", "192.0.2.1"];

/** A host with a peer that answers pings, and a directory of the test user's. */
async function openPings(): Promise<NetLab & { directory: string }> {
  const lab = await NetLab.open() as NetLab & { directory: string };
  await lab.usual();
  await must(lab.in(lab.host, ["sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647"]));
  lab.directory = await Deno.makeTempDir({ prefix: "penne-frames-" });
  await Deno.chmod(lab.directory, 0o777);
  lab.defer(() => Deno.remove(lab.directory, { recursive: true }));
  return lab;
}

test(
  "a capture begins as pasta's does, and one that cannot be opened is a warning",
  [...NEEDS, "package:passt"],
  async () => {
    await using lab = await openPings();
    const files: Uint8Array[] = [];
    for (const program of [pasta(), "pasta"]) {
      const path = `${lab.directory}/${files.length}`;
      const words = [program, "--config-net", "--no-map-gw", ...NONE, "-p", path, "--", ...PING];
      const { code, stderr } = await lab.run(lab.host, words, USER);
      assertEquals(code, 0, stderr);
      assertMatch(stderr, new RegExp(`^Saving packet capture to ${path}$`, "m"));
      files.push(await Deno.readFile(path));
      assertEquals(Deno.statSync(path).mode! & 0o777, 0o600);
    }
    const [ours, theirs] = files;
    assertEquals(ours!.subarray(0, 24), theirs!.subarray(0, 24));
    // Requests and answers alike.
    const pings = (file: Uint8Array) =>
      readPcap(file).filter(({ bytes }) => bytes[12] === 8 && bytes[13] === 0 && bytes[23] === 1).map(({ bytes }) =>
        bytes[34]
      );
    assertEquals(pings(ours!).sort(), [0, 0, 8, 8]);
    assertEquals(pings(theirs!).sort(), [0, 0, 8, 8]);

    const run = (...options: string[]) => lab.run(lab.host, [pasta(), ...NONE, ...options, "--", "true"], USER);
    const failed = await run("-p", "/no/such/file");
    assertEquals([failed.code, failed.stderr], [
      0,
      "Couldn't open pcap file /no/such/file: No such file or directory\n",
    ]);
    const quiet = await run("-q", "-p", `${lab.directory}/quiet`);
    assertEquals([quiet.code, quiet.stderr], [0, ""]);
    readPcap(await Deno.readFile(`${lab.directory}/quiet`));
  },
);

test("--trace says what each frame is, in the log file too", NEEDS, async () => {
  await using lab = await openPings();
  const log = `${lab.directory}/log`;
  const lines = [
    /^from inside: ICMP type 8 192\.0\.2\.\d+ > 192\.0\.2\.1, 98 bytes$/m,
    /^to inside: ICMP type 0 192\.0\.2\.1 > 192\.0\.2\.\d+, 98 bytes$/m,
    /^from inside: ARP request 192\.0\.2\.\d+ > 192\.0\.2\.77, 42 bytes$/m,
    /^to inside: ARP reply 192\.0\.2\.77 > 192\.0\.2\.\d+, 60 bytes$/m,
    /^from inside: TCP SYN 192\.0\.2\.\d+ port \d+ > 192\.0\.2\.1 port 9, 74 bytes$/m,
    /^to inside: TCP RST\+ACK 192\.0\.2\.1 port 9 > 192\.0\.2\.\d+ port \d+, 54 bytes$/m,
    /^from inside: UDP 192\.0\.2\.\d+ port \d+ > 192\.0\.2\.1 port 9, 43 bytes$/m,
    /^from inside: ICMPv6 type \d+ \S+ > \S+, \d+ bytes$/m,
  ];
  // What has an answer comes last, so that all before it has been seen.
  const datagrams = "echo >/dev/udp/192.0.2.77/9; echo >/dev/udp/192.0.2.1/9";
  const inside = `${datagrams}; (echo >/dev/tcp/192.0.2.1/9) 2>/dev/null; ${PING.join(" ")}`;
  const run = (...options: string[]) => {
    const words = [pasta(), "--config-net", "--no-map-gw", ...NONE, ...options, "--", "bash", "-c", inside];
    return lab.run(lab.host, words, USER);
  };
  const { code, stderr } = await run("--trace");
  assertEquals(code, 0, stderr);
  for (const line of lines) assertMatch(stderr, line);
  assertEquals((await run("--trace", "-l", log)).stderr, "");
  const text = await Deno.readTextFile(log);
  for (const line of lines) assertMatch(text.replace(/^\S+Z penne: debug: /gm, ""), line);
  // --debug says less, and a later --quiet takes both back.
  for (const options of [["-d"], ["--trace", "-q"]]) {
    assertEquals((await run(...options)).stderr.match(/^(from|to) inside/m), null);
  }
});

test("--stats counts events in columns, at most as often as asked for, and only if there were any", NEEDS, async () => {
  await using lab = await openPings();
  const run = (...options: string[]) => {
    const inside = `sleep 0.3; ping -c 10 -i 0.2 -W 30 192.0.2.1`;
    return lab.run(
      lab.host,
      [pasta(), "--config-net", "--no-map-gw", ...NONE, ...options, "--", "sh", "-c", inside],
      USER,
    );
  };
  const rows = (text: string) =>
    text.split("\n").filter((line) => /^( +\d+)+$/.test(line)).map((row) => row.trim().split(/ +/).map(Number));
  const { code, stderr } = await run("-f", "--stats", "1");
  assertEquals(code, 0, stderr);
  const titles = stderr.split("\n").filter((line) => /^[ |]+[a-zA-Z]/.test(line)).map((line) =>
    line.replace(/^[ |]+/, "")
  );
  const seen = rows(stderr);
  // Two seconds at least; a machine that is loaded takes longer.
  assert(seen.length >= 2, stderr);
  for (const row of seen) assertEquals(row.length, titles.length);
  for (const title of ["ping socket", "interface"]) {
    const column = seen.map((row) => row[titles.indexOf(title)]!);
    assert(
      column.every((count, i) => i === 0 || count >= column[i - 1]!) && column.at(-1)! >= 3,
      `${title}: ${column}`,
    );
  }
  assertEquals(rows((await run("-f", "--stats", "1000")).stderr).length, 1);
  const early = await sh([pasta(), "--stats", "1", "-f", "true"], USER);
  assertEquals([early.code, early.stderr], [1, "Can't display statistics if not running in foreground\n"]);
});
