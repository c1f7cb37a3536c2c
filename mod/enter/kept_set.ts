// Opens kept sets for programs that enter one; loaded only then. No other module may have the name of this file: the
// bundler keeps modules that are loaded on demand apart by their file names.

export { openKept } from "../kept/open.ts";
