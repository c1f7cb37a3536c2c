// Text for the standard streams.

/**
 * Writes text to a standard stream; that its reader may have gone is not our concern.
 *
 * @param stream Deno.stdout or Deno.stderr.
 * @param text The text.
 */
export function say(stream: { writeSync(bytes: Uint8Array): number }, text: string): void {
  const bytes = new TextEncoder().encode(text);
  try {
    for (let at = 0; at < bytes.length;) at += stream.writeSync(bytes.subarray(at));
  } catch {
    // Nobody reads it.
  }
}
