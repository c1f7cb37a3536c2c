// Looks into a kept mount namespace for the devices it is built on, for sets that do not record them.

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

/** Most bytes of the mount table of a set, which its user can fill: that of a busy host has some 100 kB. */
const MOUNTINFO_MAX = 16 << 20;

/**
 * Parses the devices that are mounted at / and /usr from the text of a mountinfo file, proc_pid_mountinfo(5).
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
 * @param text The text.
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
 * Finds the devices that the root of a mount namespace is on.
 *
 * An agent joins it and looks, so that this process stays in its own.
 *
 * @param namespaces A set's namespaces.
 * @returns The devices; none if the set has no mount namespace.
 * @throws {PenneError} If it cannot be joined.
 */
export function devicesInside(namespaces: ReadonlyMap<NamespaceType, Fd>): string[] {
  const [mnt, user] = [namespaces.get("mnt"), namespaces.get("user")];
  if (!mnt) return [];
  const agent = Agent.spawn();
  try {
    return attempt("look into the kept mount namespace", () => {
      harden(agent);
      // Our own /proc: the one inside may be missing or forged.
      const proc = call(agent, "openat", AT_FDCWD, cString("/proc"), O.PATH | O.DIRECTORY | O.CLOEXEC);
      // Join the user namespace only if there is no other way: root in there could stop and trace the agent.
      if (!user || agent.raw("setns", mnt, CLONE.NEWNS) < 0) {
        if (user) agent.raw("setns", user, CLONE.NEWUSER);
        call(agent, "setns", mnt, CLONE.NEWNS);
      }
      using file = agent.open("openat", proc, cString("self/mountinfo"), O.RDONLY | O.CLOEXEC);
      return rootDevices(new TextDecoder().decode(readAll(file, MOUNTINFO_MAX)));
    });
  } finally {
    endAgents([agent]);
  }
}
