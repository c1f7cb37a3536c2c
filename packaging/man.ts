// Writes the manual pages: dist/man/penne.1 and one page for each command, from the option tables and docs/man/*.md.
//
//   deno task man [DIRECTORY]
//
// A page is its prose file with the parts that a table knows put in: SYNOPSIS after NAME, and the options, exit codes
// and examples at the end of OPTIONS, EXIT STATUS and EXAMPLES. The prose files use a small part of Markdown:
//
//   # NAME - SUMMARY     the first line
//   ## SECTION           ### SUBSECTION
//   - TEXT               an item; "- `TERM`: TEXT" and "- **TERM**: TEXT" are a tagged paragraph
//   ```                  around text that is not filled
//   `literal`  **bold**  _italic_
//
// The date in the footer is SOURCE_DATE_EPOCH, or today.

import { SPEC as ATTACH } from "../mod/cli/attach.ts";
import { SPEC as COMPLETIONS } from "../mod/cli/completion/completions.ts";
import { SPEC as DOCTOR } from "../mod/cli/doctor/doctor.ts";
import { SPEC as DROP } from "../mod/cli/drop.ts";
import { SPEC as ENTER } from "../mod/cli/enter.ts";
import { SPEC as FLOWS } from "../mod/cli/listing/flows.ts";
import { SPEC as INSPECT } from "../mod/cli/inspect.ts";
import { SPEC as KEEP } from "../mod/cli/keep.ts";
import { SPEC as LS } from "../mod/cli/listing/ls.ts";
import { SPEC as NSEXEC } from "../mod/cli/nsexec.ts";
import { SPEC as PASTA } from "../mod/cli/pasta/spec.ts";
import { SPEC as PESTO } from "../mod/cli/pesto/spec.ts";
import { SPEC as PORTS } from "../mod/cli/ports.ts";
import { SPEC as RUN } from "../mod/cli/run.ts";
import { SPEC as WAIT } from "../mod/cli/wait.ts";
import { SPEC as TIMELINE } from "../mod/cli/watch/timeline.ts";
import { SPEC as WATCH } from "../mod/cli/watch/watch.ts";
import { VERSION } from "../mod/base/version.ts";
import { type CommandSpec, COMMON_OPTIONS, type OptionSpec } from "../mod/cli/options/table.ts";

/** The commands that have a page; penne(1) has no table of its own. */
export const SPECS: readonly CommandSpec[] = [
  RUN,
  ENTER,
  ATTACH,
  PORTS,
  FLOWS,
  WAIT,
  LS,
  WATCH,
  TIMELINE,
  KEEP,
  INSPECT,
  DROP,
  DOCTOR,
  NSEXEC,
  PASTA,
  PESTO,
  COMPLETIONS,
];

/** What stands in the frame of a page. */
export interface PageInfo {
  /** Version of the program. */
  readonly version: string;
  /** Date, as `2026-01-31`. */
  readonly date: string;
}

/** Characters that roff(7) would read or print as something else. */
const SPECIAL: Readonly<Record<string, string>> = {
  "\\": "\\e",
  "…": "...",
  "—": "\\(em",
  "–": "\\(en",
  "×": "\\(mu",
  "→": "\\(->",
  "≥": "\\(>=",
  "≤": "\\(<=",
};

/** The same for text that is to be typed or compared, where no character may be beautified. */
const LITERAL: Readonly<Record<string, string>> = {
  ...SPECIAL,
  "-": "\\-",
  "'": "\\(aq",
  "`": "\\(ga",
  "^": "\\(ha",
  "~": "\\(ti",
};

function escaped(text: string, table: Readonly<Record<string, string>>): string {
  return Array.from(text, (character) => table[character] ?? character).join("");
}

const plain = (text: string) => escaped(text, SPECIAL);
const literal = (text: string) => escaped(text, LITERAL);
const bold = (text: string) => `\\fB${text}\\fR`;
const italic = (text: string) => `\\fI${text}\\fR`;

