// Captures: what they contain, how they end, and that nobody waits for them.

import "../lib/preload.ts";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { type How, penne, ROOT, sh, test, until } from "../lib/helpers.ts";
import { must, NetLab } from "../lib/netlab.ts";
import { listening, makeNetwork, PEER4 } from "../datapath/lab/network.ts";
import { carried, readPcap, streamOf } from "../datapath/lab/pcap.ts";

const NEEDS = ["root", "user", "user namespaces", "tun", "package:iproute2", "package:util-linux"] as const;
const USER: How = { user: true };
const PORTS = `${ROOT}tests/datapath/lab/ports.py`;
/** A program that answers one datagram with twenty. */
const BURST = `
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("0.0.0.0", 9000))
while True:
    data, peer = s.recvfrom(100)
    for i in range(20): s.sendto(bytes([i]) * 100, peer)
`;

/** A directory that everybody may write to. */
async function openDirectory(): Promise<AsyncDisposable & { path: string }> {
  const path = await Deno.makeTempDir({ prefix: "penne-capture-" });
  await Deno.chmod(path, 0o777);
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}

/** A host with a peer that answers pings. */
async function openPings(): Promise<NetLab> {
  const lab = await NetLab.open();
  await lab.usual();
  await must(lab.in(lab.host, ["sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647"]));
  return lab;
}

/** A command line inside that makes frames: so many pings of 1400 bytes, and one word at the end. */
const flood = (count: number) => ["sh", "-c", `ping -f -q -s 1400 -c ${count} -w 600 192.0.2.1 >/dev/null; echo end`];

test(
  "a capture has both directions of what passes the interface, each datagram by itself",
  [...NEEDS, "package:python3", "package:tcpdump"],
  async () => {
    await using directory = await openDirectory();
    const path = `${directory.path}/frames`;
    const start = Date.now();
    await using network = await makeNetwork({ options: ["--pcap", path] });
    network.spawn(network.peer, ["python3", PORTS, "serve", "8001"]);
    network.spawn(network.peer, ["python3", "-c", BURST]);
    await listening(network, network.peer, 8001, true);
    const calls = JSON.stringify([["tcp", PEER4, 8001, 3_000_000]]);
    const answers = JSON.parse(await network.must(network.guest, ["python3", PORTS, "ask", calls]));
    assertEquals(answers[0].whole, true);
    const ask = `import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(60)
s.connect(("${PEER4}", 9000)); s.send(b"x"); [s.recv(200) for i in range(20)]`;
    await network.must(network.guest, ["python3", "-c", ask]);
    let file = new Uint8Array();
    const read = () => readPcap(file, "cut").map(carried).filter((packet) => packet !== null);
    const burst = () => read().filter(({ protocol, ports }) => protocol === 17 && ports[0] === 9000);
    await until("the last of it is recorded", () => {
      file = Deno.readFileSync(path); // more may come
      return burst().length === 20;
    });
    const frames = readPcap(file, "cut");
    // The clock of the host may be set meanwhile, but not by much.
    for (const { time } of frames) assert(time >= start - 60_000 && time <= Date.now() + 60_000, `${time}`);
    const packets = read();
    const [question, answer] = [packets.find(({ ports }) => ports[1] === 8001)!.ports[0], 8001].map((port) =>
      streamOf(packets, port)
    );
    // The question is a line with the size, and data; the answer a line of JSON, and the same data.
    const [data, echo] = [question!, answer!].map((stream) => stream.subarray(stream.indexOf(10) + 1));
    assertEquals(data!.length, 3_000_000);
    assert(echo!.length === data!.length && echo!.every((byte, i) => byte === data![i]));
    assertEquals(
      burst().map(({ payload }) => [payload.length, payload[0]]),
      Array.from({ length: 20 }, (_, i) => [100, i]),
    );
    const whole = frames.reduce((sum, { bytes }) => sum + 16 + bytes.length, 24);
    await Deno.writeFile(`${path}.copy`, file.subarray(0, whole));
    const dump = await sh(["tcpdump", "-nr", `${path}.copy`]);
    assertEquals([dump.code, dump.stdout.trim().split("\n").length], [0, frames.length]);
    assertEquals(Deno.statSync(path).mode! & 0o777, 0o600);
  },
);

test("a capture can be read when penne was killed", [...NEEDS, "package:iputils-ping"], async () => {
  await using lab = await openPings();
  await using directory = await openDirectory();
  const path = `${directory.path}/frames`;
  for (let i = 0; i < 10; i++) {
    await Deno.remove(path).catch(() => {});
    const size = () => Deno.statSync(path).size;
    const argv = lab.in(lab.host, [penne(), "run", "-p", path, "--", ...flood(1_000_000)]);
    const { child, ended } = lab.start(argv, { cwd: "/" });
    await until("there are frames", () => {
      try {
        return size() > 50_000 * (i + 1);
      } catch {
        return false;
      }
    });
    child.kill("SIGKILL");
    await ended;
    // The kernel may cut the last write short.
    assert(readPcap(await Deno.readFile(path), "cut").length > 30);
  }
});

