/**
 * Namespaces for Deno programs: make them, set them up, run commands in them.
 *
 * Needs Linux 5.10 or later and unscoped `--allow-ffi`; no files beside the modules, and no C compiler. What serves a network
 * (`net: "tap"`, `attach()`) needs `--allow-read` too, because a Worker loads the code for that.
 *
 * Deno 2.4 takes what the first command loads for a leak of its test: run one before the tests, or give the test
 * `sanitizeResources: false`.
 *
 * {@linkcode Command} is `Deno.Command` in namespaces; {@linkcode run}, {@linkcode spawn} and {@linkcode enter} are short forms
 * of it. They take one object, with two words of their own: `command` is a list of the program and its `args`, and `target`
 * of `enter()` is what `Command` calls `enter`.
 *
 * @example Capture the output of a command
 * ```ts
 * import { Command } from "./mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const { success, stdout } = await new Command("hostname", { hostname: "box" }).output();
 * assertEquals([success, new TextDecoder().decode(stdout)], [true, "box\n"]);
 * ```
 *
 * @example Stream the log of a build that has no network
 * ```ts
 * import { Command } from "./mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const build = new Command("sh", { args: ["-c", "echo compiling; echo linking"], stdout: "piped" }).spawn();
 * const lines: string[] = [];
 * for await (const line of build.stdout.pipeThrough(new TextDecoderStream())) lines.push(line);
 * assertEquals(lines.join(""), "compiling\nlinking\n");
 * assertEquals((await build.status).success, true);
 * ```
 *
 * @example Give a test a private network for several commands, and publish a port of it
 * ```ts ignore
 * import { Command } from "./mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * Deno.test("the server answers on its published port, and has no way out", async () => {
 *   // A command that only holds the namespaces; the others enter them.
 *   await using box = new Command("sleep", {
 *     args: ["infinity"],
 *     net: "tap",
 *     ports: { tcp: "127.0.0.1/18081:80", localOnly: true },
 *   }).spawn();
 *   await using server = new Command("python3", {
 *     args: ["-u", "-m", "http.server", "80"],
 *     enter: box.pid,
 *     stdout: "piped",
 *     stderr: "null",
 *   }).spawn();
 *   const log = server.stdout.getReader();
 *   await log.read(); // "Serving HTTP on 0.0.0.0 port 80 ..."
 *   const response = await fetch("http://127.0.0.1:18081/");
 *   assertEquals([response.status, response.headers.get("content-type")], [200, "text/html; charset=utf-8"]);
 *   await Promise.all([response.body?.cancel(), log.cancel()]);
 *   const routes = await new Command("cat", { args: ["/proc/net/route"], enter: box.pid }).output();
 *   assertEquals(new TextDecoder().decode(routes.stdout).trim().split("\n").length, 1); // the heading alone
 * });
 * ```
 *
 * @example Run a hundred commands, eight at a time
 * ```ts
 * import { Command } from "./mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const tasks = Array.from({ length: 100 }, (_, i) => `${i}`).values();
 * let done = 0;
 * const worker = async () => {
 *   for (const task of tasks) {
 *     const { success } = await new Command("test", { args: [task, "-ge", "0"] }).output();
 *     if (success) done++;
 *   }
 * };
 * await Promise.all(Array.from({ length: 8 }, worker));
 * assertEquals(done, 100);
 * ```
 *
 * @example Give a command a time limit
 * ```ts
 * import { Command } from "./mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const { signal } = await new Command("sleep", { args: ["100"], signal: AbortSignal.timeout(50) }).output();
 * assertEquals(signal, "SIGTERM");
 *
 * // A command may ignore SIGTERM. end() is a hard limit: it kills, by default.
 * const stubborn = new Command("sh", { args: ["-c", "trap '' TERM; sleep 100"] }).spawn();
 * const timer = setTimeout(() => stubborn.end(), 50);
 * assertEquals((await stubborn.status).signal, "SIGKILL");
 * clearTimeout(timer);
 * ```
 *
 * @example Enter a container: the namespaces of a process
 * ```ts
 * import { Command } from "./mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * await using container = new Command("sleep", { args: ["100"], hostname: "container" }).spawn();
 * const { stdout } = await new Command("hostname", { enter: container.pid }).output();
 * assertEquals(new TextDecoder().decode(stdout), "container\n");
 * ```
 *
 * @example Keep a prepared root for the commands to come
 * ```ts
 * import { Command, drop, keep } from "./mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const directory = Deno.makeTempDirSync(Deno.uid() === 0 ? { dir: "/run" } : {});
 * Deno.chmodSync(directory, 0o700);
 * await keep("tools", { directory, setUp: { command: ["mount", "-t", "tmpfs", "none", "/mnt"], unshare: ["user", "mnt"] } });
 * const { code } = await new Command("mountpoint", { args: ["-q", "/mnt"], enter: "tools", directory }).output();
 * assertEquals(code, 0);
 * drop("tools", { directory });
 * new Deno.Command("umount", { args: [`${directory}/ns`], stderr: "null" }).outputSync();
 * Deno.removeSync(directory, { recursive: true });
 * ```
 *
 * @example Watch until a namespace is gone
 * ```ts ignore
 * import { spawn, watch } from "./mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const child = spawn({ command: ["sleep", "100"], unshare: ["user", "uts"] });
 * let deaths = 0;
 * for await (const { event } of watch({ events: ["death"], inums: [child.namespaces.uts!.inum] })) {
 *   if (event === "capabilities") child.kill("SIGKILL"); // from now on every end is told
 *   if (event === "death") deaths++;
 *   if (deaths) break;
 * }
 * assertEquals([deaths, (await child.status).code], [1, 137]);
 * ```
 *
 * @example List the namespaces without a process
 * ```ts
 * import { list } from "./mod.ts";
 *
 * const { namespaces } = await list({ orphans: true, holders: true });
 * for (const { type, inum, holders } of namespaces) console.log(`${type}:[${inum}]`, holders);
 * ```
 *
 * @example Give a test namespaces of its own
 * ```ts ignore
 * import { Command } from "./mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * Deno.test("the host name is the test's own", async () => {
 *   await using box = new Command("sleep", { args: ["100"], hostname: "box" }).spawn();
 *   const { stdout } = await new Command("hostname", { enter: box.pid }).output();
 *   assertEquals(new TextDecoder().decode(stdout), "box\n");
 * });
 * ```
 *
 * @example Run commands in a Worker
 * ```ts ignore
 * import { assertEquals } from "@std/assert";
 *
 * const program = `import { Command } from "${import.meta.resolve("./mod.ts")}";
 * const { code } = await new Command("sh", { args: ["-c", "exit 7"] }).output();
 * self.postMessage(code);`;
 * const worker = new Worker(URL.createObjectURL(new Blob([program], { type: "text/javascript" })), { type: "module" });
 * const code = await new Promise((resolve) => worker.onmessage = ({ data }) => resolve(data));
 * worker.terminate();
 * assertEquals(code, 7);
 * ```
 *
 * @module
 */

