// Command lines whose options may stand behind other words.

import { allOptions, type CommandSpec } from "./table.ts";

/**
 * Puts options before all other words, so that `keep NAME --pid 7` is read as `keep --pid 7 NAME`.
 *
 * @example
 * ```ts
 * import { optionsFirst } from "./order.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const spec = {
 *   name: "keep", synopsis: "", summary: "", exitCodes: [], examples: [],
 *   groups: [{ title: "", options: [{ name: "pid", value: "PID", help: "" }] }],
 * };
 * assertEquals(optionsFirst(spec, ["name", "--pid", "7"]), ["--pid", "7", "name"]);
 * ```
 *
 * @param spec What the command accepts.
 * @param words The words, without `--` and what follows it.
 * @returns The same words.
 */
export function optionsFirst(spec: CommandSpec, words: readonly string[]): string[] {
  const takesValue = new Set(allOptions(spec).flatMap(({ name, value }) => value ? [`--${name}`] : []));
  const [options, others]: [string[], string[]] = [[], []];
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    if (!word.startsWith("-")) others.push(word);
    else {
      options.push(word);
      if (takesValue.has(word) && i + 1 < words.length) options.push(words[++i]!);
    }
  }
  return [...options, ...others];
}
