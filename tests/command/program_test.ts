// How Command and the program that uses it end: exit, errors, signals, ref() and unref(), permissions.

import "../lib/preload.ts";
import { assert, assertEquals } from "@std/assert";
import { ROOT, sh, test, until } from "../lib/helpers.ts";

/** Runs a program that imports the library, with a permission. */
async function program(body: string, permission = "-A") {
  const directory = await Deno.makeTempDir({ prefix: "penne-program-" });
  try {
    await Deno.writeTextFile(`${directory}/program.ts`, `import { Command } from "file://${ROOT}mod/mod.ts";\n${body}`);
    const words = ["run", "--quiet", "--no-check", "--no-lock", `--config=${ROOT}deno.json`, permission];
    return await sh([Deno.execPath(), ...words, `${directory}/program.ts`]);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

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

test("without --allow-ffi, Deno says which permission is missing, and nothing is made", async () => {
  const { code, stderr } = await program('await new Command("true").output();', "--allow-run");
  assertEquals(code, 1);
  assert(stderr.includes("Requires ffi access") && stderr.includes("--allow-ffi"), stderr);
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
