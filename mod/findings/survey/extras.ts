// Tries what commands need only for some things: pings, many files and processes, a place for kept sets, a view of others.

import { Agent } from "../../../ffi/agent/agent.ts";
import { O, RLIMIT } from "../../../ffi/core/consts.ts";
import { errnoName, orNull } from "../../../ffi/core/errno.ts";
import { call, out, self } from "../../../ffi/core/task.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { AF, SOCK } from "../../../ffi/net/constants.ts";
import { open } from "../../../ffi/sys/file.ts";
import { namespaceId } from "../../../ffi/sys/namespace.ts";
import { QuickFiles } from "../../../ffi/sys/quick_file.ts";
import { stat } from "../../../ffi/sys/stat.ts";
import type { FailedCall } from "../../base/failed_call.ts";
import { environment, variable } from "../../host/caller.ts";
import { mountOf } from "../../host/mounts.ts";
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
  for (let i = 0; i < PROCESSES; i++) agents.adopt(Agent.spawn(), (agent) => agent.close());
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

/** Whether the caller has a place for kept sets. @throws {Refusal} If not. */
export function findPlace(): void {
  const uid = call(self, "geteuid");
  if (uid === 0) return;
  const directory = variable(environment(), "XDG_RUNTIME_DIR");
  const usual = `/run/user/${uid}`;
  const set = `export XDG_RUNTIME_DIR=${usual}`;
  const make = `as root: install -d -m 700 -o ${userOf(uid)?.name ?? uid} ${directory ?? usual}`;
  if (directory === undefined) {
    const fix = orNull(() => stat(self, usual)) ? set : `${make}; ${set}`;
    throw new Refusal(null, [{ cause: "file", words: "XDG_RUNTIME_DIR is not set", fix }]);
  }
  const found = orNull(() => stat(self, directory));
  if (!found) {
    throw new Refusal("ENOENT", [{
      cause: "file",
      words: `XDG_RUNTIME_DIR names ${directory}, which is not there`,
      fix: make,
    }]);
  }
  if (found.uid === uid) return;
  const words = `XDG_RUNTIME_DIR names ${directory}, which belongs to user ${found.uid}`;
  throw new Refusal("EPERM", [{ cause: "file", words, fix: set }]);
}

/** Looks for the processes of other users. @throws {Refusal} If /proc hides them. */
export function seeProcesses(): void {
  if (new QuickFiles().numbers("/proc").includes(1)) return;
  const option = mountOf(mounts(), "/proc")?.superOptions.find((one) => one.startsWith("hidepid="));
  const fix = "as root: mount -o remount,hidepid=0 /proc";
  const words = `/proc is mounted with ${option}, which hides the processes of other users`;
  throw new Refusal(null, option ? [{ cause: "proc", words, fix }] : []);
}

/** Asks for the ids of namespaces, as it takes to list all. @throws {Refusal} If the kernel has none, or not for us. */
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
  if (has("SYS_ADMIN")) return;
  const words = "the kernel names all namespaces to those with CAP_SYS_ADMIN only";
  throw new Refusal(null, [{ cause: "capability", words, fix: "run penne as root" }]);
}
