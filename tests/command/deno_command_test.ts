// Command beside Deno.Command: each member and behaviour of the latter's documentation, run against both.

import "../lib/preload.ts";
import { assert, assertEquals, assertInstanceOf, assertRejects, assertThrows } from "@std/assert";
import { Command } from "../../mod/mod.ts";
import { test } from "../lib/helpers.ts";

/** What both classes have. */
type Class = typeof Deno.Command;

/** One behaviour: what it is, and what is seen of it; the same of both classes. */
type Row = readonly [what: string, see: (C: Class) => unknown];

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

/** Reads a stream to its end. Deno 2.4 has no text() for it. */
async function read(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<string> {
  return await new Response(stream).text();
}

/** Whether this Deno's own streams have text() and its like. */
const HAS_TEXT = "text" in Object.getPrototypeOf(await streamOfChild());

async function streamOfChild(): Promise<ReadableStream> {
  const child = new Deno.Command("true", { stdout: "piped" }).spawn();
  await child.stdout.cancel();
  await child.status;
  return child.stdout;
}
function sh(script: string, options: Deno.CommandOptions = {}): [string, Deno.CommandOptions] {
  return ["sh", { ...options, args: ["-c", script] }];
}

/** What can be compared of an error. */
async function failure(body: () => unknown): Promise<string> {
  try {
    await body();
  } catch (error) {
    return `${(error as Error).constructor.name}: ${(error as Error).message}`;
  }
  return "none";
}

/** The class of an error alone, where the words differ. */
const errorClass = async (body: () => unknown) => (await failure(body)).replace(/:.*/s, "");

/** Since Deno 2.5. */
const COLLECTORS: Row = ["bytes(), arrayBuffer(), text() and json() of a stream", async (C) => {
  const seen = [];
  for (const how of ["bytes", "arrayBuffer", "text", "json"] as const) {
    const child = new C("echo", { args: ['{"a":1}'], stdout: "piped" }).spawn();
    seen.push(await (child.stdout as unknown as Record<typeof how, () => Promise<unknown>>)[how]());
    await child.status;
  }
  return seen;
}];

const ROWS: readonly Row[] = [
  ["output() collects stdout and stderr", async (C) => {
    const { success, code, signal, stdout, stderr } = await new C(...sh("echo out; echo err >&2")).output();
    return { success, code, signal, stdout: text(stdout), stderr: text(stderr) };
  }],
  ["outputSync() does too", (C) => {
    const { success, code, signal, stdout, stderr } = new C(...sh("echo out; echo err >&2; exit 3")).outputSync();
    return { success, code, signal, stdout: text(stdout), stderr: text(stderr) };
  }],
  ["output() has five properties", async (C) => Object.keys(await new C("true").output()).sort()],
  ["spawn() and status do not wait, await and outputSync() do", async (C) => {
    const child = new C("cat", { stdin: "piped", stdout: "null" }).spawn();
    let isOver = false;
    const status = child.status.then(() => isOver = true);
    await new Promise((resolve) => setTimeout(resolve, 50));
    const before = isOver;
    await child.stdin.close();
    await status;
    const start = performance.now();
    new C("sleep", { args: ["0.2"] }).outputSync();
    return [before, isOver, performance.now() - start >= 200];
  }],
  ["an exit code", async (C) => ({ ...await new C(...sh("exit 42")).spawn().status })],
  ["a signal by name, and 128 and its number", async (C) => ({ ...await new C(...sh("kill -HUP $$")).spawn().status })],
  ["a core dump's signal", async (C) => ({ ...await new C(...sh("ulimit -c 0; kill -QUIT $$")).spawn().status })],
  [
    "args are passed as they are",
    async (C) => text((await new C("printf", { args: ["%s|", "a b", "", "ä\n", "-x"] }).output()).stdout),
  ],
  ["numbers as args", async (C) => text((await new C("echo", { args: [1] as unknown as string[] }).output()).stdout)],
  ["cwd", async (C) => text((await new C("pwd", { cwd: "/usr/lib" }).output()).stdout)],
  ["cwd as a URL", async (C) => text((await new C("pwd", { cwd: new URL("file:///usr/lib") }).output()).stdout)],
  [
    "a relative program begins at cwd",
    async (C) => (await new C("./env", { cwd: "/usr/bin", stdout: "null" }).output()).code,
  ],
  ["a program as a URL", async (C) => (await new C(new URL("file:///bin/true")).output()).code],
  ["a program as another URL", (C) => failure(() => new C(new URL("http://localhost/true")).output())],
  [
    "env adds to the environment",
    async (C) =>
      text((await new C(...sh('echo $ADDED; test -n "$PATH" && echo path', { env: { ADDED: "x" } })).output()).stdout),
  ],
  [
    "clearEnv clears it",
    async (C) => text((await new C("/usr/bin/env", { clearEnv: true, env: { A: "b" } }).output()).stdout),
  ],
  [
    "the program is looked up in the PATH of env",
    (C) => failure(() => new C("true", { env: { PATH: "/nosuch" } }).output()),
  ],
  ["stdin: null is empty", async (C) => text((await new C("cat", { stdin: "null" }).output()).stdout)],
  ["stdout: null is empty in output()", async (C) => {
    const output = await new C("echo", { args: ["x"], stdout: "null" }).output();
    return failure(() => output.stdout);
  }],
  ["what is inherited cannot be got from output()", async (C) => {
    const output = await new C("true", { stdout: "inherit", stderr: "inherit" }).output();
    return [await failure(() => output.stdout), await failure(() => output.stderr)];
  }],
  ["piped stdin in output()", (C) => failure(() => new C("cat", { stdin: "piped" }).output())],
  ["piped stdin in outputSync()", (C) => failure(() => new C("cat", { stdin: "piped" }).outputSync())],
  ["streams that are not piped", async (C) => {
    const child = new C("true").spawn();
    const seen = [];
    for (const name of ["stdin", "stdout", "stderr"] as const) seen.push(await failure(() => child[name]));
    await child.status;
    return seen;
  }],
  ["stdin and stdout piped", async (C) => {
    const child = new C("tr", { args: ["a-z", "A-Z"], stdin: "piped", stdout: "piped" }).spawn();
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode("hello"));
    await writer.close();
    return [await read(child.stdout), { ...await child.status }];
  }],
  ["stdout is a web stream", async (C) => {
    const child = new C("echo", { args: ["hi"], stdout: "piped" }).spawn();
    const upper = child.stdout.pipeThrough(new TextDecoderStream());
    const parts = await Array.fromAsync(upper);
    await child.status;
    return [child.stdout instanceof ReadableStream, parts.join("")];
  }],
  ["stdout can be read into a buffer of one's own", async (C) => {
    const child = new C("echo", { args: ["hi"], stdout: "piped" }).spawn();
    const reader = child.stdout.getReader({ mode: "byob" });
    const { value, done } = await reader.read(new Uint8Array(10));
    const last = await reader.read(new Uint8Array(10));
    reader.releaseLock();
    await child.status;
    return [text(value!), done, last.done];
  }],
  ["stdin is a web stream", async (C) => {
    const child = new C("cat", { stdin: "piped", stdout: "piped" }).spawn();
    const copied = ReadableStream.from([new TextEncoder().encode("a"), new TextEncoder().encode("b")]).pipeTo(
      child.stdin,
    );
    return [child.stdin instanceof WritableStream, await read(child.stdout), await copied, (await child.status).code];
  }],
  ...(HAS_TEXT ? [COLLECTORS] : []),
  ["output() of a child collects what is piped", async (C) => {
    const output = await new C(...sh("echo a; echo b >&2", { stdout: "piped" })).spawn().output();
    return [text(output.stdout), await failure(() => output.stderr)];
  }],
  ["output() of a child that is being read", async (C) => {
    const child = new C("echo", { args: ["hi"], stdout: "piped" }).spawn();
    const reader = child.stdout.getReader();
    const seen = await failure(() => child.output());
    await reader.cancel();
    await child.status;
    return seen;
  }],
  ["stdin closed before anything is written", async (C) => {
    const child = new C("cat", { stdin: "piped", stdout: "piped" }).spawn();
    await child.stdin.close();
    return [await read(child.stdout), { ...await child.status }];
  }],
  ["a write to a command that has ended", async (C) => {
    const child = new C("true", { stdin: "piped" }).spawn();
    await child.status;
    const writer = child.stdin.getWriter();
    return [await failure(() => writer.write(new Uint8Array(10))), await failure(() => writer.closed)];
  }],
  ["a reader that stops ends the command by SIGPIPE", async (C) => {
    const child = new C("seq", { args: ["1000000"], stdout: "piped" }).spawn();
    await child.stdout.cancel();
    return { ...await child.status };
  }],
  ["pid is a process, and stays known", async (C) => {
    const child = new C("sleep", { args: ["100"] }).spawn();
    const lives = await Deno.stat(`/proc/${child.pid}`).then(() => true);
    const { pid } = child;
    child.kill();
    await child.status;
    return [lives, child.pid === pid];
  }],
  ["kill() is SIGTERM", async (C) => {
    const child = new C("sleep", { args: ["100"] }).spawn();
    child.kill();
    return { ...await child.status };
  }],
  ...(["SIGINT", "SIGKILL", "SIGUSR1", 9, 1] as const).map((signal): Row => [`kill(${signal})`, async (C) => {
    const child = new C("sleep", { args: ["100"] }).spawn();
    child.kill(signal as Deno.Signal);
    return { ...await child.status };
  }]),
  ["kill(0) does nothing to it", async (C) => {
    const child = new C("sleep", { args: ["100"] }).spawn();
    child.kill(0 as unknown as Deno.Signal);
    child.kill("SIGKILL");
    return (await child.status).signal;
  }],
  ...(["NOPE", "TERM", 99] as const).map((signal): Row => [`kill(${signal}) is refused`, async (C) => {
    const child = new C("sleep", { args: ["100"] }).spawn();
    const seen = await failure(() => child.kill(signal as Deno.Signal));
    child.kill("SIGKILL");
    return [seen, (await child.status).signal];
  }]),
  ["kill() after its end", async (C) => {
    const child = new C("true").spawn();
    await child.status;
    return failure(() => child.kill());
  }],
  ["status is the same promise each time", async (C) => {
    const child = new C("true").spawn();
    const same = child.status === child.status;
    await child.status;
    return same;
  }],
  ["await using sends SIGTERM and waits", async (C) => {
    const child = new C("sleep", { args: ["100"] }).spawn();
    {
      await using _child = child;
    }
    return { ...await child.status };
  }],
  ["await using of one that has ended", async (C) => {
    await using child = new C("true").spawn();
    return (await child.status).code;
  }],
  ["an abort while it runs", async (C) => {
    const controller = new AbortController();
    const output = new C("sleep", { args: ["100"], signal: controller.signal }).output();
    setTimeout(() => controller.abort(), 20);
    return (await output).signal;
  }],
  [
    "an abort before output()",
    async (C) => (await new C("sleep", { args: ["100"], signal: AbortSignal.abort() }).output()).signal,
  ],
  ["an abort after its end", async (C) => {
    const controller = new AbortController();
    const { code } = await new C("true", { signal: controller.signal }).output();
    controller.abort();
    return code;
  }],
  ["outputSync() does not look at an abort", (C) => new C("true", { signal: AbortSignal.abort() }).outputSync().code],
  ["there is no such program", (C) => failure(() => new C("no-such-program").spawn())],
  ["there is no such program, in output()", (C) => failure(() => new C("no-such-program").output())],
  ["there is no such program, in outputSync()", (C) => failure(() => new C("no-such-program").outputSync())],
  ["an empty program", (C) => failure(() => new C("").spawn())],
  ["a NUL in the program", (C) => failure(() => new C("a\0b").spawn())],
  ["a NUL in an argument", (C) => errorClass(() => new C("echo", { args: ["a\0b"] }).spawn())],
  ["a NUL in a variable", (C) => errorClass(() => new C("echo", { env: { A: "a\0b" } }).spawn())],
  ["a program that may not be executed", (C) => failure(() => new C("/etc/passwd").spawn())],
  ["a directory as program", (C) => failure(() => new C("/").spawn())],
  ["there is no such cwd", (C) => errorClass(() => new C("true", { cwd: "/no/such" }).spawn())],
  ["a file as cwd", (C) => errorClass(() => new C("true", { cwd: "/etc/passwd" }).spawn())],
  ["a stdin of another kind", (C) => errorClass(() => new C("true", { stdin: "file" as "null" }).spawn())],
  ["a number as program", (C) => errorClass(() => new C(5 as unknown as string).spawn())],
  ["ref() and unref() can be called at any time", async (C) => {
    const child = new C("true", { stdout: "piped" }).spawn();
    child.unref();
    child.ref();
    const seen = await read(child.stdout);
    const { code } = await child.status;
    child.unref();
    child.ref();
    return [seen, code];
  }],
  ["a larger output than a pipe holds, of a command that has ended before it is read", async (C) => {
    const child = new C("head", { args: ["-c", "60000", "/dev/zero"], stdout: "piped" }).spawn();
    await child.status;
    return (await read(child.stdout)).length;
  }],
];

