/**
 * Namespaces for Deno programs: make them, set them up, run commands in them.
 *
 * Needs Linux 5.10 or later and unscoped `--allow-ffi`; no files beside the modules, and no C compiler.
 *
 * @example
 * ```ts
 * import { run } from "./mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const status = await run({ command: ["sh", "-c", "test $(id -u) = 0"], hostname: "box" });
 * assertEquals(status.code, 0);
 * ```
 *
 * @module
 */

export { SysError } from "../ffi/core/errno.ts";
export { Fd } from "../ffi/core/fd.ts";
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
export * from "./attach/mod.ts";
export type { JoinedNamespaces, KeptLayout } from "./enter/plan.ts";
export { type WaitFor, waitFor, type WaitOptions } from "./netns/mod.ts";
export * from "./watch/mod.ts";
export { keep, type KeepRequest, type KeepResult } from "./command/keep.ts";
export { drop, dropAll, inspect, inspectAll, openKept } from "./command/kept.ts";
export type * from "./kept/mod.ts";
export { VERSION } from "./base/version.ts";
