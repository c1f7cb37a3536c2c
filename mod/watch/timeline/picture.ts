// Draws a story as one HTML page, without a script and without anything from elsewhere; pure.
//
// Theory of operation. Each lane is a row whose track is as wide as the window times the zoom, and what is in it is placed
// in percent. So the zoom, a choice of radio buttons, is a matter of the style sheet alone; lanes are folded by <details>.
// Many lanes are folded in groups, each with a row that shows all their bars at once.

import { visible } from "../../base/visible.ts";
import type { DeathCause } from "../facts/watch_event.ts";
import { Axis } from "./axis.ts";
import type { Mark, NamespaceLane, ProcessLane, Story } from "./story.ts";
import { STYLE, ZOOMS } from "./style.ts";

/** More lanes than that are folded, in groups of so many. */
const GROUP = 50;
/** Bars of a row that stands for many. */
const BUCKETS = 200;

/** What let a namespace end, in words. */
const CAUSES: Readonly<Record<DeathCause, string>> = {
  exit: "its last task exited",
  left: "its last task left",
  unmounted: "its last mount was removed",
  child: "the last namespace below it ended",
  unknown: "let go by something unseen",
};
const SIGNS: Readonly<Record<Mark["kind"], string>> = {
  made: "▲",
  joined: "●",
  left: "○",
  named: "◆",
  unnamed: "◇",
  exec: "▸",
  failed: "✗",
};

/** A row of the picture. */
interface Row {
  readonly label: string;
  readonly depth: number;
  readonly style: string;
  readonly start: bigint | null;
  readonly end: bigint | null;
  readonly marks: readonly Mark[];
  readonly words: readonly string[];
}

