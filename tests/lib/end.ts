// Runs a command line to its end, at which it must arrive soon.

import { assert } from "@std/assert";
import { command } from "./helpers.ts";
import { PATIENCE } from "./patience.ts";

/** Milliseconds after which a command hangs; those that wait for an agent until its deadline say so. */
export const AT_ONCE = 60_000 * PATIENCE;

/** How a command ended. */
export interface End {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command line to its end, or until it says that it is ready; fails if it takes too long. */
export async function endOf(argv: string[], how = {}): Promise<End> {
  const child = command(argv, how, { stdin: "null", stdout: "piped", stderr: "piped" }).spawn();
  const late = setTimeout(() => child.kill("SIGKILL"), AT_ONCE);
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const errors = new Response(child.stderr).text();
  let stdout = "";
  for (let piece; !(piece = await reader.read()).done;) {
    stdout += piece.value;
    if (stdout === "ready\n") child.kill("SIGTERM");
  }
  const { code, signal } = await child.status;
  clearTimeout(late);
  assert(signal !== "SIGKILL", `${argv.join(" ")} hangs`);
  return { code, stdout, stderr: await errors };
}
