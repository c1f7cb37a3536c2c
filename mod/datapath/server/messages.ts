// Lines of JSON in which bytes stay bytes.

/**
 * A message as a line.
 *
 * @example
 * ```ts
 * import { decodeMessage, encodeMessage } from "./messages.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const message = { id: 7, address: Uint8Array.of(10, 0, 0, 1), none: null };
 * assertEquals(decodeMessage(new TextDecoder().decode(encodeMessage(message))), message);
 * ```
 *
 * @param message What JSON can express, and Uint8Arrays.
 * @returns The line, with its end.
 */
export function encodeMessage(message: unknown): Uint8Array {
  const text = JSON.stringify(message, (_, value) => value instanceof Uint8Array ? { bytes: [...value] } : value);
  return new TextEncoder().encode(`${text}\n`);
}

/**
 * The message of a line.
 *
 * @param line The line.
 * @returns What was encoded.
 */
// deno-lint-ignore no-explicit-any -- whoever sends it knows
export function decodeMessage(line: string): any {
  return JSON.parse(line, (_, value) => Array.isArray(value?.bytes) ? Uint8Array.from(value.bytes) : value);
}
