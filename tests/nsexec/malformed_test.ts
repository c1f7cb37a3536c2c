// Malformed messages: one fatal line and exit code 1 at once, and nothing is left.

import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { type BootstrapMessage, type Dialect, DIALECTS, encodeBootstrap } from "../../mod/nsexec/message.ts";
import { penne, test } from "../lib/helpers.ts";
import { Bootstrap, leftovers, link, type StartOptions } from "./driver.ts";

const MESSAGE: BootstrapMessage = {
  flags: 1,
  attributes: [
    { name: "cloneFlags", value: 0x4000000 },
    { name: "oomScoreAdj", value: new TextEncoder().encode("100") },
    { name: "rootless", value: 0 },
  ],
};

const argv = (dialect: Dialect) => [penne(), "nsexec", "--dialect", dialect, "--", "/bin/sh", "-c", "read x <&3"];

/** Sends a message that must fail; returns the one fatal line. */
function refused(dialect: Dialect, messages: readonly Uint8Array[], options: Partial<StartOptions> = {}): string {
  using run = Bootstrap.start({ argv: argv(dialect), ...options });
  // The time of its start does not count.
  if (dialect !== "1.2") run.until(() => run.received.length > 0);
  else if (options.log !== false) run.until(() => run.log.length > 0);
  for (const message of messages) run.send(message);
  run.endInput();
  assertEquals(run.wait(run.pid, 1000).code, 1);
  while (run.pump(20)) continue;
  assertEquals(leftovers(), []);
  assertEquals(run.received, dialect === "1.2" ? [] : [0]);
  if (options.log === false) {
    assertMatch(run.stderr, /^FATAL: [^\n]+\n$/);
    return run.stderr.slice(7, -1);
  }
  assertEquals(run.stderr, "");
  const fatal = run.log.filter(({ level }) => level === "fatal");
  assertEquals(fatal.length, 1, JSON.stringify(run.log));
  assertEquals(fatal[0]!.stage, "nsexec");
  return fatal[0]!.text;
}

/** Replaces some bytes of a message. */
function patched(at: number, ...bytes: number[]): Uint8Array {
  const message = encodeBootstrap(MESSAGE, "1.2");
  message.set(bytes, at);
  return message;
}

const zeros = (length: number) => new Uint8Array(length);

const CASES: [name: string, message: Uint8Array, text: RegExp][] = [
  ...[0, 1, 2, 3].map((length): [string, Uint8Array, RegExp] => [
    `an attribute of length ${length}`,
    patched(16, length),
    new RegExp(`attribute 27281 at byte 16 has the length ${length}, less`),
  ]),
  ["an attribute past the end", patched(24, 200), /attribute 27286 at byte 24 runs past the end/],
  ["an attribute twice", patched(34, 0x91), /attribute 27281 at byte 32 is given twice/],
  ["text without a NUL", patched(31, 48), /attribute 27286 at byte 24 does not end with a NUL/],
  ["an unknown attribute", patched(18, 0, 0), /^unknown netlink message type 0$/],
  ["another message", patched(4, 0, 0), /^unexpected msg type 0$/],
  ["a length of 64 kB, and nothing more", patched(0, 0, 0, 1, 0), /^failed to read netlink payload, 24 != 65520$/],
  ["a length of 4 GB", patched(0, 255, 255, 255, 255), /^invalid netlink message length 4294967295: /],
  [
    "64 kB of zeros behind the last attribute",
    Uint8Array.from([...patched(0, 40, 0, 1, 0), ...zeros(65536)]),
    /^unknown netlink message type 0$/,
  ],
  [
    "an attribute of 64 kB",
    encodeBootstrap({ attributes: [{ name: "oomScoreAdj", value: zeros(65530).fill(49) }] }, "1.2"),
    /^failed to update \/proc\/self\/oom_score_adj: /,
  ],
  [
    "garbage behind the last attribute",
    Uint8Array.from([...patched(0, 43), 1, 2, 3]),
    /3 bytes follow the last attribute/,
  ],
];

test("a malformed message gives one fatal line and exit code 1", async (t) => {
  for (const dialect of DIALECTS) {
    for (const [name, message, text] of CASES) {
      await t.step(`${name}, in dialect ${dialect}`, () => assertMatch(refused(dialect, [message]), text));
    }
  }
});

test("without a pipe for the log the fatal line goes to stderr, in every dialect", () => {
  for (const dialect of DIALECTS) {
    assertEquals(refused(dialect, [patched(4, 0, 0)], { log: false }), "unexpected msg type 0");
  }
});

test("a message that ends early, at any byte, gives one fatal line and exit code 1", () => {
  const message = encodeBootstrap(MESSAGE, "1.2");
  for (let length = 0; length < message.length; length++) {
    const expected = length < 16
      ? `invalid netlink header length ${length}`
      : `failed to read netlink payload, ${length - 16} != ${message.length - 16}`;
    assertEquals(refused("1.2", [message.subarray(0, length)]), expected);
  }
});

