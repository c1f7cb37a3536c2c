// What penne says as pasta, word for word, and that it takes and refuses the same command lines as pasta itself.

import { assert, assertEquals, assertMatch } from "@std/assert";
import { networkOf, reachOf } from "../../mod/cli/pasta/requests.ts";
import { checkReach } from "../../mod/network/reach.ts";
import { checkRequest } from "../../mod/network/request.ts";
import { readPastaCommandLine } from "../../mod/pasta/config.ts";
import { OPTIONS } from "../../mod/pasta/options.ts";
import type { PastaFacts } from "../../mod/pasta/request.ts";
import { asUser, sh, test } from "../lib/helpers.ts";
import { NetLab } from "../lib/netlab.ts";
import { pasta } from "./lib.ts";
import { commandLines } from "./lines.ts";

const FACTS: PastaFacts = {
  program: "pasta",
  version: "pasta V\n",
  hasInterface: (name) => ["lo", "up0"].includes(name),
  ephemeral: [32768, 60999],
};

/** The first lines that are said of a command line, without the text of --help. */
const SAID: readonly (readonly [args: string, ...lines: string[]])[] = [
  ["--x", "pasta: unrecognized option '--x'"],
  ["--map-guest-adr=1", "pasta: unrecognized option '--map-guest-adr=1'"],
  ["-Z", "pasta: invalid option -- 'Z'"],
  ["--help=1", "pasta: option '--help' doesn't allow an argument"],
  ["--mtu", "pasta: option '--mtu' requires an argument"],
  ["-m", "pasta: option requires an argument -- 'm'"],
  ["--no-co", "pasta: option '--no-co' is ambiguous; possibilities: '--no-copy-routes' '--no-copy-addrs'"],
  ["-s x", "-s is for passt / vhost-user mode only"],
  ["-1", "--one-off is for passt mode only"],
  ["--no-dhcp-dns", "--no-dhcp-dns is for passt mode only"],
  ["--no-dhcp-search", "--no-dhcp-search is for passt mode only"],
  ["--repair-path x", "--repair-path is for vhost-user mode only"],
  ["--migrate-exit", "--migrate-exit is for vhost-user mode only"],
  ["--migrate-no-linger", "--migrate-no-linger is for vhost-user mode only"],
  ["-m abc", "Invalid MTU: abc"],
  ["-m 70000", "MTU 70000 too large (max 65521)"],
  ["-m -1", "MTU 18446744073709551615 too large (max 65521)"],
  ["-a x", "Invalid guest address: x"],
  ["-a 10.0.0.1/33", "Invalid prefix length: 10.0.0.1/33"],
  ["-n 33", "Invalid prefix length: 33"],
  ["-a 10.0.0.1/24 -n 24", "Redundant prefix length specification"],
  ["-n 24 -a 10.0.0.1/24", "Redundant prefix length specification"],
  ["-g 127.0.0.1", "Invalid gateway address: 127.0.0.1"],
  ["-o 999.1.1.1", "Invalid or redundant outbound address: 999.1.1.1"],
  ["-M zz", "Invalid MAC address: zz"],
  ["--ns-mac-addr zz", "Invalid MAC address: zz"],
  ["--map-host-loopback x", "Invalid address to remap to host: x"],
  ["--map-guest-addr x", "Invalid address to remap to host: x"],
  ["--dns-forward x", "Invalid DNS forwarding address: x"],
  ["--dns-host x", "Invalid host nameserver address: x"],
  ["-D x", "Cannot use DNS address x"],
  ["--search=", "Cannot use DNS search domain "],
  ["-i nope", "Invalid interface name nope: No such device"],
  ["-I toolonginterfacename", "Invalid interface name: toolonginterfacename"],
  ["--log-size 1", "Invalid --log-size: 1"],
  ["--fd abc", "Invalid --fd: abc"],
  ["--stats 1", "Can't display statistics if not running in foreground"],
  ["--host-lo-to-ns-lo --no-splice", "--host-lo-to-ns-lo is incompatible with --no-splice"],
  ["--splice-only --no-splice", "--splice-only is incompatible with --no-splice"],
  ["--no-copy-routes", "--no-copy-routes needs --config-net"],
  ["--netns x 1", "Both --netns and PID or command given"],
  ["99999999999", "Invalid PID 99999999999"],
  ["--userns=", "Invalid userns: "],
  ["--no-pidns 1", "--no-pidns is incompatible with PID or --netns"],
  ["--no-pidns --netns x", "--no-pidns is incompatible with PID or --netns"],
  ["--pid=", "Invalid PID file: "],
  ["--pcap=", "Invalid pcap path: "],
  ["--conf-path=", "Invalid configuration path: "],
  ["-t abc", "Invalid port specifier 'abc'"],
  ["-t 80-81:90", "Invalid port specifier '80-81:90'"],
  ["-t 1.2.3/22", "Invalid port specifier '1.2.3/22'"],
  ["-t 0", "Forwarding rule attempts to map from port 0", "Unable to add rule TCP [*]:0  =>  0 "],
  ["-t 80:192.0.2.5", "Dual stack forward to IPv4 address 192.0.2.5 unsupported", "Did you mean 0.0.0.0/... instead?"],
  ["-t 0.0.0.0/80:fd00::2", "Forward from IPv4 (0.0.0.0) to IPv6 (fd00::2) unsupported"],
  [
    "-t 80-90 -t 85",
    "Forwarding configuration conflict: TCP [*]:85  =>  85  versus TCP [*]:80-90  =>  80-90 ",
    "Unable to add rule TCP [*]:85  =>  85 ",
  ],
  ["-t 80 -t none", "-t none conflicts with previous options"],
  ["-T 127.0.0.1/80", "Listening address not allowed for -T 127.0.0.1/80"],
  ["-4 -t 0", "Forwarding rule attempts to map from port 0", "Unable to add rule TCP [0.0.0.0]:0  =>  0 "],
  ["-4 -T 80:::1", "Forward from IPv4 (0.0.0.0) to IPv6 (::1) unsupported"],
  ["-T 80:127.0.0.1", "Dual stack forward to IPv4 address 127.0.0.1 unsupported"],
  ["-4 -t ::/80", "IPv6 forward, but IPv6 not enabled"],
  ["--no-tcp -t 80", "Can't add TCP forwarding rule, TCP not enabled"],
];

