// `penne watch`: reports processes and namespaces as they come, change and go.

import { CAP, O, SIGNAL } from "../../../ffi/core/consts.ts";
import { EPOLL } from "../../../ffi/sys/epoll.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { SignalPipe } from "../../../ffi/sys/signal.ts";
import { call, self } from "../../../ffi/core/task.ts";
import { attempt, usage } from "../../base/errors.ts";
import { log } from "../report/log.ts";
import { openSafely } from "../report/safe_open.ts";
import { NAMESPACE_TYPES } from "../../namespaces/types.ts";
import { Reactor } from "../../reactor/reactor.ts";
import { CgroupIds } from "../../watch/facts/cgroup.ts";
import { monotonic, WallClock } from "../../watch/facts/clock.ts";
import { EVENT_KINDS, type Filter } from "../../watch/facts/contract.ts";
import { taskName } from "../../watch/facts/filter.ts";
import type { NamespaceEvent } from "../../watch/facts/watch_event.ts";
import { Followed } from "../../watch/follow.ts";
import { formatJson, formatText } from "../../watch/output/format.ts";
import { LineSink } from "../../watch/output/line_sink.ts";
import type { PlayRequest } from "../../watch/recording/player.ts";
import type { Recorder } from "../../watch/recording/recorder.ts";
import { type WatchRequest, WatchSession } from "../../watch/session.ts";
import { watchRules } from "../../watch/call_rules.ts";
import { command } from "../common/command.ts";
import { confineRole } from "../common/confine.ts";
import { CONFINE_OPTIONS } from "../options/lifecycle.ts";
import type { CommandSpec, ParsedOptions } from "../options/table.ts";
import {
  badValue,
  listOption,
  numbersOption,
  parseUser,
  secondsOption,
  wordOption,
  wordsOption,
} from "../options/values.ts";

/** What `penne watch` accepts. */
export const SPEC = {
  name: "watch",
  synopsis: "[OPTIONS] [-- COMMAND [ARGUMENT…]]",
  summary:
    "Report forks, execs and exits, every change of a task's namespaces, and the birth, death and names of namespaces, as they happen. With COMMAND, run it, and report only what it and its descendants do, until it ends.",
  mixed: true,
  groups: [
    {
      title: "Events",
      options: [
        { name: "event", value: "LIST", help: `Kinds: ${EVENT_KINDS.join(", ")} (default: all)` },
        {
          name: "type",
          value: "LIST",
          help: `Namespace types: ${NAMESPACE_TYPES.join(", ")} (default: all)`,
        },
        { name: "pid", value: "LIST", help: "Processes" },
        { name: "tree", value: "LIST", help: "Processes and all their descendants" },
        { name: "comm", value: "LIST", help: "Task names, as in /proc/PID/comm" },
        { name: "uid", value: "LIST", help: "Real users, by number or name" },
        { name: "cgroup", value: "PATH", repeat: true, help: "Control groups (v2), by path or id" },
        { name: "ns", value: "LIST", help: "Tasks in these namespaces, and changes of them, by inode number" },
        { name: "failed", help: "Failed calls too" },
        { name: "threads", help: "Forks and exits of threads too" },
      ],
    },
    {
      title: "Output",
      options: [
        { name: "format", value: "FORMAT", help: "Write events as text (default) or json, one line each" },
        { name: "json", help: "Same as --format json" },
        { name: "output", short: "o", value: "FILE", help: "Write to FILE instead of stdout" },
        { name: "snapshot", help: "Begin with the namespaces that exist, as penne ls lists them" },
      ],
    },
    {
      title: "Recordings",
      options: [
        { name: "record", value: "FILE", help: "Also record all that is seen in FILE" },
        {
          name: "replay",
          value: "FILE",
          help: "Watch what was recorded in FILE, with these filters or, without any, those of then",
        },
      ],
    },
    {
      title: "Operation",
      options: [
        {
          name: "backend",
          value: "NAME",
          help: "Source of events: ebpf, proc, poll, or auto (the best available; default)",
        },
        { name: "interval", value: "SECONDS", help: "Time between two scans of /proc (default: proc 1, poll 0.5)" },
        { name: "duration", value: "SECONDS", help: "End after this time" },
        ...CONFINE_OPTIONS,
      ],
    },
  ],
  exitCodes: [
    ["0", "done, or the reader is gone; with COMMAND: exit code of COMMAND"],
    ["1", "failure; with COMMAND: 125"],
    ["2", "usage error; nothing was done"],
    ["159", "penne was about to make a system call that it has forbidden itself"],
    ["126, 127", "COMMAND could not be executed, or was not found"],
    ["128+N", "COMMAND was killed by signal N"],
  ],
  examples: [
    ["penne watch --event ns,birth,death --type net", "all about network namespaces"],
    ["penne watch --json --tree 4711 | jq .", "a process and its descendants"],
    ["penne watch -o log -- podman run --rm alpine true", "the namespaces that a command makes"],
    ["penne watch --record trace -o log; penne watch --replay trace --type net", "record now, look later"],
  ],
} as const satisfies CommandSpec;

