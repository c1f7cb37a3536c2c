// Opens a relay, for a program that loads this code only when it needs it.
//
// In the compiled program this is a bundle with its own copies of all classes. So the relay makes calls in agents, and
// descriptors for them, by functions of the program that has loaded it, and what cannot be opened is told as plain data.

import { SysError } from "../../ffi/core/errno.ts";
import { Relay, type RelayOptions } from "./relay.ts";

/** Why a relay could not be opened. */
export interface RelayFailure {
  /** What could not be done. */
  readonly what: string;
  /** The error number. */
  readonly errno: number;
  /** What the user can do. */
  readonly hints: readonly string[];
}

/**
 * Opens a relay.
 *
 * @param options How to relay.
 * @returns The relay, or why there is none.
 */
export function openRelay(options: RelayOptions): Relay | RelayFailure {
  try {
    return new Relay(options);
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    return {
      what: "open a terminal and pipes for the command",
      errno: error.errno,
      hints: [
        "--share-terminal gives the command your terminal",
        "without a terminal as stdin, stdout or stderr none is opened",
      ],
    };
  }
}
