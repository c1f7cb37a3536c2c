// The tables of docs/kernels.md that follow from the checks: what is not the same on all kernels, and what was checked.

import { fromFileUrl } from "../lib/paths.ts";
import { type Check, COMMANDS, type Outcome, outcomeOf, type Who } from "./check.ts";
import { CHECKS } from "./checks/all.ts";
import { KERNELS } from "./kernels.ts";

/** The document that has the tables. */
const DOCUMENT = fromFileUrl(new URL("../../docs/kernels.md", import.meta.url));
/** The lines around them. */
const [BEGIN, END] = ["<!-- from `deno task kernels --table` -->", "<!-- end of the tables -->"];

const VERSIONS = [...new Set(KERNELS.map(({ version }) => version))];

function everybody({ who }: Check): Who[] {
  return who ? [who] : ["root", "user"];
}

/** Whether an outcome is worth a place in the table. */
function isSpecial({ is = "works" }: Outcome): boolean {
  return is !== "works";
}

/** The rows of a table, for Markdown. */
function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`);
  return lines.join("\n");
}

/** What differs, with the words of each refusal below. */
function differences(): string {
  const words: string[] = [];
  const note = (outcome: Outcome) => {
    const [first] = (outcome.sees ?? []).filter((what) => typeof what === "string");
    if (!first) throw new Error("a refusal has no words");
    if (!words.includes(first)) words.push(first);
    return `refused (${words.indexOf(first) + 1})`;
  };
  const cell = (outcome: Outcome) =>
    outcome.is === "refused" ? note(outcome) : outcome.is === "falls back" ? outcome.to! : "works";
  const groups = new Map<
    string,
    { readonly cells: string[]; readonly command: string; readonly who: Who; titles: string[] }
  >();
  for (const check of CHECKS) {
    for (const who of everybody(check)) {
      const outcomes = VERSIONS.map((version) => outcomeOf(check, { version, architecture: "x86_64" }, who));
      if (!outcomes.some(isSpecial)) continue;
      const cells = outcomes.map(cell);
      const key = [check.command, who, ...cells].join("\n");
      if (!groups.has(key)) groups.set(key, { cells, command: check.command, who, titles: [] });
      groups.get(key)!.titles.push(check.title);
    }
  }
  const all = (command: string, who: Who) =>
    CHECKS.filter((check) => check.command === command && everybody(check).includes(who)).length;
  const rows = [...groups.values()].map(({ command, who, titles, cells }) => {
    const what = titles.length > 1 && titles.length === all(command, who) ? "everything" : titles.join("; ");
    return [command, what, who, ...cells];
  });
  const notes = words.map((text, i) => `${i + 1}. \`${text.replaceAll("`", "'").trim()}\``);
  return [table(["Command", "What", "Who", ...VERSIONS], rows), "", ...notes].join("\n");
}

/** How many checks there are. */
function counts(): string {
  const rows = COMMANDS.map((command) => {
    const checks = CHECKS.filter((check) => check.command === command);
    const by = (as: Who) => `${checks.filter((check) => everybody(check).includes(as)).length}`;
    return [command, by("root"), by("user")];
  });
  const sum = (column: number) => `${rows.reduce((total, row) => total + Number(row[column]), 0)}`;
  return table(["Command", "Checks as root", "as a user"], [...rows, ["all", sum(1), sum(2)]]);
}

/** The document as it has to be, formatted. */
export async function documentWithTables(): Promise<string> {
  const text = await Deno.readTextFile(DOCUMENT);
  const [begin, end] = [text.indexOf(BEGIN), text.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`${DOCUMENT} has no place for the tables`);
  const [head, tail] = [text.slice(0, begin), text.slice(end + END.length)];
  const whole = `${head}${BEGIN}\n\n${differences()}\n\n${counts()}\n\n${END}${tail}`;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["fmt", "--quiet", "--no-config", "--line-width", "120", "--ext", "md", "-"],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(whole));
  await writer.close();
  const { success, stdout } = await child.output();
  if (!success) throw new Error("deno fmt failed");
  return new TextDecoder().decode(stdout);
}

/** Writes the tables into the document. */
export async function updateDocument(): Promise<void> {
  await Deno.writeTextFile(DOCUMENT, await documentWithTables());
}
