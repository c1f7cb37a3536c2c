// Loads what decides by an allow list, and says what it refuses.

import { formatIp } from "../../inet/ip.ts";
import { bytesOf } from "../../inet/ip_words.ts";
import { PROTOCOL } from "../../inet/header.ts";
import type { ReachRequest } from "../../network/reach.ts";
import type { MakeAdmission } from "../netif/admission.ts";
import type { Refusal } from "../netif/refusals.ts";

/** Sentences in so many milliseconds at most; what else is refused then is counted. */
const SENTENCES_MAX = 20;
const PERIOD = 10_000;

/** What decides by an allow list. */
export interface Admitting {
  /** Makes what decides for one interface. */
  readonly makeAdmission: MakeAdmission;
  /** Called for each thing that is refused for the first time. */
  readonly onRefused: (refusal: Refusal) => void;
}

const PROTOCOLS: Readonly<Record<number, string>> = {
  [PROTOCOL.TCP]: "TCP",
  [PROTOCOL.UDP]: "UDP",
  [PROTOCOL.ICMP]: "ping",
  [PROTOCOL.ICMPV6]: "ping",
};

/**
 * What was refused, in words.
 *
 * @param refusal It.
 * @returns Such as `TCP to 192.0.2.1:443 (example.org)` or `the name example.org`.
 */
export function describeRefusal({ protocol, address, port, name }: Refusal): string {
  if (protocol === null || address === null) return `the name ${name || "."}`;
  const text = formatIp(bytesOf(address));
  const ported = port === 0 ? text : address.family === 4 ? `${text}:${port}` : `[${text}]:${port}`;
  return `${PROTOCOLS[protocol] ?? `protocol ${protocol}`} to ${ported}${name === null ? "" : ` (${name})`}`;
}

/**
 * Says what is refused: once as a warning, and then as information, with a limit.
 *
 * @param warn Called with a warning.
 * @param inform Called with what else is worth knowing, if anybody wants to know.
 * @param excludes Whether addresses are excluded too, which refuses what is allowed.
 * @returns Notes what is refused.
 */
export function sayRefused(
  warn: (sentence: string) => void,
  inform?: (sentence: string) => void,
  excludes = false,
): (refusal: Refusal) => void {
  let [warned, since, said, unsaid] = [false, -Infinity, 0, 0];
  return (refusal) => {
    const excluded = excludes && refusal.address ? ", or --exclude does" : "";
    const sentence = `refused ${describeRefusal(refusal)}: --allow does not have it${excluded}`;
    if (!warned) {
      warned = true;
      return warn(inform ? `${sentence}; with --log-level info, further ones are told` : sentence);
    }
    if (!inform) return;
    if (refusal.lastAt - since > PERIOD) {
      if (unsaid > 0) inform(`refused ${unsaid} more destinations or names`);
      [since, said, unsaid] = [refusal.lastAt, 0, 0];
    }
    if (++said <= SENTENCES_MAX) inform(sentence);
    else unsaid++;
  };
}

/**
 * Loads what decides by an allow list.
 *
 * @param reach What is reached.
 * @param warn As for {@linkcode sayRefused}.
 * @param inform As for {@linkcode sayRefused}.
 * @returns What decides; null if there is no such list.
 */
export async function admitting(
  { allow, exclude = [], excludeHost = false }: ReachRequest,
  warn: (sentence: string) => void,
  inform?: (sentence: string) => void,
): Promise<Admitting | null> {
  if (!allow) return null;
  const excludes = exclude.length > 0 || excludeHost;
  const { AllowList } = await import("../allow/allow_list.ts");
  return { makeAdmission: (scene, list) => new AllowList(scene, list), onRefused: sayRefused(warn, inform, excludes) };
}
