// What a command takes: the options of Deno.Command, and those of the namespaces that it runs in.

import {
  abortSignal,
  anything,
  callback,
  type Check,
  either,
  flag,
  id,
  list,
  object,
  oneOf,
  path,
  record,
  text,
  whole,
} from "../base/check.ts";
import { usage } from "../base/errors.ts";
import { self } from "../../ffi/core/task.ts";
import type { EnterOptions as JoinRequest, JoinedNamespaces } from "../enter/plan.ts";
import type { WhichSet } from "../kept/find.ts";
import type { StaleOptions } from "../kept/staleness.ts";
import { NAMESPACE_TYPES } from "../namespaces/types.ts";
import { NAME_SERVERS, nameServers, NETWORK, networkRequest, REACH, reachRequest, SEARCH } from "../network/options.ts";
import { workingDirectory } from "../run/command.ts";
import { planMounts } from "../views/mount_plan.ts";
import type { NewNamespaces, RunOptions as RunRequest, SetupOptions } from "../run/plan.ts";
import { shortName, signalName } from "./signals.ts";
import type { Stdio } from "./stdio.ts";

/** The options of `Deno.Command`, with the same meaning and defaults. */
export interface ProcessOptions {
  /** Arguments. */
  readonly args?: readonly string[];
  /** Working directory; by default this program's. */
  readonly cwd?: string | URL;
  /** Whether to start from an empty environment. */
  readonly clearEnv?: boolean;
  /** Variables to set. */
  readonly env?: Readonly<Record<string, string>>;
  /** User id of the command, inside. */
  readonly uid?: number;
  /** Group id of the command, inside. */
  readonly gid?: number;
  /**
   * Sends the command SIGTERM once it is aborted. That is no hard limit, since a command may ignore SIGTERM: `end()` of the
   * child is one. `outputSync()` does not look at it.
   */
  readonly signal?: AbortSignal;
  /** Standard input; "inherit" by default. */
  readonly stdin?: Stdio;
  /** Standard output; "inherit" by default for `spawn()`, "piped" for `output()` and `outputSync()`. */
  readonly stdout?: Stdio;
  /** Standard error; "inherit" by default for `spawn()`, "piped" for `output()` and `outputSync()`. */
  readonly stderr?: Stdio;
  /** Whether the command gets a session of its own. It ends with this program nevertheless, as its namespaces do. */
  readonly detached?: boolean;
  /** Not used; only Windows has raw arguments. */
  readonly windowsRawArguments?: boolean;
}

/** Where a command runs and how it ends, beside what {@linkcode ProcessOptions} say. */
export interface PlaceOptions {
  /** A PID, `fd:N`, `netns:NAME`, paths, or the name of a kept set: the namespaces to join. Without it, some are made. */
  readonly enter?: string | number;
  /**
   * The signal of `end()`, by name or number; SIGKILL by default. Everything else has a signal of its own: `signal`, `kill()`
   * and `await using` send SIGTERM, and `using` and the end of this program kill.
   */
  readonly killSignal?: Deno.Signal | number;
}

/** What a command takes: with `enter`, what is of `NewNamespaces` is refused, and without it what is of `JoinedNamespaces`. */
export interface CommandOptions extends ProcessOptions, PlaceOptions, SetupOptions, NewNamespaces, JoinedNamespaces {}

const stdio = oneOf("piped", "inherit", "null");
const range = object({ inside: whole, outside: whole, count: whole }, ["inside", "outside", "count"]);
const ranges = either("a list of ranges { inside, outside, count }", list(range));

const PROCESS: Readonly<Record<keyof ProcessOptions, Check>> = {
  args: list(either("a string", text, whole)),
  cwd: path,
  clearEnv: flag,
  env: record(text),
  uid: id,
  gid: id,
  signal: abortSignal,
  stdin: stdio,
  stdout: stdio,
  stderr: stdio,
  detached: flag,
  windowsRawArguments: flag,
};

const SETUP: Readonly<Record<keyof SetupOptions | "killSignal", Check>> = {
  shareTerminal: flag,
  keepFds: list(whole),
  keepCaps: flag,
  noNewPrivs: flag,
  killSignal: either("the name of a signal, or its number", text, whole),
  addHost: list(object({ name: text, address: text }, ["name", "address"])),
  keepViews: flag,
  onWarning: callback,
  onInfo: callback,
};

const NEW: Readonly<Record<keyof NewNamespaces, Check>> = {
  unshare: list(oneOf(...NAMESPACE_TYPES)),
  net: oneOf("none", "host", "tap"),
  network: object(NETWORK),
  reach: object(REACH),
  ports: anything, // checkPorts() says what is wrong with them
  dns: NAME_SERVERS,
  search: SEARCH,
  map: object({ mode: oneOf("root", "self", "auto", "none"), users: ranges, groups: ranges, setgroups: text }),
  hostname: text,
  init: flag,
  rootDirectory: text,
  mounts: list(either(
    '"proc", "dev", { bind, target, readOnly } or { tmpfs }',
    oneOf("proc", "dev"),
    object({ bind: text, target: text, readOnly: flag }, ["bind"]),
    object({ tmpfs: text }, ["tmpfs"]),
  )),
  monotonic: whole,
  boottime: whole,
};

/** Which kept set is meant. */
export const KEPT: Readonly<Record<keyof WhichSet | keyof StaleOptions | "types", Check>> = {
  types: list(oneOf(...NAMESPACE_TYPES)),
  user: id,
  layout: oneOf("penne", "snap"),
  directory: text,
  base: text,
  key: text,
  onWarning: callback,
};

