// How an agent is given to another thread, and why one can no longer be used.

/** An agent as another thread of this process takes it over: its pid, and its descriptors by number. */
export interface AgentParts {
  /** Its pid as its parent sees it. */
  readonly pid: number;
  /** Number of its pidfd. */
  readonly pidfd: number;
  /** Number of our end of its socket. */
  readonly socket: number;
}

/** Why an agent can no longer be used: it has ended, has not answered in time, or has sent what no agent sends. */
export type GoneReason = "ended" | "late" | "malformed";

const REASONS = {
  ended: "The agent has ended",
  late: "The agent has not answered in time",
  malformed: "The agent has sent something that no agent sends",
} as const satisfies Record<GoneReason, string>;

/** The agent can no longer be used. */
export class AgentGoneError extends Error {
  /** Always "AgentGoneError". */
  override readonly name = "AgentGoneError";

  /** @param reason Why. */
  constructor(readonly reason: GoneReason = "ended") {
    super(REASONS[reason]);
  }
}