type Options = ParsedOptions<typeof SPEC>;

const SIGNALS = ["INT", "HUP", "TERM", "QUIT"] as const;
/** Milliseconds that the reader has for the last lines. */
const LAST_LINES = 5000;
/** Milliseconds that descendants of a command have to end after it, and between two checks. */
const AFTERMATH = { limit: 300, interval: 10 } as const;
/** Milliseconds between two adjustments to the wall clock. */
const CLOCK_INTERVAL = 10_000;
/** Least seconds of a time. */
const SECONDS_MIN = 0.001;

/** `penne watch`. */
export const start = command(SPEC, main, (args) => args.includes("--") ? 125 : 1);

/** Ids of control groups that are given by path or id. */
function cgroupIds(values: readonly string[]): ReadonlySet<bigint> | undefined {
  if (values.length === 0) return undefined;
  const ids = new CgroupIds();
  return new Set(values.map((value) => {
    const id = isNumber(value) ? BigInt(value) : ids.of(cgroupPath(value));
    if (id === null) {
      throw badValue("cgroup", value, "there is no such control group", ["only the unified hierarchy (v2) counts"]);
    }
    return id;
  }));
}

function isNumber(value: string): boolean {
  return /^\d{1,20}$/.test(value);
}

function cgroupPath(value: string): string {
  return value.startsWith("/") ? value : `/${value}`;
}

function setOf<T>(values: readonly T[] | undefined): ReadonlySet<T> | undefined {
  return values && new Set(values);
}

/** Which events are wanted, but for control groups. */
function selectionOf(options: Options) {
  const filter: Filter = {
    types: setOf(wordsOption(options, "type", NAMESPACE_TYPES)),
    pids: setOf(numbersOption(options, "pid", 2 ** 22)),
    trees: setOf(numbersOption(options, "tree", 2 ** 22)),
    comms: setOf(listOption(options, "comm")?.map(taskName)),
    uids: setOf(listOption(options, "uid")?.map((user) => parseUser("uid", user))),
    inums: setOf(numbersOption(options, "ns", 2 ** 32 - 1)),
    failed: options.failed,
  };
  return { filter, events: setOf(wordsOption(options, "event", EVENT_KINDS)), threads: options.threads };
}

/** The request, from the command line. */
function requestOf(options: Options): WatchRequest & { filter: Filter } {
  const { filter, ...others } = selectionOf(options);
  return {
    ...others,
    filter: { ...filter, cgroups: cgroupIds(options.cgroup) },
    backend: wordOption(options, "backend", ["auto", "ebpf", "proc", "poll"]) ?? "auto",
    interval: secondsOption(options, "interval", SECONDS_MIN),
  };
}

/** What is wanted of a recording: null for what was wanted when it was made. */
function playRequestOf(options: Options): PlayRequest | null {
  const { cgroup } = options;
  const { filter, events, threads } = selectionOf(options);
  const { failed, ...conditions } = filter;
  if (!events && !threads && !failed && !cgroup.length && Object.values(conditions).every((set) => !set)) return null;
  // The paths of then need not exist any more, or be others' by now; the recording knows their ids.
  const ids = cgroup.filter(isNumber).map(BigInt);
  return {
    filter: { ...filter, cgroups: cgroup.length ? new Set(ids) : undefined },
    cgroupPaths: cgroup.filter((value) => !isNumber(value)).map(cgroupPath),
    events,
    threads,
  };
}

/** Prints the events of a recording; returns the exit code. */
async function replayed(options: Options, path: string, json: boolean): Promise<number> {
  const { backend, interval, duration, record, snapshot, tail } = options;
  const live = { backend, interval, duration, record, snapshot: snapshot || undefined };
  const [other] = Object.entries(live).find(([, value]) => value !== undefined) ?? [];
  if (other) throw usage(`use --${other} with --replay: the recording is what it is`);
  if (tail) throw usage("use --replay with a COMMAND");
  const request = playRequestOf(options);
  const { replay } = await import("./replay.ts");
  using output = openOutput(options.output);
  replay(path, request, json, output);
  return 0;
}

/** Lists the namespaces that exist now, as far as they are wanted. */
async function listNamespaces({ types, inums }: Filter): Promise<readonly NamespaceEvent[]> {
  const [{ list }, { tellUnseen }] = await Promise.all([
    import("../../list/mod.ts"),
    import("../listing/unseen.ts"),
  ]);
  const listing = await list({ ...types && { types: [...types] } });
  tellUnseen(listing);
  const mono = monotonic();
  return listing.namespaces.filter(({ inum }) => inums?.has(inum) !== false)
    .map((namespace) => ({ event: "namespace", mono, namespace }));
}

/** Opens the file that lines go to, or stdout. */
function openOutput(path: string | undefined): Fd {
  if (path === undefined) return Fd.borrow(1);
  return attempt(`write to "${path}"`, () => openSafely(path, O.WRONLY | O.CREAT | O.TRUNC, 0o666));
}

