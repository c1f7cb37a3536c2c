// `penne ls`: lists namespaces.

import { toJson } from "../../base/visible.ts";
import { environment, variable } from "../../host/caller.ts";
import type { Listing } from "../../list/listing.ts";
import { list } from "../../list/mod.ts";
import { NAMESPACE_TYPES } from "../../namespaces/types.ts";
import { command } from "../common/command.ts";
import { print } from "../common/print.ts";
import { COLUMN_NAMES, type ColumnName, COLUMNS, DEFAULT_COLUMNS, holderLines, table } from "./columns.ts";
import { terminalWidth } from "./table.ts";
import { tree } from "./tree.ts";
import type { CommandSpec, ParsedOptions } from "../options/table.ts";
import { badValue, defined, wordsOption } from "../options/values.ts";
import { tellUnseen } from "./unseen.ts";

/** What `penne ls` accepts. */
export const SPEC = {
  name: "ls",
  synopsis: "[OPTIONS] [PID|NAME|PATH|INUM…]",
  summary:
    "List namespaces: all that can be found, or those of a process, of a name, of a file, or with an inode number. Those without a process are found by what holds them and, as root on Linux 6.18 and later, by their ids.",
  mixed: true,
  groups: [
    {
      title: "Selection",
      options: [
        { name: "type", short: "t", value: "LIST", help: `Types: ${NAMESPACE_TYPES.join(", ")} (default: all)` },
        { name: "orphans", help: "Only namespaces without a process or thread" },
      ],
    },
    {
      title: "Output",
      options: [
        { name: "holders", help: "Below each namespace, what keeps it alive" },
        { name: "tree", help: "User and PID namespaces below their parents, the others below their owners" },
        {
          name: "columns",
          short: "o",
          value: "LIST",
          help: `Columns, or +COLUMNS beside the default ones: ${
            COLUMN_NAMES.map((name) => `${name} (${COLUMNS[name].help})`).join(", ")
          }`,
        },
        { name: "json", help: "Print one JSON object" },
      ],
    },
  ],
  exitCodes: [
    ["0", "done, or the reader is gone"],
    ["1", "failure, or one of the arguments names no namespace that can be seen"],
    ["2", "usage error"],
  ],
  examples: [
    ["penne ls --type net -o +addresses", "network namespaces and their addresses"],
    ["penne ls --orphans --holders", "namespaces without a process, and what keeps them alive"],
    ["penne ls --tree $$", "the namespaces of the shell"],
  ],
} as const satisfies CommandSpec;

type Options = ParsedOptions<typeof SPEC>;

const FAILURE = 1;
/** What may hold a namespace without showing it. */
const UNSEEN_HOLDER = "nothing that can be seen, such as a descriptor on its way through a socket, or an open file";

/** `penne ls`. */
export const start = command(SPEC, main, FAILURE);

function columnsOf({ columns: value }: Options): readonly ColumnName[] {
  const more = value?.startsWith("+") ?? false;
  const columns = more ? value!.slice(1) : value;
  const wanted = wordsOption({ columns: columns?.toLowerCase() }, "columns", COLUMN_NAMES) ?? [];
  if (new Set(wanted).size < wanted.length) throw badValue("columns", value!, "a column is named twice");
  if (!more) return wanted.length ? wanted : DEFAULT_COLUMNS;
  // The command line, which is long, stays the last one.
  const rest = DEFAULT_COLUMNS.filter((name) => !wanted.includes(name));
  const last = rest.at(-1) === "command" && !wanted.includes("command") ? ["command" as const] : [];
  return [...rest.filter((name) => name !== "command" || !last.length), ...wanted, ...last];
}

/** Whether the terminal of the caller shows more than ASCII, locale(7). */
function hasUnicode(): boolean {
  const all = environment();
  const locale = ["LC_ALL", "LC_CTYPE", "LANG"].map((name) => variable(all, name)).find((value) => value) ?? "";
  return /utf-?8/i.test(locale);
}

function text(listing: Listing, options: Options): string {
  const { namespaces } = listing;
  const leaves = options.tree
    ? tree(namespaces, hasUnicode())
    : namespaces.map((namespace) => ({ prefix: "", namespace }));
  const lines = leaves.map((leaf) => {
    const holders = holderLines(leaf.namespace.holders ?? []);
    return { ...leaf, below: options.holders && holders.length === 0 ? [UNSEEN_HOLDER] : holders };
  });
  return table(lines, columnsOf(options), terminalWidth());
}

/** Prints the list; returns the exit code. */
async function main(options: Options): Promise<number> {
  const types = wordsOption(options, "type", NAMESPACE_TYPES);
  const columns = columnsOf(options);
  const of = [...options.operands, ...options.tail ?? []];
  const listing = await list(defined({
    types,
    of: of.length ? of : undefined,
    orphans: options.orphans,
    holders: options.holders,
    addresses: columns.includes("addresses"),
  }));
  print("write the list", options.json ? `${toJson(listing)}\n` : text(listing, options));
  tellUnseen(listing);
  return 0;
}
