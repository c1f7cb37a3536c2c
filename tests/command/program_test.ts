// How Command and the program that uses it end: exit, errors, signals, ref() and unref(), permissions.

import "../lib/preload.ts";
import { assert, assertEquals } from "@std/assert";
import { ROOT, test, until } from "../lib/helpers.ts";
import { program, withProgram } from "../lib/program.ts";
import { Pty } from "../lib/pty.ts";

/** Variables that say where Deno has its files. */
const DENO_VARIABLES = Object.fromEntries(
  ["HOME", "DENO_DIR", "XDG_CACHE_HOME"].flatMap((name) => {
    const value = Deno.env.get(name);
    return value === undefined ? [] : [[name, value]];
  }),
);

/** Whether a process has ended, and was reaped. */
function isGone(pid: string): boolean {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/stat`).split(") ")[1]!.startsWith("Z");
  } catch {
    return true;
  }
}

const START = `
  const child = new Command("sleep", { args: ["1000"] }).spawn();
  console.log(child.pid);`;

const ENDS = {
  "Deno.exit": "Deno.exit(3);",
  "an uncaught error": 'setTimeout(() => { throw new Error("enough"); }, 10);',
  "a signal": "Deno.kill(Deno.pid, 'SIGTERM'); await child.status;",
  "SIGKILL": "Deno.kill(Deno.pid, 'SIGKILL'); await child.status;",
  "unref()": "child.unref();",
};

for (const [how, end] of Object.entries(ENDS)) {
  test(`a command ends with its program: ${how}`, async () => {
    const { stdout } = await program(`${START}\n${end}`);
    const pid = stdout.trim();
    assert(/^\d+$/.test(pid), stdout);
    await until("the command has ended", () => isGone(pid));
  });
}

test("a command keeps its program until it has ended, with streams that are not read too", async () => {
  const { code, stdout } = await program(`
    const child = new Command("sh", { args: ["-c", "sleep 0.3; exit 7"], stdout: "piped" }).spawn();
    child.status.then(({ code }) => console.log(code));`);
  assertEquals([code, stdout], [0, "7\n"]);
});

test("unref() lets the program go while it waits for the command and its output, and ref() takes that back", async () => {
  const { stdout } = await program(`
    const child = new Command("sh", { args: ["-c", "sleep 0.3; echo read"], stdout: "piped" }).spawn();
    child.unref();
    child.stdout.text().then((text) => console.log(text));
    child.status.then(() => console.log("ended"));
    console.log("last line");`);
  assertEquals(stdout, "last line\n");
  const back = await program(`
    const child = new Command("sh", { args: ["-c", "sleep 0.3; echo read"], stdout: "piped" }).spawn();
    child.unref();
    child.ref();
    child.stdout.text().then((text) => console.log(text.trim()));`);
  assertEquals(back.stdout, "read\n");
});

/** Each function, called so that it would make or change something if it could. */
const FUNCTIONS = {
  spawn: 'penne.spawn({ command: ["true"] })',
  run: 'await penne.run({ command: ["true"] })',
  enter: 'penne.enter({ target: Deno.pid, command: ["true"] })',
  output: 'await new Command("true").output()',
  outputSync: 'new Command("true").outputSync()',
  attach: 'penne.attach(["4194304"], { ports: { tcp: 18070 } })',
  tap: 'await penne.run({ command: ["true"], net: "tap" })',
  waitFor: 'await penne.waitFor([Deno.pid], "present")',
  watch: 'await penne.watch({ backend: "poll" }).return()',
  keep: 'await penne.keep("a", { setUp: { command: ["true"] } })',
  inspect: 'penne.inspect("a")',
  inspectAll: "penne.inspectAll()",
  drop: 'penne.drop("a")',
  dropAll: "penne.dropAll({ stale: true })",
  openKept: 'penne.openKept("a")',
  list: "await penne.list()",
  doctor: 'penne.doctor("run")',
} as const;

/** Calls functions one after the other with a permission, and returns what each one throws. */
async function refusals(calls: Readonly<Record<string, string>>, permissions: readonly string[]): Promise<string[][]> {
  const each = Object.values(calls).map((call) =>
    `try { ${call}; said.push(["nothing"]); } catch (error) { said.push([error.constructor.name, error.message]); }`
  );
  const { stdout, stderr } = await program(
    `const penne = await import("file://${ROOT}mod/mod.ts");
    const said = [];
    ${each.join("\n")}
    console.log(JSON.stringify(said));`,
    ...permissions,
  );
  assertEquals(stderr, "");
  return JSON.parse(stdout);
}

test("without unscoped --allow-ffi, each function says so, once and in Deno's words, before anything is made", async () => {
  const words = ["NotCapable", "Requires ffi access, run again with the --allow-ffi flag"];
  for (const permissions of [[], ["--allow-ffi=/proc/self/fd"], ["--deny-ffi"], ["--allow-read", "--allow-run"]]) {
    const said = await refusals(FUNCTIONS, ["--no-prompt", ...permissions]);
    assertEquals(said, Object.values(FUNCTIONS).map(() => words), permissions.join());
  }
  const { code, stderr } = await program('await new Command("true").output();', "--no-prompt");
  assertEquals([code, stderr.match(/^error: .*/gm)], [1, [`error: Uncaught (in promise) ${words.join(": ")}`]]);
});

test("without --allow-read, what serves a network says so, once and in Deno's words, before anything is made", async () => {
  const root = ROOT.replace(/\/$/, "");
  const words = ["NotCapable", `Requires read access to "${root}", run again with the --allow-read flag`];
  const { attach, tap } = FUNCTIONS;
  const worker = `${ROOT}mod/datapath/server/worker.ts`;
  for (const permissions of [[], [`--allow-read=${worker}`], ["--deny-read"]]) {
    const said = await refusals({ attach, tap }, ["--no-prompt", "--allow-ffi", ...permissions]);
    assertEquals(said, [words, words], permissions.join());
  }
});

test("Deno asks once for each permission, where it may ask", ["tun"], async () => {
  const body = `
    const { run } = await import("file://${ROOT}mod/mod.ts");
    console.log("ended with", (await run({ command: ["sh", "-c", "exit 7"], net: "tap" })).code);`;
  await withProgram(body, ["--no-code-cache"], async (argv) => {
    using pty = new Pty(argv, { env: { NO_COLOR: "1", ...DENO_VARIABLES } });
    for (const what of ["ffi", "read"]) {
      await pty.expect(new RegExp(`Deno requests ${what} access[^]*> `));
      // Deno throws away what was typed before it reads, which is a moment after it has asked.
      let looks = 0;
      await until(`${what} is granted`, () => {
        if (looks++ % 50 === 10) pty.type("y\n");
        pty.read();
        return pty.text.includes(`Granted ${what} access`);
      });
    }
    await pty.expect(/ended with 7/);
    assertEquals(pty.text.match(/Deno requests \w+/g), ["Deno requests ffi", "Deno requests read"], pty.text);
  });
});

test("--allow-ffi is all that a command takes", async () => {
  const { stdout, stderr } = await program(
    'console.log(new TextDecoder().decode((await new Command("id", { args: ["-u"] }).output()).stdout));',
    "--allow-ffi",
  );
  assertEquals([stdout.trim(), stderr], ["0", ""]);
});

test("a Worker can run commands, twenty at once", async () => {
  const { stdout, stderr } = await program(`
    if (typeof self.postMessage !== "function") {
      const worker = new Worker(import.meta.url, { type: "module" });
      worker.onmessage = ({ data }) => { console.log(data); worker.terminate(); };
    } else {
      const all = Array.from({ length: 20 }, (_, i) => new Command("echo", { args: [String(i)] }).output());
      const texts = (await Promise.all(all)).map(({ stdout }) => new TextDecoder().decode(stdout).trim());
      self.postMessage(texts.join(" "));
    }`);
  assertEquals([stdout.trim(), stderr], [Array.from({ length: 20 }, (_, i) => i).join(" "), ""]);
});

test("a Worker that is terminated while it waits does not take the program with it", async () => {
  const { code, stdout } = await program(`
    if (typeof self.postMessage !== "function") {
      for (let i = 0; i < 3; i++) {
        const worker = new Worker(import.meta.url, { type: "module" });
        await new Promise((resolve) => worker.onmessage = resolve);
        worker.terminate();
        await new Promise((resolve) => setTimeout(resolve, 300));
      }
      console.log("still here");
    } else {
      new Command("sleep", { args: ["0.2"] }).spawn();
      self.postMessage("waiting");
    }`);
  assertEquals([code, stdout], [0, "still here\n"]);
});

test("a watch keeps its program until unref()", async () => {
  const { code, stdout } = await program(`
    const { watch } = await import("file://${ROOT}mod/mod.ts");
    const events = watch({ backend: "poll" });
    setTimeout(() => { console.log("kept"); events.unref(); }, 300);
    (async () => {
      for await (const event of events) void event;
    })();`);
  assertEquals([code, stdout], [0, "kept\n"]);
});

/** What keeps a program: a namespace that it serves, and a command with a network. */
const KEEPERS = {
  "an attachment": `
    const child = new Command("sleep", { args: ["1000"], net: "none" }).spawn();
    const keeper = attach([child.pid]);
    if ((await keeper.ports(child.pid).list()).length) throw new Error("it has ports");
    child.unref();`,
  "a command with a network": 'const keeper = new Command("sleep", { args: ["1000"], net: "tap" }).spawn();',
  "a command with a network, ports and pipes":
    'const keeper = new Command("sleep", { args: ["1000"], net: "tap", ports: { tcp: 18071 }, stdout: "piped" }).spawn();',
};

for (const [what, start] of Object.entries(KEEPERS)) {
  test(`${what} keeps its program until unref(), and again after ref()`, ["tun"], async () => {
    const begin = `const { attach } = await import("file://${ROOT}mod/mod.ts");\n${start}`;
    const kept = await program(`${begin}
      Deno.unrefTimer(setTimeout(() => { console.log("kept"); keeper.unref(); }, 300));`);
    assertEquals([kept.code, kept.stdout, kept.stderr], [0, "kept\n", ""]);
    const again = await program(`${begin}
      keeper.unref();
      keeper.ref();
      Deno.unrefTimer(setTimeout(() => { console.log("kept"); keeper.unref(); }, 300));`);
    assertEquals([again.code, again.stdout, again.stderr], [0, "kept\n", ""]);
    const atOnce = await program(`${begin}
      keeper.unref();
      Deno.unrefTimer(setTimeout(() => console.log("kept"), 60_000));`);
    assertEquals([atOnce.code, atOnce.stdout, atOnce.stderr], [0, "", ""]);
  });
}

test("the pipes of a child that nobody can read any more are closed", async () => {
  const { code, stdout, stderr } = await program(
    `const pipes = () => Array.from(Deno.readDirSync("/proc/self/fd")).filter(({ name }) => {
      try { return Deno.readLinkSync("/proc/self/fd/" + name).startsWith("pipe:"); } catch { return false; }
    }).length;
    const start = () => new Command("true", { stdin: "piped", stdout: "piped", stderr: "piped" }).spawn().status;
    const before = pipes();
    for (let i = 0; i < 10; i++) await start();
    const opened = pipes() - before;
    for (let i = 0; i < 500 && pipes() > before; i++) {
      gc();
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    console.log(opened, pipes() - before);`,
    ...["-A", "--v8-flags=--expose-gc"],
  );
  assertEquals([code, stderr], [0, ""]);
  const [opened, left] = stdout.trim().split(" ").map(Number);
  assert(opened! > 0 && left === 0, stdout);
});

test("commands with a network leave no descriptors in their program, whether they ran or not", ["tun"], async () => {
  const { code, stdout, stderr } = await program(`
    const count = () => Array.from(Deno.readDirSync("/proc/self/fd")).length;
    const round = async (port) => {
      await Promise.all([1, 2, 3].map(() => new Command("true", { net: "tap" }).output()));
      const published = [port, port + 1, port + 2].map((tcp) => new Command("true", { net: "tap", ports: { tcp } }).output());
      await Promise.all(published);
      await new Command("/no/such", { net: "tap" }).output().catch(() => {});
    };
    // What Deno opens once for Workers, and keeps of the last one, is open after the first round; the rest may close late.
    await round(18080);
    let before = count();
    for (let same = 0; same < 50; same++) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      if (count() === before) continue;
      [before, same] = [count(), 0];
    }
    await round(18083);
    for (let i = 0; i < 500 && count() > before; i++) await new Promise((resolve) => setTimeout(resolve, 20));
    console.log(count() - before);`);
  assertEquals([code, stderr], [0, ""]);
  assert(Number(stdout) <= 0, stdout);
});

test("addresses can be strings and bytes, which mean the same", ["tun", "package:iproute2"], async () => {
  const { code, stdout, stderr } = await program(`
    const script = "ip -o addr show dev ours0 | sed 's/ valid_lft.*//'; ip -br link show ours0; ip route; cat /etc/resolv.conf";
    const seen = async (address, mac, prefixed, server) => {
      const { stdout } = await new Command("sh", {
        args: ["-c", script],
        net: "tap",
        network: { version: 4, nsIfname: "ours0", mtu: 1500, addresses: [prefixed], gateways: [address(10, 9, 9, 1)], nsMac: mac },
        reach: { mapHostLoopback: [address(10, 9, 9, 1)], exclude: [{ address: address(172, 16, 0, 0), prefix: 12 }] },
        dns: [address(192, 0, 2, 53), server],
        search: ["a.example"],
      }).output();
      return new TextDecoder().decode(stdout);
    };
    const text = (...bytes) => bytes.join(".");
    const bytes = (...bytes) => Uint8Array.from(bytes);
    console.log(JSON.stringify([
      await seen(text, "02:00:00:00:00:07", "10.9.9.2/24", "192.0.2.54"),
      await seen(bytes, bytes(2, 0, 0, 0, 0, 7), { address: bytes(10, 9, 9, 2), prefix: 24 }, { address: "192.0.2.54" }),
    ]));`);
  assertEquals([code, stderr], [0, ""]);
  const [strings, bytes] = JSON.parse(stdout);
  assertEquals(strings, bytes);
  for (const part of ["10.9.9.2/24", "02:00:00:00:00:07", "default via 10.9.9.1", "nameserver 192.0.2.54"]) {
    assert(strings.includes(part), strings);
  }
});
