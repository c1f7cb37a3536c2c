// The maps of the eBPF programs, and the layout of the memory in them.

import { createMap, loadBtf, MAP_FLAG, MAP_TYPE } from "../../../ffi/sys/bpf.ts";
import type { Fd } from "../../../ffi/core/fd.ts";
import { buildBtf } from "../../bpf/btf_build.ts";
import { SLOTS } from "../facts/contract.ts";

/** Offsets in the memory that the programs share with penne. */
export const CONTROL = {
  /** u32: flags for writing to the ring buffer; BPF_RB_NO_WAKEUP while a timer empties it. */
  WAKE: 0,
  /** u32: set once the map of trees is full; then every process counts as part of a tree. */
  OVERFLOW: 4,
  /** u64: the kernel's address of penne's pid namespace. */
  PID_NAMESPACE: 8,
  /** u32: its level. */
  LEVEL: 16,
  /** u64: the kernel's addresses of penne's `nsproxy` and user namespace. */
  OWN_PROXY: 24,
  OWN_USER: 32,
  /** u64: number of lost records; in a cache line of its own. */
  LOST: 64,
  SIZE: 128,
} as const;

/** Offsets in a task's storage. */
export const STORAGE = {
  /** u32: CLONE_NEW* that the current call asks for; 0 outside of one. */
  ASKED: 0,
  /** u32, u64: the time namespace that the next execve(2) leaves; 0 for none. */
  TIME_INUM: 4,
  TIME_ID: 8,
  /** {u32 inum, u32 0, u64 id} for each of SLOTS. */
  SLOTS: 16,
  SIZE: 16 + 16 * SLOTS.length,
} as const;

/** Offsets in the list of namespaces. */
export const LIST = {
  /** u32 */
  COUNT: 0,
  /** {u32 slot, u32 inum, u64 id} for each namespace. */
  ENTRIES: 16,
  MAX: 1 << 16,
  SIZE: 16 + (16 << 16),
} as const;

/** Maximum number of processes in trees; with more, no process is filtered out. */
const TREE_MAX = 65536;

/** Types of the storage's key and value: an integer, and an array of bytes. */
const STORAGE_TYPES = [
  { kind: "int", name: "int", size: 4 },
  { kind: "int", name: "char", size: 1 },
  { kind: "array", type: 2, index: 1, length: STORAGE.SIZE },
] as const;

/** The maps; programs refer to them by their numbers. */
export interface Maps<T extends { readonly number: number } = { readonly number: number }> {
  readonly ring: T;
  readonly control: T;
  readonly storage: T;
  /** Pids of the processes in trees; null if the filter has none. */
  readonly trees: T | null;
}

/** Creates an array map with one entry that can be mapped into memory. */
export function createMemory(name: string, size: number): Fd {
  return createMap({
    map_type: MAP_TYPE.ARRAY,
    map_name: name,
    key_size: 4,
    value_size: size,
    max_entries: 1,
    map_flags: MAP_FLAG.MMAPABLE,
  });
}

/**
 * Creates the maps.
 *
 * @param owner Closes them.
 * @param ring Size of the ring buffer in bytes.
 * @param trees Whether trees are filtered by.
 * @throws {SysError} If the kernel refuses one.
 */
export function createMaps(owner: DisposableStack, ring: number, trees: boolean): Maps<Fd> {
  using types = loadBtf(buildBtf(STORAGE_TYPES));
  const { RINGBUF, TASK_STORAGE, HASH } = MAP_TYPE;
  return {
    control: owner.use(createMemory("penne_control", CONTROL.SIZE)),
    ring: owner.use(createMap({ map_type: RINGBUF, map_name: "penne_ring", max_entries: ring })),
    storage: owner.use(createMap({
      map_type: TASK_STORAGE,
      map_name: "penne_tasks",
      key_size: 4,
      value_size: STORAGE.SIZE,
      map_flags: MAP_FLAG.NO_PREALLOC,
      btf_fd: types,
      btf_key_type_id: 1,
      btf_value_type_id: 3,
    })),
    trees: trees
      ? owner.use(
        createMap({ map_type: HASH, map_name: "penne_trees", key_size: 4, value_size: 4, max_entries: TREE_MAX }),
      )
      : null,
  };
}
