// Lists namespaces: what is there, who made it, how it is called, and what keeps it alive.
//
// Theory of operation. Most namespaces have a task, and /proc shows it (tasks.ts). The others are held by a mount
// (mounts.ts), a descriptor or a socket (descriptors.ts), or by a namespace below them (describe.ts), or by something that no
// file shows. Where the kernel names all namespaces (ids.ts), that list is read first, so that one which is born meanwhile is
// found with its task; descriptors and sockets are then searched only if holders are asked for.

import { E, orNull } from "../../ffi/core/errno.ts";
import { readText } from "../../ffi/sys/file.ts";
import { QuickFiles } from "../../ffi/sys/quick_file.ts";
import { self } from "../../ffi/core/task.ts";
import { flag, list as listCheck, object, oneOf, text } from "../base/check.ts";
import { mountOf, parseMounts } from "../host/mounts.ts";
import { parseMap } from "../idmap/ranges.ts";
import type { NamespaceId } from "../namespaces/id.ts";
import { NAMESPACE_TYPES, type NamespaceType } from "../namespaces/types.ts";
import { AddressReader } from "./addresses.ts";
import { bytesText } from "./bytes_text.ts";
import { Describer } from "./describe.ts";
import { DescriptorReader } from "./descriptors.ts";
import { byKind, type Found, Namespaces } from "./found.ts";
import { type KnownIds, listIds } from "./ids.ts";
import { nameKept } from "./kept.ts";
import type { Holder, ListedMaps, ListedNamespace, Listing } from "./listing.ts";
import { readMounts } from "./mounts.ts";
import { GroupNames } from "./names.ts";
import { select } from "./select.ts";
import { TaskReader } from "./tasks.ts";

/** Which namespaces to list, and what to tell of them. */
export interface ListOptions {
  /** Kinds of namespaces; all by default. */
  readonly types?: readonly NamespaceType[];
  /**
   * Only these: each is the PID of a process, an inode number, `id:N`, a path, or a name such as `blue` or `netns:blue`. All
   * by default.
   */
  readonly of?: readonly string[];
  /** Only those without a task. */
  readonly orphans?: boolean;
  /** Whether to find what keeps each alive. */
  readonly holders?: boolean;
  /** Whether to read the addresses in network namespaces. */
  readonly addresses?: boolean;
}

/** The inode numbers of the initial namespaces, all of them since Linux 6.18, are between these. */
const INITIAL = { from: 0xefffff00, to: 0xf0000000 } as const;
const INITIAL_USER = 0xeffffffd;

const CHECK = object({
  types: listCheck(oneOf(...NAMESPACE_TYPES)),
  of: listCheck(text),
  orphans: flag,
  holders: flag,
  addresses: flag,
});

/** Reads what a list tells of processes. */
class ProcessFacts extends QuickFiles {
  #commands = new Map<number, string | null>();

  /** The bytes that a file begins with; null if it cannot be read. */
  #begin(path: string): Uint8Array | null {
    const n = this.read(path);
    return n < 0 ? null : this.buffer.bytes.subarray(0, n);
  }

  /** The name of a task. */
  comm(pid: number, tid = pid): string | null {
    const bytes = this.#begin(`/proc/${pid}/task/${tid}/comm`);
    return bytes && bytesText(bytes.subarray(0, Math.max(0, bytes.length - 1)));
  }

  /** The command line; of a kernel thread or zombie, its name in brackets. */
  command(pid: number): string | null {
    let command = this.#commands.get(pid);
    if (command === undefined) {
      const bytes = this.#begin(`/proc/${pid}/cmdline`);
      let end = bytes?.length ?? 0;
      while (end > 0 && bytes![end - 1] === 0) end--;
      if (end > 0) command = bytesText(bytes!.subarray(0, end).map((byte) => byte === 0 ? 32 : byte));
      else {
        const comm = this.comm(pid);
        command = comm === null ? null : `[${comm}]`;
      }
      this.#commands.set(pid, command);
    }
    return command;
  }

  /** The maps of the user namespace of a process. */
  maps(pid: number): ListedMaps | null {
    const [users, groups] = ["uid", "gid"].map((kind) => this.text(`/proc/${pid}/${kind}_map`));
    if (typeof users !== "string" || typeof groups !== "string") return null;
    return { users: parseMap(users), groups: parseMap(groups) };
  }
}

/** Whether /proc does not show the processes of other users. */
function hidesProcesses(): boolean {
  const mounts = orNull(() => parseMounts(readText(self, "/proc/self/mountinfo"))) ?? [];
  const hidden = mountOf(mounts, "/proc")?.superOptions.some((option) =>
    /^hidepid=(2|4|invisible|ptraceable)$/.test(option)
  );
  return hidden === true && !new QuickFiles().numbers("/proc").includes(1);
}

function identity(found: Found | null | undefined): NamespaceId | null {
  return found ? { inum: found.inum, id: found.id === null ? null : `${found.id}` } : null;
}

/**
 * Adds the namespaces that only the kernel's list has.
 *
 * @returns Whether all could be opened that have not ended.
 */
