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

/** Offsets of structures' fields in bytes; null where the kernel has no such field. */
export type Layout = ReturnType<typeof resolveLayout>;

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
 * @throws {PenneError} If the kernel lacks something indispensable.
 */
export function resolveLayout(btf: Btf) {
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
  const fields = <K extends string>(type: number, ...names: K[]) =>
    Object.fromEntries(names.map((name) => [name, field(type, name)])) as Record<K, number>;
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

  const slots = SLOTS.flatMap((slot, index): SlotLayout[] => {
    if (slot === "user") return [{ slot, index, pointer: field(cred, "user_ns"), common: field(user, "ns") }];
    const name = PROXY_POINTERS[slot];
    const pointer = name === undefined ? null : maybe(proxy, name);
    const common = name === undefined ? null : maybe(follow(proxy, name), "ns");
    return pointer === null || common === null ? [] : [{ slot, index, pointer, common }];
  });

  const sets = follow(task, "cgroups");
  const cgroup = follow(sets, "dfl_cgrp");
  const cgroupId = maybe(follow(cgroup, "kn"), "id");

  const files = follow(task, "files");
  const table = follow(files, "fdt");
  const inode = follow(file, "f_inode");
  const superBlock = follow(inode, "i_sb");

  const registers = btf.target(btf.parameters(attach.sys_exit)[1] ?? 0) || missing("pt_regs");
  const argument = (name: string) => field(registers, name);
  // At the exit of a call on aarch64 the register of the first argument has the result.
  const armArguments = () => [argument("orig_x0"), argument("regs") + 8] as const;
  const compat = maybe(task, COMPAT.field);
  return {
    arch: Deno.build.arch,
    task: {
      ...fields(task, "pid", "tgid", "comm", "flags", "signal", "exit_code"),
      ...fields(task, "nsproxy", "real_cred", "thread_pid", "real_parent", "group_leader"),
      start: maybe(task, "start_boottime") ?? maybe(task, "real_start_time"),
      cgroups: maybe(task, "cgroups"),
      files: maybe(task, "files"),
      /** The bit that distinguishes 32-bit system calls. */
      compat: compat === null ? null : { offset: compat, bit: COMPAT.bit },
    },
    /** `cred.uid`. */
    uid: field(cred, "uid"),
    /** `user_namespace.parent`. */
    userParent: field(user, "parent"),
    /** From `css_set` to the cgroup's id. */
    cgroup: cgroupId === null ? null : [field(sets, "dfl_cgrp"), field(cgroup, "kn"), cgroupId] as const,
    signal: fields(signal, "flags", "group_exit_code", "live"),
    /** `entry` is the size of an entry of `numbers`, `ns` the offset of the namespace in it. */
    pid: {
      ...fields(pid, "level", "numbers"),
      entry: btf.size(entry),
      ns: field(entry, "ns"),
    },
    /** `ns_common`; `list` is the node of the list of all namespaces of a type. */
    common: {
      inum: field(common, "inum"),
      id: maybe(common, "ns_id"),
      type: maybe(common, "ns_type"),
      operations: field(common, "ops"),
      list: maybe(common, "ns_list_node") ?? maybe(common, "ns_tree_node.ns_list_entry"),
    },
    /** `proc_ns_operations.type`. */
    operationsType: maybe(follow(common, "ops"), "type"),
    /** The slots that the kernel has, without the active pid namespace, which is found through `struct pid`. */
    slots,
    /** `pid_namespace.level` and `pid_namespace.ns`. */
    pidLevel: field(pidNamespace, "level"),
    pidCommon: field(pidNamespace, "ns"),
    /** From `files_struct` to an inode's private data. */
    file: superBlock && table
      ? {
        ...fields(files, "fdt"),
        ...fields(table, "max_fds", "fd"),
        ...fields(file, "f_inode"),
        ...fields(inode, "i_sb", "i_private"),
        ...fields(superBlock, "s_magic"),
      }
      : null,
    /** The number of a system call, and its first two arguments. */
    registers: Deno.build.arch === "aarch64"
      ? { number: argument("syscallno"), arguments: armArguments(), compatArguments: armArguments() }
      : {
        number: argument("orig_ax"),
        arguments: [argument("di"), argument("si")] as const,
        compatArguments: [argument("bx"), argument("cx")] as const,
      },
    /** BTF ids of what the programs are attached to. */
    attach,
    /** BTF ids of `bpf_rdonly_cast` (Linux 6.2) and `task_struct`; null if the kernel has no such function. */
    cast: cast === 0 ? null : { call: cast, task },
    /** Whether the tracepoint of a task's end passes whether it is the last one of its process. */
    exitTellsLast: btf.parameters(attach.exit).length > 2,
  };
}
