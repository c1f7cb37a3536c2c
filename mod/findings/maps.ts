// Explains why ids cannot be mapped: by the kernel, or by newuidmap and newgidmap.

import { S } from "../../ffi/core/consts.ts";
import { orNull } from "../../ffi/core/errno.ts";
import { cString } from "../../ffi/core/memory.ts";
import { call, self } from "../../ffi/core/task.ts";
import { lstat, stat } from "../../ffi/sys/stat.ts";
import { userOf } from "../users/lookup.ts";
import { lookUpSubIds, type SubIdRange } from "../users/subid.ts";
import { mountedWith } from "./files.ts";
import type { FailedCall } from "../base/failed_call.ts";
import type { Finding } from "./finding.ts";
import { fixHere, read, status } from "./host.ts";
import { whyNotCapable } from "./modules.ts";

/** Ids outside, as a map names them. */
export interface OutsideRange {
  /** The first one. */
  readonly outside: number;
  /** How many. */
  readonly count: number;
}

/** Ids below this one belong to users, or may be given to one (UID_MAX of login.defs(5), and 65534 for nobody). */
const ACCOUNTS = 65_536;

const OWN_ONLY = "--map root needs no subordinate ids";

/**
 * Finds ids that penne's own user namespace does not map, so that no namespace in it can.
 *
 * @param kind Which ids.
 * @param wanted The ids outside.
 * @returns The findings.
 */
export function unmapped(kind: "uid" | "gid", wanted: readonly OutsideRange[]): Finding[] {
  const map = (read(`/proc/self/${kind}_map`) ?? "").split("\n").map((line) => line.trim().split(/\s+/).map(Number));
  const missing = wanted.find(({ outside, count }) =>
    !map.some(([first = 0, , length = 0]) => outside >= first && outside + count <= first + length)
  );
  if (!missing || !map[0]?.length) return [];
  const last = missing.outside + missing.count - 1;
  return [{
    cause: "user namespace",
    words: `the user namespace that penne runs in does not map the ${kind === "uid" ? "users" : "groups"} ` +
      `${missing.outside}${missing.count > 1 ? ` to ${last}` : ""}`,
    fix: fixHere({ docker: "map them there", unit: "PrivateUsers=no", none: "map them there" }),
    without: OWN_ONLY,
  }];
}

/**
 * Explains why the kernel has refused a map.
 *
 * @param kind Which ids.
 * @param wanted The ids outside.
 * @param failed The call that wrote the map.
 * @returns The findings.
 */
export function explainMap(kind: "uid" | "gid", wanted: readonly OutsideRange[], { code }: FailedCall): Finding[] {
  if (code !== "EPERM" && code !== "EACCES") return [];
  const found = unmapped(kind, wanted);
  return found.length ? found : whyNotCapable(true);
}

/**
 * Explains why newuidmap or newgidmap has failed.
 *
 * @param kind Which ids.
 * @param path The tool.
 * @param wanted The ids outside.
 * @returns The findings.
 */
export function explainTool(kind: "uid" | "gid", path: string, wanted: readonly OutsideRange[]): Finding[] {
  if (status("NoNewPrivs") === "1") {
    return [{
      cause: "no_new_privs",
      words: `penne runs with no_new_privs, with which ${path} has no privileges`,
      fix: fixHere({
        docker: "docker run without --security-opt no-new-privileges",
        podman: "podman run without --security-opt no-new-privileges",
        kubernetes: "in the securityContext: allowPrivilegeEscalation: true",
        unit: "NoNewPrivileges=no (DynamicUser=, SystemCallFilter= and others imply it for users)",
        none: "start penne from a process without it: it is inherited, and cannot be removed",
      }),
      without: OWN_ONLY,
    }];
  }
  const foreign = unmapped(kind, wanted);
  if (foreign.length) return foreign;
  const nosuid = mountedWith(path, "nosuid");
  if (nosuid !== null) {
    return [{
      cause: "file",
      words: `${path} is on a file system that is mounted with nosuid (${nosuid})`,
      fix: `as root: mount -o remount,bind,suid ${nosuid}`,
      without: OWN_ONLY,
    }];
  }
  const setuid = ((orNull(() => stat(self, path).mode) ?? S.ISUID) & S.ISUID) !== 0;
  if (!setuid && self.raw("getxattr", cString(path), cString("security.capability"), null, 0) <= 0) {
    const words = `${path} has neither the set-user-id bit nor file capabilities`;
    return [{ cause: "file", words, fix: `as root: chmod u+s ${path}` }];
  }
  const file = `/etc/sub${kind}`;
  if (((lstat(file)?.mode ?? 0) & S.IFMT) === S.IFLNK) {
    return [{
      cause: "file",
      words: `${file} is a symbolic link, which the tool does not follow`,
      fix: `as root: cp --remove-destination "$(readlink -f ${file})" ${file}`,
    }];
  }
  return notGranted(kind, wanted);
}

/** An example of ids. */
function suchAs(range: SubIdRange | null): string {
  return range ? `, such as ${range.start} to ${range.start + range.count - 1}` : "";
}

/** Ids that are not granted to penne's user. */
function notGranted(kind: "uid" | "gid", wanted: readonly OutsideRange[]): Finding[] {
  const uid = call(self, "getuid");
  const name = userOf(uid)?.name ?? null;
  const { ranges, looked, unseen, others, free } = lookUpSubIds(kind === "uid" ? "user" : "group", uid, name);
  if (unseen !== null) return [];
  const own = call(self, kind === "uid" ? "getuid" : "getegid");
  const missing = wanted.find(({ outside, count }) =>
    !(outside === own && count === 1) &&
    !ranges.some((range) => outside >= range.start && outside + count <= range.start + range.count)
  );
  if (!missing) return [];
  const last = missing.outside + missing.count - 1;
  return [{
    cause: "file",
    words: `${looked} does not grant the ids ${missing.outside}${missing.count > 1 ? ` to ${last}` : ""} to ${
      name ?? uid
    }`,
    // Whoever is granted the id of a user can become that user, and one of another user's containers.
    fix: missing.outside < ACCOUNTS
      ? `these are for users of the host themselves, so ask for ids above ${ACCOUNTS - 1}`
      : others.some(({ start, count }) => start <= last && start + count > missing.outside)
      ? `these are granted to somebody else, so ask for others${suchAs(ranges[0] ?? free)}`
      : `as root: usermod --add-sub${kind}s ${missing.outside}-${last} ${name ?? uid}`,
  }];
}
