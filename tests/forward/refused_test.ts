// Ports that cannot be opened, of penne run, penne attach and pasta: text, exit code, and that nothing is open afterwards.
// And ports after penne was killed: each can be bound again at once.

import "../lib/preload.ts";
import { assert, assertEquals, assertMatch } from "@std/assert";
import { asUser, killIfAlive, penne, sh, test, until } from "../lib/helpers.ts";
import { becomes, type Daemon, must, NetLab } from "../lib/netlab.ts";
import { BIND, pasta } from "../pasta/lib.ts";

const NEEDS = [
  ...["root", "user", "user namespaces", "tun", "package:iproute2"] as const,
  ...["package:python3", "package:util-linux"] as const,
];
/** Times that penne is killed; PENNE_KILLS sets more. */
const KILLS = Number(Deno.env.get("PENNE_KILLS") ?? 10);

/** A port that is refused: its options, and what penne and pasta say of it; nothing where it is no error. */
interface Case {
  readonly what: string;
  readonly args: readonly string[];
  /** Whether nothing was tried. */
  readonly usage?: boolean;
  /** What limits the process. */
  readonly files?: number;
  readonly penne: RegExp;
  readonly pasta: RegExp;
  /** Whether the namespace must be there before. */
  readonly inside?: boolean;
}

const listen = "\\nCouldn't listen on requested ports\\n";
const CASES: readonly Case[] = [
  {
    what: "busy, TCP",
    args: ["-t", "7101", "-u", "7102", "-t", "7100"],
    penne: /^penne: cannot listen on TCP port 7100: Address already in use \(EADDRINUSE\)\n$/,
    pasta: new RegExp(`^Listen failed for HOST TCP port \\*/7100: Address already in use${listen}$`),
  },
  {
    what: "busy, UDP, in a range",
    args: ["-t", "7101", "-u", "7096-7100:96-100"],
    penne: /^penne: cannot listen on UDP port 7100: Address already in use \(EADDRINUSE\)\n$/,
    pasta: new RegExp(`^Listen failed for HOST UDP port \\*/7100: Address already in use${listen}$`),
  },
  {
    what: "privileged",
    args: ["-u", "7101", "-t", "127.0.0.1/443"],
    penne:
      /^penne: cannot listen on TCP port 443 of 127\.0\.0\.1: Permission denied \(EACCES\)\nhint: .* sysctl .*=443\n$/,
    pasta: new RegExp(`^Listen failed for HOST TCP port 127.0.0.1/443: Permission denied${listen}$`),
  },
  {
    what: "foreign address",
    args: ["-t", "7101", "-t", "[2001:db8::77]/7102"],
    penne:
      /^penne: cannot listen on TCP port 7102 of 2001:db8::77: Cannot assign requested address \(EADDRNOTAVAIL\)\nhint: /,
    pasta: new RegExp(`^Listen failed for HOST TCP port 2001:db8::77/7102: Cannot assign requested address${listen}$`),
  },
  {
    what: "no such interface",
    args: ["-t", "7101", "-u", "*%nope/7102"],
    penne: /^penne: cannot listen on UDP port 7102 on nope: No such device \(ENODEV\)\n$/,
    pasta: new RegExp(`^Listen failed for HOST UDP port \\*%nope/7102: No such device${listen}$`),
  },
  {
    what: "out of descriptors",
    args: ["-u", "7101", "-t", "7200-7500"],
    files: 200,
    penne: /^penne: cannot listen on TCP port \d+: Too many open files \(EMFILE\)\nhint: .* hard limit is 200 /,
    pasta: new RegExp(`^Listen failed for HOST TCP port \\*/\\d+: Too many open files${listen}$`),
  },
  {
    what: "overlapping",
    args: ["-t", "7101-7110:1-10", "-t", "127.0.0.1/7105"],
    usage: true,
    penne: /^penne: cannot use --tcp-ports "127\.0\.0\.1\/7105": 127\.0\.0\.1:7105 and \*:7101-7110 overlap\n$/,
    pasta: /^Forwarding configuration conflict: TCP \[127\.0\.0\.1\]:7105 .* versus .*\nUnable to add rule /,
  },
  {
    what: "overlapping, inside",
    args: ["-t", "7101", "-U", "53-60,55"],
    usage: true,
    penne: /^penne: cannot use --udp-ns "53-60,55": \*%lo:55 and \*%lo:53-60 overlap\n$/,
    pasta: /^Forwarding configuration conflict: UDP \[\*\]%lo:55 .* versus .*\nUnable to add rule /,
  },
  {
    what: "malformed",
    args: ["-t", "7101", "-t", "7102-7103:80"],
    usage: true,
    penne: /^penne: cannot use --tcp-ports "7102-7103:80": it is not a list of ports\nhint: /,
    pasta: /^Invalid port specifier '7102-7103:80'\n$/,
  },
  {
    what: "malformed, inside",
    args: ["-t", "7101", "-T", "80:"],
    usage: true,
    penne: /^penne: cannot use --tcp-ns "80:": it is not a list of ports\nhint: /,
    pasta: /^Invalid port specifier '80:'\n$/,
  },
  {
    what: "busy inside",
    args: ["-t", "7101", "-u", "7102", "-T", "5001", "-T", "7300"],
    inside: true,
    penne:
      /^penne: cannot listen on TCP port 7300 inside: Address already in use \(EADDRINUSE\)\nhint: a program inside has the port\n$/,
    pasta: /cannot listen on TCP port 7300 inside: Address already in use \(EADDRINUSE\)\n/,
  },
];

