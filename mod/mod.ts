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
export { checkRanges, type IdRange, mapText, parseRange } from "./idmap/ranges.ts";
export type { MapMode, MapRequest } from "./idmap/plan.ts";
export {
  type Attribute,
  bootstrapLength,
  type BootstrapMessage,
  BootstrapMessageError,
  type BootstrapPids,
  decodeBootstrap,
  decodePids,
  type Dialect,
  encodeBootstrap,
  encodePids,
  type ListAttribute,
  type NumberAttribute,
  type TextAttribute,
} from "./nsexec/message.ts";
export type { NamespaceId } from "./namespaces/id.ts";
export { NAMESPACE_TYPES, type NamespaceType } from "./namespaces/types.ts";
export { SIGNAL, type SignalName } from "../ffi/core/consts.ts";
export { ExecError, run, spawn } from "./run/mod.ts";
export type * from "./run/mod.ts";
export * from "./attach/mod.ts";
export { enter } from "./enter/mod.ts";
export type * from "./enter/mod.ts";
export { type WaitFor, waitFor, type WaitOptions } from "./netns/mod.ts";
export * from "./watch/mod.ts";
export * from "./kept/mod.ts";
export { formatIp, parseIp } from "./inet/ip.ts";
export { VERSION } from "./base/version.ts";
