// Options of the data path with addresses as text, to hand them from a test to the driver.

import type { DatapathOptions } from "../../mod/datapath/serve.ts";

/** DatapathOptions in JSON. */
export interface TextOptions {
  dnsForward?: string[];
  dnsHost?: string[];
  resolvConf?: string;
  mapHostLoopback?: string[];
  mapGuestAddress?: string[];
  hostAddress?: string[];
  exclude?: string[];
  outbound?: string[];
  outboundInterface4?: string;
  outboundInterface6?: string;
  flowsMax?: number;
  peekOffset?: boolean;
}

/** An address as bytes. */
export function parseAddress(text: string): Uint8Array {
  if (!text.includes(":")) return new Uint8Array(text.split(".").map(Number));
  const [head = "", tail] = text.split("::");
  const groups = (part: string) => part === "" ? [] : part.split(":").map((group) => parseInt(group, 16));
  const [first, last] = [groups(head), groups(tail ?? "")];
  const all = tail === undefined ? first : [...first, ...new Array(8 - first.length - last.length).fill(0), ...last];
  return new Uint8Array(all.flatMap((group) => [group >> 8, group & 255]));
}

/** The options themselves. */
export function toOptions(text: TextOptions): DatapathOptions {
  const {
    exclude,
    dnsHost: _dnsHost,
    resolvConf: _resolvConf,
    outboundInterface4,
    outboundInterface6,
    flowsMax,
    peekOffset,
    ...lists
  } = text;
  const addresses = Object.fromEntries(
    Object.entries(lists).map(([name, list]) => [name, (list as string[]).map(parseAddress)]),
  );
  return {
    mac: Uint8Array.of(0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55),
    ...addresses,
    ...outboundInterface4 === undefined ? {} : { outboundInterface4 },
    ...outboundInterface6 === undefined ? {} : { outboundInterface6 },
    ...flowsMax === undefined ? {} : { flowsMax },
    ...peekOffset === undefined ? {} : { peekOffset },
    exclude: (exclude ?? []).map((prefix) => {
      const [address, bits] = prefix.split("/");
      return { address: parseAddress(address!), bits: Number(bits) };
    }),
  };
}
