// Programs that use the library, run by Deno as a user would.

import { ROOT, sh } from "./helpers.ts";

/**
 * Writes a program that imports `Command`, and does something with its command line.
 *
 * @param body The program, without that import.
 * @param permissions Flags of `deno run`.
 * @param use What to do; the program is removed afterwards.
 * @returns What `use` returns.
 */
export async function withProgram<T>(
  body: string,
  permissions: readonly string[],
  use: (argv: string[]) => Promise<T>,
): Promise<T> {
  const directory = await Deno.makeTempDir({ prefix: "penne-program-" });
  try {
    await Deno.writeTextFile(`${directory}/program.ts`, `import { Command } from "file://${ROOT}mod/mod.ts";\n${body}`);
    const words = ["run", "--quiet", "--no-check", "--no-lock", `--config=${ROOT}deno.json`, ...permissions];
    return await use([Deno.execPath(), ...words, `${directory}/program.ts`]);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/**
 * Runs a program that imports `Command` to its end.
 *
 * @param body The program, without that import.
 * @param permissions Flags of `deno run`; all permissions by default.
 * @returns Its exit code, and what it has written.
 */
export function program(body: string, ...permissions: readonly string[]): ReturnType<typeof sh> {
  return withProgram(body, permissions.length ? permissions : ["-A"], sh);
}
