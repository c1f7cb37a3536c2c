// Which namespaces can have ports, and what has to be held there; pure.

import { usage } from "../base/errors.ts";
import { type Hold, holdFor } from "../forward/ports.ts";
import type { PortRequest } from "../forward/request.ts";
import type { Target } from "../netns/target.ts";

/** How those who ask call what they ask for. */
export interface PortWords {
  /** Ports that follow listeners. */
  readonly auto: string;
  /** Ports inside. */
  readonly outward: string;
  /** What has loopback arrive on loopback. */
  readonly loopback: string;
  /** What lets in nothing but loopback. */
  readonly localOnly: string;
  /** What does not follow a name or process. */
  readonly stay: string;
}

/**
 * What has to be held in a namespace for ports.
 *
 * @param ports The ports.
 * @param targets The namespaces.
 * @param quit Whether names and processes are followed.
 * @param words What things are called in messages.
 * @param changing Whether ports inside may be added later, though there are none yet.
 * @returns As of {@linkcode holdFor}; null where the namespace must not be kept alive.
 * @throws {PenneError} A usage error if that does not go together.
 */
export function planHold(
  ports: PortRequest,
  targets: readonly Target[],
  quit: boolean,
  words: PortWords,
  changing = false,
): Hold | null {
  if (ports.rules.length + ports.outward.length > 0 && targets.length > 1) {
    throw usage("forward ports to more than one namespace: run one penne attach for each");
  }
  // What is held inside keeps a namespace alive: its end must be known otherwise.
  if (quit && !targets.some(({ kind }) => kind === "fd")) return holdFor(ports) ?? (changing ? "sockets" : null);
  const refuse = (what: string, why: string, hints: readonly string[] = []) =>
    usage(`use ${what} with ${words.stay} or fd:N: ${why} would keep the namespace alive`, hints);
  if (ports.rules.some(({ scan }) => scan)) {
    throw refuse(words.auto, "looking for listeners", [
      "name the ports, or give a PID, a name or a path as TARGET",
    ]);
  }
  if (ports.outward.length > 0) throw refuse(words.outward, "ports inside");
  if (ports.localOnly) throw refuse(words.localOnly, "sockets inside");
  if (ports.local === "loopback") throw refuse(words.loopback, "sockets inside");
  return null;
}
