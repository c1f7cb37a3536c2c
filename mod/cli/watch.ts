// `penne watch`: from the command line to the exit code.

import { AT_FDCWD, O, SIGNAL } from "../../ffi/core/consts.ts";
import { EPOLL } from "../../ffi/sys/epoll.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { cString } from "../../ffi/core/memory.ts";
import { readText } from "../../ffi/sys/file.ts";
import { SignalPipe } from "../../ffi/sys/signal.ts";
import { call, self } from "../../ffi/core/task.ts";
import { attempt, PenneError } from "../base/errors.ts";
import { log } from "./report/log.ts";
import { isNamespaceType, NAMESPACE_TYPES } from "../namespaces/types.ts";
import { Reactor } from "../reactor/reactor.ts";
import { CgroupIds } from "../watch/facts/cgroup.ts";
import { monotonic, WallClock } from "../watch/facts/clock.ts";
import { EVENT_KINDS, type EventKind, type Filter } from "../watch/facts/contract.ts";
import { taskName } from "../watch/facts/filter.ts";
import { Followed } from "../watch/follow.ts";
import { formatJson, formatText } from "../watch/output/format.ts";
import { LineSink } from "../watch/output/line_sink.ts";
import { type WatchRequest, WatchSession } from "../watch/session.ts";
import { runCommand } from "./command.ts";
import { type ParsedOptions, suggest } from "./options/table.ts";
import { wordOption } from "./options/values.ts";
import { WATCH_SPEC } from "./watch_spec.ts";

const FAILURE = 1;
/** With a command: what went wrong before it ran. */
const COMMAND_FAILURE = 125;
const SIGNALS = ["INT", "HUP", "TERM", "QUIT"] as const;
/** Milliseconds that a reader has for the last lines. */
const LAST_LINES = 5000;
/** Milliseconds for what a command has left to end, and between two looks. */
const AFTERMATH = { limit: 300, interval: 10 } as const;
/** Milliseconds between two adjustments to the wall's clock. */
const CLOCK_INTERVAL = 10_000;

/**
 * `penne watch`.
 *
 * @param args What follows the command's name.
 * @returns The exit code.
 */
export function start(args: string[]): Promise<number> {
  const followed = args.includes("--");
  return runCommand({ SPEC: WATCH_SPEC, FAILURE: followed ? COMMAND_FAILURE : FAILURE, main }, args);
}

function bad(option: string, value: string, reason: string, hints: readonly string[] = []): PenneError {
  return new PenneError(`use --${option} "${value}": ${reason}`, { usage: true, hints });
}

/** The values of an option with commas in between; undefined if it was not given. */
function list(options: ParsedOptions, name: string): readonly string[] | undefined {
  const value = options.get(name);
  if (value === undefined) return undefined;
  const words = value.split(",");
  if (words.includes("")) throw bad(name, value, "there is nothing between two commas");
  return words;
}

function words<W extends string>(
  options: ParsedOptions,
  name: string,
  known: readonly W[],
  isOne: (word: string) => word is W,
): ReadonlySet<W> | undefined {
  const given = list(options, name);
  if (!given) return undefined;
  const found = new Set<W>();
  for (const one of given) {
    if (!isOne(one)) {
      const near = suggest(one, known);
      const hints = near ? [`did you mean ${near}?`] : [];
      throw bad(name, given.join(","), `"${one}" is not one of ${known.join(", ")}`, hints);
    }
    found.add(one);
  }
  return found;
}

function numbers(options: ParsedOptions, name: string, max: number): ReadonlySet<number> | undefined {
  const given = list(options, name);
  return given && new Set(given.map((one) => {
    const number = /^\d{1,10}$/.test(one) ? Number(one) : NaN;
    if (!(number <= max)) throw bad(name, given.join(","), `"${one}" is not a whole number up to ${max}`);
    return number;
  }));
}

function users(options: ParsedOptions): ReadonlySet<number> | undefined {
  const given = list(options, "uid");
  if (!given) return undefined;
  let passwd: string | null = null;
  return new Set(given.map((one) => {
    if (/^\d{1,10}$/.test(one)) return Number(one);
    passwd ??= readText(self, "/etc/passwd");
    const line = passwd.split("\n").find((user) => user.startsWith(`${one}:`));
    if (!line) throw bad("uid", given.join(","), `there is no user "${one}"`);
    return Number(line.split(":")[2]);
  }));
}

function cgroups(options: ParsedOptions): ReadonlySet<bigint> | undefined {
  const given = options.all("cgroup");
  if (given.length === 0) return undefined;
  const ids = new CgroupIds();
  return new Set(given.map((one) => {
    const id = /^\d+$/.test(one) ? BigInt(one) : ids.of(one.startsWith("/") ? one : `/${one}`);
    if (id === null) {
      throw bad("cgroup", one, "there is no such control group", ["only the unified hierarchy (v2) counts"]);
    }
    return id;
  }));
}

function seconds(options: ParsedOptions, name: string): number | undefined {
  const value = options.get(name);
  if (value === undefined) return undefined;
  const number = /^\d{1,6}(\.\d{1,9})?$/.test(value) ? Number(value) : NaN;
  if (!(number > 0)) throw bad(name, value, "it is no number of seconds");
  return Math.max(1, number * 1000);
}