function escape(text: string): string {
  return visible(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}

/** A duration in words, at most four digits long. */
export function durationText(nanoseconds: bigint): string {
  const seconds = Number(nanoseconds) / 1e9;
  if (seconds < 1) return `${Number((seconds * 1000).toPrecision(3))} ms`;
  if (seconds < 120) return `${Number(seconds.toPrecision(4))} s`;
  if (seconds < 7200) return `${Number((seconds / 60).toPrecision(3))} min`;
  return `${Number((seconds / 3600).toPrecision(3))} h`;
}

/** Draws. */
class Painter {
  readonly #story: Story;
  readonly #axis: Axis;

  constructor(story: Story) {
    this.#story = story;
    this.#axis = new Axis(story.from, story.to, timesOf(story));
  }

  #at(mono: bigint): string {
    return this.#axis.at(mono).toFixed(3);
  }

  #since(mono: bigint): string {
    return `+${durationText(mono - this.#story.from)}`;
  }

  #bar({ start, end, style }: Pick<Row, "start" | "end" | "style">): string {
    const [from, to] = [start === null ? 0 : this.#axis.at(start), end === null ? 100 : this.#axis.at(end)];
    const open = `${start === null ? " before" : ""}${end === null ? " after" : ""}`;
    return `<i class="bar ${style}${open}" style="left:${from.toFixed(3)}%;width:${(to - from).toFixed(3)}%"></i>`;
  }

  #row(row: Row): string {
    const { label, depth, start, end, marks, words } = row;
    const from = start === null ? 0 : this.#axis.at(start);
    const to = end === null ? 100 : this.#axis.at(end);
    // Words stand behind the bar, else before it, else on it.
    const place = to < 55
      ? `left:calc(${to.toFixed(3)}% + 1em)`
      : from > 55
      ? `right:calc(${(100 - from).toFixed(3)}% + 1em)`
      : `left:calc(${from.toFixed(3)}% + 1em)`;
    const signs = marks.map(({ mono, kind, text, type }) =>
      `<b class="${type ?? ""}" style="left:${this.#at(mono)}%" title="${escape(`${this.#since(mono)} ${text}`)}">${
        SIGNS[kind]
      }</b>`
    ).join("");
    const died = end === null ? "" : `<b style="left:${to.toFixed(3)}%" title="${this.#since(end)} end">✕</b>`;
    const text = escape(words.join(" · "));
    return `<div class="row"><span class="label" style="padding-left:${depth * 0.8 + 0.3}em" title="${escape(label)}">${
      escape(label)
    }</span><div class="track">${
      this.#bar(row)
    }${signs}${died}<span class="words" style="${place}" title="${text}">${text}</span></div></div>\n`;
  }

  namespace({ type, inum, maker, start, end, cause, marks }: NamespaceLane): Row {
    const joins = marks.filter(({ kind }) => kind === "joined");
    const words = [
      start === null ? "older than the recording" : `made by ${maker} at ${this.#since(start)}`,
      ...joins.slice(0, 3).map(({ mono, text }) => `${text} at ${this.#since(mono)}`),
      ...joins.length > 3 ? [`${joins.length - 3} more joins`] : [],
      ...marks.filter(({ kind }) => kind === "named" || kind === "unnamed").map(({ text }) => text),
      end === null ? "alive at the end" : `ended at ${this.#since(end)}: ${cause ? CAUSES[cause] : "unknown"}`,
    ];
    return { label: `${type} ${inum}`, depth: 0, style: type, start, end, marks, words };
  }

  process({ pid, names, start, end, ending, marks }: ProcessLane, depth: number): Row {
    const name = names.at(-1) ?? "?";
    const changes = marks.filter(({ kind }) => kind !== "exec").map(({ text }) => text);
    const words = [
      ...names.length > 1 ? [names.join(" → ")] : [],
      ...end === null ? [] : [`${ending} at ${this.#since(end)}`],
      ...changes.slice(0, 12),
      ...changes.length > 12 ? [`${changes.length - 12} more changes`] : [],
    ];
    return { label: `${pid} ${name}`, depth: Math.min(depth, 12), style: "process", start, end, marks, words };
  }

  /** Rows, folded in groups if there are many. */
  rows(title: string, rows: readonly Row[], open: boolean): string {
    if (rows.length === 0) return "";
    const inside = rows.length <= GROUP ? rows.map((row) => this.#row(row)).join("") : this.#groups(rows);
    return `<details${open ? " open" : ""}><summary>${escape(title)}</summary>\n${
      open ? "" : this.#overview(rows)
    }${inside}</details>\n`;
  }

  #groups(rows: readonly Row[]): string {
    let text = "";
    for (let i = 0; i < rows.length; i += GROUP) {
      const part = rows.slice(i, i + GROUP);
      const [first, last] = [part[0]!, part.at(-1)!];
      const title = `${i + 1}–${i + part.length}: ${first.label} to ${last.label}`;
      text += `<details class="group"><summary>${escape(title)}</summary>\n${
        part.map((row) => this.#row(row)).join("")
      }</details>\n${this.#overview(part)}`;
    }
    return text;
  }

  /** One row for many: the darker, the more of them live then. */
  #overview(rows: readonly Row[]): string {
    const counts = new Array<number>(BUCKETS + 1).fill(0);
    for (const { start, end } of rows) {
      const bucket = (mono: bigint) => Math.min(BUCKETS - 1, Math.floor(this.#axis.at(mono) / 100 * BUCKETS));
      counts[start === null ? 0 : bucket(start)]!++;
      counts[(end === null ? BUCKETS - 1 : bucket(end)) + 1]!--;
    }
    let [alive, most] = [0, 0];
    const heights = counts.slice(0, BUCKETS).map((change) => (most = Math.max(most, alive += change), alive));
    const bars = heights.map((height, i) =>
      height === 0
        ? ""
        : `<i class="bar many" style="left:${i / BUCKETS * 100}%;width:${100 / BUCKETS}%;opacity:${
          (0.15 + 0.85 * height / most).toFixed(2)
        }"></i>`
    ).join("");
    const label = `${rows.length} lanes, at most ${most} at once`;
    return `<div class="row overview"><span class="label">${label}</span><div class="track">${bars}</div></div>\n`;
  }

  axis(): string {
    const ticks = Array.from({ length: 10 }, (_, i) => {
      const mono = this.#axis.timeAt(i * 10);
      return `<span class="tick" style="left:${i * 10}%">${this.#since(mono)}</span>`;
    });
    const pauses = this.#axis.pauses.map(({ from, to }) => {
      const left = this.#axis.at(from);
      const text = `nothing happens for ${durationText(to - from)}`;
      return `<i class="pause" style="left:${left.toFixed(3)}%;width:${
        (this.#axis.at(to) - left).toFixed(3)
      }%" title="${text}"></i>`;
    });
    return `<div class="row axis"><span class="label">time</span><div class="track">${ticks.join("")}${
      pauses.join("")
    }</div></div>\n`;
  }

  notes(): string {
    return this.#story.notes.map(({ mono, text }) =>
      this.#row({ label: "note", depth: 0, style: "note", start: mono, end: null, marks: [], words: [text] })
    ).join("");
  }
}

