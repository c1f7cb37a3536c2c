// getopt_long(3) of our own beside that of the C library, as getopt(1) has it.

import "../lib/preload.ts";
import { assertEquals } from "@std/assert";
import { getopt, GetoptError, type LongOption } from "../../mod/pasta/getopt.ts";
import { test } from "../lib/helpers.ts";

const OPTIONS: readonly LongOption[] = [
  { key: "debug", name: "debug", short: "d", value: false },
  { key: "quiet", name: "quiet", short: "q", value: false },
  { key: "mtu", name: "mtu", short: "m", value: true },
  { key: "tcp", name: "tcp-ports", short: "t", value: true },
  { key: "tcpns", name: "tcp-ns", short: "T", value: true },
  { key: "no-tcp", name: "no-tcp", value: false },
  { key: "no-udp", name: "no-udp", value: false },
  { key: "dns", name: "dns", short: "D", value: true },
  { key: "dns-forward", name: "dns-forward", value: true },
  { key: "help", name: "help", short: "h", value: false },
];

/** Words of which command lines are made. */
const WORDS = [
  ["-d", "-q", "-dq", "-m", "-m5", "-dm5", "-t", "-t80", "-qt", "-T", "-Z", "-dZ", "-h", "-", "--", "a", "80"],
  ["--debug", "--deb", "--d", "--dn", "--dns", "--dns=1", "--dns-f", "--dns-forward=", "--no", "--no-t", "--no-tcp=1"],
  [
    "--mtu",
    "--mtu=",
    "--m=9",
    "--tcp",
    "--tcp-",
    "--tcp-p=80",
    "--tcp-n",
    "--x",
    "--x=1",
    "--=",
    "--help=",
    "--mtu=a=b",
  ],
].flat();

/** A number in front of a limit; the same ones in each run. */
function* numbers(limit: number): Generator<number, never> {
  for (let x = 12345;;) {
    x = Math.imul(x, 1103515245) + 12345 >>> 0;
    yield (x >>> 8) % limit;
  }
}

/** What the C library says: options and operands, or its first message. */
async function reference(args: readonly string[]): Promise<string> {
  const long = OPTIONS.map(({ name, value }) => `${name}${value ? ":" : ""}`).join(",");
  const short = OPTIONS.filter(({ short }) => short).map(({ short, value }) => `${short}${value ? ":" : ""}`).join("");
  const { stdout, stderr } = await new Deno.Command("getopt", {
    args: ["-o", `+${short}`, "-l", long, "-n", "x", "--", ...args],
    env: { LC_ALL: "C" },
  }).output();
  const text = new TextDecoder();
  return text.decode(stderr).split("\n")[0] || text.decode(stdout).trimEnd();
}

/** The same of our own, in the form of getopt(1). */
function ours(args: readonly string[]): string {
  const words: string[] = [];
  const reader = getopt(args, OPTIONS);
  try {
    for (;;) {
      const { done, value } = reader.next();
      if (done) return ` ${[...words, "--", ...value.map((word) => `'${word}'`)].join(" ")}`;
      words.push(value.key, ...value.value === null ? [] : [`'${value.value}'`]);
    }
  } catch (error) {
    if (error instanceof GetoptError) return `x: ${error.message}`;
    throw error;
  }
}

test("command lines are read, and refused, as getopt_long(3) does", ["package:util-linux"], async () => {
  const random = numbers(WORDS.length);
  const names = Object.fromEntries(OPTIONS.flatMap(({ key, name, short }) => [[`--${name}`, key], [`-${short}`, key]]));
  for (let i = 0; i < 300; i++) {
    const args = Array.from({ length: 1 + i % 4 }, () => WORDS[random.next().value]!);
    const expected = (await reference(args)).replace(/(?<=^| )--?[a-zA-Z-]+(?= |$)/g, (word) => names[word] ?? word);
    assertEquals(ours(args), expected, args.join(" "));
  }
});
