// `penne watch`: reports processes and namespaces as they come, change and go.

import { CAP, O, SIGNAL } from "../../ffi/core/consts.ts";
import { EPOLL } from "../../ffi/sys/epoll.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { SignalPipe } from "../../ffi/sys/signal.ts";
import { call, self } from "../../ffi/core/task.ts";
import { attempt, usage } from "../base/errors.ts";
import { log } from "./report/log.ts";
import { openSafely } from "./report/safe_open.ts";
import { NAMESPACE_TYPES } from "../namespaces/types.ts";
import { Reactor } from "../reactor/reactor.ts";
import { CgroupIds } from "../watch/facts/cgroup.ts";
import { monotonic, WallClock } from "../watch/facts/clock.ts";
import { EVENT_KINDS, type Filter } from "../watch/facts/contract.ts";
import { taskName } from "../watch/facts/filter.ts";
import { Followed } from "../watch/follow.ts";
import { formatJson, formatText } from "../watch/output/format.ts";
import { LineSink } from "../watch/output/line_sink.ts";
import { type WatchRequest, WatchSession } from "../watch/session.ts";
import { watchRules } from "../watch/call_rules.ts";
import { command } from "./common/command.ts";
import { confineRole } from "./common/confine.ts";
import { CONFINE_OPTIONS } from "./options/lifecycle.ts";
import type { CommandSpec, ParsedOptions } from "./options/table.ts";
import {
  badValue,
  listOption,
  numbersOption,
  parseUser,
  secondsOption,
  wordOption,
  wordsOption,
} from "./options/values.ts";

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

function cgroups(values: readonly string[]): ReadonlySet<bigint> | undefined {
  if (values.length === 0) return undefined;
  const ids = new CgroupIds();
  return new Set(values.map((value) => {
    const id = /^\d+$/.test(value) ? BigInt(value) : ids.of(value.startsWith("/") ? value : `/${value}`);
    if (id === null) {
      throw badValue("cgroup", value, "there is no such control group", ["only the unified hierarchy (v2) counts"]);
    }
    return id;
  }));
}

function setOf<T>(values: readonly T[] | undefined): ReadonlySet<T> | undefined {
  return values && new Set(values);
}

/** The request, from the command line. */
function requestOf(options: Options): WatchRequest & { filter: Filter } {
  const filter: Filter = {
    types: setOf(wordsOption(options, "type", NAMESPACE_TYPES)),
    pids: setOf(numbersOption(options, "pid", 2 ** 22)),
    trees: setOf(numbersOption(options, "tree", 2 ** 22)),
    comms: setOf(listOption(options, "comm")?.map(taskName)),
    uids: setOf(listOption(options, "uid")?.map((user) => parseUser("uid", user))),
    cgroups: cgroups(options.cgroup),
    inums: setOf(numbersOption(options, "ns", 2 ** 32 - 1)),
    failed: options.failed,
  };
  return {
    filter,
    events: setOf(wordsOption(options, "event", EVENT_KINDS)),
    threads: options.threads,
    backend: wordOption(options, "backend", ["auto", "ebpf", "proc", "poll"]) ?? "auto",
    interval: secondsOption(options, "interval", SECONDS_MIN),
  };
}

/** Opens the file that lines go to, or stdout. */
function openOutput(path: string | undefined): Fd {
  if (path === undefined) return Fd.borrow(1);
  return attempt(`write to "${path}"`, () => openSafely(path, O.WRONLY | O.CREAT | O.TRUNC, 0o666));
}

/** Watches; returns the exit code. */
async function main(options: Options): Promise<number> {
  const { operands, tail } = options;
  const request = requestOf(options);
  const duration = secondsOption(options, "duration", SECONDS_MIN);
  const format = wordOption(options, "format", ["text", "json"]) ?? (options.json ? "json" : "text");
  if (options.json && format === "text") throw usage("use --json with --format text");
  if (operands.length) {
    throw usage(`watch "${operands[0]}": it is not an option`, [
      `penne watch -- ${operands.join(" ")} follows a command`,
    ]);
  }
  if (tail?.length === 0) throw usage("watch: COMMAND is missing after --");
  if (tail && request.filter.trees) throw usage("use --tree with a COMMAND, whose own tree is watched");
  const json = format === "json";
  using output = openOutput(options.output);
  using followed = tail && new Followed(tail[0]!);
  using reactor = new Reactor();
  using signals = new SignalPipe();
  for (const name of SIGNALS) signals.catch(SIGNAL[name]);
  const clock = new WallClock();
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
  using watching = new WatchSession(reactor, { ...request, filter, locate: json }, sink);
  const refused = await watching.explain();
  for (const { backend, reason, hints } of refused) {
    log().info(`the back end ${backend} is not used: ${reason}`, ...hints.map((hint) => `hint: ${hint}`));
  }
  watching.start(refused);
  const adjust = () => {
    clock.adjust();
    reactor.after(CLOCK_INTERVAL, adjust);
  };
  if (json) adjust();
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
    if (followed) summarise(watching, reactor, sink);
    catchUp();
    finish();
  }
  if (signal !== 0) {
    watching[Symbol.dispose]();
    signals.withDefault(signal, () => call(self, "kill", call(self, "getpid"), signal));
    return 128 + signal; // PID 1 of a pid namespace survives the signal
  }
  return code;
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
function summarise(watching: WatchSession, reactor: Reactor, sink: LineSink): void {
  const end = performance.now() + AFTERMATH.limit;
  let state = watching.finalSnapshot();
  while (state.alive.length > 0 && performance.now() < end) {
    reactor.turn(AFTERMATH.interval);
    state = watching.finalSnapshot();
  }
  if (state.alive.length > 0) state = watching.finalSnapshot(true);
  sink.put({ event: "summary", mono: monotonic(), ...state });
}
