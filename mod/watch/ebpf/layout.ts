// Where the running kernel has what the programs read: offsets, resolved from its BTF.

import { type Btf, BTF_KIND } from "../../bpf/btf.ts";
import { PenneError } from "../../base/errors.ts";
import { type Slot, SLOTS } from "../facts/contract.ts";

/** How a namespace is reached: a pointer in `nsproxy` (in `cred` for user), and its `ns_common` behind that pointer. */
export interface SlotLayout {
  /** The place. */
  readonly slot: Slot;
  /** Its number in {@linkcode SLOTS}. */
  readonly index: number;
  /** Offset of the pointer. */
  readonly pointer: number;
  /** Offset of `ns_common` in what it points to. */
  readonly common: number;
}

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
    /** Where a 32-bit call can be told by. */
    readonly compat: { readonly offset: number; readonly bit: number } | null;
  };
  readonly uid: number;
  /** `user_namespace.parent`. */
  readonly userParent: number;
  /** `css_set.dfl_cgrp`, `cgroup.kn`, `kernfs_node.id`. */
  readonly cgroup: readonly [number, number, number] | null;
  readonly signal: { readonly flags: number; readonly groupExitCode: number; readonly live: number };
  /** `struct pid`, with the size of an entry of its numbers, and where the namespace is in one. */
  readonly pid: { readonly level: number; readonly numbers: number; readonly entry: number; readonly ns: number };
  /** In `ns_common`. */
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
  /** All places but the active pid namespace, which is reached by `struct pid`; those that the kernel does not have are missing. */
  readonly slots: readonly SlotLayout[];
  /** `pid_namespace.level`. */
  readonly pidLevel: number;
  /** Offset of `ns_common` in a pid namespace. */
  readonly pidCommon: number;
  /** What a descriptor stands for. */
  readonly file: {
    readonly fdt: number;
    readonly maxFds: number;
    readonly fds: number;
    readonly inode: number;
    readonly superBlock: number;
    readonly magic: number;
    readonly private: number;
  } | null;
  /** Registers of a system call: its number, and where the first two arguments are; those of a 32-bit call too. */
  readonly registers: {
    readonly number: number;
    readonly arguments: readonly [number, number];
    readonly compatArguments: readonly [number, number];
  };
  /** Ids of what programs are attached to. */
  readonly attach: {
    readonly sysEnter: number;
    readonly sysExit: number;
    readonly newTask: number;
    readonly exec: number;
    readonly exit: number;
    readonly iterator: number;
  };
  /** Id of `bpf_rdonly_cast` (Linux 6.2), and that of `task_struct`; null if there is no such function. */
  readonly cast: { readonly call: number; readonly task: number } | null;
  /** Whether the tracepoint of a task's end tells if it is the process's. */
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
 * Resolves all that the programs need.
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
 * @param arch Its architecture, as Deno names it.
 * @returns The offsets.
 * @throws {PenneError} If something is not there without which nothing can be seen.
 */
export function resolveLayout(btf: Btf, arch: string = Deno.build.arch): Layout {
  const missing = (what: string): never => {
    throw new PenneError(`observe namespaces by eBPF: this kernel's BTF has no ${what}`);
  };
  const tracepoints = ["sys_enter", "sys_exit", "task_newtask", "sched_process_exec", "sched_process_exit"] as const;
  const names = [
    ["task_struct", BTF_KIND.STRUCT],
    ["bpf_iter_task", BTF_KIND.FUNC],
    ["file", BTF_KIND.STRUCT],
    ["bpf_rdonly_cast", BTF_KIND.FUNC],
    ...tracepoints.map((name) => [`btf_trace_${name}`, BTF_KIND.TYPEDEF] as const),
  ] as const;
  const ids = btf.findAll(names);
  const find = (name: string): number => ids[names.findIndex(([other]) => other === name)]!;
  const maybe = (type: number, path: string): number | null => btf.field(type, path)?.offset ?? null;
  const field = (type: number, path: string): number => maybe(type, path) ?? missing(`${btf.name(type)}.${path}`);
  /** What a field points to. */
  const follow = (type: number, path: string): number => {
    const found = btf.field(type, path);
    return found ? btf.target(found.type) : 0;
  };
  const must = (type: number, path: string): number => follow(type, path) || missing(`${btf.name(type)}.${path}`);

  const task = find("task_struct") || missing("task_struct");
  const proxy = must(task, "nsproxy");
  const cred = must(task, "real_cred");
  const pid = must(task, "thread_pid");
  const upid = btf.field(pid, "numbers");
  const entry = upid ? btf.element(upid.type) : 0;
  const pidNamespace = entry ? must(entry, "ns") : missing("pid.numbers");
  const user = must(cred, "user_ns");
  const signal = must(task, "signal");
  const common = btf.strip(btf.field(user, "ns")?.type ?? missing("user_namespace.ns"));
  const operations = follow(common, "ops");

  const slots: SlotLayout[] = [];
  SLOTS.forEach((slot, index) => {
    const name = PROXY_POINTERS[slot];
    if (slot === "user") slots.push({ slot, index, pointer: field(cred, "user_ns"), common: field(user, "ns") });
    if (name === undefined) return;
    const pointer = maybe(proxy, name);
    const target = follow(proxy, name);
    const at = target ? maybe(target, "ns") : null;
    if (pointer !== null && at !== null) slots.push({ slot, index, pointer, common: at });
  });

  const sets = follow(task, "cgroups");
  const cgroup = sets ? follow(sets, "dfl_cgrp") : 0;
  const kernfs = cgroup ? follow(cgroup, "kn") : 0;
  const cgroupId = kernfs ? maybe(kernfs, "id") : null;

  const files = follow(task, "files");
  const table = files ? follow(files, "fdt") : 0;
  const file = find("file");
  const inode = file ? follow(file, "f_inode") : 0;
  const superBlock = inode ? follow(inode, "i_sb") : 0;

  const attachTo = (tracepoint: typeof tracepoints[number]) => {
    const name = `btf_trace_${tracepoint}`;
    return find(name) || missing(name);
  };
  const attach = {
    sysEnter: attachTo("sys_enter"),
    sysExit: attachTo("sys_exit"),
    newTask: attachTo("task_newtask"),
    exec: attachTo("sched_process_exec"),
    exit: attachTo("sched_process_exit"),
    iterator: find("bpf_iter_task") || missing("bpf_iter_task"),
  };
  const registers = btf.target(btf.parameters(attach.sysExit)[1] ?? 0) || missing("pt_regs");
  const compat = maybe(task, COMPAT.field);
  const cast = find("bpf_rdonly_cast");
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
    operationsType: operations ? maybe(operations, "type") : null,
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
        // The first argument's register has the result by the end of the call.
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