test("each error on a command line is said in pasta's words, with exit code 1 and nothing on stdout", () => {
  for (const [args, ...lines] of SAID) {
    const answer = readPastaCommandLine(args.split(" "), FACTS);
    if (!("code" in answer)) throw new Error(`${args} is taken`);
    assertEquals(answer.code, 1, args);
    assertEquals(answer.stdout, "", args);
    assertEquals(answer.stderr.split("\n").slice(0, lines.length), lines, args);
    // getopt(3) is followed by the usage, and all others end with their line.
    if (lines[0]!.startsWith("pasta: ")) assertMatch(answer.stderr, /\nUsage: pasta /);
    else assert(!answer.stderr.includes("Usage"), args);
  }
});

test("what is no error is said all the same, and --version and --help end what comes after them", () => {
  const warned = (...args: string[]) => {
    const config = readPastaCommandLine(args, FACTS);
    return "warnings" in config ? config.warnings : config;
  };
  assertEquals(warned("--stderr"), ["--stderr will be dropped soon"]);
  assertEquals(warned("--config-net", "--no-copy-addrs"), ["--no-copy-addrs will be dropped soon"]);
  const small = (family: string, least: number) => `MTU 60 is too small for ${family} (minimum ${least})`;
  assertEquals(warned("-m", "60"), [small("IPv4", 68), small("IPv6", 1280)]);
  assertEquals(warned("-q", "--version", "--bogus"), { stdout: "pasta V\n", stderr: "", code: 0 });
  assertMatch((warned("-h") as { stdout: string }).stdout, /^Usage: pasta .*\n(?:.*\n)*$/);
});

