// Finds the word that a misspelt one was probably meant to be.

/** The least number of single-character edits that turn `a` into `b`; a swap of neighbours counts as one. */
function distance(a: string, b: string): number {
  const rows: number[][] = [];
  for (let i = 0; i <= a.length; i++) {
    const row: number[] = [];
    for (let j = 0; j <= b.length; j++) {
      if (i === 0 || j === 0) {
        row.push(i + j);
        continue;
      }
      const change = rows[i - 1]![j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      let best = Math.min(rows[i - 1]![j]! + 1, row[j - 1]! + 1, change);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        best = Math.min(best, rows[i - 2]![j - 2]! + 1);
      }
      row.push(best);
    }
    rows.push(row);
  }
  return rows[a.length]![b.length]!;
}

/** What unshare(1) and nsenter(1) call a value of an option here: the names of the option, and the value. */
function elsewhere(word: string): readonly [options: readonly string[], value: string] | null {
  const map = { "map-auto": "auto", "map-root-user": "root", "map-current-user": "self" }[word];
  if (map) return [["map"], map];
  const types = ["user", "mount", "pid", "ipc", "uts", "net", "cgroup", "time"];
  return types.includes(word) ? [["unshare", "type"], word === "mount" ? "mnt" : word] : null;
}

/**
 * Suggests a known word for one that was mistyped, or that another tool has.
 *
 * @example
 * ```ts
 * import { suggest } from "./suggest.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(suggest("hostnam", ["hostname", "map"]), ["did you mean hostname?"]);
 * assertEquals(suggest("zzz", ["hostname", "map"]), []);
 * assertEquals(suggest("map-auto", ["hostname", "map"], "--"), ["did you mean --map auto?"]);
 * ```
 *
 * @param word The word as typed.
 * @param known The words that exist.
 * @param prefix Shown before the suggestion, such as `--`.
 * @returns One hint, or none if no known word is close.
 */
export function suggest(word: string, known: readonly string[], prefix = ""): string[] {
  const [options, value] = elsewhere(word) ?? [[], ""];
  const option = options.find((name) => known.includes(name));
  if (option !== undefined) return [`did you mean ${prefix}${option} ${value}?`];
  const ranked = known.map((name) => ({
    name,
    far: name.startsWith(word) && word.length > 1 ? 0.5 : distance(word, name),
  }));
  ranked.sort((a, b) => a.far - b.far);
  const [best] = ranked;
  const near = best && best.name !== word && best.far <= Math.max(1, Math.floor(word.length / 3));
  return near ? [`did you mean ${prefix}${best.name}?`] : [];
}
