// Offsets of everything that the programs read in the kernel's structures, resolved from its BTF.

import { type Btf, BTF_KIND } from "../../bpf/btf.ts";
import { PenneError } from "../../base/errors.ts";
import { type Slot, SLOTS } from "../facts/contract.ts";

/** The way to a task's namespace: a pointer in `nsproxy` (for user: in `cred`), and `ns_common` in what it points to. */
export interface SlotLayout {
  readonly slot: Slot;
  /** Index in {@linkcode SLOTS}. */
  readonly index: number;
  /** Offset of the pointer. */
  readonly pointer: number;
  /** Offset of `ns_common`. */
  readonly common: number;
}

/** What each program is attached to: the type of a tracepoint, or the function of an iterator. */
const ATTACH_POINTS = {
  tasks: ["bpf_iter_task", BTF_KIND.FUNC],
  sys_exit: ["btf_trace_sys_exit", BTF_KIND.TYPEDEF],
  sys_enter: ["btf_trace_sys_enter", BTF_KIND.TYPEDEF],
  fork: ["btf_trace_task_newtask", BTF_KIND.TYPEDEF],
  exec: ["btf_trace_sched_process_exec", BTF_KIND.TYPEDEF],
  exit: ["btf_trace_sched_process_exit", BTF_KIND.TYPEDEF],
} as const;

/** The name of a program. */
export type ProgramName = keyof typeof ATTACH_POINTS;

/** Offsets of structures' fields in bytes; null where the kernel has no such field. */
export interface Layout {
  readonly task: {
    readonly pid: number;
    readonly tgid: number;
    readonly comm: number;
    readonly flags: number;
    readonly nsproxy: number;
    readonly realCred: number;
    readonly threadPid: number;
    readonly realParent: number;
    readonly groupLeader: number;
    readonly signal: number;
    readonly exitCode: number;
    readonly startBoottime: number | null;
    readonly cgroups: number | null;
    readonly files: number | null;
    /** The bit that distinguishes 32-bit system calls. */
    readonly compat: { readonly offset: number; readonly bit: number } | null;
  };
  /** `cred.uid`. */
  readonly uid: number;
  /** `user_namespace.parent`. */
  readonly userParent: number;
  /** `css_set.dfl_cgrp`, `cgroup.kn`, `kernfs_node.id`. */
  readonly cgroup: readonly [number, number, number] | null;
  readonly signal: { readonly flags: number; readonly groupExitCode: number; readonly live: number };
  /** `struct pid`; `entry` is the size of an entry of `numbers`, `ns` the offset of the namespace in it. */
  readonly pid: { readonly level: number; readonly numbers: number; readonly entry: number; readonly ns: number };
  /** `ns_common`. */
  readonly common: {
    readonly inum: number;
    readonly id: number | null;
    readonly type: number | null;
    readonly operations: number;
    /** Node of the list of all namespaces of the type. */
    readonly list: number | null;
  };
  /** `proc_ns_operations.type`. */
  readonly operationsType: number | null;
  /** The slots that the kernel has, without the active pid namespace, which is found through `struct pid`. */
  readonly slots: readonly SlotLayout[];
  /** `pid_namespace.level`. */
  readonly pidLevel: number;
  /** `pid_namespace.ns`. */
  readonly pidCommon: number;
  /** The way from `files_struct` to an inode's private data. */
  readonly file: {
    readonly fdt: number;
    readonly maxFds: number;
    readonly fds: number;
    readonly inode: number;
    readonly superBlock: number;
    readonly magic: number;
    readonly private: number;
  } | null;
  /** `pt_regs`: the number of a system call, and its first two arguments. */
  readonly registers: {
    readonly number: number;
    readonly arguments: readonly [number, number];
    readonly compatArguments: readonly [number, number];
  };
  /** BTF ids of what the programs are attached to. */
  readonly attach: Readonly<Record<ProgramName, number>>;
  /** BTF ids of `bpf_rdonly_cast` (Linux 6.2) and `task_struct`; null if the kernel has no such function. */
  readonly cast: { readonly call: number; readonly task: number } | null;
  /** Whether the tracepoint of a task's end passes whether it is the last one of its process. */
  readonly exitTellsLast: boolean;
}

const PROXY_POINTERS: Partial<Record<Slot, string>> = {
  mnt: "mnt_ns",
  ipc: "ipc_ns",
  uts: "uts_ns",
  net: "net_ns",
  cgroup: "cgroup_ns",
  time: "time_ns",
  pid_for_children: "pid_ns_for_children",
  time_for_children: "time_ns_for_children",
};

/** TS_COMPAT of x86_64's thread_info.status; TIF_32BIT of aarch64's thread_info.flags. */
const COMPAT = Deno.build.arch === "aarch64"
  ? { field: "thread_info.flags", bit: 1 << 22 }
  : { field: "thread_info.status", bit: 2 };

/**
 * Resolves the offsets.
 *
 * @example
 * ```ts
 * import { resolveLayout } from "./layout.ts";
 * import { withKernelBtf } from "../../bpf/kernel_btf.ts";
 * import { assert } from "@std/assert";
 *
 * const layout = withKernelBtf((btf) => resolveLayout(btf));
 * assert(layout.slots.some(({ slot }) => slot === "net"));
 * ```
 *
 * @param btf The kernel's BTF.
 * @param arch The kernel's architecture, by Deno's name.
 * @throws {PenneError} If the kernel lacks something indispensable.
 */
