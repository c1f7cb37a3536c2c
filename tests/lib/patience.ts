// How much longer than usual tests wait before they give up, on a machine that is that much slower: PENNE_PATIENCE.

/** A factor for limits on time; in software emulation, tests are run with a large one. */
export const PATIENCE = Math.max(1, Number(Deno.env.get("PENNE_PATIENCE") ?? 1) || 1);
