// Domain names as DNS writes them, RFC 1035 section 3.1, with pointers in a list as RFC 3397 has them; pure.

const LABEL_MAX = 63;
/** Greatest length of a name, with the bytes between its labels. */
const NAME_MAX = 255;
/** Offsets that a pointer can hold. */
const POINTER_MAX = 0x3fff;
const POINTER = 0xc0;

/** The labels of a name as bytes; null if it is not one. */
function labelsOf(name: string): Uint8Array[] | null {
  const labels = name.replace(/\.$/, "").split(".").map((label) => new TextEncoder().encode(label));
  const length = labels.reduce((sum, label) => sum + 1 + label.length, 1);
  return length <= NAME_MAX && labels.every((label) => label.length > 0 && label.length <= LABEL_MAX) ? labels : null;
}

/**
 * Encodes names one behind the other; those that DNS cannot have are left out.
 *
 * @example
 * ```ts
 * import { decodeNames, encodeNames } from "./names.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(encodeNames(["a.b", "a..b"], false), Uint8Array.of(1, 97, 1, 98, 0));
 * assertEquals(encodeNames(["a.b", "c.b"], true), Uint8Array.of(1, 97, 1, 98, 0, 1, 99, 0xc0, 2));
 * assertEquals(decodeNames(encodeNames(["eng.example", "example"], true)), ["eng.example", "example"]);
 * ```
 *
 * @param names The names.
 * @param compress Whether the end of a name may point to that of an earlier one.
 * @returns The bytes.
 */
export function encodeNames(names: readonly string[], compress: boolean): Uint8Array {
  const out: number[] = [];
  const known = new Map<string, number>();
  for (const name of names) {
    const labels = labelsOf(name);
    if (!labels) continue;
    let at = 0;
    let pointer: number | undefined;
    for (; at < labels.length; at++) {
      const rest = labels.slice(at).join(";");
      pointer = compress ? known.get(rest) : undefined;
      if (pointer !== undefined) break;
      if (out.length <= POINTER_MAX) known.set(rest, out.length);
      out.push(labels[at]!.length, ...labels[at]!);
    }
    if (pointer === undefined) out.push(0);
    else out.push(POINTER | pointer >> 8, pointer & 0xff);
  }
  return Uint8Array.from(out);
}

/**
 * Decodes names that stand one behind the other.
 *
 * @param bytes The bytes; what follows the first fault is left out.
 * @returns The names.
 */
export function decodeNames(bytes: Uint8Array): string[] {
  const names: string[] = [];
  for (let at = 0; at < bytes.length;) {
    const labels: string[] = [];
    let next = 0;
    let length = 0;
    for (let read = at;;) {
      const size = bytes[read];
      if (size === undefined) return names;
      if ((size & POINTER) === POINTER) {
        const target = (size & ~POINTER) << 8 | (bytes[read + 1] ?? 0);
        next ||= read + 2;
        // A pointer leads back, so that there is an end.
        if (target >= read || next > bytes.length) return names;
        read = target;
      } else if (size > LABEL_MAX || read + size >= bytes.length) return names;
      else {
        if (size === 0) {
          next ||= read + 1;
          break;
        }
        length += size + 1;
        if (length >= NAME_MAX) return names;
        labels.push(new TextDecoder().decode(bytes.subarray(read + 1, read + 1 + size)));
        read += size + 1;
      }
    }
    names.push(labels.join("."));
    at = next;
  }
  return names;
}
