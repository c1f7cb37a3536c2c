// Bytes that others chose as text: what is not UTF-8 is escaped, so that no byte is lost.

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Length of the valid sequence that begins at an index; 0 if there is none. */
function sequence(bytes: Uint8Array, at: number): number {
  for (let length = 1; length <= 4 && at + length <= bytes.length; length++) {
    try {
      strict.decode(bytes.subarray(at, at + length));
      return length;
    } catch {
      // Perhaps a longer one.
    }
  }
  return 0;
}

/**
 * Decodes UTF-8, and escapes each other byte as in `\xff`.
 *
 * @example
 * ```ts
 * import { bytesText } from "./bytes_text.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(bytesText(new Uint8Array([97, 0xff, 0xc3, 0xa9, 0xc3])), "a\\xffé\\xc3");
 * ```
 *
 * @param bytes The bytes.
 * @returns The text.
 */
export function bytesText(bytes: Uint8Array): string {
  try {
    return strict.decode(bytes);
  } catch {
    let text = "";
    for (let at = 0; at < bytes.length;) {
      const length = sequence(bytes, at);
      text += length
        ? strict.decode(bytes.subarray(at, at + length))
        : `\\x${bytes[at]!.toString(16).padStart(2, "0")}`;
      at += length || 1;
    }
    return text;
  }
}