/** An input line cannot begin with a control character. */
function guarded(line: string): string {
  return /^[.']/.test(line) ? `\\&${line}` : line;
}

/** The fonts of one paragraph. */
function inline(text: string): string {
  const marks = /`([^`]+)`|\*\*([^*]+)\*\*|(?<![\w/])_([^_]+)_(?!\w)|\[([^\]]+)\]\(([^)]+)\)/g;
  let result = "";
  let end = 0;
  for (const match of text.matchAll(marks)) {
    const [all, code, strong, emphasis, link] = match;
    result += plain(text.slice(end, match.index));
    if (code !== undefined) result += bold(literal(code));
    else if (strong !== undefined) result += bold(literal(strong));
    else if (emphasis !== undefined) result += italic(plain(emphasis));
    else result += plain(link!);
    end = match.index + all.length;
  }
  return result + plain(text.slice(end));
}

/** Breaks a paragraph: a line for each sentence, none too long. */
function filled(text: string): string[] {
  const lines: string[] = [];
  for (const sentence of inline(text).split(/(?<=[.:;?!]\)?) (?=\S)/)) {
    let line = "";
    for (const word of sentence.split(" ")) {
      if (line && line.length + 1 + word.length > 78) {
        lines.push(line);
        line = word;
      } else line = line ? `${line} ${word}` : word;
    }
    lines.push(line);
  }
  return lines.map(guarded);
}

function tagged(tag: string, text: string): string[] {
  return [".TP", guarded(tag), ...filled(text)];
}

/** The body of a section, from Markdown. */
function body(lines: readonly string[]): string[] {
  const out: string[] = [];
  let paragraph: string[] = [];
  let list = false;
  const heading = () => out.length === 0 || out.at(-1)!.startsWith(".SS");
  const flush = () => {
    if (!paragraph.length) return;
    const text = paragraph.join(" ");
    paragraph = [];
    if (!text.startsWith("- ")) {
      if (!heading()) out.push(".PP");
      out.push(...filled(text));
      list = false;
      return;
    }
    list = true;
    const item = text.slice(2);
    const term = /^((?:(?:`[^`]+`|\*\*[^*]+\*\*)(?:, )?)+): (.*)$/.exec(item);
    if (term) out.push(...tagged(inline(term[1]!), term[2]!));
    else out.push(".IP \\(bu 2", ...filled(item));
  };
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i]!;
    if (line.trimStart().startsWith("```")) {
      flush();
      const indent = line.length - line.trimStart().length;
      out.push(...list && indent ? [".IP"] : heading() ? [] : [".PP"], ".RS 4", ".EX");
      for (i++; !lines[i]!.trimStart().startsWith("```"); i++) {
        out.push(guarded(literal(lines[i]!.slice(indent))));
      }
      out.push(".EE", ".RE");
    } else if (line.startsWith("### ")) {
      flush();
      out.push(`.SS ${inline(line.slice(4))}`);
    } else if (line.trim() === "") flush();
    else {
      if (line.startsWith("- ")) flush();
      paragraph.push(line.trim());
    }
  }
  flush();
  return out;
}

function capital(text: string): string {
  return text.startsWith("penne ") ? text : text.charAt(0).toUpperCase() + text.slice(1);
}

/** A text of a table as a sentence. */
function sentence(text: string): string {
  return capital(text.endsWith(".") ? text : `${text}.`);
}

function optionParagraph({ name, short, value, optional, help, repeat }: OptionSpec): string[] {
  const names = [...short ? [`-${short}`] : [], `--${name}`].map((text) => bold(literal(text))).join(", ");
  const shown = value && italic(literal(value));
  const tag = !shown ? names : optional ? `${names}[=${shown}]` : `${names} ${shown}`;
  return tagged(tag, repeat ? `${sentence(help!)} This option may be repeated.` : sentence(help!));
}

