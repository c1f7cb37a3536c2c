// Protects `using` declarations from the bundler.

/** A declaration, in one line or ending at its own indentation, and a comment behind it. */
const DECLARATION =
  /^(?<indentation> *)(?<text>using (?<name>\w+) = (?:.*[({[](?:\n(?:\1 .*)?)*\n\1[)}\]].*?|.*?(?:\n\1 .*)*?));(?<comment> \/\/.*)?$/gm;

/**
 * Rewrites `using` declarations so that the bundler keeps them.
 *
 * The minifier of `deno bundle` moves the initializer of a variable that is used once to that use, even if the variable
 * is declared by `using`: what it holds would never be disposed of. A second variable in the declaration prevents that.
 *
 * @example
 * ```ts
 * import { keepUsing } from "./using.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(keepUsing("  using fd = open();\n"), "  using fd = open(), fd$ = null;\n");
 * ```
 *
 * @param source Formatted TypeScript.
 * @returns The source with the additional variables.
 * @throws {Error} If a declaration has a form that is not recognized.
 */
export function keepUsing(source: string): string {
  const kept = source.replace(DECLARATION, "$<indentation>$<text>, $<name>$ = null;$<comment>");
  const expected = source.match(/^ *(?:await )?using \w/gm)?.length ?? 0;
  const count = kept.match(/, \w+\$ = null;/g)?.length ?? 0;
  if (count !== expected) throw new Error(`${expected - count} declarations by using are not recognized`);
  return kept;
}
