// Values of the options for the root directory and mounts of a command; loaded only if one is given.

import { self } from "../../../ffi/core/task.ts";
import { workingDirectory } from "../../run/command.ts";
import { type MountPlan, type MountRequest, planMounts } from "../../views/mount_plan.ts";
import type { OptionValues } from "./table.ts";
import { badValue } from "./values.ts";
import type { MOUNT_OPTIONS } from "./views.ts";

/** The fields between colons; `\:` is a colon within a field, and `\\` a backslash. */
function fieldsOf(value: string): string[] {
  const fields = [""];
  for (const [part] of value.matchAll(/\\[:\\]|[^]/gu)) {
    if (part === ":") fields.push("");
    else fields.push(fields.pop() + (/^\\[:\\]$/.test(part) ? part.slice(1) : part));
  }
  return fields;
}

/**
 * Parses what is to be bound.
 *
 * @example
 * ```ts
 * import { parseBind } from "./mount_values.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(parseBind("/src"), { bind: "/src" });
 * assertEquals(parseBind("/a\\:b:/dst:ro"), { bind: "/a:b", target: "/dst", readOnly: true });
 * ```
 *
 * @param value `SRC`, `SRC:DST` or `SRC:DST:ro`.
 * @returns The request.
 * @throws {PenneError} A usage error.
 */
export function parseBind(value: string): MountRequest {
  const [bind = "", target, mode, ...more] = fieldsOf(value);
  const refuse = (reason: string, hints: string[] = []) => badValue("bind", value, reason, hints);
  if (more.length) throw refuse("it has more than three fields", ["a colon within a path is written \\:"]);
  if (mode !== undefined && mode !== "ro") {
    throw refuse(`"${mode}" is not ro`, ["a colon within a path is written \\:"]);
  }
  if (target !== undefined && !target.startsWith("/")) {
    const hints = target === "ro" ? ["SRC:DST:ro names the target too"] : ["a colon within a path is written \\:"];
    throw refuse(`the target "${target}" is not an absolute path`, hints);
  }
  return { bind, ...target !== undefined && { target }, ...mode === "ro" && { readOnly: true } };
}

/**
 * The mounts that a command line asks for.
 *
 * @param options The parsed options.
 * @returns The plan.
 * @throws {PenneError} A usage error.
 */
export function mountRequest(options: OptionValues<typeof MOUNT_OPTIONS>): MountPlan {
  const requests: MountRequest[] = [
    ...options.bind.map(parseBind),
    ...options.tmpfs.map((tmpfs) => ({ tmpfs })),
    ...options.proc ? ["proc" as const] : [],
    ...options.dev ? ["dev" as const] : [],
  ];
  return planMounts(options.root, requests, workingDirectory(self));
}
