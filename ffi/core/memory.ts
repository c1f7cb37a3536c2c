// Strings and addresses in the form that the kernel takes.

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/**
 * A string as bytes with a NUL at the end.
 *
 * @example
 * ```ts
 * import { cString } from "./memory.ts";
 * import { assertEquals, assertThrows } from "@std/assert";
 *
 * assertEquals(cString("ab"), new Uint8Array([97, 98, 0]));
 * assertThrows(() => cString("a\0b"), TypeError);
 * ```
 *
 * @param text The string, or bytes (without the NUL) that need not be UTF-8.
 * @returns The bytes.
 * @throws {TypeError} If there is a NUL inside.
 */
export function cString(text: string | Uint8Array): Uint8Array {
  const bytes = typeof text === "string" ? encoder.encode(text) : text;
  if (bytes.includes(0)) throw new TypeError("Cannot pass a string with a NUL inside to the kernel");
  const result = new Uint8Array(bytes.length + 1);
  result.set(bytes);
  return result;
}

/**
 * The text of bytes, up to the first NUL.
 *
 * @example
 * ```ts
 * import { text } from "./memory.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(text(new Uint8Array([97, 98, 0, 99])), "ab");
 * ```
 *
 * @param bytes UTF-8; anything else becomes U+FFFD.
 * @returns The text.
 */
export function text(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return decoder.decode(end < 0 ? bytes : bytes.subarray(0, end));
}

const held: { memory: unknown } = { memory: undefined };

/**
 * Keeps memory referenced up to this call, for a syscall that was given nothing but its address.
 *
 * @param memory Views, or anything that refers to them.
 */
export function keepAlive(memory: unknown): void {
  held.memory = memory;
  held.memory = undefined;
}

/**
 * The address of the first byte of a view; 0 for an empty one.
 *
 * The memory stays where it is for as long as the view is referenced: Deno's typed arrays do not live on the moving heap.
 *
 * @param bytes The view; keep a reference to it while the address is in use.
 * @returns The address.
 */
export function address(bytes: Uint8Array): bigint {
  return Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes as Uint8Array<ArrayBuffer>));
}