function addKnown({ ids, source }: KnownIds, namespaces: Namespaces, describer: Describer): boolean {
  let all = true;
  const seen = new Set([...namespaces.all].map(({ id }) => id));
  for (const { id, type, inum } of ids) {
    if (seen.has(id)) continue;
    if (source === "listns") {
      const fd = describer.openId(id);
      if (fd >= 0) describer.take(fd);
      else if (fd !== -E.ESTALE) all = false; // a filter, as docker's, or a lack of descriptors
    } else {
      const found = namespaces.get(type!, inum!);
      // A number may belong to one by now that is younger than the list.
      if (found.owner !== undefined && !found.refused) continue;
      found.owner = undefined;
      found.id = id;
      describer.describe(found);
    }
  }
  return all;
}

/** Finds the namespaces of the host, or those around the caller: of the first process, and its own. */
function ofHost(namespaces: Namespaces, tasks: TaskReader): ReadonlySet<Found> {
  const rows = [1, Deno.pid].map((pid) => tasks.namespacesOf(pid)).filter((row) => typeof row === "object");
  const found = new Set(rows.flatMap((row) => row ?? []));
  for (const one of namespaces.all) if (one.inum >= INITIAL.from && one.inum < INITIAL.to) found.add(one);
  return found;
}

/**
 * Whether a namespace has ended since it was found: nothing leads to it any more. Where the kernel has named all, it is one
 * of those and its id has become stale, or it was younger. Elsewhere a mount may only be hidden by another one.
 */
function hasEnded({ lost, names, holders }: Found, complete: boolean): boolean {
  return lost && (complete || names.length === 0 && !holders.some(({ kind }) => kind === "mount"));
}

/** Whether a namespace is the initial user namespace, which nothing owns. */
function isTop({ type, inum }: Found): boolean {
  return type === "user" && inum === INITIAL_USER;
}

/**
 * Lists namespaces.
 *
 * As root of the host, on Linux 6.18 and later, it lists all that exist. Otherwise it lists what the caller can see, and
 * counts what it could not look at.
 *
 * @example
 * ```ts
 * import { list } from "./mod.ts";
 * import { assert } from "@std/assert";
 *
 * const { namespaces } = await list({ types: ["net"], of: [`${Deno.pid}`] });
 * assert(namespaces.some(({ inum }) => `net:[${inum}]` === Deno.readLinkSync("/proc/self/ns/net")));
 * ```
 *
 * @param options Which ones, and what to tell of them.
 * @returns The list.
 * @throws {TypeError} If an option is not of its type.
 * @throws {PenneError} If one of `of` does not name a namespace that can be seen.
 */
export async function list(options?: ListOptions): Promise<Listing> {
  if (options !== undefined) CHECK(options, "options");
  const { types, of, orphans = false, holders = false, addresses = false } = options ?? {};
  const known = await listIds();
  let complete = known?.complete ?? false;
  const search = holders || !complete;
  const namespaces = new Namespaces();
  const describer = new Describer(namespaces, holders);
  const tasks = new TaskReader(namespaces, holders);
  const pids = tasks.readAll();
  const descriptors = new DescriptorReader(namespaces, describer);
  readMounts(namespaces, search);
  if (search) descriptors.readAll(pids);
  for (const found of [...namespaces.all]) describer.describe(found);
  if (known && !addKnown(known, namespaces, describer)) complete = false;
  nameKept(namespaces);
  const groups = new GroupNames();
  const host = ofHost(namespaces, tasks);
  for (const found of namespaces.all) if (!host.has(found)) groups.name(found);

  const wanted = of && new Set(of.flatMap((word) => select(word, namespaces, tasks, describer)));
  const chosen = [...namespaces.all].filter((found) =>
    !hasEnded(found, complete) && (!types || types.includes(found.type)) && (!wanted || wanted.has(found)) &&
    !(orphans && found.occupied)
  ).sort(byKind);
  const facts = new ProcessFacts();
  using addressReader = addresses ? new AddressReader(describer) : null;
  const withComm = (holder: Holder): Holder => {
    const comm = holder.pid === null ? null : facts.comm(holder.pid, holder.tid);
    return comm === null ? holder : { ...holder, comm };
  };
  return {
    namespaces: chosen.map((found): ListedNamespace => ({
      type: found.type,
      ...identity(found)!,
      owner: identity(found.owner),
      parent: identity(found.parent),
      creator: found.creator,
      processes: found.processes,
      threads: found.threads,
      pid: found.pid || null,
      command: found.pid ? facts.command(found.pid) : null,
      names: found.names,
      maps: found.type === "user" && found.processes ? facts.maps(found.pid) : null,
      ...holders && { holders: found.holders.map(withComm) },
      ...addressReader && found.type === "net" && { addresses: addressReader.read(found) },
    })),
    complete,
    source: known?.source ?? null,
    unseen: {
      processes: tasks.denied,
      descriptors: descriptors.denied,
      sockets: descriptors.refused,
      owners: [...namespaces.all].filter((one) => one.refused && !hasEnded(one, complete) && !isTop(one)).length,
      hidden: hidesProcesses(),
    },
  };
}