export { SysError } from "../ffi/core/errno.ts";
export type { Fd } from "../ffi/core/fd.ts";
export { PenneError, type PenneErrorOptions } from "./base/errors.ts";
export type { IdRange } from "./idmap/ranges.ts";
export type { MapMode, MapRequest } from "./idmap/plan.ts";
export type { NamespaceId } from "./namespaces/id.ts";
export { NAMESPACE_TYPES, type NamespaceType } from "./namespaces/types.ts";
export { Command } from "./command/command.ts";
export { ChildProcess, type CommandOutput, type CommandStatus } from "./command/child.ts";
export { enter, type EnterOptions, run, type RunOptions, spawn } from "./command/mod.ts";
export type { CommandOptions, PlaceOptions, ProcessOptions, SetUpOptions } from "./command/options.ts";
export type { Stdio } from "./command/stdio.ts";
export type { OutputStream } from "./command/streams.ts";
export { ExecError } from "./agents/exec.ts";
export type { NetMode, NewNamespaces, SetupOptions } from "./run/plan.ts";
export type { HostEntry } from "./views/hosts.ts";
export type { MountRequest } from "./views/mount_plan.ts";
export * from "./attach/mod.ts";
export * from "./attach/flows.ts";
export type { JoinedNamespaces, KeptLayout } from "./enter/plan.ts";
export { type WaitFor, waitFor, type WaitOptions } from "./netns/mod.ts";
export * from "./watch/mod.ts";
export type { Cause as FindingCause, Finding } from "./findings/finding.ts";
export { type Ability, type Diagnosis, doctor } from "./findings/survey/mod.ts";
export type { Feature, HostFacts } from "./findings/survey/features.ts";
export { list, type ListOptions } from "./list/mod.ts";
export type * from "./list/listing.ts";
export { keep, type KeepRequest, type KeepResult } from "./command/keep.ts";
export { drop, dropAll, inspect, inspectAll, openKept } from "./command/kept.ts";
export type * from "./kept/mod.ts";
export { VERSION } from "./base/version.ts";
