// runc and penne do the same with the same messages from the same driver.
//
// The tests compare the bytes on the init pipe, exit codes, the log of each stage, and stage 2: its namespaces, maps, ids,
// groups, capabilities, session, name and oom_score_adj. Pids differ. So does the reason that runc appends to a fatal line
// without one: the value that errno happens to have.

import { assert, assertEquals } from "@std/assert";
import type { NamespaceType } from "../../mod/namespaces/types.ts";
import { type Attribute, type Dialect, encodeBootstrap, type TextAttribute } from "../../mod/nsexec/message.ts";
import { O } from "../../ffi/core/consts.ts";
import { open } from "../../ffi/sys/file.ts";
import { self } from "../../ffi/core/task.ts";
import { penne, test } from "../lib/helpers.ts";
import { subordinateIds, userIds } from "../lib/user.ts";
import { Bootstrap, link, type LogLine } from "./driver.ts";
import { Home } from "./namespaces.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

const text = (name: TextAttribute["name"], value: string): Attribute => ({ name, value: bytes(value) });
const flags = (value: number): Attribute => ({ name: "cloneFlags", value });
const rootless = (value: number): Attribute => ({ name: "rootless", value });
const setgroup: Attribute = { name: "setgroup", value: 1 };
const idMaps = (uid: string, gid = uid): Attribute[] => [text("uidMap", uid), text("gidMap", gid)];

const NEW = {
  time: 0x80,
  mnt: 0x20000,
  cgroup: 0x2000000,
  uts: 0x4000000,
  ipc: 0x8000000,
  user: 0x10000000,
  pid: 0x20000000,
  net: 0x40000000,
};
const ALL: readonly NamespaceType[] = ["user", "ipc", "uts", "net", "pid", "mnt", "cgroup", "time"];

/** A message and how to send it. */
interface Case {
  name: string;
  /** The attributes, or the bytes of the whole message. */
  message: readonly Attribute[] | Uint8Array;
  only?: Dialect;
  user?: boolean;
  env?: Record<string, string>;
  /** Nothing more will be sent. */
  end?: boolean;
}

/** The results to compare. */
interface Outcome {
  pipe: string;
  stages: (number | null)[];
  log: Record<string, string[]>;
  process: Record<string, unknown> | null;
}

/** A fatal line to which runc appends a reason although it has none. */
const WITHOUT_REASON =
  /^(unknown |unexpected |ns paths|failed to parse|failed to sync|failed to join|failed to use|mapping tool|invalid netlink|failed to receive|failed to read netlink)/;
const REASON =
  /: (Success|Invalid argument|Operation not permitted|Connection reset by peer|No such file or directory|Bad file descriptor|Numerical result out of range|Inappropriate ioctl for device)$/;

/** The log of each stage, without pids. */
function byStage(log: LogLine[], names: Map<number, string>): Record<string, string[]> {
  const stages: Record<string, string[]> = {};
  for (const { level, stage, text } of log) {
    if (level === "error" && text.startsWith("hint: ")) continue; // runc has none
    let words = text.replace(/(unix socket) \d+/, "$1").replace(
      /\b\d{2,}\b/g,
      (digits) => names.get(Number(digits)) ?? digits,
    );
    if (level === "fatal" && WITHOUT_REASON.test(words)) words = words.replace(REASON, "");
    (stages[stage] ??= []).push(`${level} ${words}`);
  }
  return stages;
}

const lines = (status: string, names: readonly string[]) =>
  Object.fromEntries(names.map((name) => [name, new RegExp(`^${name}:[ \\t]*(.*)$`, "m").exec(status)?.[1]?.trim()]));

/** The state of stage 2, with its namespaces as "ours", "its home's" or "new". */
function describe(pid: number, home: Home | null): Record<string, unknown> {
  const at = `/proc/${pid}`;
  const namespaces = Object.fromEntries(
    [...ALL, "pid_for_children", "time_for_children"].map((type) => {
      const id = link(`${at}/ns/${type}`);
      const known = id === link(`/proc/self/ns/${type}`) ? "ours" : home && id === link(`/proc/${home.pid}/ns/${type}`);
      return [type, known === "ours" ? known : known ? "home" : id.includes("[") ? "new" : id];
    }),
  );
  const status = Deno.readTextFileSync(`${at}/status`);
  const { NSpid, NSsid, ...rest } = lines(status, [
    ...["Uid", "Gid", "Groups", "NSpid", "NSsid", "SigIgn"],
    ...["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Cpus_allowed"],
  ]);
  return {
    ...namespaces,
    ...rest,
    levels: NSpid!.split(/\s+/).length,
    leader: NSpid === NSsid,
    uidMap: Deno.readTextFileSync(`${at}/uid_map`),
    gidMap: Deno.readTextFileSync(`${at}/gid_map`),
    setgroups: Deno.readTextFileSync(`${at}/setgroups`),
    oom: Deno.readTextFileSync(`${at}/oom_score_adj`),
    offsets: Deno.readTextFileSync(`${at}/timens_offsets`),
    // The descriptors of mount sources.
    sources: [10, 11].map((fd) => link(`${at}/fd/${fd}`)),
  };
}

