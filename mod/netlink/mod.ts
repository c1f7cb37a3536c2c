/**
 * Messages of netlink(7) and their attributes; a pure codec.
 *
 * @example
 * ```ts
 * import { decodeMessages, encodeMessage, NLM_F } from "./mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const bytes = encodeMessage({ type: 18, flags: NLM_F.REQUEST, seq: 1, payload: new Uint8Array(16) });
 * assertEquals(decodeMessages(bytes).map(({ type, seq }) => [type, seq]), [[18, 1]]);
 * ```
 *
 * @module
 */

export {
  type Acknowledgement,
  type Attribute,
  decodeAcknowledgement,
  decodeAttributes,
  decodeMessages,
  encodeAttributes,
  encodeMessage,
  listAttributes,
  nested,
  type NetlinkMessage,
  NLM_F,
  NLMSG,
} from "./message.ts";