test(
  "a full disc, a limit and a reader that goes are one warning each, and the network goes on",
  [...NEEDS, "package:iputils-ping", "package:coreutils"],
  async () => {
    await using directory = await openDirectory();
    await using lab = await openPings();
    const run = (options: string[], before: string[] = []) =>
      lab.run(lab.host, [...before, penne(), "run", ...options, "--", ...flood(500)]);
    await must(["mount", "-t", "tmpfs", "-o", "size=128k", "none", directory.path]);
    lab.defer(() => must(["umount", "--lazy", directory.path]).then(() => {}));
    const path = `${directory.path}/frames`;
    const full = await run(["--pcap", path]);
    const why = (reason: string, of = path) => `penne: warning: the capture "${of}" has ended: ${reason}\n`;
    assertEquals([full.code, full.stdout, full.stderr], [0, "end\n", why("No space left on device")]);
    const size = Deno.statSync(path).size;
    assert(size > 100_000 && size <= 128 << 10, `${size}`);
    assert(readPcap(await Deno.readFile(path)).length > 60);

    const limited = await run(["--pcap", path], ["prlimit", "--fsize=50000"]);
    assertEquals([limited.code, limited.stdout, limited.stderr], [0, "end\n", why("File too large")]);
    assert(readPcap(await Deno.readFile(path)).length > 30);

    const device = await run(["--pcap", "/dev/full"]);
    assertEquals([device.code, device.stderr], [0, why("No space left on device", "/dev/full")]);

    const fifo = `${directory.path}/fifo`;
    await must(["mkfifo", fifo]);
    // Open both ways, it is open at once. Frames come when the reader has gone, too.
    const gone = `${directory.path}/gone`;
    const read = `exec 3<>${fifo}; echo open; head -c 10000 <&3 >/dev/null; exec 3<&-; touch ${gone}`;
    const reader = lab.start(["sh", "-c", read]);
    await until("the FIFO has a reader", () => reader.output() === "open\n");
    const frames = flood(50).at(-1)!;
    const inside = `${frames}; while [ ! -e ${gone} ]; do sleep 0.05; done; ${frames}`;
    const without = await lab.run(lab.host, [penne(), "run", "--pcap", fifo, "--", "sh", "-c", inside]);
    await reader.ended;
    assertEquals([without.code, without.stdout, without.stderr], [0, "end\nend\n", why("Broken pipe", fifo)]);
  },
);

test(
  "nobody waits for a slow reader of a capture, who misses frames",
  [...NEEDS, "package:iputils-ping", "package:coreutils"],
  async () => {
    await using directory = await openDirectory();
    await using lab = await openPings();
    const [fifo, copy] = [`${directory.path}/fifo`, `${directory.path}/copy`];
    await must(["mkfifo", fifo]);
    // The reader opens it, reads nothing until there is a file "go", and then all.
    const wait = `while [ ! -e ${directory.path}/go ]; do sleep 0.05; done`;
    const script = `exec 3<>${fifo} 4<${fifo} 3<&-; echo open; ${wait}; exec cat <&4 >${copy}`;
    const reader = lab.start(["sh", "-c", script]);
    await until("the FIFO has a reader", () => reader.output() === "open\n");
    const inside = `${flood(4000).at(-1)}; touch ${directory.path}/go`;
    const ran = await lab.run(lab.host, [penne(), "run", "--pcap", fifo, "--", "sh", "-c", inside]);
    assertEquals([ran.code, ran.stdout], [0, "end\n"]);
    assertEquals(ran.stderr, `penne: warning: the reader of the capture "${fifo}" is slow: frames are missing in it\n`);
    await reader.ended;
    const frames = readPcap(await Deno.readFile(copy), "cut"); // at the end it has a second
    assert(frames.length > 30 && frames.length < 8000, `${frames.length}`);
  },
);

test("a capture that cannot be opened is refused before anything is made", NEEDS, async () => {
  await using directory = await openDirectory();
  const at = (name: string) => `${directory.path}/${name}`;
  await must(["mkfifo", "-m", "666", at("fifo")]);
  await Deno.writeTextFile(at("one"), "kept");
  await Deno.link(at("one"), at("two"));
  await Deno.chmod(at("one"), 0o666);
  const refusal = async (path: string, how: How = USER) => {
    const { code, stdout, stderr } = await sh([penne(), "run", "--pcap", path, "--", "echo", "ran"], how);
    assertEquals([code, stdout], [125, ""], stderr);
    return stderr;
  };
  assertStringIncludes(await refusal(at("no/such")), "No such file or directory (ENOENT)");
  assertMatch(await refusal(at("fifo")), /\(ENXIO\)\nhint: it is a FIFO that nobody reads/);
  assertStringIncludes(await refusal(at("one")), "it has a second name (a hard link)");
  assertStringIncludes(await refusal(directory.path), "(EISDIR)");
  assertEquals(await Deno.readTextFile(at("one")), "kept");
  const { code, stderr } = await sh([penne(), "run", "--net=none", "-p", at("new"), "--", "true"]);
  assertEquals([code, stderr.split("\n")[0]], [2, "penne: cannot use --pcap without a network"]);
});
