// --allow: nothing is reached but what the list has, no other name is resolved, and no packet of anything else leaves the host.

import "../../lib/preload.ts";
import { assertEquals } from "@std/assert";
import { asUser, penne, ROOT, test } from "../../lib/helpers.ts";
import { GUEST4, GUEST6, HOST4, HOST6, makeNetwork, type Network, PEER4, until } from "../lab/network.ts";

const needs = ["root", "tun", "package:iproute2", "package:python3", "package:iputils-ping", "package:procps"] as const;
const PROGRAM = `${ROOT}tests/datapath/allow/egress.py`;

/** An address of the peer, by its last part. */
const four = (last: number) => `198.51.100.${last}`;
const six = (last: number) => `2001:db8:1::${last}`;
const lines = (values: readonly unknown[]) => values.map((value) => JSON.stringify(value));
/** Names, by what the resolver answers for them. */
type Zone = Record<string, [owner: string, type: string, value: string, ttl: number, section?: string][]>;

/** What runs in the network, and is asked or listened to. */
class Scene implements AsyncDisposable {
  readonly #directory = Deno.makeTempDirSync();
  readonly zone = `${this.#directory}/zone`;
  readonly #log = `${this.#directory}/log`;
  #captured = "";
  #client: Deno.ChildProcess | null = null;
  #writer: WritableStreamDefaultWriter<Uint8Array> | null = null;
  #reader: ReadableStreamDefaultReader<string> | null = null;
  #said = "";

  constructor(readonly network: Network) {}

  /** Has the resolver answer otherwise from now on. */
  answer(zone: Zone): void {
    Deno.writeTextFileSync(`${this.zone}.new`, JSON.stringify(zone));
    Deno.renameSync(`${this.zone}.new`, this.zone);
  }

