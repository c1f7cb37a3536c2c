// The host's own addresses: those that its table of local routes has.

import { orNull } from "../../ffi/core/errno.ts";
import { self } from "../../ffi/core/task.ts";
import { AF } from "../../ffi/net/constants.ts";
import type { IpWords } from "../../ffi/net/sockaddr.ts";
import { inPrefixWords, wordsOf } from "../inet/ip_words.ts";
import { decodeRoute, dumpRoutes, RTN } from "../netlink/route.ts";
import { NetlinkSocket } from "../netlink/socket.ts";

/** Number of the table of local routes, and of the loopback interface in every network namespace. */
const RT_TABLE_LOCAL = 255;
const LOOPBACK_INDEX = 1;
/** Milliseconds after which they are read again, if somebody asks. */
const FRESH = 250;

/** Addresses of the host: one, or as with lo a whole prefix. */
interface Own {
  readonly prefix: IpWords;
  readonly bits: number;
  readonly loopback: boolean;
}

/** Reads the table of local routes. */
function readOwn(): Own[] {
  using socket = new NetlinkSocket(self);
  return [AF.INET, AF.INET6].flatMap((family) => {
    const routes = socket.dump(dumpRoutes(family, { table: RT_TABLE_LOCAL })).map(decodeRoute);
    return routes.flatMap(({ table, type, destination, prefix, hops }) => {
      if (table !== RT_TABLE_LOCAL || type !== RTN.LOCAL || !destination) return [];
      return [{ prefix: wordsOf(destination), bits: prefix, loopback: hops[0]?.index === LOOPBACK_INDEX }];
    });
  });
}

/**
 * The host's own addresses, as they were at most a quarter of a second ago.
 *
 * @example
 * ```ts
 * import { HostAddresses } from "./addresses.ts";
 * import { parseIp } from "../inet/ip.ts";
 * import { wordsOf } from "../inet/ip_words.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(new HostAddresses().has(wordsOf(parseIp("203.0.113.254")!)), false);
 * ```
 */
export class HostAddresses {
  #own: readonly Own[] = [];
  #readAt = -Infinity;

  /** Whether an address is the host's own. */
  has(address: IpWords): boolean {
    return this.#read().some(({ prefix, bits }) => inPrefixWords(address, prefix, bits));
  }

  /** Whether an address is the host's own, on its loopback interface. */
  hasOnLoopback(address: IpWords): boolean {
    return this.#read().some(({ prefix, bits, loopback }) => loopback && inPrefixWords(address, prefix, bits));
  }

  #read(): readonly Own[] {
    const now = performance.now();
    if (now - this.#readAt < FRESH) return this.#own;
    // Without descriptors, or while they keep changing, the last ones have to do.
    const own = orNull(readOwn);
    if (own) this.#own = own;
    this.#readAt = now;
    return this.#own;
  }
}
