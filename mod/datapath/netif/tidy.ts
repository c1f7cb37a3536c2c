// What flows have left behind when they ended, of all namespaces together.

import { Garbage } from "../../reactor/garbage.ts";

/** Flows whose remains are worth a collection. */
const WORTH = 500;

/** The remains of flows. */
export const FLOW_GARBAGE: Garbage = new Garbage(WORTH);
