// Explains errors that come from a limit on resources, getrlimit(2) and cgroups(7).

import { Agent } from "../../ffi/agent/agent.ts";
import { O, RLIMIT } from "../../ffi/core/consts.ts";
import { orNull } from "../../ffi/core/errno.ts";
import { call, out, self } from "../../ffi/core/task.ts";
import { open, readDirectory } from "../../ffi/sys/file.ts";
import { endAgents } from "../agents/enclosure.ts";
import type { FailedCall } from "../base/failed_call.ts";
import type { Finding } from "./finding.ts";
import { fixHere, isInitial, mounts, read, setting } from "./host.ts";

/** Descriptors that are enough for every command but a large `attach`. */
const ENOUGH_FILES = 1024;
/** More processes than a command has at a time, in which it may be refused another one. */
const OWN_PROCESSES = 8;

/** A resource limit of this process; Infinity for none. */
function limit(resource: number): { soft: number; hard: number } {
  const words = new BigUint64Array(2);
  call(self, "prlimit64", 0, resource, null, out(new Uint8Array(words.buffer)));
  const [soft, hard] = Array.from(words, (word) => word === 2n ** 64n - 1n ? Infinity : Number(word));
  return { soft: soft!, hard: hard! };
}

/** How to raise a limit: by the shell as far as the hard one permits. */
function raise(option: string, unit: string, hard: number, wanted: number): string {
  if (hard >= wanted) return `ulimit -S${option} ${wanted}`;
  return fixHere({
    docker: `docker run --ulimit ${unit.slice("Limit".length).toLowerCase()}=${wanted}`,
    unit: `${unit}=${wanted}`,
    none: `as root: ulimit -${option} ${wanted} before penne is started`,
  });
}

/**
 * Explains EMFILE and ENFILE.
 *
 * @param failed The call.
 * @returns The findings.
 */
export function explainFiles({ code, args }: FailedCall): Finding[] {
  if (code === "ENFILE") {
    const words = `all open files that the host allows are in use (fs.file-max is ${setting("fs.file-max")})`;
    return [{ cause: "limit", words, fix: "as root: sysctl -w fs.file-max=MORE" }];
  }
  const [soft, hard] = args.map(Number);
  return [{
    cause: "limit",
    words: `the limit on open files is ${soft} (ulimit -n)`,
    fix: raise("n", "LimitNOFILE", hard!, ENOUGH_FILES),
  }];
}

/**
 * Explains EFBIG.
 *
 * @returns The findings.
 */
export function explainSize(): Finding[] {
  const { soft, hard } = limit(RLIMIT.FSIZE);
  if (soft === Infinity) return [];
  return [{
    cause: "limit",
    words: `the limit on the size of files is ${soft} bytes (ulimit -f)`,
    fix: hard === Infinity ? "ulimit -Sf unlimited" : raise("f", "LimitFSIZE", hard, Infinity),
  }];
}

/** The directories of this process's cgroups that count processes, the own one first. */
function pidsCgroups(): string[] {
  const lines = (read("/proc/self/cgroup") ?? "").split("\n").map((line) => line.split(":"));
  const own = lines.find(([, controllers]) => controllers?.split(",").includes("pids")) ??
    lines.find(([id]) => id === "0");
  const found = mounts().find(({ type, path }) => own?.[0] === "0" ? type === "cgroup2" : /\/pids$/.test(path));
  if (!own || !found) return [];
  const parts = own.slice(2).join(":").split("/").filter(Boolean);
  return parts.map((_, i) => `${found.path}/${parts.slice(0, parts.length - i).join("/")}`);
}

/**
 * Explains EAGAIN of a clone(2): no more processes are allowed.
 *
 * @returns The findings.
 */
export function explainFork(): Finding[] {
  for (const directory of pidsCgroups()) {
    const max = read(`${directory}/pids.max`);
    const refused = /^max ([1-9]\d*)/m.exec(read(`${directory}/pids.events`) ?? "");
    if (max === null || max === "max" || !refused) continue;
    return [{
      cause: "limit",
      words: `the cgroup ${directory} allows ${max} processes (pids.max), and has refused more`,
      fix: fixHere({
        docker: "docker run --pids-limit MORE",
        podman: "podman run --pids-limit MORE",
        kubernetes: "the kubelet's podPidsLimit",
        unit: "TasksMax=infinity",
        none: `as root: echo max > ${directory}/pids.max`,
      }),
    }];
  }
  const { soft, hard } = limit(RLIMIT.NPROC);
  const uid = call(self, "getuid");
  const { count, most } = processesOf(uid);
  if (most + 1 < soft) return [];
  // Processes in other pid namespaces count too, and are not seen: there may be more than these.
  const seen = isInitial("pid") ? "" : " in this pid namespace alone";
  const few = count + 1 < soft ? ", too few for penne" : "";
  const wanted = 2 * count + 100;
  return [{
    cause: "limit",
    words: `user ${uid} has ${count} processes${seen}, and may have ${soft} (ulimit -u)${few}`,
    fix: hard >= wanted
      ? `ulimit -Su ${hard === Infinity ? "unlimited" : hard}`
      : raise("u", "LimitNPROC", hard, wanted),
  }];
}

/**
 * The number of threads of a user's, which is what the limit counts: now, and when penne had no more than it may have.
 * Those that it had are gone when the failure is explained, so that others take their place here.
 */
function processesOf(uid: number): { count: number; most: number } {
  const count = threadsOf(uid);
  const agents: Agent[] = [];
  try {
    while (agents.length < OWN_PROCESSES) agents.push(Agent.spawn());
    return { count, most: count };
  } catch {
    return { count, most: threadsOf(uid) };
  } finally {
    for (const agent of agents) orNull(() => endAgents([agent]));
  }
}

function threadsOf(uid: number): number {
  using directory = open(self, "/proc", O.RDONLY | O.DIRECTORY);
  let count = 0;
  for (const name of readDirectory(directory)) {
    if (!/^\d+$/.test(name)) continue;
    const text = read(`/proc/${name}/status`) ?? "";
    if (/^Uid:\s*(\d+)/m.exec(text)?.[1] === `${uid}`) count += Number(/^Threads:\s*(\d+)/m.exec(text)?.[1] ?? 0);
  }
  return count;
}
