// Callers in JavaScript, which knows no types: each wrong argument of the library is refused, and named.

import "../lib/preload.ts";
import { assert, assertEquals, assertThrows } from "@std/assert";
import * as idmap from "../../mod/idmap/mod.ts";
import * as inet from "../../mod/inet/mod.ts";
import * as penne from "../../mod/mod.ts";
import * as netlink from "../../mod/netlink/mod.ts";
import { NETWORK, REACH } from "../../mod/network/options.ts";
import * as nsexec from "../../mod/nsexec/mod.ts";
import { ROOT, test } from "../lib/helpers.ts";

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

/** Names of options inside an option. */
const within = (name: string, keys: readonly string[]) => keys.map((key) => `${name}.${key}`);
const PORTS = ["ports", ...within("ports", ["tcp", "udp", "tcpOut", "udpOut", "freebind", "local", "localOnly"])];
const TELL = within("tell", ["dns", "search", "domain", "hostname", "fqdn"]);
const NETWORK_KEYS = [...Object.keys(NETWORK), ...within("addresses[0]", ["address", "prefix"])];
const REACH_KEYS = [
  ...[...Object.keys(REACH), ...TELL, ...within("outboundInterfaces", ["4", "6"])],
  ...[...within("dnsHost[0]", ["address", "zone"]), ...within("exclude[0]", ["address", "prefix"])],
];
const KEPT = ["user", "layout", "directory", "base", "key", "onWarning"];

/** Keys of the options of each function, and a call with one of them, which ends at once if the value is right. */
const CALLS: readonly [name: string, keys: readonly string[], call: (options: Anything) => unknown][] = [
  [
    "Command",
    [
      ...["args", "cwd", "clearEnv", "env", "uid", "gid", "signal", "stdin", "stdout", "stderr", "detached"],
      ...["windowsRawArguments", "shareTerminal", "keepFds", "keepCaps", "noNewPrivs", "killSignal", "addHost"],
      ...["keepViews", "onWarning", "onInfo", "unshare", "net", "network", "reach", "dns", "search", "map", "hostname"],
      ...["init", "monotonic", "boottime", "enter", ...within("network", NETWORK_KEYS)],
      ...[...within("reach", REACH_KEYS), ...within("dns[0]", ["address", "zone"])],
      ...[...within("map", ["mode", "users", "groups", "setgroups"]), ...within("addHost[0]", ["name", "address"])],
    ],
    (options) => new penne.Command("/no/such", options).spawn(),
  ],
  ["Command with ports", PORTS, (options) => new penne.Command("/no/such", { net: "host", ...options }).spawn()],
  [
    "Command with enter",
    ["types", "forChildren", "root", "cgroup", "targetEnv", "preserveCredentials", ...KEPT],
    (options) => new penne.Command("/no/such", { enter: Deno.pid, ...options }).spawn(),
  ],
  ["spawn", ["command", "env"], (options) => penne.spawn({ command: ["/no/such"], ...options })],
  ["run", ["command", "env"], (options) => penne.run({ command: ["/no/such"], ...options })],
  ["enter", ["command", "target"], (options) => penne.enter({ target: Deno.pid, command: ["/no/such"], ...options })],
  [
    "keep",
    ["types", ...KEPT, "pid", "setUp", "timeout", ...within("setUp", ["command", "cwd", "net", "map", "hostname"])],
    (options) => penne.keep("a b", { setUp: { command: ["/no/such"] }, ...options }),
  ],
  [
    "watch",
    [
      ...["events", "types", "pids", "trees", "comms", "uids", "cgroups", "inums", "failed", "threads", "backend"],
      ...["interval", "limit", "signal"],
    ],
    (options) => penne.watch({ cgroups: ["/no/such"], ...options }).return(),
  ],
  [
    "replay",
    ["events", "types", "pids", "trees", "comms", "uids", "cgroups", "inums", "failed", "threads"],
    (options) => penne.replay("/no/such", options).next(),
  ],
  ["waitFor", ["signal"], (options) => penne.waitFor(["/no/such/\0"], "gone", options)],
  [
    "attach",
    [...NETWORK_KEYS, ...REACH_KEYS, ...PORTS, "quit", "announce", "onWarning", "onDetach"],
    (options) => penne.attach([Deno.pid], options),
  ],
  ["flows", ["signal"], (options) => penne.flows("/no/such", options)],
  ["followFlows", ["signal"], (options) => penne.followFlows("/no/such", options)],
  ["inspect", KEPT, (options) => penne.inspect("no-such", options)],
  ["inspectAll", KEPT, (options) => penne.inspectAll({ directory: "/no/such", ...options })],
  ["drop", [...KEPT, "force", "stale"], (options) => penne.drop("no-such", options)],
  ["dropAll", [...KEPT, "force", "stale"], (options) => penne.dropAll({ directory: "/no/such", ...options })],
  [
    "list",
    ["types", "of", "orphans", "holders", "addresses"],
    (options) => penne.list({ of: ["/no/such"], ...options }),
  ],
  ["openKept", KEPT, (options) => penne.openKept("no-such", options)],
];

