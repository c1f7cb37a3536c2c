// Real programs and whole files over the data path, both families, both directions.

import "../lib/preload.ts";
import { assert, assertEquals } from "@std/assert";
import { test } from "../lib/helpers.ts";
import { GUEST4, GUEST6, listening, makeNetwork, type Network, PEER4, PEER6, until } from "./lab/network.ts";

const needs = [
  "root",
  "tun",
  "package:iproute2",
  "package:socat",
  "package:openssl",
  "package:nginx-light",
  "package:curl",
] as const;

/** Prints the SHA-256 of a stream in hexadecimal first; sha256sum can take five times as long. */
const SHA256 = "openssl sha256 -r";

/** A shell command that writes `blocks` times the file. */
function source(file: string, blocks: number): string {
  return `for i in $(seq ${blocks}); do cat ${file}; done`;
}

/** The SHA-256 of the output of a command. */
async function hash(command: string): Promise<string> {
  const { stdout } = await new Deno.Command("sh", { args: ["-c", `${command} | ${SHA256}`] }).output();
  return new TextDecoder().decode(stdout).split(" ")[0]!;
}

let port = 20000;

/** Sends the output of a command from one namespace to the other; returns the SHA-256 of what arrives. */
async function transfer(network: Network, up: boolean, address: string, produce: string): Promise<string> {
  const number = port++;
  const target = address.includes(":") ? `[${address}]` : address;
  const family = address.includes(":") ? "6" : "4";
  const listen = `socat -b262144 ${up ? "-u" : "-U"} TCP${family}-LISTEN:${number},reuseaddr`;
  const server = up ? `${listen} - | ${SHA256}` : `(${produce}) | ${listen} -`;
  const child = network.spawn(network.peer, ["sh", "-c", server], { stdout: "piped" });
  const served = new Response(child.stdout).text();
  await listening(network, network.peer, number);
  const connect = `TCP${family}:${target}:${number}`;
  const client = up ? `(${produce}) | socat -b262144 -u - ${connect}` : `socat -b262144 -u ${connect} - | ${SHA256}`;
  const { code, stdout, stderr } = await network.run(network.guest, ["sh", "-c", client]);
  assertEquals([code, stderr], [0, ""]);
  await child.status;
  return (up ? await served : stdout).split(" ")[0]!;
}

test("files arrive intact over TCP at a large and a small MTU, both directions, both families", needs, async (t) => {
  const small = await Deno.makeTempFile();
  const large = await Deno.makeTempFile();
  try {
    await Deno.writeFile(small, crypto.getRandomValues(new Uint8Array(2048)));
    const bytes = new Uint8Array(10_000_000);
    for (let at = 0; at < bytes.length; at += 50_000) crypto.getRandomValues(bytes.subarray(at, at + 50_000));
    await Deno.writeFile(large, bytes);
    const files = await Promise.all([[small, 1], [large, 1], [large, 108]].map(async ([file, times]) => {
      const produce = source(file as string, times as number);
      return { produce, times: times as number, expected: await hash(produce) };
    }));
    for (const mtu of [65520, 1500]) {
      await t.step(`MTU ${mtu}`, async () => {
        await using network = await makeNetwork({ mtu });
        for (const { produce, times, expected } of files) {
          // More than 1 GiB takes long, so one family at each MTU.
          const addresses = times === 1 ? [PEER4, PEER6] : mtu === 1500 ? [PEER6] : [PEER4];
          for (const address of addresses) {
            for (const up of [true, false]) {
              assertEquals(await transfer(network, up, address, produce), expected);
            }
          }
        }
        // The namespace has refused no frame.
        assertEquals([await network.statistic("rx_dropped"), await network.statistic("rx_errors")], [0, 0]);
        await until("all flows have ended", () => network.flows === 0);
      });
    }
  } finally {
    await Deno.remove(small);
    await Deno.remove(large);
  }
});

test(
  "datagrams of all sizes arrive intact, both families, and answers come from the address that was asked",
  needs,
  async () => {
    await using network = await makeNetwork({ mtu: 65520 });
    for (const [family, address] of [["4", PEER4], ["6", `[${PEER6}]`]] as const) {
      network.spawn(network.peer, ["socat", "-b65536", `UDP${family}-LISTEN:7,fork`, "EXEC:cat -"]);
      await listening(network, network.peer, 7, true);
      for (const size of [1, 100, 1400, 1473, 2048, 9000, 60000]) {
        const file = await Deno.makeTempFile();
        await Deno.writeFile(file, crypto.getRandomValues(new Uint8Array(size)));
        // A connected socket accepts answers from its peer only.
        const answer = `${file}.answer`;
        // A datagram may be lost or late, but never arrives in part.
        for (let seconds = 0.4; seconds < 30; seconds *= 2) {
          const end = `UDP${family}:${address}:7`;
          const command = `socat -b65536 -t${seconds} -T${seconds} - ${end} < ${file} > ${answer}`;
          await network.run(network.guest, ["sh", "-c", command]);
          if (Deno.statSync(answer).size > 0) break;
        }
        assertEquals([size, await hash(`cat ${answer}`)], [size, await hash(`cat ${file}`)]);
        await Deno.remove(answer);
        await Deno.remove(file);
      }
      await network.stop();
    }
  },
);

