// Finds the namespaces that words name: a PID, a name, a path, an inode number, an id.

import { E, errnoName, errnoText } from "../../ffi/core/errno.ts";
import { PenneError } from "../base/errors.ts";
import { isNamespaceType } from "../namespaces/types.ts";
import type { Describer } from "./describe.ts";
import type { Found, Namespaces } from "./found.ts";
import type { TaskReader } from "./tasks.ts";

/** The greatest PID; a greater number is an inode number. */
const PID_MAX = 2 ** 22;

function missing(word: string, reason: string, hints: readonly string[] = []): PenneError {
  return new PenneError(`find "${word}": ${reason}`, { hints });
}

function byPath(word: string, namespaces: Namespaces, describer: Describer): Found[] {
  const fd = describer.openFile(word);
  if (fd === -E.EINVAL) throw missing(word, "it is not a namespace");
  if (fd < 0) throw missing(word, `${errnoText(-fd)} (${errnoName(-fd)})`);
  const found = describer.take(fd);
  if (!found) throw missing(word, "it is a namespace of an unknown kind");
  return [namespaces.get(found.type, found.inum)];
}

/**
 * Finds the namespaces that a word names.
 *
 * @param word Digits are the PID of a process or, above 4194304, an inode number; `net:[4026532189]` is one too, and
 * `id:N` an id. A word with a slash is a path. Any other one is a name, which `KIND:` makes more precise.
 * @param namespaces What was found.
 * @param tasks Reads the namespaces of a process.
 * @param describer Opens files.
 * @returns The namespaces, at least one.
 * @throws {PenneError} If there is none.
 */
export function select(word: string, namespaces: Namespaces, tasks: TaskReader, describer: Describer): Found[] {
  const all = [...namespaces.all];
  if (/^\d+$/.test(word) && Number(word) <= PID_MAX) {
    const found = tasks.namespacesOf(Number(word));
    if (found === null) throw missing(word, "no process with this PID is visible here");
    if (found === "denied") {
      throw missing(word, "the namespaces of this process may not be read", ["root may read those of all processes"]);
    }
    return found;
  }
  const [, type, inside] = /^(?:([a-z]+):)?\[?(\d+)\]?$/.exec(word) ?? [];
  if (inside !== undefined && (type === undefined || type === "id" || isNamespaceType(type))) {
    const number = BigInt(inside);
    const found = all.filter((one) =>
      type === "id" ? one.id === number : BigInt(one.inum) === number && (type === undefined || one.type === type)
    );
    if (!found.length) throw missing(word, `no namespace with this ${type === "id" ? "id" : "number"} can be seen`);
    return found;
  }
  if (word.includes("/")) return byPath(word, namespaces, describer);
  const colon = word.indexOf(":");
  const [kind, rest] = [word.slice(0, Math.max(colon, 0)), word.slice(colon + 1)];
  const found = all.filter(({ names }) =>
    names.some((one) => one.name === word || colon > 0 && one.kind === kind && one.name === rest)
  );
  if (!found.length) {
    throw missing(word, "no namespace with this name can be seen", ["penne ls -o +names lists the names"]);
  }
  return found;
}