export function resolveLayout(btf: Btf, arch: string = Deno.build.arch): Layout {
  const missing = (what: string): never => {
    throw new PenneError(`observe namespaces by eBPF: this kernel's BTF has no ${what}`);
  };
  const [task = 0, file = 0, cast = 0, ...points] = btf.findAll([
    ["task_struct", BTF_KIND.STRUCT],
    ["file", BTF_KIND.STRUCT],
    ["bpf_rdonly_cast", BTF_KIND.FUNC],
    ...Object.values(ATTACH_POINTS),
  ]);
  const attach = Object.fromEntries(
    Object.entries(ATTACH_POINTS).map(([program, [name]], i) => [program, points[i] || missing(name)]),
  ) as Record<ProgramName, number>;
  const maybe = (type: number, path: string): number | null => btf.field(type, path)?.offset ?? null;
  const field = (type: number, path: string): number => maybe(type, path) ?? missing(`${btf.name(type)}.${path}`);
  /** Returns the type that a field points to; 0 if the field is missing. */
  const follow = (type: number, path: string): number => {
    const found = btf.field(type, path);
    return found ? btf.target(found.type) : 0;
  };
  const must = (type: number, path: string): number => follow(type, path) || missing(`${btf.name(type)}.${path}`);

  if (!task) missing("task_struct");
  const proxy = must(task, "nsproxy");
  const cred = must(task, "real_cred");
  const pid = must(task, "thread_pid");
  const upid = btf.field(pid, "numbers");
  const entry = upid ? btf.element(upid.type) : 0;
  const pidNamespace = entry ? must(entry, "ns") : missing("pid.numbers");
  const user = must(cred, "user_ns");
  const signal = must(task, "signal");
  const common = btf.strip(btf.field(user, "ns")?.type ?? missing("user_namespace.ns"));

  const slots: SlotLayout[] = [];
  SLOTS.forEach((slot, index) => {
    const name = PROXY_POINTERS[slot];
    if (slot === "user") slots.push({ slot, index, pointer: field(cred, "user_ns"), common: field(user, "ns") });
    if (name === undefined) return;
    const pointer = maybe(proxy, name);
    const at = maybe(follow(proxy, name), "ns");
    if (pointer !== null && at !== null) slots.push({ slot, index, pointer, common: at });
  });

  const sets = follow(task, "cgroups");
  const cgroup = follow(sets, "dfl_cgrp");
  const cgroupId = maybe(follow(cgroup, "kn"), "id");

  const files = follow(task, "files");
  const table = follow(files, "fdt");
  const inode = follow(file, "f_inode");
  const superBlock = follow(inode, "i_sb");

  const registers = btf.target(btf.parameters(attach.sys_exit)[1] ?? 0) || missing("pt_regs");
  const compat = maybe(task, COMPAT.field);
  return {
    task: {
      pid: field(task, "pid"),
      tgid: field(task, "tgid"),
      comm: field(task, "comm"),
      flags: field(task, "flags"),
      nsproxy: field(task, "nsproxy"),
      realCred: field(task, "real_cred"),
      threadPid: field(task, "thread_pid"),
      realParent: field(task, "real_parent"),
      groupLeader: field(task, "group_leader"),
      signal: field(task, "signal"),
      exitCode: field(task, "exit_code"),
      startBoottime: maybe(task, "start_boottime") ?? maybe(task, "real_start_time"),
      cgroups: maybe(task, "cgroups"),
      files: maybe(task, "files"),
      compat: compat === null ? null : { offset: compat, bit: COMPAT.bit },
    },
    uid: field(cred, "uid"),
    userParent: field(user, "parent"),
    cgroup: cgroupId === null ? null : [field(sets, "dfl_cgrp"), field(cgroup, "kn"), cgroupId],
    signal: {
      flags: field(signal, "flags"),
      groupExitCode: field(signal, "group_exit_code"),
      live: field(signal, "live"),
    },
    pid: {
      level: field(pid, "level"),
      numbers: field(pid, "numbers"),
      entry: btf.size(entry),
      ns: field(entry, "ns"),
    },
    common: {
      inum: field(common, "inum"),
      id: maybe(common, "ns_id"),
      type: maybe(common, "ns_type"),
      operations: field(common, "ops"),
      list: maybe(common, "ns_list_node") ?? maybe(common, "ns_tree_node.ns_list_entry"),
    },
    operationsType: maybe(follow(common, "ops"), "type"),
    slots,
    pidLevel: field(pidNamespace, "level"),
    pidCommon: field(pidNamespace, "ns"),
    file: superBlock && table
      ? {
        fdt: field(files, "fdt"),
        maxFds: field(table, "max_fds"),
        fds: field(table, "fd"),
        inode: field(file, "f_inode"),
        superBlock: field(inode, "i_sb"),
        magic: field(superBlock, "s_magic"),
        private: field(inode, "i_private"),
      }
      : null,
    registers: arch === "aarch64"
      ? {
        number: field(registers, "syscallno"),
        // At the exit the first argument's register has the result.
        arguments: [field(registers, "orig_x0"), field(registers, "regs") + 8],
        compatArguments: [field(registers, "orig_x0"), field(registers, "regs") + 8],
      }
      : {
        number: field(registers, "orig_ax"),
        arguments: [field(registers, "di"), field(registers, "si")],
        compatArguments: [field(registers, "bx"), field(registers, "cx")],
      },
    attach,
    cast: cast === 0 ? null : { call: cast, task },
    exitTellsLast: btf.parameters(attach.exit).length > 2,
  };
}
