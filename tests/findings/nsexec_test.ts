// Bootstraps on hosts that refuse them: the log names the cause after the failure, and the fix works.

import { assertEquals, assertMatch } from "@std/assert";
import { type Attribute, encodeBootstrap } from "../../mod/nsexec/message.ts";
import { penne, sh, test, TEST_USER } from "../lib/helpers.ts";
import { subordinateIds, userIds } from "../lib/user.ts";
import { Bootstrap } from "../nsexec/driver.ts";
import { Home } from "../nsexec/namespaces.ts";
import { DOCKER, filtered, fixIn, rootCommand } from "./lab/hosts.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const [NEWUSER, NEWNET, NEWTIME] = [0x10000000, 0x40000000, 0x80];
const flags = (value: number): Attribute => ({ name: "cloneFlags", value });
const maps = (uid: number, gid: number, count = 1): Attribute[] => [
  { name: "uidMap", value: bytes(`0 ${uid} ${count}\n`) },
  { name: "gidMap", value: bytes(`0 ${gid} ${count}\n`) },
  { name: "rootless", value: 1 },
];
const own = () => maps(userIds().uid, userIds().gid);
const WITHOUT = "start penne from a process without that filter: it is inherited, and cannot be removed";

/** How a bootstrap has ended: its exit code, the fatal lines, and the hints. */
interface Ended {
  readonly code: number | null;
  readonly fatal: readonly string[];
  readonly hints: readonly string[];
}

/** Runs a bootstrap of `true` after the words of a host. */
function bootstrap(
  host: readonly string[],
  message: readonly Attribute[],
  options: { readonly user?: boolean; readonly log?: boolean } = {},
): Ended {
  using run = Bootstrap.start({ argv: ["/usr/bin/env", ...host, penne(), "nsexec", "--", "/bin/true"], ...options });
  run.send(encodeBootstrap({ attributes: message }, "1.2"));
  const { code } = run.wait(run.pid);
  const texts = (level: string) => run.log.filter((line) => line.level === level).map(({ text }) => text);
  if (options.log !== false) return { code, fatal: texts("fatal"), hints: texts("error") };
  const lines = run.stderr.split("\n").filter(Boolean);
  return {
    code,
    fatal: lines.filter((line) => line.startsWith("FATAL: ")).map((line) => line.slice("FATAL: ".length)),
    hints: lines.filter((line) => line.startsWith("hint: ")),
  };
}

const RAN: Ended = { code: 0, fatal: [], hints: [] };

test(
  "nsexec names the filter that refuses namespaces, in the log and without one",
  ["user", "package:gcc"],
  async () => {
    const rootless = [flags(NEWUSER | NEWNET)];
    const cases: [readonly string[], readonly Attribute[], string][] = [
      [DOCKER, rootless, "refuses clone(2) for user namespaces"],
      [[`unshare[0&${NEWNET}]=1`], rootless, "refuses unshare(2) for net namespaces"],
      [[`unshare[0&${NEWTIME}]=1`], [flags(NEWUSER | NEWTIME)], "refuses unshare(2) for time namespaces"],
    ];
    for (const [rules, message, does] of cases) {
      const host = await filtered(rules, []);
      for (const log of [true, false]) {
        const { code, fatal, hints } = bootstrap(host, [...message, ...own()], { user: true, log });
        assertEquals(code, 1);
        assertMatch(fatal[0]!, /^failed to unshare (user namespace|remaining namespaces): Operation not permitted$/);
        assertEquals(hints, [`hint: a system call filter (seccomp) ${does}; ${WITHOUT}`]);
      }
    }
  },
);