/** Sends a message and collects the results. */
function observe(argv: string[], dialect: Dialect, { message, user, env = {}, end }: Case, home: Home | null): Outcome {
  using nothing = open(self, "/dev/null", O.RDWR);
  const fds = [[10, nothing], [11, nothing]] as const; // where mount sources go
  using run = Bootstrap.start({ argv, user: user ?? false, env, fds, runc: true });
  run.send(message instanceof Uint8Array ? message : encodeBootstrap({ flags: 1, attributes: message }, dialect));
  if (end) run.endInput();
  const stage0 = run.wait(run.pid);
  // The last line may arrive after the end of stage 0.
  run.until(() => stage0.code !== 0 || run.log.some(({ text }) => text.startsWith("booting up")), 10_000);
  while (run.pump(20)) continue;
  const stages = [stage0.code];
  const names = new Map([[run.pid, "S0"]]);
  const { pids } = run;
  const stage1 = pids?.stage1 ?? run.log.find(({ stage }) => stage === "nsexec-1")?.pid;
  if (stage1) {
    names.set(stage1, "S1");
    stages.push(run.wait(stage1).code);
  }
  let process = null;
  if (pids) {
    names.set(pids.stage2, "S2");
    process = stage0.code === 0 ? describe(pids.stage2, home) : null;
    if (stage0.code !== 0) stages.push(run.wait(pids.stage2).code);
  }
  while (run.pump(20)) continue;
  const pipe = run.text.replace(/\d+/g, (digits) => names.get(Number(digits)) ?? digits);
  return { pipe, stages, log: byStage(dialect === "1.1" ? withOldWords(run.log) : run.log, names), process };
}

/** The log with a line that runc has changed within 1.1, which penne cannot know from the message, as it was before. */
function withOldWords(log: readonly LogLine[]): LogLine[] {
  return log.map((line) =>
    line.text === "waiting stage-0 to complete the mapping of user namespace"
      ? { ...line, text: "request stage-0 to map user namespace" }
      : line
  );
}

/** Makes a message whose last attribute has another type. */
function withType(message: Uint8Array, type: number): Uint8Array {
  new DataView(message.buffer).setUint16(18, type, true);
  return message;
}

/** Makes bytes that are not a message. */
function withMessageType(type: number): Uint8Array {
  const message = encodeBootstrap({ attributes: [] }, "1.2");
  new DataView(message.buffer).setUint16(4, type, true);
  return message;
}