/** Behaviours that Deno.Command itself has got since Deno 2.4. */
const LATER: readonly string[] = [
  "a write to a command that has ended",
  "kill(9)",
  "kill(1)",
  "kill(0) does nothing to it",
  "kill(99) is refused",
  "an abort before output()",
];

for (const [what, see] of ROWS) {
  if (Deno.version.deno.startsWith("2.4.") && LATER.includes(what)) continue;
  test(`Command is as Deno.Command: ${what}`, async () => {
    assertEquals(await see(Command as unknown as Class), await see(Deno.Command));
  });
}

test("Command and its children have every member that those of Deno.Command have", async () => {
  const [own, theirs] = [new Command("true", { unshare: [] }).spawn(), new Deno.Command("true").spawn()];
  const members = (value: object) => Reflect.ownKeys(Object.getPrototypeOf(value)).filter((key) => !isInner(key));
  const isInner = (key: string | symbol) => typeof key === "symbol" && key !== Symbol.asyncDispose;
  assertEquals(members(theirs).filter((key) => !(key in own)), []);
  assertEquals(Object.keys(theirs).filter((key) => !(key in own)), []);
  assertEquals(members(new Deno.Command("true")).filter((key) => !members(new Command("true")).includes(key)), []);
  await Promise.all([own.status, theirs.status]);
  const compiles: typeof Deno.Command = Command; // in TypeScript one can stand for the other
  assertEquals(compiles, Command as unknown);
});

