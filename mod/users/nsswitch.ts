// Codec of nsswitch.conf(5): which services the C library asks; pure.

/**
 * Finds the services that a database is looked up in.
 *
 * @example
 * ```ts
 * import { servicesOf } from "./nsswitch.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const text = "# by hand\npasswd: files [SUCCESS=merge] sss\nsubid:sss\n";
 * assertEquals(servicesOf(text, "passwd"), ["files", "sss"]);
 * assertEquals(servicesOf(text, "subid"), ["sss"]);
 * assertEquals(servicesOf(text, "group"), ["files"]);
 * ```
 *
 * @param text The file; empty if there is none.
 * @param database The database, such as `passwd`.
 * @returns Names of services in order; `files` alone if the file has no line for the database.
 */
export function servicesOf(text: string, database: string): string[] {
  for (const line of text.split("\n")) {
    const [name, services] = line.replace(/#.*/, "").split(/:(.*)/s);
    if (services === undefined || name!.trim() !== database) continue;
    return services.replace(/\[[^\]]*\]/g, " ").split(/\s+/).filter(Boolean);
  }
  return ["files"];
}
