// Kept sets for a program that enters one: a module of its own, to be loaded only then.

export { openKept } from "../kept/open.ts";