test("killSignal is a name or a number, and another one is refused", async () => {
  for (const killSignal of ["SIGINT", 2] as const) {
    const child = new Command("sleep", { args: ["100"], killSignal }).spawn();
    assertEquals(child.end().signal, "SIGINT");
    await child.status;
  }
  for (const killSignal of ["INT", "SIGNOPE", 99] as unknown as Deno.Signal[]) {
    assertThrows(() => new Command("true", { killSignal }).spawn(), TypeError, "Invalid signal");
  }
});

test("Command's errors have penne's own as their cause, with hints", async () => {
  const error = assertThrows(() => new Command("/etc/passwd").spawn(), Deno.errors.PermissionDenied);
  const { cause } = error as { cause?: { hints?: () => Promise<string[]> } };
  assertEquals(await cause?.hints?.(), ["/etc/passwd has no execute permission; chmod +x /etc/passwd"]);
});

test("Command ends a child whose signal was aborted before it started, which Deno.Command does in output() alone", async () => {
  const child = new Command("sleep", { args: ["100"], signal: AbortSignal.abort() }).spawn();
  assertEquals((await child.status).signal, "SIGTERM");
});

test("Command refuses what Deno.Command ignores: an unknown option, a malformed variable", async () => {
  const wrong = { hostnam: "box" } as unknown as Deno.CommandOptions;
  assertThrows(() => new Command("true", wrong).spawn(), TypeError, 'options has no "hostnam"; did you mean hostname?');
  assertThrows(() => new Command("true", { env: { "A=": "b" } }).spawn(), Error, "a name is not empty");
  await assertRejects(() => new Command("true", { uid: 7 }).output(), Error, "that id is not mapped");
});

