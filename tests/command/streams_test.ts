// Command's streams and children in numbers: large outputs, back pressure, many at once, and nothing that is left.

import "../lib/preload.ts";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { Command } from "../../mod/mod.ts";
import { test, until } from "../lib/helpers.ts";

const MB = 2 ** 20;

/** Both classes, for what is to be equal. */
const CLASSES = [["Command", Command], ["Deno.Command", Deno.Command]] as const;

/** Descriptors, children and namespaces' agents of this program. */
function belongings(): { fds: number; children: string } {
  return {
    fds: Array.from(Deno.readDirSync("/proc/self/fd")).length,
    children: Deno.readTextFileSync(`/proc/self/task/${Deno.pid}/children`),
  };
}

/** Runs something twice, and compares what this program has before and after the second time. */
async function leavesNothing(body: () => Promise<void>): Promise<void> {
  await body(); // whatever the runtime opens once, it has opened by then
  const before = belongings();
  await body();
  await until("its descriptors are closed", () => belongings().fds <= before.fds);
  assertEquals(belongings().children, before.children);
}

/** A hash of what a stream gives, and its length. */
async function sum(stream: ReadableStream<Uint8Array>): Promise<[string, number]> {
  const all = await new Response(stream as ReadableStream<Uint8Array<ArrayBuffer>>).arrayBuffer();
  return [new Uint8Array(await crypto.subtle.digest("SHA-256", all)).join(), all.byteLength];
}

for (const [name, C] of CLASSES) {
  test(`${name}: 64 MB come through stdout and stderr at once, whole`, async () => {
    const script = `head -c ${32 * MB} /dev/zero | tr '\\0' a & head -c ${32 * MB} /dev/zero | tr '\\0' b >&2; wait`;
    await leavesNothing(async () => {
      const { success, stdout, stderr } = await new C("sh", { args: ["-c", script] }).output();
      assertEquals([success, stdout.length, stderr.length], [true, 32 * MB, 32 * MB]);
      assert(stdout.every((byte) => byte === 97) && stderr.every((byte) => byte === 98));
    });
  });
}

test("a small chunk takes no more memory than it has bytes", async () => {
  const child = new Command("sh", { args: ["-c", "echo a; sleep 0.1; echo b"], stdout: "piped" }).spawn();
  for await (const chunk of child.stdout) assertEquals(chunk.buffer.byteLength, chunk.byteLength);
  await child.status;
});

test("64 MB come through outputSync() whole", () => {
  const script = `head -c ${32 * MB} /dev/zero >&2; head -c ${32 * MB} /dev/zero`;
  const { stdout, stderr } = new Command("sh", { args: ["-c", script] }).outputSync();
  assertEquals([stdout.length, stderr.length], [32 * MB, 32 * MB]);
});

test("outputSync() tells how the command ended, while what it has left behind writes on", () => {
  const { code, stdout } = new Command("sh", { args: ["-c", "yes & exit 3"] }).outputSync();
  assertEquals([code, stdout.every((byte) => byte === 121 || byte === 10)], [3, true]);
});

test("16 MB go through stdin and back", async () => {
  await leavesNothing(async () => {
    const bytes = new Uint8Array(16 * MB).map((_, i) => i % 251);
    const child = new Command("cat", { stdin: "piped", stdout: "piped" }).spawn();
    const [, back] = await Promise.all([new Blob([bytes]).stream().pipeTo(child.stdin), sum(child.stdout)]);
    assertEquals(back, await sum(new Blob([bytes]).stream()));
    assertEquals((await child.status).code, 0);
  });
});

for (const [name, C] of CLASSES) {
  test(`${name}: 10 000 small writes arrive in order`, async () => {
    await leavesNothing(async () => {
      const child = new C("cat", { stdin: "piped", stdout: "piped" }).spawn();
      const writer = child.stdin.getWriter();
      const text = new Response(child.stdout).text();
      const encoder = new TextEncoder();
      for (let i = 0; i < 10_000; i++) await writer.write(encoder.encode(`${i}\n`));
      await writer.close();
      assertEquals(await text, Array.from({ length: 10_000 }, (_, i) => `${i}\n`).join(""));
      await child.status;
    });
  });
}