test("nsexec names the filter that refuses to join", ["root", "package:gcc"], async () => {
  using home = new Home(["net"]);
  const message: Attribute[] = [{ name: "namespaces", value: bytes(home.list(["net"])) }, {
    name: "rootless",
    value: 0,
  }];
  const { code, fatal, hints } = bootstrap(await filtered(["setns=1"], []), message);
  assertEquals(code, 1);
  assertMatch(fatal[0]!, /^failed to setns\(0x40000000\) into net namespace .*: Operation not permitted$/);
  assertEquals(hints, [`hint: a system call filter (seccomp) refuses setns(2) for net namespaces; ${WITHOUT}`]);
  assertEquals(bootstrap([], message), RAN);
  const lacking = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps=-all"];
  assertEquals(bootstrap(lacking, message).hints, [
    "hint: joining namespaces takes CAP_SYS_ADMIN, which root does not have here; start penne from a process that has it",
  ]);
});

test("nsexec names a limit of namespaces, and the fix works", [
  "user namespaces",
  "package:procps",
  "package:util-linux",
], () => {
  const host = (before: string) => ["unshare", "-Ur", "sh", "-c", `${before}; exec "$@"`, "sh"];
  const message = [flags(NEWNET), { name: "rootless", value: 0 } as const];
  const limit = "echo 0 > /proc/sys/user/max_net_namespaces";
  const { code, fatal, hints } = bootstrap(host(limit), message);
  assertEquals([code, fatal[0]], [1, "failed to unshare remaining namespaces: No space left on device"]);
  assertEquals(hints, [
    "hint: user.max_net_namespaces is 0, which forbids net namespaces; as root: sysctl -w user.max_net_namespaces=10000",
  ]);
  assertEquals(bootstrap(host(`${limit}; ${rootCommand(fixIn(hints[0]!))} >&2`), message), RAN);
});

test("nsexec names ids that are not granted, and those that the user namespace around does not map", [
  "root",
  "user",
  "newuidmap",
  "package:util-linux",
], async () => {
  const [uidTool, gidTool] = await Promise.all(["newuidmap", "newgidmap"].map(async (name) => {
    return (await sh(["sh", "-c", `command -v ${name}`])).stdout.trim();
  }));
  const tools: Attribute[] = [
    { name: "uidMapPath", value: bytes(uidTool!) },
    { name: "gidMapPath", value: bytes(gidTool!) },
  ];
  const message = (outside: number) => [flags(NEWUSER), ...maps(outside, outside, 10), ...tools];
  const granted = subordinateIds("uid").start;
  const refused = bootstrap([], message(700000), { user: true });
  assertEquals(refused.code, 1);
  assertMatch(refused.fatal[0]!, /^failed to use newuid map on \d+$/);
  assertEquals(refused.hints, [
    `hint: /etc/subuid does not grant the ids 700000 to 700009 to ${TEST_USER}; ` +
    `as root: usermod --add-subuids 700000-700009 ${TEST_USER}`,
  ]);
  assertEquals(bootstrap([], message(granted), { user: true }), RAN);
  const around = bootstrap(["unshare", "-Ur"], [flags(NEWUSER), ...maps(700000, 700000, 10)]);
  assertEquals(around.hints, [
    "hint: the user namespace that penne runs in does not map the users 700000 to 700009; map them there",
  ]);
});

test("nsexec without rights and without a user namespace names what it lacks", ["user"], () => {
  const message = [flags(NEWNET), { name: "rootless", value: 1 } as const];
  assertEquals(bootstrap([], message, { user: true }).hints, [
    "hint: these namespaces take CAP_SYS_ADMIN, or a user namespace of their own",
  ]);
  assertEquals(bootstrap([], [flags(NEWUSER | NEWNET), ...own()], { user: true }), RAN);
});

test("nsexec says why its stages may not be executed", ["user", "package:gcc"], async () => {
  const { fatal, hints } = bootstrap(await filtered(["execveat=1"], []), own(), { user: true });
  assertEquals(fatal[0], "unable to spawn stage-1: Operation not permitted");
  assertEquals(hints, [`hint: a system call filter (seccomp) refuses execveat(2); ${WITHOUT}`]);
});