test(
  "Command reports a real-time signal by its number alone, where Deno.Command rejects",
  ["package:bash"],
  async () => {
    const status = await new Command("bash", { args: ["-c", "kill -40 $$"] }).spawn().status;
    assertEquals(status, { success: false, code: 168, signal: null });
  },
);

test("what a command has started in the background ends with it, so its output is at its end sooner than in Deno", async () => {
  const args = ["-c", "sleep 100 & (sleep 0.3; echo late) & echo early"];
  await using box = new Command("sleep", { args: ["100"] }).spawn();
  for (const where of [{}, { unshare: [] }, { enter: box.pid }]) {
    const child = new Command("sh", { args, stdout: "piped", ...where }).spawn();
    assertEquals([text((await child.output()).stdout), (await child.status).code], ["early\n", 0]);
  }
  const alive = ["-c", "grep -hs '(sleep) [^XZ]' /proc/[0-9]*/stat"];
  const { stdout } = await new Command("sh", { args: alive, enter: box.pid }).output();
  assertEquals(text(stdout).trim().split("\n").length, 1, "the command of the box is left alone");
});

test("a signal is no hard limit, and end() is one", async () => {
  const args = ["-c", "trap '' TERM; echo ready; sleep 100; exit 7"];
  const abortion = new AbortController();
  const child = new Command("sh", { args, stdout: "piped", signal: abortion.signal }).spawn();
  const reader = child.stdout.getReader();
  await reader.read();
  abortion.abort();
  await new Promise((resolve) => setTimeout(resolve, 200));
  assertEquals(child.end().signal, "SIGKILL");
  assertEquals((await child.status).signal, "SIGKILL");
  await reader.cancel();
});

test("outputSync() refuses what needs the event loop", () => {
  assertThrows(() => new Command("true", { net: "tap" }).outputSync(), Error, "its network needs it");
});

test("Command runs without any namespace of its own", async () => {
  const { stdout } = await new Command("readlink", { args: ["/proc/self/ns/net"], unshare: [] }).output();
  assertEquals(text(stdout).trim(), Deno.readLinkSync("/proc/self/ns/net"));
});

test("Command enters namespaces that exist", async () => {
  await using box = new Command("sleep", { args: ["100"], hostname: "box" }).spawn();
  const { stdout } = await new Command("hostname", { enter: box.pid }).output();
  assertEquals(text(stdout), "box\n");
  assertInstanceOf(box.namespaces, Object);
  assert(box.namespaces.uts);
});