const JOINED: Readonly<Record<keyof JoinedNamespaces | "enter", Check>> = {
  ...KEPT,
  enter: either("a string, or a PID", text, whole),
  forChildren: flag,
  root: flag,
  cgroup: flag,
  targetEnv: flag,
  preserveCredentials: flag,
};

const check = object({ ...PROCESS, ...SETUP, ...NEW, ...JOINED }, [], {
  timeout: "signal: AbortSignal.timeout(MILLISECONDS)",
});

/** Turns a path or a file URL into a path. */
export function pathOf(value: string | URL): string {
  if (typeof value === "string") return value;
  if (value.protocol !== "file:") throw new TypeError("Must be a file URL");
  return decodeURIComponent(value.pathname);
}

/** The keys of an object that one of some tables has, without those that are undefined. */
function pick<T>(options: T, ...tables: readonly object[]): Partial<T> {
  const picked: Partial<T> = {};
  for (const key of Object.keys(options as object) as (keyof T)[]) {
    if (options[key] !== undefined && tables.some((table) => Object.hasOwn(table, key))) picked[key] = options[key];
  }
  return picked;
}

/** Options that mean something with `net: "tap"` alone; ports are checked where they are opened. */
const OF_NETWORK = ["network", "reach", "dns", "search"] as const;

const { stdin: _0, stdout: _1, stderr: _2, signal: _3, args: _4, ...OF_SET_UP } = PROCESS;
const { network: _5, reach: _6, dns: _7, search: _8, ports: _9, rootDirectory: _10, mounts: _11, ...WITHOUT_NETWORK } =
  NEW;
const checkSetUp = object({ ...OF_SET_UP, ...SETUP, ...WITHOUT_NETWORK, command: list(text) });

/** A set-up command: its words and namespaces, without streams of its own and without a network. */
export type SetUpOptions =
  & Omit<ProcessOptions, "args" | "stdin" | "stdout" | "stderr" | "signal">
  & Omit<PlaceOptions, "enter">
  & SetupOptions
  & Omit<NewNamespaces, "network" | "reach" | "dns" | "search" | "ports" | "rootDirectory" | "mounts">
  & { readonly command?: readonly string[] };

/**
 * Checks a set-up command, and turns it into a request to the rest of penne.
 *
 * @param options What it takes.
 * @param argument What the options are called in messages.
 * @returns The request.
 * @throws {TypeError} If a value has the wrong type, or a key is unknown.
 */
export function setUpRequest(options: SetUpOptions, argument: string): RunRequest {
  checkSetUp(options, argument);
  const { command = [], ...rest } = options;
  const [file, ...args] = command;
  return requestOf(file ?? null, { ...rest, args }).options as RunRequest;
}

/** The first option that needs a network, if the command gets none; otherwise undefined. */
function unusedOption(options: CommandOptions): string | undefined {
  return options.net === "tap" ? undefined : OF_NETWORK.find((name) => options[name] !== undefined);
}

/** Turns options of new namespaces into a request, with addresses as bytes. */
function newNamespaces(
  { network, reach, dns, rootDirectory, mounts, ...options }: NewNamespaces,
): Partial<RunRequest> {
  return {
    ...options,
    ...(rootDirectory !== undefined || mounts?.length) &&
      { mounts: planMounts(rootDirectory, mounts ?? [], workingDirectory(self)) },
    ...network && { network: networkRequest(network) },
    ...reach && { reach: reachRequest(reach) },
    ...dns && { dns: dns === "none" ? dns : nameServers(dns) },
  };
}

/** A command, checked. */
export type Request =
  | { readonly kind: "run"; readonly options: RunRequest }
  | { readonly kind: "enter"; readonly options: JoinRequest };

/**
 * Checks a command, and turns it into a request to the rest of penne.
 *
 * @param command The program: a name to look up in PATH, a path or a file URL; null for the login shell.
 * @param options What it takes.
 * @returns The request.
 * @throws {TypeError} If a value has the wrong type, or a key is unknown.
 * @throws {PenneError} A usage error if options contradict each other.
 */
export function requestOf(command: string | URL | null, options: CommandOptions): Request {
  check(options, "options");
  if (Array.isArray(command)) {
    throw new TypeError("cannot use a list as command: it is not a string or a file URL; args has the arguments");
  }
  if (command !== null) path(command, "command");
  const { args = [], cwd, env, clearEnv, uid, gid, detached, killSignal, enter, ...rest } = options;
  const common = {
    ...pick(rest, SETUP),
    ...command !== null && { command: [pathOf(command), ...args.map(String)] },
    ...cwd !== undefined && { cwd: pathOf(cwd) },
    ...pick({ env, clearEnv, uid, gid }, PROCESS),
    ...detached && { newSession: true },
    ...killSignal !== undefined &&
      { killSignal: shortName(typeof killSignal === "number" ? signalName(killSignal) : killSignal) },
  };
  const wrong = Object.keys(pick(rest, enter === undefined ? JOINED : NEW)).filter((key) => !Object.hasOwn(SETUP, key));
  if (wrong[0] !== undefined) {
    throw enter === undefined
      ? usage(`use ${wrong[0]}: it is for a command that enters namespaces`, ["enter: TARGET says which ones"])
      : usage(`use ${wrong[0]}: it is for a command that gets new namespaces`, [
        "give it to the command whose namespaces you enter",
      ]);
  }
  const unused = unusedOption(options);
  if (unused) throw usage(`use ${unused} without a network`, ['net: "tap" sets one up']);
  return enter === undefined
    ? { kind: "run", options: { ...common, ...newNamespaces(pick(rest, NEW)) } as RunRequest }
    : { kind: "enter", options: { ...common, ...pick(rest, JOINED), target: `${enter}` } as JoinRequest };
}
