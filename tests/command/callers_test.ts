// Callers in JavaScript, which knows no types: each wrong argument of the library is refused, and named.

import "../lib/preload.ts";
import { assert } from "@std/assert";
import * as penne from "../../mod/mod.ts";
import { test } from "../lib/helpers.ts";

// deno-lint-ignore no-explicit-any -- what a program in JavaScript may pass
type Anything = any;

/** Values of other types than anything takes; huge and empty ones among them. */
const WRONG: readonly Anything[] = [
  null,
  true,
  5,
  -1,
  1.5,
  NaN,
  2 ** 60,
  7n,
  "",
  "x".repeat(100_000),
  "\0",
  [],
  [null],
  [5],
  [[]],
  Array(10_000).fill({}),
  {},
  { nosuch: 1 },
  new Date(),
  new Map(),
  Symbol("x"),
  () => {},
];

/** Keys of the options of each function, and a call with one of them, which ends at once if the value is right. */
const CALLS: readonly [name: string, keys: readonly string[], call: (options: Anything) => unknown][] = [
  [
    "Command",
    [
      ...["args", "cwd", "clearEnv", "env", "uid", "gid", "signal", "stdin", "stdout", "stderr", "detached"],
      ...["windowsRawArguments", "shareTerminal", "keepFds", "keepCaps", "noNewPrivs", "killSignal", "addHost"],
      ...["keepViews", "onWarning", "onInfo", "unshare", "net", "network", "reach", "dns", "search", "map", "hostname"],
      ...["init", "monotonic", "boottime", "enter"],
    ],
    (options) => new penne.Command("/no/such", options).spawn(),
  ],
  [
    "Command with enter",
    [
      "types",
      "forChildren",
      "root",
      "cgroup",
      "targetEnv",
      "preserveCredentials",
      "user",
      "layout",
      "directory",
      "base",
    ],
    (options) => new penne.Command("/no/such", { enter: Deno.pid, ...options }).spawn(),
  ],
  ["spawn", ["command", "env"], (options) => penne.spawn({ command: ["/no/such"], ...options })],
  ["run", ["command", "env"], (options) => penne.run({ command: ["/no/such"], ...options })],
  ["enter", ["command", "target"], (options) => penne.enter({ target: Deno.pid, command: ["/no/such"], ...options })],
  [
    "keep",
    ["types", "user", "layout", "directory", "base", "key", "onWarning", "pid", "setUp", "timeout"],
    (options) => penne.keep("a b", { setUp: { command: ["/no/such"] }, ...options }),
  ],
  [
    "watch",
    ["events", "types", "pids", "trees", "comms", "uids", "cgroups", "inums", "failed", "threads", "backend", "limit"],
    (options) => penne.watch({ cgroups: ["/no/such"], ...options }).return(),
  ],
  ["waitFor", ["signal"], (options) => penne.waitFor(["/no/such/\0"], "gone", options)],
  ["inspect", ["user", "layout", "directory", "base", "key"], (options) => penne.inspect("no-such", options)],
  ["drop", ["user", "directory", "force", "stale"], (options) => penne.drop("no-such", options)],
  ["openKept", ["user", "directory", "base"], (options) => penne.openKept("no-such", options)],
];

/** The error of a call, if there is one. */
async function failure(body: () => unknown): Promise<unknown> {
  try {
    await body();
    return null;
  } catch (error) {
    return error;
  }
}

/** Whether an error is one that penne, or Deno.Command, means to throw. */
function isMeant(error: unknown): boolean {
  if (error instanceof penne.PenneError || error instanceof Deno.errors.NotFound) return true;
  // What the engine itself says of a value that is not what the code expects begins otherwise.
  return error instanceof TypeError &&
    /^(cannot use |options|request|Invalid signal|Must be|Failed to spawn|EINVAL)/.test(error.message);
}

for (const [name, keys, call] of CALLS) {
  test(`${name}() refuses wrong values, and names the argument`, async () => {
    for (const key of keys) {
      for (const value of WRONG) {
        const error = await failure(() => call({ [key]: value }));
        assert(error === null || isMeant(error), `${name} with ${key}: ${String(value).slice(0, 60)}: ${error}`);
        if (!(error instanceof TypeError) || !error.message.startsWith("cannot use")) continue;
        assert(error.message.includes(key), `${name} with ${key}: ${error.message}`);
      }
    }
    for (const value of [null, 5, "x", [], () => {}, Symbol("x")]) {
      const error = await failure(() => call(value));
      assert(error === null || isMeant(error), `${name} with ${String(value)}: ${error}`);
    }
    const unknown = await failure(() => call({ nosuchkey: 1 }));
    assert(unknown instanceof TypeError && unknown.message.includes('"nosuchkey"'), `${name}: ${unknown}`);
  });
}

test("targets, names and words of a wrong type are refused, and named", async () => {
  const any = penne as Record<string, Anything>;
  const calls: [string, () => unknown][] = [
    ["targets", () => any.waitFor("blue", "gone")],
    ["targets[0]", () => any.waitFor([null], "gone")],
    ["state", () => any.waitFor(["1"], "there")],
    ["targets", () => any.attach("blue")],
    ["targets[0]", () => any.attach([{}])],
    ["name", () => any.inspect(5)],
    ["name", () => any.drop(null)],
    ["name", () => any.openKept()],
    ["name", () => any.keep({}, { pid: 1 })],
    ["request", () => any.keep("a")],
    ["request", () => any.keep("a", { pid: 1, setUp: {} })],
    ["command", () => any.run({ command: "true" })],
    ["command[1]", () => any.run({ command: ["true", 5] })],
    ["args", () => any.run({ command: ["true"], args: ["x"] })],
    ["stdout", () => any.run({ command: ["true"], stdout: "piped" })],
    ["options", () => any.run()],
    ["options.target", () => any.enter({ command: ["true"] })],
    ["command", () => new any.Command().spawn()],
    ["command", () => new any.Command(5).output()],
    ["command", () => new any.Command(["true"]).outputSync()],
  ];
  for (const [argument, call] of calls) {
    const error = await failure(call);
    assert(error instanceof TypeError && error.message.includes(argument), `${argument}: ${error}`);
  }
});