function* timesOf({ roots, namespaces, notes }: Story): Generator<bigint> {
  for (const { start, end, marks } of [...namespaces, ...flat(roots).map(({ lane }) => lane)]) {
    if (start !== null) yield start;
    if (end !== null) yield end;
    for (const { mono } of marks) yield mono;
  }
  for (const { mono } of notes) yield mono;
}

/** Processes, each after its parent. */
function flat(roots: readonly ProcessLane[]): { readonly lane: ProcessLane; readonly depth: number }[] {
  const all: { lane: ProcessLane; depth: number }[] = [];
  const waiting = roots.toReversed().map((lane) => ({ lane, depth: 0 }));
  for (let next; (next = waiting.pop());) {
    all.push(next);
    const depth = next.depth + 1;
    for (const lane of next.lane.children.toReversed()) waiting.push({ lane, depth });
  }
  return all;
}

/** What a page says beside the picture. */
export interface PageInfo {
  readonly title: string;
  /** When the recording began, as text. */
  readonly time: string;
}

/**
 * Draws a story.
 *
 * @param story The story.
 * @param info What else the page says.
 * @returns The page.
 */
export function draw(story: Story, { title, time }: PageInfo): string {
  const painter = new Painter(story);
  const namespaces = story.namespaces.toSorted((a, b) => compare(a.start ?? 0n, b.start ?? 0n));
  const processes = flat(story.roots);
  const types = Map.groupBy(namespaces, ({ type }) => type);
  const sections = namespaces.length <= GROUP
    ? painter.rows("Namespaces", namespaces.map((lane) => painter.namespace(lane)), true)
    : [...types].map(([type, lanes]) =>
      painter.rows(`Namespaces: ${type}`, lanes.map((lane) => painter.namespace(lane)), lanes.length <= GROUP / 2)
    ).join("");
  const rows = processes.map(({ lane, depth }) => painter.process(lane, depth));
  const zooms = ZOOMS.map((zoom, i) =>
    `<label><input type="radio" name="zoom" id="z${zoom}"${i === 0 ? " checked" : ""}> ${zoom}×</label>`
  ).join(" ");
  const born = namespaces.filter(({ start }) => start !== null).length;
  const ended = namespaces.filter(({ end }) => end !== null).length;
  const span = durationText(story.to - story.from);
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<h1>${escape(title)}</h1>
<p>${escape(time)}, ${span}: ${born} namespaces made, ${ended} ended; ${processes.length} processes.
▲ makes ● joins ○ leaves ◆ named ◇ name gone ▸ executes ✗ fails ✕ ends; hatched: nothing happens</p>
<p class="keys">${[...types.keys()].map((type) => `<span class="key ${type}">${type}</span>`).join(" ")}</p>
<fieldset><legend>Zoom</legend>${zooms}</fieldset>
<div class="lanes">
${painter.axis()}${painter.notes()}${sections}${painter.rows("Processes", rows, true)}</div>
</body>
</html>
`;
}

function compare(a: bigint, b: bigint): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