const NEEDS = ["root", "user", "user namespaces", "tun", "package:iproute2", "package:util-linux"] as const;

test("each error of the host is said in pasta's words, and leaves nothing behind", NEEDS, async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  const busy = lab.start(lab.in(lab.host, ["python3", "-c", BUSY]));
  while (!busy.output()) await new Promise((resolve) => setTimeout(resolve, 10));
  const said = async (args: string) => {
    const words = [pasta(), "-u", "none", "-T", "none", "-U", "none", ...args.split(" ")];
    const { code, stdout, stderr } = await sh(lab.in(lab.host, asUser(words)), { cwd: "/" });
    assertEquals([code, stdout], [1, ""], `${args}: ${stderr}`);
    return stderr.replace(/\n$/, "").split("\n");
  };
  const listen = "Couldn't listen on requested ports";
  const tun = "TUNSETIFF ioctl on /dev/net/tun failed: Invalid argument";
  const missing = "No such file or directory";
  for (
    const [args, ...lines] of [
      ["-t none -l /nonexistent/x true", `Couldn't open log file /nonexistent/x: ${missing}`],
      ["-t none -P /nonexistent/x true", `Couldn't open PID file /nonexistent/x: ${missing}`],
      ["-t none --runas nosuch true", "Invalid --runas option: nosuch"],
      ["-t none --fd 77 true", "Could not move --fd descriptor: Bad file descriptor"],
      ["-t none -I a/b true", tun, "Failed to set up tap device in namespace"],
      ["-t none --netns /nonexistent", `Couldn't open network namespace /nonexistent: ${missing}`],
      ["-t none --netns nosuch", `Couldn't open network namespace /run/netns/nosuch: ${missing}`],
      ["-t none --userns /nonexistent true", `Couldn't open user namespace /nonexistent: ${missing}`],
      ["-t none 4194303", `Couldn't open user namespace /proc/4194303/ns/user: ${missing}`],
      ["-t 22 true", "Listen failed for HOST TCP port */22: Permission denied", listen],
      [
        "-t 192.0.2.99/7003 true",
        "Listen failed for HOST TCP port 192.0.2.99/7003: Cannot assign requested address",
        listen,
      ],
      ["-t %nope/7003 true", "Listen failed for HOST TCP port *%nope/7003: No such device", listen],
      ["-t 7004,7003 true", "Listen failed for HOST TCP port */7003: Address already in use", listen],
      ["-t ~22-65535 true", "All listens failed for HOST TCP */1-21", listen],
    ] as const
  ) assertEquals((await said(args)).slice(0, lines.length), [...lines], args);
  // Nothing is bound after all these.
  const { stdout } = await lab.run(lab.host, ["ss", "-Htln"]);
  assertEquals(stdout.trim().split("\n").length, 1, stdout);
});

/** Listens on one port. */
const BUSY = `import socket, time
s = socket.create_server(("", 7003)); print("listens", flush=True); time.sleep(1000)`;

/** Command lines that penne refuses otherwise than pasta, and why. */
const OTHERWISE: readonly (readonly [RegExp, string])[] = [
  [/--address[ =]fe80::5/, "the interface makes its link-local address itself"],
  [/--gateway[ =]ff02::1/, "no host answers for a group"],
  [/--interface[ =]lo/, "loopback has no network to copy"],
];

