// `penne attach` and `penne run --net=tap` with wrong input: one clear line, a hint, and nothing changed.

import { assert, assertEquals, assertMatch } from "@std/assert";
import { penne, sh, test } from "../../lib/helpers.ts";
import { NetLab } from "../../lib/netlab.ts";

const NEEDS = ["root", "package:iproute2", "package:util-linux"] as const;

/** The addresses and routes of a namespace, as text. */
async function state(lab: NetLab, netns: string): Promise<string> {
  return JSON.stringify([await lab.json(netns, "addr"), await lab.json(netns, "route", "show", "table", "all")]);
}

/** Checks for exactly one error line, followed by hints. */
function assertClear(stderr: string, pattern: RegExp, hinted: boolean): void {
  const [first, ...rest] = stderr.trimEnd().split("\n");
  assertMatch(first!, /^penne: cannot /);
  assertMatch(first!, pattern);
  for (const line of rest) assertMatch(line, /^hint: /);
  if (hinted) assert(rest.length > 0, `a hint is missing: ${stderr}`);
}

interface Case {
  args: string[];
  code: 1 | 2;
  says: RegExp;
  hinted?: boolean;
}

const CASES: Case[] = [
  { args: ["-m", "65522", "GUEST"], code: 2, says: /"65522": it is not a whole number from 0 to 65521/ },
  { args: ["-m", "67", "GUEST"], code: 2, says: /MTU 67: it is 0 .* or 68 to 65521/ },
  { args: ["-m", "x", "GUEST"], code: 2, says: /--mtu "x"/ },
  { args: ["-6", "-m", "1279", "GUEST"], code: 2, says: /MTU 1279 with IPv6 alone/ },
  { args: ["-i", "nosuch0", "GUEST"], code: 1, says: /interface "nosuch0": it does not exist/, hinted: true },
  { args: ["-I", "name-of-16-bytes", "GUEST"], code: 2, says: /it has 1 to 15 bytes/ },
  { args: ["-I", "tap%d", "GUEST"], code: 2, says: /"tap%d" as the name of an interface/ },
  { args: ["-I", "lo", "GUEST"], code: 2, says: /loopback has it/ },
  { args: ["-4", "-a", "2001:db8::5", "GUEST"], code: 2, says: /2001:db8::5: IPv6 is off/, hinted: true },
  { args: ["-6", "-g", "10.0.0.1", "GUEST"], code: 2, says: /10\.0\.0\.1: IPv4 is off/, hinted: true },
  { args: ["-4", "-6", "GUEST"], code: 2, says: /-4 with -6/, hinted: true },
  {
    args: ["-a", "2001:db8::5", "-n", "24", "GUEST"],
    code: 2,
    says: /--netmask without an IPv4 address/,
    hinted: true,
  },
  { args: ["-a", "10.0.0.5/24", "-n", "24", "GUEST"], code: 2, says: /--netmask without an IPv4 address that has no/ },
  { args: ["-a", "10.0.0.5/33", "GUEST"], code: 2, says: /prefix length/ },
  { args: ["-a", "10.0.0", "GUEST"], code: 2, says: /it is not an IP address/ },
  { args: ["-a", "127.0.0.1/8", "GUEST"], code: 2, says: /it is a loopback address/ },
  { args: ["-a", "224.0.0.1", "GUEST"], code: 2, says: /multicast/ },
  { args: ["-a", "::", "GUEST"], code: 2, says: /unspecified/ },
  { args: ["-a", "fe80::5", "GUEST"], code: 2, says: /link-local/ },
  { args: ["-a", "10.0.0.5", "-a", "10.0.0.6", "GUEST"], code: 2, says: /another one was given for IPv4/ },
  { args: ["-a", "10.0.0.5", "-g", "10.0.0.5", "GUEST"], code: 2, says: /as the address and as the gateway/ },
  { args: ["-g", "gateway", "GUEST"], code: 2, says: /--gateway "gateway": it is not an IP address/ },
  { args: ["-n", "255.0.255.0", "-a", "10.0.0.5", "GUEST"], code: 2, says: /not contiguous/ },
  { args: ["--ns-mac-addr", "02:00:00:00:00", "GUEST"], code: 2, says: /not a MAC address/ },
  { args: ["--ns-mac-addr", "01:00:5e:00:00:01", "GUEST"], code: 2, says: /and not multicast/ },
  { args: ["--no-config-net", "--config-net", "GUEST"], code: 2, says: /--config-net/ },
  { args: ["--ready-fd", "1", "--status-fd", "1", "GUEST"], code: 2, says: /one descriptor for both/ },
  { args: ["--background", "--ready-fd", "1", "GUEST"], code: 2, says: /0, 1 or 2 in the background/ },
  { args: ["--ready-fd", "99", "GUEST"], code: 2, says: /--ready-fd "99"/, hinted: true },
  { args: [], code: 2, says: /TARGET is missing/, hinted: true },
  { args: ["GUEST", "GUEST"], code: 2, says: /twice/ },
  { args: ["GUEST", "netns:GUEST"], code: 1, says: /it is the same namespace as/ },
  { args: ["GUEST", "penne-no-such-name"], code: 1, says: /No such file or directory \(ENOENT\)/, hinted: true },
  { args: ["GUEST", "4194303"], code: 1, says: /No such process \(ESRCH\)/, hinted: true },
  { args: ["0"], code: 2, says: /a PID is a number from 1/ },
  { args: ["/etc/hostname"], code: 1, says: /it is not a namespace/ },
  { args: ["/proc/self/ns/uts"], code: 1, says: /it is not a net namespace but a uts namespace/ },
  { args: ["/proc/self/ns/net"], code: 1, says: /it is the network namespace that penne itself runs in/ },
  { args: ["/proc"], code: 1, says: /it is not a namespace/ },
  { args: ["fd:98"], code: 1, says: /Bad file descriptor \(EBADF\)/, hinted: true },
  { args: ["fd:"], code: 2, says: /not a descriptor/ },
  { args: ["kept:x"], code: 2, says: /a kept set is not a target here/ },
  { args: ["--pid-file", "/no/such/directory/pid", "GUEST"], code: 1, says: /pid file "\/no\/such\/directory\/pid"/ },
  { args: ["--log-file", "/no/such/directory/log", "GUEST"], code: 1, says: /log file/ },
  { args: ["--log-size", "10", "GUEST"], code: 2, says: /--log-size "10"/ },
  { args: ["--adress", "10.0.0.1", "GUEST"], code: 2, says: /no such option/, hinted: true },
];

