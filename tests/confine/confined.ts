// What the kernel says of a confined process, and calls that none may make.

import { assert, assertEquals } from "@std/assert";
import { E } from "../../ffi/core/errno.ts";
import { fatalCalls } from "../../mod/confine/fatal.ts";
import { refusedCalls } from "../../mod/confine/refused.ts";
import { numbersOf, type SyscallName } from "../../ffi/core/syscalls.ts";
import { penne, until } from "../lib/helpers.ts";
import { inject } from "./inject.ts";
import type { Daemon, NetLab } from "../lib/netlab.ts";

/** A pid that no process can have soon. */
export const NOBODY = "4194303";

/** Starts `penne wait`, and returns when it has confined itself; `start` starts a command line. */
export async function waiting(
  lab: NetLab,
  args: readonly string[],
  prefix: readonly string[] = [],
  start: (argv: string[]) => Daemon = (argv) => lab.start(argv, { cwd: "/" }),
): Promise<Daemon> {
  const daemon = start([...prefix, penne(), "wait", "--ready-fd", "1", ...args]);
  await until("it is ready", () => daemon.output().startsWith("ready\n"));
  await until("it is confined", () => isFiltered(daemon.child.pid));
  return daemon;
}

/** Lines of /proc/PID/status by their names. */
export function statusOf(pid: number): Record<string, string> {
  const lines = Deno.readTextFileSync(`/proc/${pid}/status`).trim().split("\n");
  return Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf(":")), line.replace(/^\w+:\s*/, "")]));
}

/** Whether a process filters its system calls. */
export const isFiltered = (pid: number): boolean => statusOf(pid)["Seccomp"] === "2";

/** Asserts that a process has nothing but some capabilities, can gain none, and filters its system calls. */
export function assertConfined(pid: number, keeps: bigint = 0n): void {
  const status = statusOf(pid);
  const set = (name: string) => BigInt(`0x${status[name]}`);
  for (const name of ["CapEff", "CapPrm"]) assertEquals(set(name), keeps, name);
  for (const name of ["CapInh", "CapAmb"]) assertEquals(set(name), 0n, name);
  assertEquals(status["NoNewPrivs"], "1");
  assertEquals(status["Seccomp"], "2");
  assertEquals(status["Threads"], "1");
  // Non-dumpable: its files in /proc are root's, whoever runs it.
  assertEquals(Deno.statSync(`/proc/${pid}/maps`).uid, 0);
}

/** The calls that a confined process logs at the level debug, for itself or an agent. */
export function loggedCalls(log: string, role: string): string[] {
  const [, count, calls = ""] = new RegExp(`confined as ${role}: (\\d+) system calls\\n(.*)\\n`).exec(log) ?? [];
  assert(calls, log);
  assertEquals(calls.split(" ").length, Number(count));
  return calls.split(" ");
}

/** A call that somebody who has taken a confined process over might make. */
interface Attempt {
  readonly what: string;
  readonly number: number;
  readonly args: readonly bigint[];
}

/** Some of the calls that are fatal; a test of filters tries them all. */
const FATAL = [
  ...["execve", "execveat", "clone", "clone3", "fork", "vfork", "ptrace", "process_vm_readv", "process_vm_writev"],
  ...["setns", "unshare", "mount", "pivot_root", "bpf", "io_uring_setup", "keyctl", "setuid"],
];

/** Families of sockets that no role needs. */
const FAMILIES = { unix: 1, ax25: 3, netlink: 16, packet: 17, rds: 21, can: 29, tipc: 30, alg: 38, vsock: 40, xdp: 44 };

/**
 * Attempts to open, execute, start, trace, enter and change things.
 *
 * @param victim A process that must not be signalled.
 */
export function attempts(victim: number): Attempt[] {
  const arch = Deno.build.arch;
  const numbers = numbersOf(arch);
  const named = (call: SyscallName, ...args: (number | bigint)[]) => ({
    what: `${call}(${args.join(", ")})`,
    number: numbers[call],
    args: args.map(BigInt),
  });
  const at = -100; // AT_FDCWD
  return [
    ...FATAL.flatMap((what) => {
      const number = fatalCalls(arch).get(what);
      return number === undefined ? [] : [{ what, number, args: [0n, 0n, 0n] }];
    }),
    ...arch === "x86_64" ? [2, 85].map((number) => ({ what: `open or creat, ${number}`, number, args: [0n] })) : [],
    // Paths are null: what the filter lets through fails with EFAULT.
    ...[0, 1, 2, 0o102, 0o20200000].map((flags) => named("openat", at, 0, flags)),
    named("openat2", at, 0, 0, 24),
    named("memfd_create", 0, 0),
    named("kill", victim, 9),
    named("tgkill", victim, victim, 9),
    named("pidfd_open", victim, 0),
    named("pidfd_send_signal", 0, 9, 0, 0),
    named("prctl", 4, 1),
    named("seccomp", 0, 0, 0),
    named("unlinkat", at, 0, 0),
    named("renameat2", at, 0, at, 0, 0),
    named("ioctl", 0, 0x5412, 0), // TIOCSTI
    ...Object.values(FAMILIES).map((family) => named("socket", family, 2, 0)),
  ];
}

/** Does something with each item and a process of its own; some processes are started at once, ahead of their turn. */
async function inTurn<T>(
  items: readonly T[],
  start: () => Promise<Daemon>,
  use: (item: T, daemon: Daemon) => Promise<boolean>,
): Promise<void> {
  const AHEAD = 8;
  const waiting: Daemon[] = [];
  for (const [i, item] of items.entries()) {
    if (waiting.length === 0) {
      waiting.push(...await Promise.all(Array.from({ length: Math.min(AHEAD, items.length - i) }, () => start())));
    }
    if (!await use(item, waiting.at(-1)!)) waiting.pop();
  }
  for (const { child, ended } of waiting) {
    child.kill("SIGKILL");
    await ended;
  }
}

/**
 * Asserts that a confined process cannot do any of {@linkcode attempts}.
 *
 * @param start Starts one, which waits; each attempt may end it.
 * @param errors Errors that the process's rules have for some attempts, by what those do; EACCES for others.
 */
export async function assertRefused(start: () => Promise<Daemon>, errors: Record<string, number> = {}): Promise<void> {
  const victim = new Deno.Command("sleep", { args: ["1000"] }).spawn();
  try {
    await inTurn(attempts(victim.pid), start, async ({ what, number, args }, { child, ended }) => {
      const waits = `${numbersOf(Deno.build.arch).epoll_pwait} `;
      await until("it waits", () => Deno.readTextFileSync(`/proc/${child.pid}/syscall`).startsWith(waits));
      const result = inject(child.pid, number, args);
      if (result === null) {
        const { code, signal } = await ended;
        assert(signal === "SIGSYS" || code === 159, `${what}: ${signal} ${code}`);
        return false;
      }
      const refused = [...refusedCalls(Deno.build.arch).values()].find((call) => call.number === number);
      const rule = Object.entries(errors).find(([words]) => what.startsWith(words));
      assertEquals(result, -(refused?.errno ?? rule?.[1] ?? E.EACCES), what);
      return true;
    });
  } finally {
    victim.kill("SIGTERM");
    assertEquals((await victim.status).signal, "SIGTERM"); // nothing else ended it
  }
}
