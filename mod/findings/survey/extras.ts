// Tries what commands need only for some things: pings, many files and processes, a place for kept sets, a view of others.

import { Agent } from "../../../ffi/agent/agent.ts";
import { ACCESS, AT_FDCWD, O, RLIMIT, S } from "../../../ffi/core/consts.ts";
import { errnoName, orNull } from "../../../ffi/core/errno.ts";
import { call, out, self } from "../../../ffi/core/task.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { AF, SOCK } from "../../../ffi/net/constants.ts";
import { cString } from "../../../ffi/core/memory.ts";
import { loadProgram } from "../../../ffi/sys/bpf.ts";
import { open } from "../../../ffi/sys/file.ts";
import { listNamespaces, namespaceId } from "../../../ffi/sys/namespace.ts";
import { QuickFiles } from "../../../ffi/sys/quick_file.ts";
import { lstat, stat } from "../../../ffi/sys/stat.ts";
import { endAgents } from "../../agents/enclosure.ts";
import { PenneError } from "../../base/errors.ts";
import type { FailedCall } from "../../base/failed_call.ts";
import { environment, variable } from "../../host/caller.ts";
import { mountOf } from "../../host/mounts.ts";
import { findLayout, LOCK_DIRECTORY, NAMESPACE_DIRECTORY } from "../../kept/record/layout.ts";
import { openDirectory } from "../../state/directory.ts";
import { userOf } from "../../users/lookup.ts";
import { filterAnswer, filterFinding } from "../filter.ts";
import type { Finding } from "../finding.ts";
import { has, isInitial, kernel, mounts, setting } from "../host.ts";
import { explainFiles } from "../limits.ts";
import { Refusal } from "./refusal.ts";

const IPPROTO_ICMP = 1;
/** Descriptors that a network with some hundred connections needs. */
const FILES = 1024;
/** Processes of its own that a command has at a time, at most. */
const PROCESSES = 4;
/** Bytes of address space that the runtime may yet reserve. */
const SPACE = 2 ** 30;
const RLIMIT_AS = 9;
const PROT_NONE = 0;
/** MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE. */
const MAP_RESERVE = 0x4022;

/** Opens what pings go through. @throws {SysError} EACCES if the host lets no group of the caller have ping sockets. */
export function openPing(): void {
  const raw = self.raw("socket", AF.INET, SOCK.RAW | SOCK.CLOEXEC, IPPROTO_ICMP);
  new Fd(raw >= 0 ? raw : call(self, "socket", AF.INET, SOCK.DGRAM | SOCK.CLOEXEC, IPPROTO_ICMP)).close();
}

/** Explains why there are no ping sockets. */
export function explainPing(failed: FailedCall): Finding[] {
  const answer = filterAnswer(failed);
  if (answer !== null) return [filterFinding(failed, answer)];
  const name = "net.ipv4.ping_group_range";
  const range = setting(name)?.replace(/\s+/, " ");
  if (range === undefined || failed.code !== "EACCES") return [];
  const words = `${name} is "${range}", which lets none of your groups have ping sockets`;
  return [{ cause: "sysctl", words, fix: `as root: sysctl -w ${name}="0 2147483647"` }];
}

/** The limits of a resource; Infinity for none. */
function limits(resource: number): [soft: number, hard: number] {
  const words = new BigUint64Array(2);
  call(self, "prlimit64", 0, resource, null, out(new Uint8Array(words.buffer)));
  return Array.from(words, (word) => word === 2n ** 64n - 1n ? Infinity : Number(word)) as [number, number];
}

/** Whether many files may be open; penne raises the soft limit itself. @throws {Refusal} If not. */
export function openManyFiles(): void {
  const args = limits(RLIMIT.NOFILE);
  if (args[1] < FILES) throw new Refusal("EMFILE", explainFiles({ syscall: "openat", code: "EMFILE", args }));
}

/** Starts as many processes as a command has at a time. @throws {SysError} EAGAIN if there may be no more. */
export function startProcesses(): void {
  using agents = new DisposableStack();
  for (let i = 0; i < PROCESSES; i++) agents.adopt(Agent.spawn(), (agent) => endAgents([agent]));
}

/** Reserves address space, and gives it back. @throws {Refusal} If a limit forbids it. */
export function reserveSpace(): void {
  const at = self.raw("mmap", null, SPACE, PROT_NONE, MAP_RESERVE, -1, 0);
  if (at >= 0 || at < -4095) {
    call(self, "munmap", at, SPACE);
    return;
  }
  const [soft, hard] = limits(RLIMIT_AS);
  if (soft === Infinity) throw new Refusal(errnoName(-at), []);
  const words = `the limit on address space is ${soft} bytes (ulimit -v)`;
  const fix = hard === Infinity ? "ulimit -Sv unlimited" : "as root: ulimit -v unlimited before penne is started";
  throw new Refusal(errnoName(-at), [{ cause: "limit", words, fix }]);
}

/** Whether penne may write to a directory. */
function mayWrite(path: string): boolean {
  return self.raw("faccessat", AT_FDCWD, cString(path), ACCESS.W_OK) === 0;
}

/** The directory of a path, itself or above it, that is there. */
function present(path: string): string {
  let at = path;
  while (at !== "" && !orNull(() => stat(self, at))) at = at.replace(/\/[^/]*$/, "");
  return at || "/";
}

