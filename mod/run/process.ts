// A running command, however it is looked after.

import type { Fd } from "../../ffi/core/fd.ts";
import type { SignalName } from "../../ffi/core/consts.ts";
import type { ServedPorts } from "../datapath/server/served_ports.ts";
import type { NamespaceId } from "../namespaces/id.ts";
import type { NamespaceType } from "../namespaces/types.ts";
import type { ExitStatus } from "./reports.ts";

/** What is done while the end of a command is waited for without the event loop. */
export interface SyncWait {
  /** Descriptors that are waited for too. */
  readonly fds: () => readonly Fd[];
  /** Called when something may be read there. */
  readonly look: () => void;
}

/** A command that runs in namespaces. */
export interface RunningCommand extends Disposable {
  /** Its pid as this process sees it. */
  readonly pid: number;
  /** The namespaces that were made for it. */
  readonly namespaces: Readonly<Partial<Record<NamespaceType, NamespaceId>>>;
  /** Resolves when it and its namespaces have ended; as by SIGKILL if an agent was killed. */
  readonly status: Promise<ExitStatus>;
  /** Sends it a signal, TERM by default; does nothing once it has ended. */
  kill(signal?: SignalName | number): void;
  /** Says whether this program is not to exit before `status` has resolved; it is not, by default. */
  keepProgram(keeps: boolean): void;
  /** Looks after it until it has ended, without the event loop; null if that takes the event loop. */
  readonly waitSync: ((also: SyncWait) => ExitStatus) | null;
  /** The ports of its network, if that is served. */
  readonly ports?: () => ServedPorts;
  /** Ends it with its kill signal, by force if that takes too long, then ends its namespaces; returns how it ended. */
  end(): ExitStatus;
}
