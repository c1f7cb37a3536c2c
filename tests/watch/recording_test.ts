// Recordings: what is encoded decodes to the same, filters on a recording, and files that are cut off, damaged or foreign.

import { assert, assertEquals, assertThrows } from "@std/assert";
import { O } from "../../ffi/core/consts.ts";
import { open } from "../../ffi/sys/file.ts";
import { self } from "../../ffi/core/task.ts";
import { PenneError } from "../../mod/base/errors.ts";
import type { NamespaceId } from "../../mod/namespaces/id.ts";
import { WallClock } from "../../mod/watch/facts/clock.ts";
import { capabilitiesOf, type EventKind, type Fact, type Filter, type Task } from "../../mod/watch/facts/contract.ts";
import type { WatchEvent } from "../../mod/watch/facts/watch_event.ts";
import { formatText } from "../../mod/watch/output/format.ts";
import { decodeHeader, decodeStep, encodeHeader, encodeStep } from "../../mod/watch/recording/codec.ts";
import { FormatError } from "../../mod/watch/recording/members.ts";
import { Player, type PlayRequest } from "../../mod/watch/recording/player.ts";
import { Recorder } from "../../mod/watch/recording/recorder.ts";
import { Replay } from "../../mod/watch/recording/replay.ts";
import type { Header, Step } from "../../mod/watch/recording/step.ts";
import { Tracker } from "../../mod/watch/state/tracker.ts";
import { test } from "../lib/helpers.ts";

const id = (inum: number): NamespaceId => ({ inum, id: `${inum}000` });
const of = (pid: number, comm = "a") => ({ mono: 5n, pid, tid: pid, comm, uid: 0, cgroup: 3n, exact: true });
const slots = new Map([["net", id(1)], ["user", id(2)]] as const);
const shell: Task = { pid: 7, tid: 7, ppid: 1, comm: "sh", uid: null, cgroup: null, start: 9n << 60n, slots };
const FACTS: readonly Fact[] = [
  { kind: "fork", ...of(8), ppid: 7, ptid: 7 },
  { kind: "fork", ...of(9, "b"), ppid: 8, ptid: 8, slots },
  { kind: "exec", ...of(8, "\x9b\u202e\n\ud800") },
  { kind: "ns", ...of(8), slot: "net", reason: "unshare", old: id(1), new: id(500), errno: 0, made: true },
  { kind: "ns", ...of(9, "b"), slot: "pid_for_children", reason: "setns", old: null, new: null, errno: 1 },
  { kind: "exit", ...of(8), last: true, status: 256 },
  { kind: "exit", ...of(9, "b"), last: true, status: null },
];
const OTHERS: readonly WatchEvent[] = [
  {
    event: "capabilities",
    mono: 1n,
    backend: "proc",
    sights: {
      ...capabilitiesOf({ exit: "exact" }, () => "inferred"),
      birth: "exact",
      death: "inferred",
      name: "unseen",
    },
    refused: [{ backend: "ebpf", reason: "it is", errno: "EPERM", hints: ["be root"] }],
    denied: 3,
  },
  {
    event: "namespace",
    mono: 1n,
    namespace: {
      type: "user",
      ...id(2),
      owner: id(1),
      parent: null,
      creator: 0,
      processes: 1,
      threads: 0,
      pid: 7,
      command: "sh\n",
      names: [{ kind: "path", name: "/x y" }],
      maps: { users: [{ inside: 0, outside: 1000, count: 1 }], groups: [] },
    },
  },
  { event: "lost", mono: 1n, count: 4, source: "fanotify" },
  { event: "resync", mono: 1n, tasks: 1, differences: 2 },
  { event: "summary", mono: 1n, born: 1, alive: [{ type: "net", ...id(500), pid: 8 }] },
];
const NAME = { path: "/run/netns/x", type: "net", ...id(500) } as const;
const STEPS: readonly Step[] = [
  { step: "clock", offset: -7n },
  { step: "task", task: shell },
  { step: "early", fact: FACTS[0]! },
  { step: "load" },
  { step: "named", name: { path: "/x", type: "uts", inum: 77, id: null } },
  { step: "listed", type: "ipc", namespace: { inum: 78, id: null } },
  ...OTHERS.slice(0, -1).map((event) => ({ step: "event", event } as const)),
  { step: "where", pid: 8, path: "/a", container: null },
  { step: "cgroup", cgroup: 3n, path: "/a" },
  { step: "merge" },
  ...FACTS.slice(1).map((fact) => ({ step: "fact", fact } as const)),
  { step: "renamed", change: { ...NAME, pid: null, state: "mounted" }, sighting: { mono: 6n, source: "fanotify" } },
  { step: "renamed", change: { ...NAME, pid: null, state: "gone" }, sighting: { mono: 7n, source: "mountinfo" } },
  { step: "resync", mono: 8n },
  { step: "ended", type: "net", namespace: id(500), unseen: false, mono: 8n, exact: true, source: "handle" },
  { step: "forgotten", tid: 7 },
  { step: "event", event: OTHERS.at(-1)! },
];
const HEADER: Header = {
  version: 1,
  backend: "ebpf",
  offset: 5n,
  filter: { failed: true },
  events: null,
  threads: true,
};

