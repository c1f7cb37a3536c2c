// The columns of `penne ls`: their names, what they show, and the table.

import { rangeText } from "../../idmap/ranges.ts";
import type { Holder, ListedName, ListedNamespace } from "../../list/listing.ts";
import { formatTable } from "./table.ts";

/** What a column without a value shows. */
const NONE = "-";

function text(value: string | number | null | undefined): string {
  return value === null || value === undefined || value === "" ? NONE : `${value}`;
}

/** A name as a word: of a path, the path itself. */
export function nameText({ kind, name }: ListedName): string {
  return kind === "path" ? name : `${kind}:${name}`;
}

function taskText({ pid, tid, comm }: Holder): string {
  return `${pid}${tid === undefined ? "" : `/${tid}`}${comm === undefined ? "" : ` (${comm})`}`;
}

function mountText(path: string, holders: readonly Holder[]): string {
  const [first] = holders;
  const where = first!.pid === null ? "" : `, in the mount namespace of process ${taskText(first!)}`;
  const more = holders.length - 1;
  return `mount ${path}${where}${more ? `, and ${more} other mount${more > 1 ? "s" : ""} of that path` : ""}`;
}

function holderText(holder: Holder): string {
  const { kind, fds, namespace } = holder;
  switch (kind) {
    case "children":
      return `children of ${taskText(holder)}`;
    case "descriptor":
    case "socket":
      return `${kind}${fds!.length > 1 ? "s" : ""} ${fds!.join(", ")} of process ${taskText(holder)}`;
    case "child":
    case "owned":
      return `${kind} ${namespace!.type}:[${namespace!.inum}]`;
    default:
      return `${kind} ${taskText(holder)}`;
  }
}

/**
 * Holders in words, a line each.
 *
 * @param holders The holders.
 * @returns The lines.
 */
export function holderLines(holders: readonly Holder[]): string[] {
  const mounts = Map.groupBy(holders.filter(({ kind }) => kind === "mount"), ({ path }) => path!);
  return [
    ...holders.filter(({ kind }) => kind !== "mount").map(holderText),
    ...Array.from(mounts, ([path, those]) => mountText(path, those)),
  ];
}

/** A column. */
interface Column {
  /** What it shows, in the help. */
  readonly help: string;
  /** Whether it is aligned to the right. */
  readonly right?: true;
  readonly show: (namespace: ListedNamespace) => string;
}

/** The columns by name. */
export const COLUMNS = {
  type: { help: "kind", show: ({ type }) => type },
  inum: { help: "inode number", right: true, show: ({ inum }) => `${inum}` },
  id: { help: "id, which is never reused", right: true, show: ({ id }) => text(id) },
  owner: { help: "user namespace that owns it", right: true, show: ({ owner }) => text(owner?.inum) },
  parent: { help: "user or pid namespace above it", right: true, show: ({ parent }) => text(parent?.inum) },
  uid: { help: "user that made it", right: true, show: ({ creator }) => text(creator) },
  procs: { help: "processes in it", right: true, show: ({ processes }) => `${processes}` },
  threads: {
    help: "threads in it whose process is in another one",
    right: true,
    show: ({ threads }) => `${threads}`,
  },
  pid: { help: "its first process", right: true, show: ({ pid }) => text(pid) },
  names: { help: "its names", show: ({ names }) => text(names.map(nameText).join(",")) },
  maps: {
    help: "ids of users that it maps, INSIDE:OUTSIDE:COUNT",
    show: ({ maps }) => text(maps?.users.map(rangeText).join(",")),
  },
  addresses: {
    help: "addresses in it, of a net namespace",
    show: ({ addresses }) =>
      text(addresses?.map(({ interface: name, address, prefix }) => `${name}=${address}/${prefix}`).join(",")),
  },
  command: { help: "command line of its first process", show: ({ command }) => text(command) },
} as const satisfies Record<string, Column>;

/** Name of a column. */
export type ColumnName = keyof typeof COLUMNS;

/** Names of all columns. */
export const COLUMN_NAMES = Object.keys(COLUMNS) as ColumnName[];
/** The columns that are shown by default. */
export const DEFAULT_COLUMNS: readonly ColumnName[] = ["type", "inum", "uid", "procs", "pid", "names", "command"];

/** A line of the table. */
export interface Line {
  /** What comes before the first column, in a tree. */
  readonly prefix: string;
  readonly namespace: ListedNamespace;
  /** Lines of their own below it. */
  readonly below: readonly string[];
}

/**
 * Formats a table.
 *
 * @param lines The lines.
 * @param names The columns.
 * @param room Columns of the terminal, in which each line must fit; null if there is no terminal.
 * @returns The text.
 */
export function table(lines: readonly Line[], names: readonly ColumnName[], room: number | null): string {
  const columns = names.map((name): Column => COLUMNS[name]);
  const rows = lines.map(({ prefix, namespace, below }) => ({
    cells: columns.map(({ show }, i) => `${i === 0 ? prefix : ""}${show(namespace)}`),
    below,
  }));
  return formatTable(names.map((name) => name.toUpperCase()), columns.map(({ right }) => right ?? false), rows, room);
}