/** Whether a directory can be the user's XDG_RUNTIME_DIR. */
function isRuntimeDirectory(path: string, uid: number): boolean {
  try {
    using directory = openDirectory(self, path, false);
    return directory !== null && stat(self, directory).uid === uid && mayWrite(path);
  } catch (error) {
    if (error instanceof PenneError) return false;
    throw error;
  }
}

/** What gives a user the usual place: makes or repairs that, and names it if something else is named. */
function givePlace(uid: number, named: string | undefined): string | null {
  const usual = `/run/user/${uid}`;
  if (((lstat(usual)?.mode ?? 0) & S.IFMT) === S.IFLNK) return null;
  const make = `as root: install -d -m 700 -o ${userOf(uid)?.name ?? uid} ${usual}`;
  const steps = [
    ...isRuntimeDirectory(usual, uid) ? [] : [make],
    ...named === usual ? [] : [`export XDG_RUNTIME_DIR=${usual}`],
  ];
  return steps.join("; ") || null;
}

/** Whether the caller has a place for kept sets, where `penne keep` may make what is missing. @throws {Refusal} If not. */
export function findPlace(): void {
  const uid = call(self, "geteuid");
  const named = uid === 0 ? undefined : variable(environment(), "XDG_RUNTIME_DIR");
  const refuse = (errno: string | null, words: string) =>
    new Refusal(errno, [{ cause: "file", words, fix: uid === 0 ? null : givePlace(uid, named) }]);
  if (uid !== 0) {
    if (!named) throw refuse(null, "XDG_RUNTIME_DIR is not set");
    const found = named.startsWith("/") ? orNull(() => stat(self, named)) : null;
    if (found && found.uid !== uid && found.uid !== 0) {
      throw refuse("EPERM", `XDG_RUNTIME_DIR names ${named}, which belongs to user ${found.uid}`);
    }
  }
  try {
    const { base } = findLayout("penne", undefined, { uid, runtimeDirectory: named });
    for (const name of [NAMESPACE_DIRECTORY, LOCK_DIRECTORY]) {
      const path = `${base}/${name}`;
      openDirectory(self, path, false)?.close();
      const there = present(path);
      if (mayWrite(there)) continue;
      const isMissing = named !== undefined && !orNull(() => stat(self, named));
      throw isMissing
        ? refuse("ENOENT", `XDG_RUNTIME_DIR names ${named}, which is not there`)
        : refuse("EACCES", `penne may not write to ${there}`);
    }
  } catch (error) {
    if (!(error instanceof PenneError)) throw error;
    const link = ["ELOOP", "ENOTDIR"].includes(error.code ?? "") ? "; symbolic links are not followed there" : "";
    throw refuse(error.code ?? null, `penne keep ${error.message}${link}`);
  }
}

/** Looks for the processes of other users. @throws {Refusal} If /proc hides them. */
export function seeProcesses(): void {
  if (new QuickFiles().numbers("/proc").includes(1)) return;
  const option = mountOf(mounts(), "/proc")?.superOptions.find((one) => one.startsWith("hidepid="));
  const fix = "as root: mount -o remount,hidepid=0 /proc";
  const words = `/proc is mounted with ${option}, which hides the processes of other users`;
  throw new Refusal(null, option ? [{ cause: "proc", words, fix }] : []);
}

const BTF = "/sys/kernel/btf/vmlinux";
/** The program "return 0" as a raw tracepoint: two instructions, linux/bpf.h. */
const RETURN_0 = new Uint8Array([0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0]);
const RAW_TRACEPOINT = 17;

/** Loads a program into the kernel, and opens the kernel's types. @throws {SysError} If one is refused. */
export function loadAny(): void {
  loadProgram(RETURN_0, { prog_type: RAW_TRACEPOINT, prog_name: "penne" }, () => "").close();
  open(self, BTF, O.RDONLY).close();
}

/**
 * Asks for the ids of namespaces, and for what lists them all, as `penne ls` does.
 *
 * @throws {Refusal} If the kernel has none, or not for us.
 * @throws {SysError} If the kernel does not list them by itself, and a program that would is refused.
 */
export function identifyAll(): void {
  using own = open(self, "/proc/self/ns/net", O.RDONLY);
  if (namespaceId(own) === null) {
    const words = `the kernel gives namespaces ids since Linux 6.18, and this is ${kernel().text}`;
    throw new Refusal("ENOTTY", [{ cause: "kernel", words, fix: null }]);
  }
  if (!isInitial("user")) {
    const words = "the kernel names all namespaces in the initial user namespace only";
    throw new Refusal(null, [{ cause: "user namespace", words, fix: "run penne there" }]);
  }
  if (!has("SYS_ADMIN")) {
    const words = "the kernel names all namespaces to those with CAP_SYS_ADMIN only";
    throw new Refusal(null, [{ cause: "capability", words, fix: "run penne as root" }]);
  }
  if (typeof listNamespaces() !== "object") return loadAny();
  if (isInitial("pid")) return;
  const words = "the kernel names all namespaces in the initial pid namespace only";
  throw new Refusal(null, [{ cause: "namespace", words, fix: "run penne there" }]);
}