/** All messages; some refer to existing namespaces to join. */
function cases(home: Home, other: Home, uid: number, sub: number): Case[] {
  const single = Object.entries(NEW).filter(([type]) => type !== "user");
  return [
    { name: "no attribute", message: [] },
    { name: "no flag", message: [flags(0), rootless(0)] },
    ...single.map(([type, flag]) => ({ name: `new ${type} namespace`, message: [flags(flag), rootless(0)] })),
    { name: "new user namespace", message: [flags(NEW.user), ...idMaps("0 0 1\n"), rootless(0)] },
    {
      name: "everything new, with setgroups",
      message: [flags(0x7e020000), ...idMaps("0 0 10\n10 1000 5\n"), setgroup, text("oomScoreAdj", "100"), rootless(0)],
    },
    { name: "setgroups without a user namespace", message: [flags(NEW.uts), setgroup, rootless(0)] },
    { name: "an unknown flag", message: [flags(1), rootless(0)] },
    { name: "an invalid oom_score_adj", message: [text("oomScoreAdj", "abc"), rootless(0)] },
    { name: "an oom_score_adj out of range", message: [text("oomScoreAdj", "1001"), rootless(0)] },
    {
      name: "a map that the kernel refuses",
      message: [flags(NEW.user), ...idMaps("0 0 1\n0 5 1\n"), rootless(0)],
    },
    { name: "a user namespace without maps", message: [flags(NEW.user), rootless(0)] },
    { name: "maps without id 0", message: [flags(NEW.user), ...idMaps("5 5 1\n"), rootless(0)] },
    // Only children are in a time namespace, so another process is its home.
    ...ALL.map((type) => ({ name: `join ${type}`, message: [text("namespaces", home.list([type])), rootless(0)] })),
    { name: "join all", message: [text("namespaces", home.list(ALL)), rootless(0)] },
    {
      name: "join net, new user namespace",
      message: [
        flags(NEW.user | NEW.pid),
        text("namespaces", home.list(["net"])),
        ...idMaps("0 0 1\n"),
        rootless(0),
      ],
    },
    {
      name: "join a user namespace, and a net namespace that it does not own",
      message: [text("namespaces", `${home.list(["user"])},${other.list(["net"])}`), rootless(0)],
    },
    { name: "join by an unknown type", message: [text("namespaces", "foo:/proc/self/ns/uts"), rootless(0)] },
    { name: "join nothing", message: [text("namespaces", ""), rootless(0)] },
    { name: "join nothing but commas", message: [text("namespaces", ",,"), rootless(0)] },
    { name: "join without a path", message: [text("namespaces", "net"), rootless(0)] },
    { name: "join what is not there", message: [text("namespaces", "net:/nonexistent"), rootless(0)] },
    { name: "join a file that is not a namespace", message: [text("namespaces", "net:/etc/passwd"), rootless(0)] },
    { name: "join what is another type", message: [text("namespaces", "net:/proc/self/ns/uts"), rootless(0)] },
    { name: "join a path with odd bytes", message: [text("namespaces", 'net:/no\t"such"\\file\x7fé'), rootless(0)] },
    { name: "an unknown attribute", message: withType(encodeBootstrap({ attributes: [rootless(0)] }, "1.2"), 12345) },
    { name: "another message type", message: withMessageType(62001) },
    { name: "NLMSG_ERROR", message: withMessageType(2) },
    {
      name: "a payload that is too short",
      message: encodeBootstrap({ attributes: [rootless(0)] }, "1.2").subarray(0, 20),
      end: true,
    },
    { name: "no message", message: new Uint8Array(0), end: true },
    {
      name: "rootless, one id",
      user: true,
      message: [flags(NEW.user | NEW.mnt), ...idMaps(`0 ${uid} 1\n`), rootless(1)],
    },
    {
      name: "rootless, by newuidmap",
      user: true,
      message: [
        flags(NEW.user | NEW.pid | NEW.net),
        text("uidMapPath", "/usr/bin/newuidmap"),
        // runc has room for five ranges.
        ...idMaps(`0 ${uid} 1\n${Array.from({ length: 4 }, (_, i) => `${i + 1} ${sub + 2 * i} 1\n`).join("")}`),
        text("gidMapPath", "/usr/bin/newgidmap"),
        setgroup,
        rootless(1),
      ],
    },
    {
      name: "rootless, no tool",
      user: true,
      message: [flags(NEW.user), ...idMaps(`0 ${uid} 1\n1 ${sub} 1\n`), rootless(1)],
    },
    {
      name: "rootless, a tool that refuses",
      user: true,
      message: [
        flags(NEW.user),
        text("uidMapPath", "/usr/bin/newuidmap"),
        ...idMaps("0 0 1\n"),
        rootless(1),
      ],
    },
    { name: "rootless, namespaces without privilege", user: true, message: [flags(NEW.net), rootless(1)] },
    { name: "rootless, nothing", user: true, message: [flags(0), rootless(1)] },
    {
      name: "clock offsets",
      only: "1.2",
      message: [
        flags(NEW.time),
        text("timeOffsets", "monotonic 5 0\nboottime 7 0\n"),
      ],
    },
    { name: "clock offsets without a time namespace", only: "1.2", message: [text("timeOffsets", "monotonic 5 0\n")] },
    { name: "invalid clock offsets", only: "1.2", message: [flags(NEW.time), text("timeOffsets", "foo\n")] },
    {
      name: "mount sources",
      only: "1.1",
      env: { _LIBCONTAINER_MOUNT_FDS: "[10,-1,11]" },
      message: [flags(NEW.mnt), { name: "mountSources", value: [bytes("/etc"), bytes(""), bytes("/usr/bin")] }],
    },
    {
      name: "a mount source that is not there",
      only: "1.1",
      env: { _LIBCONTAINER_MOUNT_FDS: "[10]" },
      message: [flags(NEW.mnt), { name: "mountSources", value: [bytes("/nonexistent")] }],
    },
  ];
}

const PROGRAM: Readonly<Record<"1.1" | "1.2", string>> = {
  "1.1": "/usr/sbin/runc",
  "1.2": "/usr/local/bin/runc-newer",
};

for (const [dialect, program] of Object.entries(PROGRAM) as ["1.1" | "1.2", string][]) {
  const name = program.replace(/.*\//, "");
  test(
    `${name} and penne do the same in dialect ${dialect}`,
    ["root", "user", dialect === "1.1" ? "package:runc" : "newer runc"],
    async (t) => {
      using home = new Home(ALL);
      using other = new Home(["net"]);
      const { uid } = userIds();
      const all = cases(home, other, uid, subordinateIds("uid").start).filter(({ only }) => !only || only === dialect);
      assert(all.length >= 20);
      for (const one of all) {
        await t.step(one.name, () => {
          const expected = observe([program, "init"], dialect, one, home);
          // It waits until it is killed, and leaves all signals as they are: a shell may not, as bash ignores SIGQUIT.
          const command = ["--", "/bin/sleep", "600"];
          const actual = observe([penne(), "nsexec", "--dialect", dialect, ...command], dialect, one, home);
          assertEquals(actual, expected);
        });
      }
    },
  );
}
