// Finds the namespaces that are mounted on files, in every mount namespace with a process.

import { AT_FDCWD, O } from "../../ffi/core/consts.ts";
import { Block, quick } from "../../ffi/core/quick.ts";
import { NR } from "../../ffi/core/syscalls.ts";
import { readLink } from "../../ffi/sys/file.ts";
import { self } from "../../ffi/core/task.ts";
import { isNamespaceType } from "../namespaces/types.ts";
import { bytesText } from "./bytes_text.ts";
import type { Namespaces } from "./found.ts";
import { nameOfPath } from "./names.ts";

/** Bytes that are read at a time. */
const PIECE = 65536;
const NEWLINE = 10;
const MARK = new TextEncoder().encode(" - nsfs ");
const BLANK = 32;

/** Whether a line contains the mark of a mounted namespace. */
function isNamespace(line: Uint8Array): boolean {
  // The type of the file system follows the first " - " of a line, and comes near its end.
  for (let i = line.length - MARK.length; i > 0; i--) {
    if (line[i] === BLANK && line[i + 1] === MARK[1] && line[i + 2] === BLANK) {
      return MARK.every((byte, k) => line[i + k] === byte);
    }
  }
  return false;
}

/** Undoes the escapes of a field of mountinfo, such as `\040`, byte for byte. */
function unescaped(field: Uint8Array): Uint8Array {
  const found: number[] = [];
  for (let i = 0; i < field.length; i++) {
    const octal = field[i] === 92 ? /^[0-7]{3}$/.exec(String.fromCharCode(...field.subarray(i + 1, i + 4)))?.[0] : null;
    found.push(octal ? parseInt(octal, 8) : field[i]!);
    if (octal) i += 3;
  }
  return Uint8Array.from(found);
}

/** A mounted namespace. */
interface Mounted {
  readonly type: string;
  readonly inum: number;
  readonly path: Uint8Array;
}

function parse(line: Uint8Array): Mounted | null {
  const fields: Uint8Array[] = [];
  for (let at = 0; fields.length < 5;) {
    const end = line.indexOf(BLANK, at);
    if (end < 0) return null;
    fields.push(line.subarray(at, end));
    at = end + 1;
  }
  const [, type, inum] = /^([a-z]+):\[(\d+)\]$/.exec(new TextDecoder().decode(fields[3])) ?? [];
  return type === undefined ? null : { type, inum: Number(inum), path: unescaped(fields[4]!) };
}

/**
 * Reads the mounted namespaces of a mountinfo file.
 *
 * @param file The file's content.
 * @returns The mounts.
 */
export function mountedIn(file: Uint8Array): Mounted[] {
  const mounted: Mounted[] = [];
  for (let at = 0; at < file.length;) {
    let end = file.indexOf(NEWLINE, at);
    if (end < 0) end = file.length;
    const line = file.subarray(at, end);
    at = end + 1;
    if (isNamespace(line)) mounted.push(...[parse(line)].filter((one) => one !== null));
  }
  return mounted;
}

/** Reads files of any length into memory that is used again. */
class Reader {
  #path = new Block(64);
  #block = new Block(PIECE);

  read(path: string): Uint8Array {
    this.#path.bytes.set(new TextEncoder().encode(`${path}\0`));
    const fd = quick(NR.openat, AT_FDCWD, this.#path.at, O.RDONLY | O.CLOEXEC, 0, 0, 0);
    const pieces: Uint8Array[] = [];
    if (fd < 0) return new Uint8Array();
    for (let n; (n = quick(NR.read, fd, this.#block.at, PIECE, 0, 0, 0)) > 0;) {
      pieces.push(this.#block.bytes.slice(0, n));
    }
    quick(NR.close, fd, 0, 0, 0, 0, 0);
    if (pieces.length === 1) return pieces[0]!;
    const all = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const piece of pieces) {
      all.set(piece, at);
      at += piece.length;
    }
    return all;
  }
}

/**
 * Notes the mounted namespaces: their names, if they are mounted where the caller sees them.
 *
 * @param namespaces Where to note them.
 * @param everywhere Whether to look in other mount namespaces too, and to note each mount as a holder.
 */
export function readMounts(namespaces: Namespaces, everywhere: boolean): void {
  const reader = new Reader();
  const own = Number(/\d+/.exec(readLink(self, "/proc/self/ns/mnt"))?.[0] ?? 0);
  const places = [{ inum: own, pid: Deno.pid }];
  if (everywhere) {
    for (const { type, inum, pid } of namespaces.all) {
      if (type === "mnt" && pid !== 0 && inum !== own) places.push({ inum, pid });
    }
  }
  for (const { inum: place, pid } of places) {
    const here = place === own;
    for (const { type, inum, path } of mountedIn(reader.read(`/proc/${here ? "self" : pid}/mountinfo`))) {
      if (!isNamespaceType(type)) continue;
      const found = namespaces.get(type, inum);
      const shown = bytesText(path);
      if (here) {
        found.addName(nameOfPath(shown));
        if (!shown.includes("\\x")) found.path ??= shown;
      }
      if (everywhere) found.holders.push({ kind: "mount", pid: here ? null : pid, path: shown });
    }
  }
}
