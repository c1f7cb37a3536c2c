// Kept sets, for any Deno program: what can be done with them. What keeps them is in mod/command/keep.ts.

export { drop, dropAll, type DropOptions, type Dropped } from "./discard.ts";
export type { WhichSet } from "./find.ts";
export { inspect, inspectAll, type InspectedNamespace, type Inspection } from "./inspection.ts";
export type { Occupant } from "./occupied.ts";
export { type OpenKept, openKept } from "./open.ts";
export type { ProcessIdentity } from "./record/identity.ts";
export type { Base, KeptBy, KeptInfo, KeptNamespace, SparseInfo } from "./record/info.ts";
export type { LayoutName } from "./record/layout.ts";
export type { Verdict, Vote } from "./record/stale.ts";
export type { StaleOptions } from "./staleness.ts";
export type { KeepOptions } from "./reservation.ts";