/** Those that Debian's pasta, of 2023, takes otherwise than pasta of today, as which penne takes them. */
const SINCE_2023: readonly (readonly [RegExp, string])[] = [
  [/--mtu |--mtu=|-mx/, "a word was a number, and an MTU below 68 an error"],
  [/mac-addr/, "what follows a MAC address, or lacks in it, was not looked at"],
  [/--address[ =]\S+\//, "an address had no prefix length"],
  [/--netmask/, "a word was a number"],
  [/--ns-ifname/, "a name had 14 bytes at most"],
  [/--fd/, "the descriptor was not looked at"],
  [/-ports[ =](0|\[|%|all,)/, "port 0, brackets, an interface alone, and all with others"],
  [/--help/, "the exit code was 1"],
  [/--conf /, "--config-net was the only option of that beginning"],
  [/--trace.* --debu/, "--debug could not follow --trace"],
];

/** The words of a command line, in which no port is followed that is not named. */
function complete(line: readonly string[]): string[] {
  const names = [["-t", "--tcp-ports"], ["-u", "--udp-ports"], ["-T", "--tcp-ns"], ["-U", "--udp-ns"]] as const;
  const none = names.filter(([, name]) => !line.some((word) => word.startsWith(name))).flatMap((
    [short],
  ) => [short, "none"]);
  return [
    ...none,
    ...line,
    ...line.some((word) => word.startsWith("--netns") && !/-/.test(word.slice(7))) ? [] : ["true"],
  ];
}

/** Whether the command line is refused, as far as that is known without a look at the host. */
function refused(words: readonly string[]): boolean {
  const config = readPastaCommandLine(words, FACTS);
  if ("code" in config) return config.code !== 0;
  try {
    checkRequest(networkOf(config));
    checkReach(reachOf(config));
    return false;
  } catch {
    return true;
  }
}

/** Options whose values only the host knows to be right. */
const OF_HOST = /--(runas|interface|log-file|pid|netns|userns|fd|pcap)\b|-ports[ =](\d|%|127|192|\[|:)/;

/** Runs command lines as the test user; returns their exit codes. Those that have ports run one after the other. */
async function codes(lab: NetLab, program: string, lines: readonly (readonly string[])[]): Promise<number[]> {
  const groups: number[][] = Array.from({ length: 4 }, () => []);
  lines.forEach((line, i) => groups[/-ports[ =](?!none)/.test(line.join(" ")) ? 0 : i % groups.length]!.push(i));
  const found: number[] = [];
  await Promise.all(groups.map(async (group) => {
    const script = group.map((i) => {
      const words = [program, ...lines[i]!].map((word) => `'${word}'`).join(" ");
      return `timeout 30 ${words} </dev/null >/dev/null 2>&1; echo $?`;
    });
    // Debian's pasta leaves its child behind after some errors.
    const own = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"];
    const { stdout } = await sh(lab.in(lab.host, [...own, ...asUser(["sh", "-c", script.join("\n")])]), { cwd: "/" });
    stdout.trim().split("\n").forEach((code, k) => found[group[k]!] = Number(code));
  }));
  return found;
}

/** Names of options that penne knows as pasta's. */
const NAMES = new Set<string>(OPTIONS.map(({ name }) => `--${name}`));

const PROGRAMS = [
  ["Debian's pasta", "pasta", "package:passt", SINCE_2023],
  ["a newer pasta", "pasta-newer", "newer pasta", []],
] as const;

for (const [name, program, need, others] of PROGRAMS) {
  test(`the same command lines are taken and refused as by ${name}`, [...NEEDS, need], async () => {
    await using lab = await NetLab.open();
    await lab.usual();
    const help = await sh([program, "--help"]);
    const known = new Set(`${help.stdout}${help.stderr}`.match(/(?<![\w-])--?[\w-]+/g));
    const lines = commandLines(200).filter((line) =>
      line.map((word) => word.replace(/=.*/, "")).every((word) => !NAMES.has(word) || known.has(word))
    ).map(complete).slice(0, 310);
    assert(lines.length >= 300, `${lines.length} command lines`);
    const theirs = await codes(lab, program, lines);
    const asked = lines.map((line) => !refused(line) && OF_HOST.test(line.join(" ")));
    const bySelf = await codes(lab, pasta(), lines.filter((_, i) => asked[i]));
    let at = 0;
    const different = lines.flatMap((line, i) => {
      const ours = asked[i] ? bySelf[at++] !== 0 : refused(line);
      return ours === (theirs[i] !== 0) ? [] : [`${ours ? "refused" : "taken"}: ${line.join(" ")}`];
    });
    assertEquals(different.filter((line) => ![...OTHERWISE, ...others].some(([pattern]) => pattern.test(line))), []);
  });
}
