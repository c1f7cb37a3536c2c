// What the code that follows the host's network and the rest of penne are to each other. In the program that code is a bundle
// of its own, with its own copies of all classes: so descriptors pass as numbers, and all else as plain data and functions.

import type { NetworkPlan } from "../network/plan.ts";
import type { TapLink } from "../network/tap_link.ts";
import type { Keeper } from "./keeper.ts";

/** The loop. */
export interface FollowLoop {
  /** Calls a function when a descriptor is readable. */
  watch(fd: number, handler: () => void): { remove(): void };
  /** Calls a function after some milliseconds. */
  after(delay: number, action: () => void): { cancel(): void };
  /** Calls a function after the current events, or in the next turn. */
  soon(action: () => void): void;
}

/** A namespace that is served. */
export interface FollowedLink {
  /** Its tap, by the number of the descriptor. */
  readonly link: Omit<TapLink, "tap"> & { readonly tap: number };
  /** What it was given. */
  readonly plan: NetworkPlan;
  /** The target as the user wrote it; missing if there is only one. */
  readonly target?: string | undefined;
  /** Has what serves it know what it has from now on. */
  readonly renew: (network: Pick<TapLink, "ipv4" | "ipv6">, plan: NetworkPlan) => void;
  /** Whether its tap is still open. */
  readonly isServed: () => boolean;
  /** Whether a flow has an address inside. */
  readonly uses: (address: Uint8Array) => boolean;
}

/** How to follow. */
export interface FollowOptions {
  /** The loop. */
  readonly loop: FollowLoop;
  /** The namespaces; one that is not served any more is let go. */
  readonly links: readonly FollowedLink[];
  /** The agent that has penne's former rights; null if penne has its rights. */
  readonly keeper: Keeper["agent"] | null;
  /** The number of a socket that reports the host's changes, to be owned; null if there is none yet. */
  readonly reports: number | null;
  /** Called when a namespace was changed, with a sentence and a status event. */
  readonly onChange: (sentence: string, event: Record<string, unknown>) => void;
  /** Called with what else is worth knowing. */
  readonly onInfo: (message: string) => void;
  /** Called with each problem. */
  readonly onWarning: (message: string) => void;
}

/** What follows, until it is disposed of. */
export interface Following extends Disposable {
  /** Follows the host in one more namespace. */
  add(link: FollowedLink): void;
}
