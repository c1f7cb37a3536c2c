// Names of namespaces: by the files that they are mounted on, by the records of kept sets, and by the control group of
// their first process, which engines and systemd name.

import { QuickFiles } from "../../ffi/sys/quick_file.ts";
import { setOf } from "../kept/record/layout.ts";
import { containerNames, type EngineKind } from "./containers.ts";
import { bytesText } from "./bytes_text.ts";
import type { Found } from "./found.ts";
import type { ListedName, NameKind } from "./listing.ts";

/** Places of names by kind: the group captures the name. */
const PLACES: readonly (readonly [pattern: RegExp, kind: NameKind])[] = [
  [/^(?:\/var)?\/run\/netns\/([^/]+)$/, "netns"],
  [/^(?:\/var)?\/run\/docker\/netns\/([^/]+)$/, "docker"],
  [/^\/run\/user\/\d+\/netns\/([^/]+)$/, "podman"],
  [/^(?:\/var)?\/run\/(?:uts|ipc|pid|user)ns\/([^/]+)$/, "crio"],
  [/^\/run\/snapd\/ns\/([^/]+)\.mnt$/, "snap"],
];
const KEPT = /\/penne\/ns\/([^/]+)$/;

/**
 * Names a namespace by the file that it is mounted on.
 *
 * @example
 * ```ts
 * import { nameOfPath } from "./names.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(nameOfPath("/run/netns/blue"), { kind: "netns", name: "blue" });
 * assertEquals(nameOfPath("/run/penne/ns/build.1000.net"), { kind: "kept", name: "build" });
 * assertEquals(nameOfPath("/srv/ns"), { kind: "path", name: "/srv/ns" });
 * ```
 *
 * @param path The path.
 * @returns The name; of a place that is not known, the path.
 */
export function nameOfPath(path: string): ListedName {
  for (const [pattern, kind] of PLACES) {
    const name = pattern.exec(path)?.[1];
    if (name !== undefined) return { kind, name };
  }
  const set = setOf("penne", KEPT.exec(path)?.[1] ?? "");
  return set ? { kind: "kept", name: set.name } : { kind: "path", name: path };
}

const ID = "([0-9a-f]{64})";
/** Control groups that engines and systemd name; the group captures the id or name. */
const GROUPS: readonly (readonly [pattern: RegExp, kind: NameKind])[] = [
  [new RegExp(`(?:/|^)docker-${ID}\\.scope(?:/|$)|/docker/${ID}(?:/|$)`), "docker"],
  [new RegExp(`(?:/|^)libpod-${ID}(?:\\.scope)?(?:/|$)`), "podman"],
  [new RegExp(`(?:/|^)crio-${ID}\\.scope(?:/|$)|:crio:${ID}(?:/|$)`), "crio"],
  [new RegExp(`(?:/|^)(?:cri-containerd|nerdctl)-${ID}\\.scope(?:/|$)|:cri-containerd:${ID}(?:/|$)`), "containerd"],
  [/(?:\/|^)lxc\.payload\.([^/]+)/, "lxc"],
  [/(?:\/|^)machine-([^/]+)\.scope(?:\/|$)/, "machine"],
  [/(?:\/|^)app-flatpak-(.+)-\d+\.scope(?:\/|$)/, "flatpak"],
  [/(?:\/|^)snap\.([^./]+)\.[^/]+\.(?:scope|service)(?:\/|$)/, "snap"],
  [/(?:\/|^)([^/]+\.service)(?:\/[^/]+\.(?:scope|slice))*$/, "unit"],
];
/** Services that hold whole sessions, whose namespaces are not their own. */
const SESSIONS = /^(user@\d+|user-runtime-dir@\d+|sshd?(@.*)?|cron|getty@.*|serial-getty@.*)\.service$/;

/** Undoes what systemd does to a name that becomes a part of another one, systemd-escape(1). */
function unescaped(name: string): string {
  const bytes: number[] = [];
  for (const part of name.split(/(\\x[0-9a-f]{2})/)) {
    if (/^\\x[0-9a-f]{2}$/.test(part)) bytes.push(parseInt(part.slice(2), 16));
    else bytes.push(...new TextEncoder().encode(part));
  }
  return bytesText(Uint8Array.from(bytes));
}

/**
 * Names the namespaces of a process by its control group.
 *
 * @example
 * ```ts
 * import { nameOfCgroup } from "./names.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const id = "0123456789abcdef".repeat(4);
 * assertEquals(nameOfCgroup(`0::/system.slice/docker-${id}.scope\n`), { kind: "docker", name: id });
 * assertEquals(nameOfCgroup("0::/system.slice/nginx.service\n"), { kind: "unit", name: "nginx.service" });
 * assertEquals(nameOfCgroup("0::/machine.slice/machine-my\\x2dbox.scope\n"), { kind: "machine", name: "my-box" });
 * assertEquals(nameOfCgroup("0::/user.slice/user-1000.slice/session-1.scope\n"), null);
 * ```
 *
 * @param text The content of /proc/PID/cgroup.
 * @returns The name; of a container, its id. Null if the group has none.
 */
export function nameOfCgroup(text: string): ListedName | null {
  for (const line of text.split("\n")) {
    const path = line.slice(line.indexOf(":", line.indexOf(":") + 1) + 1);
    for (const [pattern, kind] of GROUPS) {
      const name = pattern.exec(path)?.slice(1).find((group) => group !== undefined);
      if (name === undefined || kind === "unit" && SESSIONS.test(name)) continue;
      return { kind, name: kind === "machine" ? unescaped(name) : name };
    }
  }
  return null;
}

/** Looks names up by the control groups of processes. */
export class GroupNames extends QuickFiles {
  #byPid = new Map<number, ListedName | null>();
  #containers = containerNames();

  /**
   * Names a namespace by the control group of its first process.
   *
   * @param found A namespace that is not one of the host.
   */
  name(found: Found): void {
    if (found.pid === 0) return;
    let name = this.#byPid.get(found.pid);
    if (name === undefined) {
      const text = this.text(`/proc/${found.pid}/cgroup`);
      name = typeof text === "string" ? nameOfCgroup(text) : null;
      if (name && Object.hasOwn(this.#containers, name.kind)) {
        name = {
          kind: name.kind,
          name: this.#containers[name.kind as EngineKind](name.name) ?? name.name.slice(0, 12),
        };
      }
      this.#byPid.set(found.pid, name);
    }
    if (name) found.addName(name);
  }
}
