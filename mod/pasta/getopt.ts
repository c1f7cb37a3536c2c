// Reads a command line as getopt_long(3) of the GNU C library does in POSIX order; pure.
//
// The clients of pasta, and people's habits, rely on what that function accepts: abbreviated long options, `--name=value`
// and `--name value`, `-tvalue` and `-t value`, clusters such as `-fq`, and a command whose own options are left alone. Its
// messages are matched by programs, so they are the same here, word for word.

/** An option. Names that stand for the same thing have the same key. */
export interface LongOption<Key extends string = string> {
  /** What the option is called in the program. */
  readonly key: Key;
  /** Its long name, without dashes. */
  readonly name?: string;
  /** Its letter. */
  readonly short?: string;
  /** Whether a value follows. */
  readonly value: boolean;
}

/** An option as it was given. */
export interface GivenOption<Key extends string = string> {
  /** Which one. */
  readonly key: Key;
  /** Its value; null if it has none. */
  readonly value: string | null;
}

/** A command line that getopt_long(3) refuses; the message has no program name in front. */
export class GetoptError extends Error {
  override readonly name = "GetoptError";
}

/** Finds a long option by its name or a part of it that no other one begins with. */
function findLong<Key extends string>(word: string, options: readonly LongOption<Key>[]): LongOption<Key> {
  const equals = word.indexOf("=");
  const name = equals < 0 ? word : word.slice(0, equals);
  const exact = options.find((option) => option.name === name);
  if (exact) return exact;
  const begun = options.filter((option) => option.name?.startsWith(name));
  const [first] = begun;
  if (!first) throw new GetoptError(`unrecognized option '--${word}'`);
  // Several names of one option are as good as one.
  if (begun.some(({ key, value }) => key !== first.key || value !== first.value)) {
    const names = begun.map((option) => ` '--${option.name}'`).join("");
    throw new GetoptError(`option '--${word}' is ambiguous; possibilities:${names}`);
  }
  return first;
}

/**
 * Reads options one after the other, so that what the first ones ask for happens even where a later one is wrong.
 *
 * @example
 * ```ts
 * import { getopt } from "./getopt.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const table = [
 *   { key: "mtu", name: "mtu", short: "m", value: true },
 *   { key: "quiet", name: "quiet", short: "q", value: false },
 * ];
 * const reader = getopt(["-qm1500", "--qui", "true", "-q"], table);
 * assertEquals([...reader].map(({ key, value }) => [key, value]), [["quiet", null], ["mtu", "1500"], ["quiet", null]]);
 *
 * const again = getopt(["-q", "true", "-q"], table);
 * again.next();
 * assertEquals(again.next(), { done: true, value: ["true", "-q"] }); // what is not an option
 * ```
 *
 * @param args The arguments, without the program's name.
 * @param options The options that there are.
 * @returns A generator of the options; its return value are the words after them.
 * @throws {GetoptError} From the generator, at the first word that is not accepted.
 */
export function* getopt<Key extends string>(
  args: readonly string[],
  options: readonly LongOption<Key>[],
): Generator<GivenOption<Key>, readonly string[]> {
  let at = 0;
  while (at < args.length) {
    const word = args[at]!;
    if (word === "--") return args.slice(at + 1);
    if (!word.startsWith("-") || word === "-") break;
    at++;
    if (word.startsWith("--")) {
      const { key, name, value } = findLong(word.slice(2), options);
      const equals = word.indexOf("=");
      if (!value) {
        if (equals >= 0) throw new GetoptError(`option '--${name}' doesn't allow an argument`);
        yield { key, value: null };
      } else if (equals >= 0) {
        yield { key, value: word.slice(equals + 1) };
      } else {
        if (at === args.length) throw new GetoptError(`option '--${name}' requires an argument`);
        yield { key, value: args[at++]! };
      }
      continue;
    }
    for (let letter = 1; letter < word.length; letter++) {
      const option = options.find(({ short }) => short === word[letter]);
      if (!option) throw new GetoptError(`invalid option -- '${word[letter]}'`);
      if (!option.value) {
        yield { key: option.key, value: null };
        continue;
      }
      const rest = word.slice(letter + 1);
      if (!rest && at === args.length) throw new GetoptError(`option requires an argument -- '${word[letter]}'`);
      yield { key: option.key, value: rest || args[at++]! };
      break;
    }
  }
  return args.slice(at);
}