test("Wrong input gives one clear line and the right exit code, and changes nothing", NEEDS, async (t) => {
  await using lab = await NetLab.open();
  await lab.usual();
  const guest = await lab.netns("guest");
  const before = await state(lab, guest);
  for (const { args, code, says, hinted = false } of CASES) {
    await t.step(`attach ${args.join(" ")}`, async () => {
      const words = args.map((word) => word.replace("GUEST", guest));
      const result = await lab.run(lab.host, ["timeout", "120", penne(), "attach", ...words]);
      assertEquals(result.code, code, result.stderr);
      assertEquals(result.stdout, "");
      assertClear(result.stderr, says, hinted);
      assertEquals(await state(lab, guest), before);
    });
  }
});

test("An interface name that exists inside is refused, and that interface stays", [...NEEDS, "tun"], async () => {
  await using lab = await NetLab.open();
  const guest = await lab.netns("guest");
  await lab.ip(guest, "link", "add", "tap0", "type", "veth", "peer", "name", "other");
  const before = await state(lab, guest);
  for (
    const [args, says] of [
      [[], /cannot make the tap "tap0": Device or resource busy.* \(EBUSY\)/],
      [["--no-quit"], /cannot move the interface "tap0" into .*: File exists.* \(EEXIST\)/],
    ] as const
  ) {
    const result = await lab.run(lab.host, [penne(), "attach", ...args, guest]);
    assertEquals(result.code, 1);
    assertClear(result.stderr, says, true);
    assertEquals(await state(lab, guest), before);
  }
});

