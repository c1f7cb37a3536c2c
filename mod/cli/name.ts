// Runs the command that the name of the program asks for.

import { readBytes } from "../../ffi/sys/file.ts";
import { self } from "../../ffi/core/task.ts";
import { environment } from "../host/caller.ts";
import { isBootstrap } from "../nsexec/settings.ts";

/**
 * Runs the command that the name of the program asks for.
 *
 * A name `nsenter-*`, with a bootstrap requested in the environment, asks for that bootstrap and nothing after it.
 *
 * @returns The exit code; null if the name asks for nothing.
 */
export async function start(): Promise<number | null> {
  const [name] = new TextDecoder().decode(readBytes(self, "/proc/self/cmdline")).split("\0");
  if (/(^|\/)nsenter-[^/]*$/.test(name!) && isBootstrap(environment())) return (await import("./nsexec.ts")).start([]);
  return null;
}