const BYTES = new Uint8Array(16);
const RANGE = { inside: 0, outside: 0, count: 1 };
const MESSAGE = { type: 1, flags: 0, seq: 0, payload: BYTES };

/** What ends a wait before it begins, once the arguments have been found right. */
const OVER = AbortSignal.abort(new penne.PenneError("wait"));

/** Each function that takes arguments other than options: what one is called, and a call with it. */
const ARGUMENTS: readonly (readonly [name: string, argument: string, call: (value: Anything) => unknown])[] = [
  ["waitFor", "targets", (value) => penne.waitFor(value, "gone", { signal: OVER })],
  ["waitFor", "state", (value) => penne.waitFor([], value, { signal: OVER })],
  ["replay", "file", (value) => penne.replay(value).next()],
  ["flows", "target", (value) => penne.flows(value)],
  ["followFlows", "target", (value) => penne.followFlows(value)],
  ["attach", "targets", (value) => penne.attach(value)],
  ["keep", "name", (value) => penne.keep(value, { pid: 2 ** 30 })],
  ["inspect", "name", (value) => penne.inspect(value, { directory: "/no/such" })],
  ["drop", "name", (value) => penne.drop(value, { directory: "/no/such" })],
  ["openKept", "name", (value) => penne.openKept(value, { directory: "/no/such" })],
  ["Command", "command", (value) => new penne.Command(value, { cwd: "/no/such" }).spawn()],
  ["doctor", "command", (value) => penne.doctor(value === undefined ? "pesto" : value)],
  ["parseIp", "text", inet.parseIp],
  ["formatIp", "address", inet.formatIp],
  ["parseMac", "text", inet.parseMac],
  ["parseRange", "text", idmap.parseRange],
  ["mapText", "ranges", idmap.mapText],
  ["mapText", "ranges", (value) => idmap.mapText([{ ...RANGE, count: value }])],
  ["checkRanges", "kind", (value) => idmap.checkRanges(value, [RANGE])],
  ["checkRanges", "ranges", (value) => idmap.checkRanges("user", value)],
  ["encodeMessage", "message", netlink.encodeMessage],
  ["encodeMessage", "message.payload", (value) => netlink.encodeMessage({ ...MESSAGE, payload: value })],
  ["encodeMessage", "message.type", (value) => netlink.encodeMessage({ ...MESSAGE, type: value })],
  ["decodeMessages", "bytes", netlink.decodeMessages],
  ["encodeAttributes", "attributes", netlink.encodeAttributes],
  ["encodeAttributes", "attributes[0]", (value) => netlink.encodeAttributes([[1, value]])],
  ["listAttributes", "bytes", netlink.listAttributes],
  ["decodeAttributes", "bytes", netlink.decodeAttributes],
  ["nested", "type", (value) => netlink.nested(value, [])],
  ["nested", "attributes", (value) => netlink.nested(1, value)],
  ["decodeAcknowledgement", "message", netlink.decodeAcknowledgement],
  ["encodeBootstrap", "message", (value) => nsexec.encodeBootstrap(value, "1.2")],
  ["encodeBootstrap", "message.attributes", (value) => nsexec.encodeBootstrap({ attributes: value }, "1.2")],
  ...(["uidMap", "cloneFlags", "mountSources"] as const).map((name) =>
    [
      "encodeBootstrap",
      "message.attributes[0].value",
      (value: Anything) => nsexec.encodeBootstrap({ attributes: [{ name, value }] }, "1.1"),
    ] as const
  ),
  ["encodeBootstrap", "dialect", (value) => nsexec.encodeBootstrap({ attributes: [] }, value)],
  ["bootstrapLength", "header", nsexec.bootstrapLength],
  ["decodeBootstrap", "bytes", (value) => nsexec.decodeBootstrap(value, "1.2")],
  [
    "decodeBootstrap",
    "dialect",
    (value) => nsexec.decodeBootstrap(nsexec.encodeBootstrap({ attributes: [] }, "1.2"), value),
  ],
  ["encodePids", "pids", nsexec.encodePids],
  ["encodePids", "pids.stage1", (value) => nsexec.encodePids({ stage1: value, stage2: 1 })],
  ["decodePids", "line", nsexec.decodePids],
];