/** Has ports, TCP and UDP, of all addresses. */
const HOLD = `import socket, sys, time
port = int(sys.argv[1])
held = [socket.socket(socket.AF_INET6, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]
for s in held: s.bind(("::", port))
held[0].listen()
print("held", flush=True)
time.sleep(1000)`;

async function hold(lab: NetLab, argv: (argv: string[]) => string[], port: number): Promise<void> {
  const daemon = lab.start(argv(["python3", "-c", HOLD, `${port}`]), { cwd: "/" });
  await until("the port is held", () => daemon.output().includes("\n"));
}

/** A namespace of the test user, by the process in it. */
async function makeTarget(lab: NetLab): Promise<Daemon> {
  const argv = asUser([
    "unshare",
    "--user",
    "--map-root-user",
    "--net",
    "sh",
    "-c",
    "ip link set lo up; exec sleep 1000",
  ]);
  const daemon = lab.start(lab.in(lab.host, argv), { cwd: "/" });
  await becomes(daemon, "sleep");
  return daemon;
}

test(
  "a port that cannot be opened ends run, attach and pasta with its text, and nothing is open then",
  NEEDS,
  async (t) => {
    await using lab = await NetLab.open();
    await lab.usual();
    const target = await makeTarget(lab);
    const pid = `${target.child.pid}`;
    const inside = ["nsenter", `--net=/proc/${pid}/ns/net`];
    await hold(lab, (argv) => lab.in(lab.host, argv), 7100);
    await hold(lab, (argv) => [...inside, ...argv], 7300);
    const state = async () => [
      await must(lab.in(lab.host, ["ss", "-Htuln"])),
      await must([...inside, "ss", "-Htuln"]),
      await must([...inside, "ip", "-br", "link"]),
    ];
    const before = await state();
    const none = (args: readonly string[]) =>
      ["-t", "-u", "-T", "-U"].flatMap((flag) => args.includes(flag) ? [] : [flag, "none"]);
    for (const { what, args, usage, files, penne: said, pasta: pastaSaid, inside: isInside } of CASES) {
      const commands: readonly (readonly [string, readonly string[], number, RegExp])[] = [
        ...isInside ? [] : [["run", [penne(), "run", ...args, "--", "true"], usage ? 2 : 125, said] as const],
        ["attach", [penne(), "attach", ...args, pid], usage ? 2 : 1, said],
        ...isInside ? [] : [["pasta", [pasta(), "-f", ...none(args), ...args, "true"], 1, pastaSaid] as const],
        ["pasta, in the background", [pasta(), "-q", "--config-net", ...none(args), ...args, pid], 1, pastaSaid],
      ];
      for (const [name, argv, code, text] of commands) {
        await t.step(`${what}: ${name}`, async () => {
          const limited = [...files === undefined ? [] : ["prlimit", `--nofile=${files}:${files}`], ...argv];
          const result = await sh(lab.in(lab.host, asUser(limited)), { cwd: "/" });
          assertEquals([result.code, result.stdout], [code, ""], result.stderr);
          assertMatch(result.stderr, text);
          assertEquals(await state(), before);
        });
      }
    }
  },
);

for (const name of ["run", "attach"] as const) {
  test(`penne ${name} that is killed at any moment leaves every port free at once`, NEEDS, async () => {
    await using lab = await NetLab.open();
    await lab.usual();
    const target = await makeTarget(lab);
    const what = name === "run" ? ["--", "sleep", "1000"] : [`${target.child.pid}`];
    const ports = ["-t", "7100-7109", "-u", "7100-7109:53-62", "-T", "5000-5009"];
    const [program, ...args] = lab.in(lab.host, asUser([penne(), name, "--ready-fd", "1", ...ports, ...what]));
    for (let i = 0; i < KILLS; i++) {
      const child = new Deno.Command(program!, { args, cwd: "/", stdin: "null", stdout: "piped", stderr: "null" })
        .spawn();
      const reader = child.stdout.getReader();
      // Every third one is ready; others are killed while they start.
      if (i % 3 === 0) assert(!(await reader.read()).done, `the run ${i} has ended`);
      else await new Promise((resolve) => setTimeout(resolve, Math.random() * 300));
      await killIfAlive(child.pid);
      await child.status;
      await reader.cancel();
      const { stdout, stderr } = await lab.run(lab.host, ["python3", "-c", BIND]);
      assertEquals(stdout, "free\n", `after ${i} times: ${stderr}`);
    }
  });
}
