// Events as text and as JSON.

import { assertEquals, assertMatch } from "@std/assert";
import { WallClock } from "../../mod/watch/facts/clock.ts";
import { formatJson, formatText } from "../../mod/watch/output/format.ts";
import type { WatchEvent } from "../../mod/watch/facts/watch_event.ts";
import { test } from "../lib/helpers.ts";

const common = {
  mono: 1_000_000_001n,
  pid: 858,
  tid: 858,
  comm: 'a "b"\n',
  uid: 0,
  cgroup: "/x",
  container: null,
  exact: true,
  source: "ebpf",
} as const;
const old = { inum: 4026531957, id: "7" };
const to = { inum: 4026532142, id: "18446744073709551615" };

const EVENTS: readonly (readonly [WatchEvent, string])[] = [
  [{ event: "fork", ...common, ppid: 696, ptid: 697 }, "fork: ppid=696 pid=858"],
  [{ event: "fork", ...common, tid: 859, ppid: 858, ptid: 858 }, "fork: ppid=858 pid=858 tid=859"],
  [{ event: "exec", ...common }, "exec: pid=858"],
  [{ event: "exit", ...common, tid: 859, last: true, status: 9 }, "exit: pid=858"],
  [{ event: "exit", ...common, tid: 859, last: false, status: 9, exact: false }, "exit: pid=858 tid=859 exact=false"],
  [
    { event: "ns", ...common, type: "net", reason: "unshare", old, new: to, errno: 0 },
    "ns: pid=858 type=net reason=unshare old_inum=4026531957 inum=4026532142",
  ],
  [
    { event: "ns", ...common, tid: 859, type: "pid_for_children", reason: "setns", old, new: null, errno: 1 },
    "ns: pid=858 tid=859 type=pid_for_children reason=setns old_inum=4026531957 errno=EPERM",
  ],
  [
    { event: "birth", ...common, type: "net", ...to },
    "birth: type=net inum=4026532142 id=18446744073709551615 pid=858",
  ],
  [
    { event: "death", mono: 5n, type: "net", inum: 7, id: null, cause: "exit", exact: false, source: "search" },
    "death: type=net inum=7 cause=exit exact=false",
  ],
  [
    {
      event: "name",
      mono: 5n,
      path: "/run/netns/a b",
      type: "net",
      inum: 7,
      id: "8",
      state: "mounted",
      exact: true,
      source: "fanotify",
    },
    'name: path="/run/netns/a b" type=net inum=7 state=mounted',
  ],
  [{ event: "lost", mono: 5n, count: 3, source: "reader" }, "lost: count=3 source=reader"],
  [{ event: "resync", mono: 5n, tasks: 80, differences: 2 }, "resync: tasks=80 differences=2"],
  [
    { event: "summary", mono: 5n, born: 2, alive: [{ type: "uts", ...old, pid: 9 }] },
    "summary: born=2 alive=1\nalive: type=uts inum=4026531957 id=7 pid=9",
  ],
];

test("Text has a line for each event", () => {
  for (const [event, line] of EVENTS) assertEquals(formatText(event), `${line}\n`);
});

test("JSON has a line for each event, with all its fields", () => {
  const clock = new WallClock(1_700_000_000_000_000_000n);
  for (const [event] of EVENTS) {
    const line = formatJson(event, clock);
    assertEquals(line.indexOf("\n"), line.length - 1);
    const { time, mono_ns, ...rest } = JSON.parse(line);
    assertEquals(time, clock.text(event.mono));
    assertEquals(mono_ns, Number(event.mono));
    const { mono: _, ...expected } = event as WatchEvent & { errno?: number };
    const errno = event.event === "ns" ? { errno: event.errno === 0 ? null : "EPERM" } : {};
    assertEquals(rest, { ...expected, ...errno });
  }
});

test("No character in a name ends a line, or controls a terminal", () => {
  const name = "a\nexit: pid=1\r\x1b[2J\x7f\x9b\x85\u2028\u202e";
  const clock = new WallClock(0n);
  const path = { event: "name", mono: 5n, path: name, type: "net", inum: 7, id: null, state: "gone" } as const;
  const events: WatchEvent[] = [
    { ...path, exact: true, source: "fanotify" },
    { event: "exec", ...common, comm: name, cgroup: name },
  ];
  for (const event of events) {
    for (const line of [formatText(event), formatJson(event, clock)]) assertMatch(line, /^[^\p{C}\p{Zl}\p{Zp}]+\n$/u);
    const { path, comm, cgroup } = JSON.parse(formatJson(event, clock));
    assertEquals([path ?? comm, path ?? cgroup], [name, name]);
  }
  assertEquals(
    formatText(events[0]!).split(" type=")[0],
    `name: path=${formatJson(events[0]!, clock).split('"path":')[1]!.split(',"type"')[0]}`,
  );
});