  /** Starts the servers, the resolver and the capture. */
  async begin(): Promise<void> {
    const { network } = this;
    for (let last = 50; last < 60; last++) {
      await network.must(network.peer, ["ip", "addr", "add", `${four(last)}/24`, "dev", "veth0"]);
      await network.must(network.peer, ["ip", "addr", "add", `${six(last)}/64`, "dev", "veth0", "nodad"]);
    }
    await network.must(network.peer, ["ip", "route", "add", "local", "64:ff9b::/96", "dev", "lo"]);
    const program = (...args: string[]) => ["python3", "-u", PROGRAM, ...args];
    for (
      const [netns, ...argv] of [
        [network.peer, ...program("servers", "4000", "4001", "853")],
        [network.host, ...program("servers", "4000", "4001")],
        [network.peer, ...program("resolver", PEER4, this.zone, this.#log)],
      ]
    ) {
      const child = network.spawn(netns!, argv, { stdout: "piped", stderr: "inherit" });
      const reader = child.stdout.getReader();
      await reader.read();
      void reader.cancel();
    }
    const capture = network.spawn(network.host, program("capture", "veth0", HOST4), { stdout: "piped" });
    const reader = capture.stdout.pipeThrough(new TextDecoderStream()).getReader();
    this.#captured = (await reader.read()).value!;
    void (async () => {
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        this.#captured += value;
      }
    })();
  }

  /** Starts the client. */
  async enter(argv: string[], netns: string): Promise<void> {
    const client = this.network.spawn(netns, [...argv, "python3", "-u", PROGRAM, "client"], {
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    });
    this.#client = client;
    this.#writer = client.stdin.getWriter();
    this.#reader = client.stdout.pipeThrough(new TextDecoderStream()).getReader();
    assertEquals(await this.#line(), "ready");
  }

  /** Ends the client. */
  async leave(): Promise<void> {
    await this.#writer?.close();
    await this.#reader?.cancel();
    await this.#client?.status;
    this.#writer = this.#reader = this.#client = null;
    this.#said = "";
  }

  async #line(): Promise<string> {
    while (!this.#said.includes("\n")) {
      const { value, done } = await this.#reader!.read();
      if (done) throw new Error(`the client has ended: ${this.#said}`);
      this.#said += value;
    }
    const [line, ...rest] = this.#said.split("\n");
    this.#said = rest.join("\n");
    return line!;
  }

  /** Has the client take a step; returns its outcome. */
  async step(...step: unknown[]): Promise<unknown> {
    await this.#writer!.write(new TextEncoder().encode(`${JSON.stringify(step)}\n`));
    return JSON.parse(await this.#line());
  }

  /** Has the client take steps, and compares their outcomes. */
  async all(steps: readonly (readonly [expected: unknown, ...step: unknown[]])[]): Promise<void> {
    const seen: unknown[] = [];
    for (const [, ...step] of steps) seen.push([await this.step(...step), ...step]);
    assertEquals(lines(seen), lines(steps));
  }

  /** The names that the resolver was asked for, with the protocol, and how long the messages were. */
  get asked(): { protocol: string; message: Uint8Array; text: string }[] {
    return Deno.readTextFileSync(this.#log).split("\n").filter(Boolean).map((line) => {
      const [protocol, hex] = line.split(" ") as [string, string];
      const message = Uint8Array.from(hex.match(/../g) ?? [], (byte) => parseInt(byte, 16));
      return { protocol, message, text: new TextDecoder("latin1").decode(message) };
    });
  }

  /** What has left the host: protocol, destination and port. */
  get left(): Set<string> {
    const packets = this.#captured.split("\n").slice(1, -1);
    // Neighbour discovery and reports of groups are the host's own.
    return new Set(packets.filter((line) => !/^58 \S+ 13[3-6]$|^0 ff02::16 |^2 224\.0\.0\.22 /.test(line)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.leave().catch(() => {});
    await Deno.remove(this.#directory, { recursive: true });
  }
}

const MAPPED = "10.77.0.9";
/** Seconds for which answers are valid, unless that is what is tried. */
const HOUR = 3600;
const ZONE: Zone = {
  "good.test A": [["good.test", "A", four(52), 0]],
  "good.test AAAA": [["good.test", "AAAA", six(52), HOUR]],
  "good.test TXT": [["good.test", "TXT", "text", HOUR]],
  "good.test HTTPS": [["good.test", "TXT", "hints", HOUR]],
  "a.wild.test A": [["a.wild.test", "A", four(54), HOUR]],
  "deep.a.wild.test A": [["deep.a.wild.test", "A", four(54), HOUR]],
  "alias.test A": [["alias.test", "CNAME", "target.test", HOUR], ["target.test", "A", four(55), HOUR]],
  "extra.test A": [
    ["extra.test", "A", four(56), HOUR],
    ["other.test", "A", four(57), HOUR],
    ["other.test", "A", four(57), HOUR, "additional"],
    ["extra.test", "A", four(57), HOUR, "additional"],
  ],
  "long.test A": [["truncated", "", "", 0], ["long.test", "A", four(58), HOUR]],
  "evil.test A": [HOST4, "169.254.7.7", MAPPED, four(59), "224.0.0.251"].map((one) => ["evil.test", "A", one, HOUR]),
  "evil.test AAAA": [HOST6, "fe80::99", "64:ff9b::c633:6401"].map((one) => ["evil.test", "AAAA", one, HOUR]),
};
const ALLOW = [
  `${four(50)}:4000`,
  six(50),
  "Good.Test.:4000",
  "*.wild.test",
  "alias.test",
  "extra.test",
  "long.test",
  "evil.test",
];
const OPTIONS = [
  ...ALLOW.flatMap((value) => ["--allow", value]),
  ...["--allow", "239.1.2.4:5353", "--dns-host", PEER4, "--exclude", four(59), "--map-host-loopback", MAPPED],
  ...["--dns-forward", GUEST4.gateway, "--dns-forward", GUEST6.gateway],
];
/** What may leave the host. */
const MAY = [
  `6 ${four(50)} 4000`,
  `17 ${four(50)} 4000`,
  `17 ${four(50)} 0`, // other fragments than the first
  `6 ${six(50)} 4001`,
  `17 ${six(50)} 4000`,
  `58 ${six(50)} 128`,
  "17 239.1.2.4 5353",
  ...[four(52), four(53), six(52)].map((address) => `6 ${address} 4000`),
  ...[54, 55, 56, 58].map((last) => `6 ${four(last)} 4000`),
  ...["6", "17"].map((protocol) => `${protocol} ${PEER4} 53`),
];

/** A UDP datagram to an address in a packet with IP options: a loose source route by another. */
function sourceRouted(): string {
  const bytes = (text: string) => text.split(".").map(Number);
  const to = [...bytes(four(51))];
  const header = [0x47, 0, 0, 41, 0, 1, 0, 0, 64, 17, 0, 0, ...bytes(GUEST4.address), ...to];
  // Options: a source route whose next hop is an address that is allowed, and one byte that fills up.
  const packet = [...header, 0x83, 7, 4, ...bytes(four(50)), 0, 0x0f, 0xa0, 0x0f, 0xa0, 0, 13, 0, 0, 1, 2, 3, 4, 5];
  return packet.map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function tries(scene: Scene): Promise<void> {
  const dns = GUEST4.gateway;
  // Addresses, ports and protocols.
  await scene.all([
    ["ok", "tcp", four(50), 4000],
    ["ok", "udp", four(50), 4000],
    ["ok", "udp", four(50), 4000, 3000],
    ["ECONNREFUSED", "tcp", four(50), 4001],
    ["EHOSTUNREACH", "udp", four(50), 4001],
    ["lost", "ping", four(50)],
    ["ok", "tcp", six(50), 4001],
    ["ok", "udp", six(50), 4000],
    ["ok", "ping", six(50)],
    ["ECONNREFUSED", "tcp", six(50), 853],
    ["ECONNREFUSED", "tcp", four(51), 4000],
    ["EHOSTUNREACH", "udp", four(51), 4000, 3000],
    ["ECONNREFUSED", "tcp", six(51), 4000],
    ["EACCES", "udp", six(51), 4000],
    ["lost", "ping", six(51)],
    ["ECONNREFUSED", "tcp", "64:ff9b::c633:6432", 4000],
    ["ECONNREFUSED", "tcp", "2002:c633:6432::1", 4000],
    ["ECONNREFUSED", "tcp", HOST4, 4000],
    ["ECONNREFUSED", "tcp", MAPPED, 4000],
    ["sent", "raw", sourceRouted(), four(51)],
    ...["239.1.2.3", "255.255.255.255", four(255), "ff02::77"].map((group) => ["sent", "send", group, 5353] as const),
    ["sent", "send", "239.1.2.4", 5353],
    // Names that are not resolved yet.
    ["ECONNREFUSED", "tcp", four(52), 4000],
    ["ECONNREFUSED", "tcp", six(52), 4000],
    // Resolvers, the host's own and others.
    ["ECONNREFUSED", "tcp", PEER4, 53],
    ["EHOSTUNREACH", "dns", PEER4, "good.test"],
    ["ECONNREFUSED", "tcp", PEER4, 853],
    ["ECONNREFUSED", "tcp", dns, 853],
    ["ECONNREFUSED", "tcp", dns, 443],
  ]);
  // Names.
  await scene.all([
    ["NOERROR 1", "dns", dns, "GoOd.TeSt"],
    ["ok", "tcp", four(52), 4000, "old"],
    ["ECONNREFUSED", "tcp", four(52), 4001],
    ["EHOSTUNREACH", "udp", four(52), 4001],
    ["lost", "ping", four(52)],
    ["NOERROR 1", "dns", GUEST6.gateway, "good.test", "AAAA"],
    ["ok", "tcp", six(52), 4000],
    ["NOERROR 1", "dns", dns, "good.test", "TXT"],
    ["NOERROR 0", "dns", dns, "good.test", "HTTPS"],
    ["REFUSED 0", "dns", dns, "good.test", "ANY"],
    ["NOERROR 1", "edns", dns, "good.test", "option-secret"],
    ["FORMERR 0", "two", dns, "good.test"],
    ["REFUSED 0", "chaos", dns, "good.test"],
    ["NOERROR 1", "trailing", dns, "good.test", "trailing-secret"],
    ["REFUSED 0", "dns", dns, "secret.good.test"],
    ["REFUSED 0", "dns", dns, "secret.test"],
    ["REFUSED 0", "dns", dns, "secret.test", "TXT", true],
    ["REFUSED 0", "dns", dns, "wild.test"],
    ["NOERROR 1", "dns", dns, "a.wild.test", "A", true],
    ["NOERROR 1", "dns", dns, "deep.a.wild.test"],
    [["NOERROR 1", "REFUSED 0", "NOERROR 1", "NOERROR 2"], "pipelined", dns, [
      "good.test",
      "secret.test",
      "a.wild.test",
      "alias.test",
    ]],
    ["closed", "junk", dns],
    ["ok", "tcp", four(54), 4000],
    ["ok", "tcp", four(55), 4000],
    ["REFUSED 0", "dns", dns, "target.test"],
    ["NOERROR 2", "dns", dns, "extra.test"],
    ["ok", "tcp", four(56), 4000],
    ["ECONNREFUSED", "tcp", four(57), 4000],
    ["NOERROR 0 TC", "dns", dns, "long.test"],
    ["ECONNREFUSED", "tcp", four(58), 4000],
    ["NOERROR 1", "dns", dns, "long.test", "A", true],
    ["ok", "tcp", four(58), 4000],
    // A name that leads to the host, to a link, or to what is excluded.
    ["NOERROR 5", "dns", dns, "evil.test"],
    ["NOERROR 3", "dns", dns, "evil.test", "AAAA"],
    ...[HOST4, "169.254.7.7", MAPPED, four(59), HOST6, "64:ff9b::c633:6401"].map((address) =>
      ["ECONNREFUSED", "tcp", address, 4000] as const
    ),
  ]);
  // A name whose answer changes: the other address is reached, the first one for a moment longer.
  assertEquals(await scene.step("dns", dns, "good.test"), "NOERROR 1");
  scene.answer({ ...ZONE, "good.test A": [["good.test", "A", four(53), HOUR]] });
  await scene.all([
    ["ECONNREFUSED", "tcp", four(53), 4000],
    ["NOERROR 1", "dns", dns, "good.test"],
    ["ok", "tcp", four(53), 4000],
    ["ok", "tcp", four(52), 4000],
  ]);
}

test("--allow has nothing else reached and no other name resolved, over both families", needs, async () => {
  await using network = await makeNetwork({ options: OPTIONS });
  await using scene = new Scene(network);
  scene.answer(ZONE);
  await scene.begin();
  await scene.enter([], network.guest);
  await tries(scene);
  tellsNothing(scene);
  await runs(network);
  // The first answer had no time to live: it counted for half a minute. A connection that exists goes on.
  await until("the first address is refused", async () => await scene.step("tcp", four(52), 4000) === "ECONNREFUSED");
  await scene.all([["again", "again", "old"], ["ok", "tcp", four(53), 4000]]);
  await until("all that may leave the host has left", () => MAY.every((line) => scene.left.has(line)));
  const allowed = new Set(MAY);
  assertEquals([...scene.left].filter((line) => !allowed.has(line)), []);
});

/** What the resolver was asked has nothing but names that are allowed, whatever the messages of the client had. */
function tellsNothing(scene: Scene): void {
  const names = new Set([
    "good.test",
    "a.wild.test",
    "deep.a.wild.test",
    "alias.test",
    "extra.test",
    "long.test",
    "evil.test",
  ]);
  const questions = scene.asked.map(({ message, text }) => {
    const labels: string[] = [];
    let at = 12;
    for (; message[at]! > 0; at += 1 + message[at]!) labels.push(text.slice(at + 1, at + 1 + message[at]!));
    const opt = message[11]! * 11;
    return { name: labels.join("."), type: message[at + 2]!, rest: message.length - (at + 5) - opt, text };
  });
  assertEquals(questions.filter(({ name }) => !names.has(name)), []);
  assertEquals(questions.filter(({ rest, text }) => rest !== 0 || text.includes("secret")), []);
  assertEquals(questions.filter(({ type }) => ![1, 16, 28].includes(type)), []);
}

/** Steps of a client that `penne run` or a program has started, one a line. */
function script(steps: readonly (readonly unknown[])[]): Uint8Array {
  return new TextEncoder().encode(steps.map((step) => `${JSON.stringify(step)}\n`).join(""));
}

/** The outcomes of the steps. */
async function outcomes(netns: string, argv: string[], steps: readonly (readonly unknown[])[]): Promise<unknown[]> {
  const child = new Deno.Command("ip", {
    args: ["netns", "exec", netns, ...argv],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
    env: { DENO_NO_UPDATE_CHECK: "1" }, // which would ask a resolver
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(script(steps));
  await writer.close();
  const { stdout, stderr } = await child.output();
  const [ready, ...rest] = new TextDecoder().decode(stdout).trim().split("\n");
  assertEquals(ready, "ready", new TextDecoder().decode(stderr));
  return rest.map((line) => JSON.parse(line));
}

/** The same by penne run, as root and as a user, with ports inside that lead to the host; and by the library. */
async function runs(network: Network): Promise<void> {
  const client = ["python3", "-u", PROGRAM, "client"];
  const steps: [unknown, ...unknown[]][] = [
    ["NOERROR 1", "dns", "169.254.1.1", "good.test"],
    ["REFUSED 0", "dns", "169.254.1.1", "secret.test", "A", true],
    ["ok", "tcp", four(53), 4000],
    ["ECONNREFUSED", "tcp", four(51), 4000],
    ["ok", "tcp", "127.0.0.1", 4000],
    ["ok", "udp", "127.0.0.1", 4000],
    ["ECONNRESET", "tcp", "127.0.0.1", 4001],
  ];
  const allow = ["--allow", "good.test:4000", "--allow", "127.0.0.1:4000", "--dns-host", PEER4];
  const run = [penne(), "run", ...allow, "-T", "4000,4001", "-U", "4000", "--", ...client];
  for (const argv of [asUser(run), run]) {
    const found = await outcomes(network.host, argv, steps.map(([, ...step]) => step));
    assertEquals(lines(found.map((outcome, i) => [outcome, ...steps[i]!.slice(1)])), lines(steps));
  }
  const options = { net: "tap", reach: { allow: ["good.test:4000"], dnsHost: [PEER4] }, stdin: "inherit" };
  const program = `import { Command } from ${JSON.stringify(`${ROOT}mod/mod.ts`)};
    const { code } = await new Command("python3", { args: ${JSON.stringify(client.slice(1))}, ...${
    JSON.stringify(options)
  }, stdout: "inherit", stderr: "inherit" }).output();
    Deno.exit(code);`;
  const file = await Deno.makeTempFile({ suffix: ".ts" });
  try {
    await Deno.writeTextFile(file, program);
    const deno = [Deno.execPath(), "run", "-A", "--quiet", "--no-check", `--config=${ROOT}deno.json`, file];
    assertEquals(
      await outcomes(network.host, deno, steps.slice(0, 4).map(([, ...step]) => step)),
      steps.slice(0, 4).map(([outcome]) => outcome),
    );
  } finally {
    await Deno.remove(file);
  }
}
