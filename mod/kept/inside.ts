// What a kept mount namespace is built on, for sets that do not record it.

import { Agent } from "../../ffi/agent.ts";
import { CLONE } from "../../ffi/consts.ts";
import type { Fd } from "../../ffi/fd.ts";
import { readText, waitChild } from "../../ffi/sys.ts";
import { call } from "../../ffi/task.ts";
import { attempt } from "../errors.ts";

/**
 * Devices of what is mounted at / and /usr in the text of a mountinfo file, proc_pid_mountinfo(5).
 *
 * @example
 * ```ts
 * import { rootDevices } from "./inside.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const text = "1 0 7:3 / / ro - squashfs /dev/loop3 ro\n2 1 0:5 / /dev rw - devtmpfs none rw\n";
 * assertEquals(rootDevices(text), ["7:3"]);
 * ```
 *
 * @param text The file.
 * @returns The devices, each once.
 */
export function rootDevices(text: string): string[] {
  const devices = text.split("\n").flatMap((line) => {
    const [, , device, , place] = line.split(" ");
    return place === "/" || place === "/usr" || place?.startsWith("/usr/") ? [device!] : [];
  });
  return [...new Set(devices)];
}

/**
 * Devices that the root of a mount namespace is on.
 *
 * An agent looks: whoever has joined a mount namespace cannot look at another one afterwards.
 *
 * @param mnt The mount namespace.
 * @returns The devices.
 * @throws {PenneError} If it cannot be joined.
 */
export function devicesInside(mnt: Fd): string[] {
  const agent = Agent.spawn();
  try {
    return attempt("look into the kept mount namespace", () => {
      // While /proc is what it is for us: inside there may be none.
      call(agent, "setns", mnt, CLONE.NEWNS);
      return rootDevices(readText(agent, "/proc/self/mountinfo"));
    });
  } finally {
    agent.close();
    waitChild(agent.pid);
  }
}