test("a reader that does not read slows the command down, and nothing is lost", async () => {
  const script = "i=0; while [ $i -lt 2000 ]; do head -c 1000 /dev/zero; i=$((i+1)); done; echo done >&2";
  const child = new Command("sh", { args: ["-c", script], stdout: "piped", stderr: "piped" }).spawn();
  const stderr = child.stderr.text();
  const isOver = Promise.race([
    child.status.then(() => true),
    new Promise((resolve) => setTimeout(resolve, 500, false)),
  ]);
  assertEquals(await isOver, false);
  assertEquals((await child.stdout.bytes()).length, 2_000_000);
  assertEquals([await stderr, (await child.status).code], ["done\n", 0]);
});

test("a writer waits while nobody reads, and fails when the reader ends", async () => {
  const child = new Command("sleep", { args: ["100"], stdin: "piped" }).spawn();
  const writer = child.stdin.getWriter();
  const write = assertRejects(() => writer.write(new Uint8Array(MB)), Deno.errors.BrokenPipe);
  child.kill("SIGKILL");
  await write;
  await child.status;
});

test("a chunk that is not bytes is refused, and other views of bytes are written whole", async () => {
  const child = new Command("cat", { stdin: "piped", stdout: "piped" }).spawn();
  const writer = child.stdin.getWriter();
  const words = new Uint16Array([0x6968, 0x0a21]);
  await writer.write(words as unknown as Uint8Array);
  await assertRejects(() => writer.write("text" as unknown as Uint8Array), TypeError, "not bytes");
  assertEquals(await new Response(child.stdout).text(), "hi!\n");
  await child.status;
});

test("an abort of the writer while it waits lets it go", async () => {
  await leavesNothing(async () => {
    const child = new Command("sleep", { args: ["100"], stdin: "piped" }).spawn();
    const writer = child.stdin.getWriter();
    const write = assertRejects(() => writer.write(new Uint8Array(MB)));
    const abort = writer.abort(new Error("enough"));
    child.kill("SIGKILL");
    await Promise.all([write, abort]);
    await child.status;
  });
});

test("cancel() of a stream that waits for data closes it", async () => {
  await leavesNothing(async () => {
    const child = new Command("sleep", { args: ["100"], stdout: "piped" }).spawn();
    const reader = child.stdout.getReader();
    const read = reader.read();
    await reader.cancel();
    assertEquals((await read).done, true);
    child.kill();
    await child.status;
  });
});

test("a process that stays behind does not keep the streams open: its namespaces end with the command", async () => {
  const { stdout } = await new Command("sh", { args: ["-c", "sleep 1000 & echo started"] }).output();
  assertEquals(new TextDecoder().decode(stdout), "started\n");
});

for (const [name, C] of CLASSES) {
  test(`${name}: 200 children at once, and 50 aborted at any time, leave nothing`, async () => {
    await leavesNothing(async () => {
      const outputs = await Promise.all(
        Array.from({ length: 200 }, (_, i) => new C("echo", { args: [`${i}`] }).output()),
      );
      const texts = outputs.map(({ stdout }) => new TextDecoder().decode(stdout));
      assertEquals(texts, Array.from({ length: 200 }, (_, i) => `${i}\n`));
      const aborted = Array.from({ length: 50 }, async (_, i) => {
        const signal = AbortSignal.timeout(i);
        return (await new C("sleep", { args: ["100"], signal }).output()).signal;
      });
      assertEquals(new Set(await Promise.all(aborted)), new Set(["SIGTERM"]));
    });
  });
}

test("a start that fails leaves nothing", async () => {
  const failing = [
    () => new Command("/no/such", { stdin: "piped", stdout: "piped" }).spawn(),
    () => new Command("true", { cwd: "/no/such", stdout: "piped" }).spawn(),
    () => new Command("true", { enter: 4194304, stdout: "piped" }).spawn(),
    () => new Command("true", { hostname: "x".repeat(100), stdout: "piped" }).spawn(),
  ];
  await leavesNothing(async () => {
    for (const body of failing) await assertRejects(async () => await body().status);
  });
});
