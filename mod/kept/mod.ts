// The types of kept sets, for any Deno program. The functions are in mod/command.

export type { DropOptions, Dropped } from "./discard.ts";
export type { WhichSet } from "./find.ts";
export type { InspectedNamespace, Inspection } from "./inspection.ts";
export type { Occupant } from "./occupied.ts";
export type { OpenKept } from "./open.ts";
export type { ProcessIdentity } from "./record/identity.ts";
export type { Base, KeptBy, KeptInfo, KeptNamespace, SparseInfo } from "./record/info.ts";
export type { LayoutName } from "./record/layout.ts";
export type { Verdict, Vote } from "./record/stale.ts";
export type { StaleOptions } from "./staleness.ts";
export type { KeepOptions } from "./reservation.ts";