/** Classes of errors, which penne makes. */
const ERRORS = ["BootstrapMessageError", "ExecError", "PenneError", "SysError"];

/** The error of a call, if there is one. */
async function failure(body: () => unknown): Promise<Anything> {
  try {
    await body();
    return null;
  } catch (error) {
    return error;
  }
}

/** Whether an error is one that penne, or Deno.Command, means to throw. */
function isMeant(error: unknown): boolean {
  const known = [penne.PenneError, Deno.errors.NotFound, nsexec.BootstrapMessageError];
  if (known.some((Class) => error instanceof Class)) return true;
  if (error instanceof RangeError) return /^(Cannot decode|Attribute )/.test(error.message);
  // What the engine itself says of a value that is not what the code expects begins otherwise.
  return error instanceof TypeError &&
    /^(cannot use |options|request|[\w.[\]]+ (has no "|is missing)|Invalid signal|Must be|Failed to spawn|EINVAL)/.test(
      error.message,
    );
}

/** The most kinds of values that an argument takes, as of ports: a number, a string, a list, or an object. */
const KINDS_MAX = 4;

function kindOf(value: unknown): string {
  return value === null ? "null" : Array.isArray(value) ? "list" : typeof value;
}

/** Calls a function with values of all kinds, of which it may take some; an argument that is not checked takes all. */
async function checkRefusals(
  name: string,
  argument: string,
  values: readonly Anything[],
  call: (value: Anything) => unknown,
): Promise<void> {
  const taken = new Set<string>();
  for (const value of values) {
    if (await isTaken(name, argument, value, () => call(value))) taken.add(kindOf(value));
  }
  assert(!taken.has("symbol") && taken.size <= KINDS_MAX, `${name} takes ${[...taken].join(", ")} as ${argument}`);
}

/** Whether a function takes a value; otherwise it refuses it as penne refuses values: with the name of the argument. */
async function isTaken(name: string, argument: string, value: Anything, call: () => unknown): Promise<boolean> {
  const error = await failure(call);
  const shown = `${name} with ${argument}: ${String(value).slice(0, 60)}: ${String(error).slice(0, 200)}`;
  assert(error === null || isMeant(error), shown);
  if (error instanceof TypeError && error.message.startsWith("cannot use")) {
    assert(error.message.includes(argument), shown);
  }
  return !(error instanceof TypeError || error instanceof penne.PenneError && error.usage);
}

/** Options with a value at a path, such as `reach.dnsHost[0].zone`. */
function optionsWith(path: string, value: Anything): Anything {
  const [key = "", ...rest] = path.split(".");
  const inner = rest.length ? optionsWith(rest.join("."), value) : value;
  const valid: Record<string, unknown> = path.endsWith(".address") ? { name: "a" } : { address: "192.0.2.1" };
  return key.endsWith("[0]") ? { [key.slice(0, -3)]: [{ ...valid, ...inner }] } : { [key]: inner };
}

for (const [name, keys, call] of CALLS) {
  test(`${name}() refuses wrong values, and names the argument`, async () => {
    for (const key of keys) {
      await checkRefusals(name, key.split(/[.[]/)[0]!, WRONG, (value) => call(optionsWith(key, value)));
    }
    for (const value of [null, 5, "x", [], () => {}, Symbol("x")]) {
      const error = await failure(() => call(value));
      assert(error === null || isMeant(error), `${name} with ${String(value)}: ${error}`);
    }
    const unknown = await failure(() => call({ nosuchkey: 1 }));
    assert(unknown instanceof TypeError && unknown.message.includes('"nosuchkey"'), `${name}: ${unknown}`);
  });
}

test("each function refuses wrong arguments, and names them", async () => {
  for (const [name, argument, call] of ARGUMENTS) {
    const values = [...WRONG, new Uint8Array(7), new Uint8Array(100_000), undefined];
    await checkRefusals(name, argument, values, call);
  }
});

test("every exported function is among those that are called with wrong values here", async () => {
  const { exports } = JSON.parse(await Deno.readTextFile(`${ROOT}deno.json`)) as { exports: Record<string, string> };
  const called = new Set([...CALLS.map(([name]) => name), ...ARGUMENTS.map(([name]) => name), ...ERRORS]);
  const classes = ["ChildProcess"]; // which has a test of its own
  for (const [entry, path] of Object.entries(exports)) {
    const functions = Object.entries(await import(`${ROOT}${path}`)).filter(([, value]) => typeof value === "function");
    const missing = functions.map(([name]) => name).filter((name) => !called.has(name) && !classes.includes(name));
    assertEquals(missing, [], entry);
  }
});

test("an unknown key inside an option is refused too, with a suggestion", async () => {
  const any = penne as Record<string, Anything>;
  const calls: [string, () => unknown][] = [
    ['options.network has no "mtuu"; did you mean mtu?', () => any.run({ net: "tap", network: { mtuu: 1500 } })],
    ['options.reach has no "exclud"; did you mean exclude?', () => any.spawn({ net: "tap", reach: { exclud: [] } })],
    ['options.reach.tell has no "fqdm"; did you mean fqdn?', () => any.spawn({ reach: { tell: { fqdm: "" } } })],
    ['options has no "gateway"; did you mean gateways?', () => any.attach([Deno.pid], { gateway: "10.0.0.1" })],
    ['options.exclude[0] has no "prefx"; did you mean prefix?', () => any.attach([1], { exclude: [{ prefx: 8 }] })],
    ['options.map has no "modes"; did you mean mode?', () => any.run({ map: { modes: "auto" } })],
    ['request.setUp has no "nett"; did you mean net?', () => any.keep("a", { setUp: { nett: "none" } })],
  ];
  for (const [message, call] of calls) {
    const error = await failure(call);
    assert(error instanceof TypeError);
    assertEquals(error.message, message);
  }
});

test("what other libraries have, or write otherwise, is refused with what it is here", async () => {
  const any = penne as Record<string, Anything>;
  const time = "did you mean signal: AbortSignal.timeout(MILLISECONDS)?";
  const calls: [string, () => unknown][] = [
    [`options has no "timeout"; ${time}`, () => new any.Command("true", { timeout: 5 }).output()],
    [`options has no "timeout"; ${time}`, () => any.run({ command: ["true"], timeout: 5 })],
    [
      "cannot use a list as command: it is not a string or a file URL; args has the arguments",
      () => new any.Command(["sh"]).spawn(),
    ],
  ];
  for (const [message, call] of calls) {
    const error = await failure(call);
    assert(error instanceof TypeError, String(error));
    assertEquals(error.message, message);
  }
  const ports = (ports: Anything) => () => any.attach([Deno.pid], { ports });
  const spelling = "write it as in 8080:80, 127.0.0.1/53 or 8000-8010";
  const hints: [string, () => unknown][] = [
    ["did you mean ports.tcp?", ports({ tpc: 80 })],
    ["give it to the command whose namespaces you enter", () => any.enter({ target: 1, ports: { tcp: 80 } })],
    ["give it to the command whose namespaces you enter", () => any.enter({ target: 1, net: "none" })],
    ["enter: TARGET says which ones", () => any.run({ types: ["net"] })],
    ["a slash follows the address: write it as 127.0.0.1/18303:80", ports({ tcp: "127.0.0.1:18303:80" })],
    ["a slash follows the address: write it as [::1]/18303:80", ports({ udp: "[::1]:18303:80" })],
    [spelling, ports({ tcp: "127.0.0.1:18303:80/tcp" })],
    [spelling, ports({ tcp: "127.0.0.999:18303:80" })],
    [spelling, ports({ tcp: "80:81:82" })],
    ...[0, "0", "127.0.0.1/0:80", [80, "0:80"]].map((tcp): [string, () => unknown] => [
      "to find a free one, listen on port 0, as Deno.listen({ port: 0 }) does, read the number, and close it again",
      ports({ tcp }),
    ]),
  ];
  for (const [hint, call] of hints) {
    const error = await failure(call);
    assert(error instanceof penne.PenneError && error.usage, String(error));
    assertEquals((await error.hints())[0], hint);
  }
});

test("an option that has no effect without a network is refused without one", async () => {
  const any = penne as Record<string, Anything>;
  for (const [name, value] of Object.entries({ network: {}, reach: {}, dns: ["192.0.2.1"], search: [], ports: {} })) {
    for (const net of ["none", "host", undefined]) {
      const error = await failure(() => any.run({ command: ["true"], net, [name]: value }));
      assert(error instanceof penne.PenneError && error.usage, `${name}: ${error}`);
      assertEquals(error.message, `cannot use ${name} without a network`);
      assertEquals(await error.hints(), ['net: "tap" sets one up']);
    }
  }
});

test("a child cannot be made by hand", () => {
  const { ChildProcess } = penne as Record<string, Anything>;
  assertThrows(() => new ChildProcess(), TypeError, "Illegal constructor");
});

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