/** Scripts that remove or replace /dev/net/tun in a mount namespace. */
const NO_TUN: Record<string, { script: string; says: RegExp }> = {
  "no /dev/net/tun": {
    script: "mount -t tmpfs none /dev/net",
    says: /open \/dev\/net\/tun: No such file or directory \(ENOENT\)/,
  },
  "no permission": {
    script: "mount -t tmpfs none /dev/net; mknod -m 600 /dev/net/tun c 10 200",
    says: /open \/dev\/net\/tun: Permission denied \(EACCES\)/,
  },
  "another device": {
    script: "mount -t tmpfs none /dev/net; mknod -m 666 /dev/net/tun c 1 3",
    says: /make the tap "tap0": Inappropriate ioctl for device \(ENOTTY\)/,
  },
};

for (const [name, { script, says }] of Object.entries(NO_TUN)) {
  test(
    `With ${name} run --net=tap and attach fail with a hint, and change nothing`,
    [...NEEDS, "user"],
    async () => {
      await using lab = await NetLab.open();
      const inside = (argv: string[]) =>
        lab.in(lab.host, ["unshare", "--mount", "sh", "-ec", `${script}; exec "$@"`, "sh", ...argv]);
      const user = [
        "setpriv",
        "--reuid",
        "penne-test",
        "--regid",
        "penne-test",
        "--init-groups",
        "--inh-caps=-all",
        "--",
      ];
      const run = await sh(inside([...user, penne(), "run", "--net=tap", "--", "echo", "ran"]), { cwd: "/" });
      assertEquals([run.code, run.stdout], [125, ""]);
      assertClear(run.stderr, says, true);
      const victim = lab.start([...user, "unshare", "--user", "--map-root-user", "--net", "sleep", "1000"]);
      while (Deno.readTextFileSync(`/proc/${victim.child.pid}/comm`) !== "sleep\n") {
        await new Promise((r) => setTimeout(r, 10));
      }
      const links = () => sh(["nsenter", `--net=/proc/${victim.child.pid}/ns/net`, "--", "ip", "-j", "addr"]);
      const before = (await links()).stdout;
      const attach = await sh(inside([...user, penne(), "attach", `${victim.child.pid}`]), { cwd: "/" });
      assertEquals(attach.code, 1);
      assertClear(attach.stderr, says, true);
      assertEquals((await links()).stdout, before);
    },
  );
}

test("run refuses options for a network that it does not make", async () => {
  for (
    const args of [["--net=none", "-a", "10.0.0.1"], ["--net=none", "-4"], ["--unshare", "uts", "-m", "1500"], [
      "--net=none",
      "-g",
      "10.0.0.1",
    ], [
      "--net=host",
      "-i",
      "lo",
    ]]
  ) {
    const result = await sh([penne(), "run", ...args, "--", "echo", "ran"]);
    assertEquals([result.code, result.stdout], [2, ""], args.join(" "));
    assertClear(result.stderr, /without a network/, true);
  }
});

test("The log file of attach keeps to its size limit", [...NEEDS, "tun"], async () => {
  await using lab = await NetLab.open();
  await lab.usual();
  await lab.ip(lab.host, "route", "add", "10.7.0.0/16", "via", "192.0.2.9", "realm", "5"); // gives a warning for each namespace
  const file = await Deno.makeTempFile({ prefix: "penne-log-" });
  lab.defer(() => Deno.remove(file));
  const guests: string[] = [];
  for (let i = 0; i < 12; i++) guests.push(await lab.netns(`g${i}`));
  const daemon = await lab.attach(["--log-file", file, "--log-size", "1024", "--log-level", "info", ...guests]);
  for (const guest of guests) await lab.ip(guest, "link", "del", "up0");
  assertEquals((await daemon.ended).code, 1);
  assertEquals(daemon.errors(), "");
  const text = await Deno.readTextFile(file);
  assert(text.length <= 1024, `${text.length} bytes`);
  assertMatch(text, new RegExp(`"${guests[11]}" any longer: its interface was removed\n$`));
  for (const line of text.trimEnd().split("\n")) assertMatch(line, /^\d{4}-\d\d-\d\dT[\d:.]+Z penne: /);
});