/** A recording as text. */
function recordingOf(steps: readonly Step[], header = HEADER): string {
  const lines = [encodeHeader(header), ...steps.map(encodeStep)];
  return lines.join("") + encodeStep({ step: "end", lines: lines.length });
}

/** Replays a text as a file. */
async function replayText(text: string, request: PlayRequest | null = null): Promise<string[]> {
  const path = await Deno.makeTempFile({ prefix: "penne-recording-" });
  try {
    await Deno.writeTextFile(path, text);
    using fd = open(self, path, O.RDONLY);
    return Array.from(new Replay(fd, "FILE", request).events(), formatText);
  } finally {
    await Deno.remove(path);
  }
}

test("Each step and the header decode to what was encoded", () => {
  for (const step of STEPS) assertEquals(decodeStep(encodeStep(step).trimEnd()), step);
  const filter: Filter = {
    types: new Set(["net"]),
    pids: new Set([1]),
    trees: new Set([2]),
    comms: new Set(["x"]),
    uids: new Set([0]),
    cgroups: new Set([2n ** 63n]),
    inums: new Set([4026531840]),
    failed: false,
  };
  for (const header of [HEADER, { ...HEADER, filter, events: ["birth"] as const, threads: false }]) {
    const decoded = decodeHeader(encodeHeader(header).trimEnd());
    const given = Object.entries(decoded.filter).filter(([, value]) => value !== undefined);
    assertEquals({ ...decoded, filter: Object.fromEntries(given) }, header);
  }
});

test("A recording is played with the filter of then, and with others", async () => {
  const text = recordingOf(STEPS);
  const all = await replayText(text);
  assertEquals(all.slice(4).map((line) => line.trimEnd()), [
    "fork: ppid=7 pid=8",
    "fork: ppid=8 pid=9",
    "exec: pid=8",
    "ns: pid=8 type=net reason=unshare old_inum=1 inum=500",
    "birth: type=net inum=500 id=500000 pid=8",
    "ns: pid=9 type=pid_for_children reason=setns errno=EPERM",
    "exit: pid=8",
    "exit: pid=9",
    "name: path=/run/netns/x type=net inum=500 state=mounted",
    "name: path=/run/netns/x type=net inum=500 state=gone exact=false",
    "exit: pid=7 exact=false",
    "death: type=net inum=500 id=500000 cause=unmounted",
    "summary: born=1 alive=0",
  ]);
  const notes = all.filter((line) => /^(capabilities|namespace|lost|resync)/.test(line));
  const play = (filter: Filter, events?: EventKind[], cgroupPaths: string[] = []) =>
    replayText(text, { filter, events: events && new Set(events), threads: true, cgroupPaths });
  const with9 = [...notes, ...all.filter((line) => /pid=9\b/.test(line)), "summary: born=0 alive=0\n"];
  assertEquals(await play({ comms: new Set(["b"]), failed: true }), with9);
  assertEquals(await play({ cgroups: new Set() }, undefined, ["/b"]), [...notes, "summary: born=0 alive=0\n"]);
  assertEquals(
    await play({ cgroups: new Set(), failed: true }, undefined, ["/a"]),
    all.filter((line) => line !== "exit: pid=7 exact=false\n"),
  );
  // What the recorded watch did not want is not there, whatever is asked for.
  const narrow = recordingOf(STEPS, { ...HEADER, filter: { comms: new Set(["b"]), failed: true } });
  assertEquals(
    await replayText(narrow, { filter: { failed: true }, events: undefined, threads: true }),
    with9,
  );
});

test("Random histories that are recorded and played give the events of the live state, for each filter", async () => {
  const path = await Deno.makeTempFile({ prefix: "penne-recording-" });
  try {
    using fd = open(self, path, O.WRONLY);
    const recorder = new Recorder(fd, new WallClock(0n), (error) => {
      throw error;
    });
    const filters: Filter[] = [{}, { trees: new Set([3]) }, { comms: new Set(["c1"]) }, { inums: new Set([101]) }];
    const live = filters.map((filter) => {
      const lines: string[] = [];
      const emit = (event: WatchEvent) => lines.push(formatText(event));
      return { lines, tracker: new Tracker("ebpf", { filter, emit }) };
    });
    recorder.begin({ backend: "ebpf", filter: {}, events: undefined, threads: false });
    const tasks = [{ ...shell, pid: 1, tid: 1, ppid: 0 }];
    recorder.load(tasks, []);
    recorder.merge();
    for (const { tracker } of live) tracker.load(tasks, []);
    const living = [1];
    let [last, inum] = [1, 100];
    for (let i = 0; i < 2000; i++) {
      const at = Math.floor(Math.random() * living.length);
      const pid = living[at]!;
      const kind = living.length === 1 ? 0 : Math.random();
      const common = of(pid, `c${pid % 4}`);
      const fact: Fact = kind < 0.3
        ? { kind: "fork", ...of(++last, `c${last % 4}`), ppid: pid, ptid: pid }
        : kind < 0.5
        ? { kind: "exit", ...common, last: true, status: 0 }
        : kind < 0.7
        ? { kind: "exec", ...common }
        : { kind: "ns", ...common, slot: "net", reason: "unshare", old: null, new: id(++inum), errno: 0 };
      if (fact.kind === "fork") living.push(last);
      if (fact.kind === "exit") living.splice(at, 1);
      for (const { tracker } of live) tracker.apply(fact);
      recorder.fact(fact);
      if (i % 50 > 0) continue;
      for (const namespace of [...live[0]!.tracker.namespaces].filter(({ tasks }) => tasks === 0)) {
        recorder.ended(namespace, BigInt(i), true, "handle");
        for (const { tracker } of live) {
          tracker.died(tracker.namespaces.find(namespace.type, namespace)!, BigInt(i), true, "handle");
        }
      }
    }
    recorder.end();
    const text = await Deno.readTextFile(path);
    assertEquals(await replayText(text), live[0]!.lines);
    for (const [i, filter] of filters.entries()) {
      const played = await replayText(text, { filter, events: undefined, threads: false });
      assertEquals(played, live[i]!.lines, `filter ${i}`);
      assert(played.length > 0);
    }
  } finally {
    await Deno.remove(path);
  }
});