/** Watches; returns the exit code. */
async function main(options: Options): Promise<number> {
  const { operands, tail } = options;
  const duration = secondsOption(options, "duration", SECONDS_MIN);
  const format = wordOption(options, "format", ["text", "json"]) ?? (options.json ? "json" : "text");
  if (options.json && format === "text") throw usage("use --json with --format text");
  if (operands.length) {
    throw usage(`watch "${operands[0]}": it is not an option`, [
      `penne watch -- ${operands.join(" ")} follows a command`,
    ]);
  }
  if (tail?.length === 0) throw usage("watch: COMMAND is missing after --");
  const json = format === "json";
  if (options.replay !== undefined) return await replayed(options, options.replay, json);
  const request = requestOf(options);
  if (tail && request.filter.trees) throw usage("use --tree with a COMMAND, whose own tree is watched");
  const clock = new WallClock();
  using recording = options.record === undefined
    ? null
    : new (await import("./record.ts")).RecordFile(options.record, clock);
  const recorder = recording?.recorder;
  using output = openOutput(options.output);
  using followed = tail && new Followed(tail[0]!);
  using reactor = new Reactor();
  using signals = new SignalPipe();
  for (const name of SIGNALS) signals.catch(SIGNAL[name]);
  let [over, gone, signal] = [false, false, 0];
  const stop = () => {
    over = true;
    reactor.stop();
  };
  using sink = new LineSink(reactor, output, {
    format: json ? (event) => formatJson(event, clock) : formatText,
    onRoom: () => watching.resume(),
    onGone: () => {
      gone = true;
      // A command that is followed runs to its end, with or without a reader.
      if (!followed) stop();
    },
  });
  const filter = followed ? { ...request.filter, trees: new Set([followed.pid]) } : request.filter;
  using watching = new WatchSession(reactor, { ...request, filter, locate: json, recorder }, sink);
  const refused = await watching.explain();
  for (const { backend, reason, hints } of refused) {
    log().info(`the back end ${backend} is not used: ${reason}`, ...hints.map((hint) => `hint: ${hint}`));
  }
  watching.start(refused, options.snapshot ? await listNamespaces(filter) : []);
  const adjust = () => {
    clock.adjust();
    reactor.after(CLOCK_INTERVAL, adjust);
  };
  if (json || recorder) adjust();
  if (duration !== undefined) reactor.after(duration, stop);
  using _signals = reactor.watch(signals.reader, EPOLL.IN, () => {
    for (const record of signals.take()) {
      // A signal from the terminal has reached the command too, and is its to handle.
      if (followed) {
        if (record.code <= 0) followed.kill(record.signal);
      } else {
        signal = record.signal;
        stop();
      }
    }
  });
  let code = 0;
  if (followed) followed.exec(tail!);
  giveUp(options, watching, Boolean(followed));
  if (followed) {
    using _ended = reactor.watch(followed.pidfd, EPOLL.IN, stop);
    if (!over) reactor.run();
    code = followed.ended ? followed.wait() : 0;
  } else if (!over) reactor.run();
  if (!gone) {
    const end = performance.now() + LAST_LINES;
    const finish = () => sink.finish(end - performance.now());
    // Reports what a slow reader has missed, if it reads now.
    const catchUp = () => {
      if (!watching.behind) return;
      finish();
      watching.resume();
    };
    catchUp();
    if (followed) summarise(watching, reactor, sink, recorder);
    catchUp();
    finish();
  } else if (followed && recorder) summarise(watching, reactor, sink, recorder);
  recorder?.end();
  if (signal !== 0) {
    watching[Symbol.dispose]();
    signals.withDefault(signal, () => call(self, "kill", call(self, "getpid"), signal));
    return 128 + signal; // PID 1 of a pid namespace survives the signal
  }
  return followed ? code : recording?.failed ? 1 : 0;
}

/** Gives up what watching does not need once it has started. */
function giveUp(options: Options, { backend }: WatchSession, follows: boolean): void {
  const { name, trusted } = backend;
  // Handles and mounts of namespaces, directories of names, programs that are loaded already, and what /proc hides.
  const needed = [
    CAP.SYS_ADMIN,
    CAP.DAC_READ_SEARCH,
    ...name === "ebpf" ? [CAP.BPF, CAP.PERFMON] : [],
    ...name === "ebpf" && trusted ? [] : [CAP.SYS_PTRACE],
  ];
  const keep = needed.reduce((set, capability) => set | 1n << BigInt(capability), 0n);
  confineRole(options, { name: "watch", keep, rules: watchRules(name, follows, call(self, "getpid")) });
}

/** Reports what a command has left behind, once its descendants have had time to end. */
function summarise(watching: WatchSession, reactor: Reactor, sink: LineSink, recorder?: Recorder): void {
  const end = performance.now() + AFTERMATH.limit;
  let state = watching.finalSnapshot();
  while (state.alive.length > 0 && performance.now() < end) {
    reactor.turn(AFTERMATH.interval);
    state = watching.finalSnapshot();
  }
  if (state.alive.length > 0) state = watching.finalSnapshot(true);
  const event = { event: "summary", mono: monotonic(), ...state } as const;
  recorder?.event(event);
  sink.put(event);
}
