// What a kept mount namespace is built on, for sets that do not record it.

import { Agent } from "../../ffi/agent/agent.ts";
import { AT_FDCWD, CLONE, O } from "../../ffi/core/consts.ts";
import type { Fd } from "../../ffi/core/fd.ts";
import { cString } from "../../ffi/core/memory.ts";
import { readAll } from "../../ffi/sys/file.ts";
import { call } from "../../ffi/core/task.ts";
import { endAgents } from "../agents/enclosure.ts";
import { harden } from "../agents/guard.ts";
import { attempt } from "../base/errors.ts";
import type { NamespaceType } from "../namespaces/types.ts";

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
 * @param namespaces A set's namespaces.
 * @returns The devices; none if it has no mount namespace.
 * @throws {PenneError} If that cannot be joined.
 */
export function devicesInside(namespaces: ReadonlyMap<NamespaceType, Fd>): string[] {
  const [mnt, user] = [namespaces.get("mnt"), namespaces.get("user")];
  if (!mnt) return [];
  const agent = Agent.spawn();
  try {
    return attempt("look into the kept mount namespace", () => {
      harden(agent);
      // Our own /proc: inside there may be none, or something that only looks like it.
      const proc = call(agent, "openat", AT_FDCWD, cString("/proc"), O.PATH | O.DIRECTORY | O.CLOEXEC);
      // Who may do without the user namespace stays out of it: in there the agent would be its root's to stop and trace.
      if (!user || agent.raw("setns", mnt, CLONE.NEWNS) < 0) {
        if (user) agent.raw("setns", user, CLONE.NEWUSER);
        call(agent, "setns", mnt, CLONE.NEWNS);
      }
      using file = agent.open("openat", proc, cString("self/mountinfo"), O.RDONLY | O.CLOEXEC);
      return rootDevices(new TextDecoder().decode(readAll(file)));
    });
  } finally {
    endAgents([agent]);
  }
}
