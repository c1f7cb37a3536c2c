// Says what each frame is, in a line.

import { ETHERNET, PROTOCOL, VNET } from "../../inet/header.ts";
import { formatIp } from "../../inet/ip.ts";
import { KIND, Packet, parse } from "../../inet/packet.ts";
import { FLAG } from "../../inet/tcp.ts";
import type { FrameWatch } from "../netif/frame_watch.ts";

const NAMES: Readonly<Record<number, string>> = {
  [PROTOCOL.TCP]: "TCP",
  [PROTOCOL.UDP]: "UDP",
  [PROTOCOL.ICMP]: "ICMP",
  [PROTOCOL.ICMPV6]: "ICMPv6",
};

/** Says what each frame is. */
export class Trace implements FrameWatch {
  readonly #packet = new Packet();
  readonly #say: (line: string) => void;

  /** @param say Called with each line. */
  constructor(say: (line: string) => void) {
    this.#say = say;
  }

  frame(bytes: Uint8Array, at: number, length: number, inward: boolean): void {
    const what = this.#describe(bytes, at, length);
    this.#say(`${inward ? "to inside" : "from inside"}: ${what}, ${length - VNET} bytes`);
  }

  #describe(bytes: Uint8Array, at: number, length: number): string {
    const p = this.#packet;
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const ip = (offset: number, size = 4) => formatIp(bytes.slice(offset, offset + size));
    const kind = parse(view, at, length, p);
    if (kind === KIND.ARP && length >= VNET + ETHERNET + 28) {
      const what = view.getUint16(p.network + 6) === 1 ? "request" : "reply";
      return `ARP ${what} ${ip(p.network + 14)} > ${ip(p.network + 24)}`;
    }
    if (kind === KIND.BAD || kind === KIND.ARP) return "other frame";
    const [from, to] = p.family === 4
      ? [ip(p.network + 12), ip(p.network + 16)]
      : [ip(p.network + 8, 16), ip(p.network + 24, 16)];
    const name = NAMES[p.protocol] ?? `protocol ${p.protocol}`;
    if (kind === KIND.FRAGMENT) return `fragment ${name} ${from} > ${to}`;
    const t = p.transport;
    if (p.protocol === PROTOCOL.ICMP || p.protocol === PROTOCOL.ICMPV6) {
      return p.end < t + 2 ? `${name} ${from} > ${to}` : `${name} type ${view.getUint8(t)} ${from} > ${to}`;
    }
    if (!(p.protocol in NAMES) || p.end < t + (p.protocol === PROTOCOL.TCP ? 14 : 4)) return `${name} ${from} > ${to}`;
    const ends = `${from} port ${view.getUint16(t)} > ${to} port ${view.getUint16(t + 2)}`;
    if (p.protocol === PROTOCOL.UDP) return `${name} ${ends}`;
    const flags = Object.entries(FLAG).filter(([, bit]) => view.getUint8(t + 13) & bit).map(([flag]) => flag);
    return `${name} ${flags.join("+") || "no flags"} ${ends}`;
  }
}