/** What is wanted, from the command line. */
function requestOf(options: ParsedOptions): WatchRequest & { filter: Filter } {
  const optional = <K extends string, V>(key: K, value: V | undefined) =>
    (value === undefined ? {} : { [key]: value }) as { [P in K]?: V };
  const events = words(
    options,
    "event",
    EVENT_KINDS,
    (word): word is EventKind => EVENT_KINDS.some((kind) => kind === word),
  );
  const comms = list(options, "comm");
  const filter: Filter = {
    ...optional("types", words(options, "type", NAMESPACE_TYPES, isNamespaceType)),
    ...optional("pids", numbers(options, "pid", 2 ** 22)),
    ...optional("trees", numbers(options, "tree", 2 ** 22)),
    ...optional("comms", comms && new Set(comms.map(taskName))),
    ...optional("uids", users(options)),
    ...optional("cgroups", cgroups(options)),
    ...optional("inums", numbers(options, "ns", 2 ** 32 - 1)),
    ...options.has("failed") && { failed: true },
  };
  return {
    filter,
    events,
    threads: options.has("threads"),
    backend: wordOption(options, "backend", ["auto", "ebpf", "proc", "poll"]) ?? "auto",
    interval: seconds(options, "interval"),
  };
}

/** Where the lines go: a file, or stdout. */
function openOutput(options: ParsedOptions): Fd {
  const path = options.get("output");
  if (path === undefined) return new Fd(1);
  const flags = O.WRONLY | O.CREAT | O.TRUNC | O.NOCTTY | O.CLOEXEC;
  return attempt(`write to "${path}"`, () => self.open("openat", AT_FDCWD, cString(path), flags, 0o666));
}

/** Watches; the result is the exit code. */
async function main(options: ParsedOptions, args: readonly string[]): Promise<number> {
  const request = requestOf(options);
  const duration = seconds(options, "duration");
  const format = wordOption(options, "format", ["text", "json"]) ?? (options.has("json") ? "json" : "text");
  if (options.has("json") && format === "text") {
    throw new PenneError("use --json with --format text", { usage: true });
  }
  const command = options.rest;
  if (command.length > 0 && !args.includes("--")) {
    throw new PenneError(`watch "${command[0]}": it is no option`, {
      usage: true,
      hints: [`penne watch -- ${command.join(" ")} follows a command`],
    });
  }
  if (command.length === 0 && args.at(-1) === "--") {
    throw new PenneError("watch: there is no COMMAND after --", { usage: true });
  }
  if (command.length > 0 && request.filter.trees) {
    throw new PenneError("use --tree with a COMMAND, whose own tree is watched", { usage: true });
  }
  const json = format === "json";
  const fd = openOutput(options);
  using followed = command.length > 0 ? new Followed() : null;
  using reactor = new Reactor();
  using signals = new SignalPipe();
  for (const name of SIGNALS) signals.catch(SIGNAL[name]);
  const clock = new WallClock();
  let [over, gone, signal] = [false, false, 0];
  const stop = () => {
    over = true;
    reactor.stop();
  };
  using sink = new LineSink(reactor, fd, {
    format: json ? (event) => formatJson(event, clock) : formatText,
    onRoom: () => watching.resume(),
    onGone: () => {
      gone = true;
      // A command that is followed goes on to its end, told of or not.
      if (!followed) stop();
    },
  });
  const filter = followed ? { ...request.filter, trees: new Set([followed.pid]) } : request.filter;
  using watching = new WatchSession(reactor, { ...request, filter, locate: json }, sink);
  const refused = await watching.explain();
  for (const { backend, reason, hints } of refused) {
    log().info([`the back end ${backend} is not used: ${reason}`, ...hints.map((hint) => `hint: ${hint}`)].join("\n"));
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
      // What the terminal sends, the command has got too; it decides.
      if (followed) {
        if (record.code <= 0) followed.kill(record.signal);
      } else {
        signal = record.signal;
        stop();
      }
    }
  });
  let code = 0;
  if (followed) {
    followed.exec(command);
    using _ended = reactor.watch(followed.pidfd, EPOLL.IN, stop);
    if (!over) reactor.run();
    code = followed.ended ? followed.wait() : 0;
  } else if (!over) reactor.run();
  if (!gone) {
    const end = performance.now() + LAST_LINES;
    const finish = () => sink.finish(end - performance.now());
    // A reader that is behind is told what it has missed, if it reads now.
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
    return 128 + signal; // PID 1 of a pid namespace outlives it
  }
  return code;
}

/** Tells what is left of a command, once what ends with it has had the time to. */
function summarise(watching: WatchSession, reactor: Reactor, sink: LineSink): void {
  const end = performance.now() + AFTERMATH.limit;
  let state = watching.finalSnapshot();
  while (state.alive.length > 0 && performance.now() < end) {
    reactor.turn(AFTERMATH.interval);
    state = watching.finalSnapshot();
  }
  sink.put({ event: "summary", mono: monotonic(), ...state });
}
