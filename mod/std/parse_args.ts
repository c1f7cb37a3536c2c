// @std/cli/parse-args for hosts without JSR: the same code from npm, with types, which that package lacks.

// @ts-types="./parse_args.d.ts"
export { parseArgs } from "npm:deno-std@1.4.0/cli/parse_args.js";
