// The version of this program.

/** Version, as in deno.json. */
export const VERSION = "0.1.0";
