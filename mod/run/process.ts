// A running command, as the caller of the library sees it.

import type { SignalName } from "../../ffi/core/consts.ts";
import type { NamespaceId } from "../namespaces/id.ts";
import type { NamespaceType } from "../namespaces/types.ts";
import type { ExitStatus } from "./reports.ts";

/** A command that runs in its own namespaces. */
export interface ChildProcess extends Disposable {
  /** Its pid as this process sees it. */
  readonly pid: number;
  /** The namespaces that were made for it. */
  readonly namespaces: Readonly<Partial<Record<NamespaceType, NamespaceId>>>;
  /** Resolves when it and its namespaces have ended; as by SIGKILL if an agent was killed. */
  readonly status: Promise<ExitStatus>;
  /** Sends it a signal, TERM by default; does nothing once it has ended. */
  kill(signal?: SignalName | number): void;
  /** Ends it with its kill signal, by force if that takes too long, then ends its namespaces; returns how it ended. */
  end(): ExitStatus;
}