function options(groups: CommandSpec["groups"]): string[] {
  return groups.flatMap(({ title, options }) => [
    `.SS ${inline(title)}`,
    ...options.filter(({ help }) => help !== null).flatMap(optionParagraph),
  ]);
}

/** A code such as `128+N`, of which only the letter is a variable. */
function exitCode(code: string): string {
  return code.split(/(?<=\+)(?=N)/).map((part) => part === "N" ? italic(part) : bold(literal(part))).join("");
}

/** What a table knows of a section. */
function generated(section: string, spec: CommandSpec | null): string[] {
  switch (section) {
    case "OPTIONS":
      return options([
        ...spec?.groups ?? [],
        ...spec?.common === false ? [] : [{ title: "Common options", options: COMMON_OPTIONS }],
      ]);
    case "EXIT STATUS":
      return (spec?.exitCodes ?? []).flatMap(([code, meaning]) => tagged(exitCode(code), sentence(meaning)));
    case "EXAMPLES":
      return (spec?.examples ?? []).flatMap(([line, what]) => [
        ".PP",
        ...filled(`${capital(what)}:`),
        ".PP",
        ".RS 4",
        ".EX",
        literal(line),
        ".EE",
        ".RE",
      ]);
    default:
      return [];
  }
}

/** Cuts a prose file at its headings. */
function sections(prose: string): Map<string, string[]> {
  const found = new Map<string, string[]>();
  let lines: string[] = [];
  for (const line of prose.split("\n")) {
    if (/^## /.test(line)) found.set(line.slice(3), lines = []);
    else lines.push(line);
  }
  return found;
}

/**
 * One manual page.
 *
 * @param prose The prose file.
 * @param spec The table of the command; null for penne(1).
 * @param info Version and date.
 * @returns The source for man(7).
 */
export function manPage(prose: string, spec: CommandSpec | null, info: PageInfo): string {
  const title = /^# (\S+) - (.+)\n/.exec(prose);
  if (!title) throw new Error('a prose file begins with "# NAME - SUMMARY"');
  const [, name, summary] = title;
  const words = spec ? ["penne", spec.name] : ["penne"];
  const synopsis = spec?.synopsis ?? "COMMAND [OPTIONS] [ARGUMENT…]";
  const out = [
    '.\\" Made by packaging/man.ts; edit docs/man and the option tables instead.',
    `.TH ${name!.toUpperCase()} 1 ${info.date} "penne ${info.version}" "User Commands"`,
    ".SH NAME",
    `${literal(name!)} \\- ${inline(summary!)}`,
    ".SH SYNOPSIS",
    ...filled(`**${words.join(" ")}** ${synopsis}`),
  ];
  for (const [section, lines] of sections(prose)) {
    const text = [...body(lines), ...generated(section, spec)];
    if (text[0] === ".PP") text.shift();
    out.push(`.SH ${section}`, ...text);
  }
  return `${out.join("\n")}\n`;
}

/**
 * All pages.
 *
 * @param info Version and date.
 * @returns File names, such as `penne-run.1`, and contents.
 */
export function manPages(info: PageInfo): Map<string, string> {
  const prose = (name: string) => Deno.readTextFileSync(new URL(`../docs/man/${name}.md`, import.meta.url));
  return new Map([
    ["penne.1", manPage(prose("penne"), null, info)],
    ...SPECS.map((spec) => [`penne-${spec.name}.1`, manPage(prose(spec.name), spec, info)] as const),
  ]);
}

if (import.meta.main) {
  const epoch = Deno.env.get("SOURCE_DATE_EPOCH");
  const date = new Date(epoch === undefined ? Date.now() : Number(epoch) * 1000).toISOString().slice(0, 10);
  const directory = Deno.args[0] ?? new URL("../dist/man", import.meta.url).pathname;
  Deno.mkdirSync(directory, { recursive: true });
  for (const [name, page] of manPages({ version: VERSION, date })) Deno.writeTextFileSync(`${directory}/${name}`, page);
  console.error(`man: ${SPECS.length + 1} pages in ${directory}`);
}
