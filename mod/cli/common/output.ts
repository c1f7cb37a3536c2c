// Text for the standard streams.

/**
 * Writes text to a standard stream; that the reader is gone is not an error.
 *
 * @param stream Deno.stdout or Deno.stderr.
 * @param text The text.
 */
export function say(stream: { writeSync(bytes: Uint8Array): number }, text: string): void {
  const bytes = new TextEncoder().encode(text);
  try {
    for (let at = 0; at < bytes.length;) at += stream.writeSync(bytes.subarray(at));
  } catch {
    // There is no reader.
  }
}