test("A later snapshot can have more new tasks than a call takes arguments, each the child of the one before", () => {
  const player = new Player(HEADER, null);
  player.take({ step: "load" });
  const count = 150_000;
  for (let pid = count; pid > 0; pid--) {
    player.take({ step: "task", task: { ...shell, pid, tid: pid, ppid: pid - 1, slots: new Map() } });
  }
  const events = player.take({ step: "resync", mono: 8n });
  assertEquals([events.length, events[0]!.event, player.tracker.tasks.size], [count, "fork", count]);
});

test("A recording that is cut off anywhere plays what is there, and then says so", async () => {
  const text = recordingOf(STEPS.filter(({ step }) => step !== "resync"));
  const all = await replayText(text);
  const path = await Deno.makeTempFile({ prefix: "penne-recording-" });
  try {
    await Deno.writeTextFile(path, text);
    const first = text.indexOf("\n") + 1;
    for (let length = text.length - 1; length >= 0; length -= length > 500 ? 97 : 1) {
      await Deno.truncate(path, length);
      using fd = open(self, path, O.RDONLY);
      const lines: string[] = [];
      const error = assertThrows(() => {
        for (const event of new Replay(fd, "FILE", null).events()) lines.push(formatText(event));
      }, PenneError);
      assertEquals(lines, all.slice(0, lines.length));
      const reason = length < first ? "it is no recording" : "it is cut off after line";
      assert(error.message.includes(`cannot replay "FILE": ${reason}`), error.message);
    }
  } finally {
    await Deno.remove(path);
  }
});

test("Whatever a line is changed to, it is played or refused with a reason", async () => {
  const lines = recordingOf(STEPS).trimEnd().split("\n");
  const values = ["null", "-1", "1.5", "1e300", '"x"', '"\\u001b[31m"', "[]", "{}", "true", '"__proto__"'];
  let refused = 0;
  for (const [i, line] of lines.entries()) {
    const words = [...line.matchAll(/:("[^"]*"|-?\d+|true|false|null)/g)];
    const changed = words.map(({ index, 1: word }, n) =>
      line.slice(0, index + 1) + values[(i + n) % values.length] + line.slice(index + 1 + word!.length)
    );
    for (const other of [...changed, line.slice(0, -1), "", "null", "[]", '{"step":"constructor"}']) {
      try {
        if (i > 0) new Player(HEADER, null).take(decodeStep(other));
        else new Player(decodeHeader(other), null);
      } catch (error) {
        if (!(error instanceof FormatError)) throw error;
        refused++;
      }
    }
  }
  assert(refused > lines.length);
  const hints = encodeStep({ step: "event", event: OTHERS[0]! }).replace('"be root"', '{"toString":1}');
  assertThrows(() => decodeStep(hints), FormatError);
  const damaged = lines.with(4, '{"step":"fact"}').join("\n");
  await assertRefused(damaged, "line 5 is damaged");
  await assertRefused(lines.toSpliced(5, 1).join("\n") + "\n", "it is damaged: ");
  await assertRefused(`${lines.join("\n")}\n${lines[1]}\n`, "something follows its end");
  await assertRefused(lines.join("\n").replace('"version":1', '"version":2'), "it has format 2, of a newer penne");
  await assertRefused(`${lines[0]}\n${"x".repeat(2 << 20)}`, "line 2 is damaged: it is too long");
  for (const text of ["", "\n", "hello\n", "\0".repeat(5 << 20), "{}\n", '{"penne":"x","version":1}\n']) {
    await assertRefused(text, "it is no recording of penne watch");
  }
});

async function assertRefused(text: string, reason: string): Promise<void> {
  try {
    await replayText(text);
  } catch (error) {
    assert(error instanceof PenneError && error.message.includes(reason), `${error}`);
    return;
  }
  throw new Error(`not refused: ${reason}`);
}
