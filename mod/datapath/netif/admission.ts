// What decides about new flows where there is an allow list. The code for that is loaded only then (mod/datapath/allow).

import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import type { AllowRule } from "../../inet/allow.ts";
import type { Reactor } from "../../reactor/reactor.ts";
import type { Egress } from "./egress.ts";
import type { Refusals } from "./refusals.ts";
import type { ResolvedNames } from "./resolved_names.ts";

/** Decides about new flows. */
export interface Admission extends Disposable {
  /**
   * Whether a destination may be reached.
   *
   * @param to The destination as the namespace knows it.
   * @param protocol Protocol above IP.
   * @param port Destination port, or 0.
   */
  admits(to: IpWords, protocol: number, port: number): boolean;
  /**
   * Takes a message to the host's resolver that has come by UDP.
   *
   * @param message The message; kept.
   * @param answer Sends an answer to whoever has asked.
   */
  question(message: Uint8Array, answer: (message: Uint8Array) => void): void;
  /** The port of 127.0.0.1 of the host where messages to the resolver are taken by TCP, or a negative error number. */
  stream(): number;
  /**
   * Tells that a connection to that port comes from a flow.
   *
   * @param from The local port of its socket.
   */
  expect(from: number): void;
}

/** A name server of the host. */
interface NameServer {
  /** 4 or 16 bytes. */
  readonly address: Uint8Array;
  /** Index of the interface for a link-local address, or 0. */
  readonly scope: number;
}

/** What such code is given of an interface. */
export interface AdmissionScene {
  readonly reactor: Reactor;
  readonly egress: Egress;
  readonly names: ResolvedNames;
  readonly refusals: Refusals;
  readonly rules: {
    /** Whether a name may stand for an address. */
    mayBeNamed(address: IpWords): boolean;
    /** The resolver to ask; undefined if there is none. */
    resolver(size: number): NameServer | undefined;
    /** Records that a resolver does not answer. */
    resolverFailed(address: Uint8Array): void;
  };
  /** Whether one more descriptor may be opened beside some that are not those of flows. */
  readonly mayOpen: (own: number) => boolean;
  /** Counts a descriptor that was opened, or closed (-1), so that all namespaces know of it. */
  readonly countDescriptor: (change: 1 | -1) => void;
}

/** Makes what decides by an allow list. */
export type MakeAdmission = (scene: AdmissionScene, allow: readonly AllowRule[]) => Admission;