test("empty datagrams arrive, alone and among others", needs, async () => {
  await using network = await makeNetwork({});
  const deno = [Deno.execPath(), "run", "-A", "--quiet", "--no-check", "--v8-flags=--single-threaded"];
  for (const address of [PEER4, PEER6]) {
    const server = network.spawn(network.peer, [
      ...deno,
      `${import.meta.dirname}/lab/flood.ts`,
      "serve",
      address,
      "7000",
    ], {
      stdout: "piped",
    });
    const reader = server.stdout.getReader();
    await reader.read();
    const mixed = Array.from({ length: 10 }, () => ["0", "5", "0", "0", "5", "1400", "0"]).flat();
    for (const sizes of [mixed, Array(30).fill("0")]) {
      const command = [...deno, `${import.meta.dirname}/lab/datagrams.ts`, "sizes", address, "7000", ...sizes];
      assertEquals((await network.run(network.guest, command)).stdout, `${[...sizes, ...sizes].join(" ")}\n`);
    }
    await reader.cancel();
    await network.stop(server);
  }
});

test("10 MB of datagrams that are acknowledged one by one arrive intact", needs, async () => {
  await using network = await makeNetwork({ mtu: 1500 });
  const script = `${import.meta.dirname}/lab/blocks.ts`;
  const deno = [Deno.execPath(), "run", "-A", "--quiet", "--no-check", "--unstable-net", script];
  for (const [there, here] of [[PEER4, GUEST4.address], [PEER6, GUEST6.address]]) {
    for (const way of ["up", "down"]) {
      const server = network.spawn(network.peer, [...deno, "serve", there!, "9000"], { stdout: "piped" });
      const reader = server.stdout.getReader();
      assertEquals(new TextDecoder().decode((await reader.read()).value), "ready\n");
      const { code, stdout, stderr } = await network.run(network.guest, [...deno, way, there!, "9000", "7500", here!]);
      assertEquals([code, stderr], [0, ""]);
      const answer = JSON.parse(stdout);
      assertEquals(answer.sent, answer.received);
      assertEquals(answer.bytes, 10_500_000);
      await reader.cancel();
      await network.stop();
    }
  }
});

test("nginx serves curl, both families, and a connection is reused", needs, async () => {
  await using network = await makeNetwork({ mtu: 65520 });
  const directory = await Deno.makeTempDir();
  await Deno.chmod(directory, 0o755);
  try {
    const page = crypto.getRandomValues(new Uint8Array(60_000));
    await Deno.writeFile(`${directory}/page`, page);
    const conf =
      `daemon off; master_process off; worker_processes 1; pid ${directory}/pid; error_log ${directory}/errors; user root;
      events { worker_connections 64; }
      http { access_log off; server { listen 80; listen [::]:80; root ${directory}; } }`;
    await Deno.writeTextFile(`${directory}/conf`, conf);
    network.spawn(network.peer, ["nginx", "-c", `${directory}/conf`]);
    await listening(network, network.peer, 80, false, 2);
    for (const host of [PEER4, `[${PEER6}]`]) {
      const url = `http://${host}/page`;
      const command = [
        "curl",
        "-sS",
        "-o",
        `${directory}/a`,
        "-o",
        `${directory}/b`,
        "-w",
        "%{num_connects}\n",
        url,
        url,
      ];
      const { stdout, stderr } = await network.run(network.guest, command);
      assertEquals([stdout, stderr], ["1\n0\n", ""]);
      assertEquals(await Deno.readFile(`${directory}/a`), page);
      assertEquals(await Deno.readFile(`${directory}/b`), page);
    }
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

test("interactive traffic is not delayed", needs, async () => {
  await using network = await makeNetwork({ mtu: 65520 });
  network.spawn(network.peer, ["socat", "TCP4-LISTEN:2000,fork,reuseaddr", "EXEC:cat"]);
  await listening(network, network.peer, 2000);
  const child = network.spawn(network.guest, ["socat", "-", `TCP4:${PEER4}:2000`], { stdin: "piped", stdout: "piped" });
  const writer = child.stdin.getWriter();
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (let i = 0; i < 200; i++) {
    const line = `line ${i}\n`;
    await writer.write(new TextEncoder().encode(line));
    while (!text.endsWith(line)) {
      const { value, done } = await reader.read();
      assert(!done);
      text += value;
    }
  }
  await writer.close();
  await reader.cancel();
  assertEquals(text, Array.from({ length: 200 }, (_, i) => `line ${i}\n`).join(""));
});