test("a message may arrive byte by byte, and the bytes after it are left for the command", ["root"], () => {
  const command = ["/bin/sh", "-c", "read line <&3; echo $line >&2"];
  using run = Bootstrap.start({ argv: [penne(), "nsexec", "--", ...command], log: false });
  const message = encodeBootstrap(
    { attributes: [{ name: "oomScoreAdj", value: new TextEncoder().encode("100") }] },
    "1.2",
  );
  for (const byte of [...message, ...new TextEncoder().encode("more\n")]) {
    run.send(new Uint8Array([byte]));
    run.pump(1);
  }
  assertEquals(run.wait(run.pid).code, 0);
  assertEquals(run.wait(run.pids!.stage1).code, 0);
  assertEquals([run.wait(run.pids!.stage2).code, run.stderr], [0, "more\n"]);
});

test("a variable that is not a number gives one fatal line", () => {
  const cases: [Dialect, Record<string, string>, string][] = [
    ["1.2", { _LIBCONTAINER_INITPIPE: "3x" }, "unable to parse _LIBCONTAINER_INITPIPE=3x"],
    ["1.2", { _LIBCONTAINER_INITPIPE: "-3" }, "bad value for _LIBCONTAINER_INITPIPE=-3 (-3)"],
    ["1.2", { _LIBCONTAINER_INITPIPE: "99" }, "bad value for _LIBCONTAINER_INITPIPE=99 (not an open descriptor)"],
    ["1.1", { _LIBCONTAINER_LOGPIPE: "x" }, "unable to parse _LIBCONTAINER_LOGPIPE=x"],
    ["1.1", { _LIBCONTAINER_LOGPIPE: "4", _LIBCONTAINER_LOGLEVEL: "x" }, "unable to parse _LIBCONTAINER_LOGLEVEL=x"],
    ["seed", { _LIBCONTAINER_LOGPIPE: "x" }, "unable to parse _LIBCONTAINER_LOGPIPE, value: x"],
    ["seed", { _LIBCONTAINER_INITPIPE: "x" }, "unable to parse _LIBCONTAINER_INITPIPE"],
  ];
  for (const [dialect, env, text] of cases) {
    using run = Bootstrap.start({ argv: argv(dialect), env, log: false });
    assertEquals(run.wait(run.pid).code, 1);
    while (run.pump(20)) continue;
    assertEquals(run.stderr, `FATAL: ${text}\n`);
    assertEquals(run.received, []);
  }
});

test("the log level limits the log", () => {
  const levels: [string, number][] = [["0", 0], ["1", 1], ["4", 1]];
  for (const [level, count] of levels) {
    using run = Bootstrap.start({ argv: argv("1.2"), env: { _LIBCONTAINER_LOGLEVEL: level } });
    run.send(patched(4, 0, 0));
    assertEquals(run.wait(run.pid).code, 1);
    while (run.pump(20)) continue;
    assertEquals(run.log.map((line) => line.level), Array(count).fill("fatal"));
    assertEquals(run.stderr, "");
  }
});

test(
  "in the oldest dialect the cgroup namespace is made after the byte for it, and at no other byte",
  ["root"],
  () => {
    const message = encodeBootstrap({ attributes: [{ name: "cloneFlags", value: 0x2000000 }] }, "seed");
    const start = () => {
      const run = Bootstrap.start({ argv: argv("seed") });
      run.send(message);
      assert(run.until(() => run.pids && run.log.some(({ text }) => text === "signalling stage-2 to run")));
      return run;
    };
    const own = link("/proc/self/ns/cgroup");
    {
      using run = start();
      const stage2 = run.pids!.stage2;
      assertEquals(link(`/proc/${stage2}/ns/cgroup`), own);
      run.send(new Uint8Array([0x80]));
      assertEquals(run.wait(run.pid).code, 0);
      assertNotEquals(link(`/proc/${stage2}/ns/cgroup`), own);
    }
    for (
      const [bytes, text] of [
        [[0x81], "received unknown synchronisation value"],
        [[], "read synchronisation value failed"],
      ] as const
    ) {
      using run = start();
      run.send(new Uint8Array(bytes));
      run.endInput();
      assertEquals(run.wait(run.pid, 1000).code, 1);
      const fatal = run.log.filter(({ level }) => level === "fatal").map((line) => `${line.stage}: ${line.text}`);
      assertEquals(fatal, [`nsexec-2: ${text}`, "nsexec-0: failed to sync with child: next state"]);
      assertEquals([1, 2].map((stage) => run.wait(run.stagePid(stage)!, 1000).code), [0, 1]);
      assertEquals(leftovers(), []);
    }
  },
);
