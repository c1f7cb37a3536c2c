// Tells whether a program inside has chosen its source address: then the host is to send from the same one, as for a program
// of its own. An address that the kernel inside has chosen says nothing, as the host's kernel may choose another one.
//
// The kernel's choice follows from the addresses and routes that the namespace was given: fib_select_default() and
// inet_select_addr() of IPv4, RFC 6724 for IPv6. Where it depends on more, no program has chosen anything.

import { AF } from "../../../ffi/net/constants.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { inPrefixWords, sameIp, wordsOf } from "../../inet/ip_words.ts";
import { parseIp } from "../../inet/ip.ts";
import type { FamilyPlan } from "../../network/plan.ts";

/** The part of a plan that decides. */
export type SourcePlan = Pick<FamilyPlan, "family" | "addresses" | "routes" | "originals">;

/** How many routes are looked at: a host may have all those of the Internet. */
const ROUTES_MAX = 4096;

/** An address inside. */
interface Own {
  readonly address: IpWords;
  /** An address in its prefix, which is that of the peer on a point-to-point link, and the bits of the prefix. */
  readonly range: IpWords;
  readonly bits: number;
}

/** What leads to some destinations. */
interface Way {
  /** The source address that is set; null if the kernel chooses one. */
  readonly source: IpWords | null;
  readonly gateway: IpWords | null;
  /** Whether there are several next hops. */
  readonly open: boolean;
}

/** Labels of RFC 6724, section 2.1, without those of addresses that are on no interface. */
const LABELS = ([["2001::", 32, 6], ["2002::", 16, 2], ["fc00::", 7, 5]] as const)
  .map(([text, bits, label]) => ({ address: wordsOf(parseIp(text)!), bits, label }));
const OTHERS = 1;

function labelOf(address: IpWords): number {
  return LABELS.find((one) => inPrefixWords(address, one.address, one.bits))?.label ?? OTHERS;
}

/** How many bits two addresses of IPv6 have in common, at most those of a prefix. */
function commonBits(a: IpWords, { address, bits }: Own): number {
  const words = [a.w0 ^ address.w0, a.w1 ^ address.w1, a.w2 ^ address.w2, a.w3 ^ address.w3];
  const at = words.findIndex((word) => word !== 0);
  return Math.min(bits, at < 0 ? 128 : at * 32 + Math.clz32(words[at]!));
}

/** Ways by the length of their prefix, the longest first, and by its first bits. */
type Ways = readonly { readonly bits: number; readonly by: ReadonlyMap<string, Way> }[];

function waysOf(routes: SourcePlan["routes"]): Ways {
  const lengths = Map.groupBy(routes.filter(({ tos }) => tos === 0), ({ prefix }) => prefix);
  return [...lengths].toSorted(([a], [b]) => b - a).map(([bits, all]) => {
    const by = new Map<string, Way>();
    for (const { family, destination, source, hops } of all.toSorted((a, b) => (a.priority ?? 0) - (b.priority ?? 0))) {
      const key = destination ? keyOf(wordsOf(destination), bits) : "";
      const gateway = hops[0]?.gateway ?? null;
      const own = gateway && (gateway.length === 4) === (family === AF.INET) ? wordsOf(gateway) : null;
      if (!by.has(key)) by.set(key, { source: source && wordsOf(source), gateway: own, open: hops.length > 1 });
    }
    return { bits, by };
  });
}

/** What one family has inside. */
class FamilySources {
  readonly #addresses: readonly Own[];
  readonly #routes: SourcePlan["routes"];
  /** Made when they are first needed. */
  #ways: Ways | null = null;

  constructor({ addresses, routes }: SourcePlan) {
    this.#addresses = addresses.map(({ local, peer, prefix }) => ({
      address: wordsOf(local),
      range: wordsOf(peer ?? local),
      bits: prefix,
    }));
    this.#routes = routes;
  }

  /** Whether an address is one of several. */
  isOneOfSeveral(address: IpWords): boolean {
    return this.#addresses.some((one) => sameIp(one.address, address));
  }

  /** Whether the kernel may have chosen a source address for a destination. */
  mayHaveChosen(source: IpWords, to: IpWords): boolean {
    const way = this.#wayTo(to);
    if (way === null || way.open) return true;
    if (way.source) return sameIp(way.source, source);
    return to.family === 4 ? this.#isFirst(source, way.gateway) : this.#isBest(source, to);
  }

  #wayTo(to: IpWords): Way | null {
    this.#ways ??= waysOf(this.#routes);
    for (const { bits, by } of this.#ways) {
      const way = by.get(bits === 0 ? "" : keyOf(to, bits));
      if (way) return way;
    }
    return null;
  }

  #isFirst(source: IpWords, gateway: IpWords | null): boolean {
    const all = this.#addresses;
    const beside = gateway && all.find(({ range, bits }) => inPrefixWords(gateway, range, bits));
    return sameIp((beside || all[0]!).address, source);
  }

  #isBest(source: IpWords, to: IpWords): boolean {
    const label = labelOf(to);
    const rank = (one: Own) => Number(labelOf(one.address) === label) << 8 | commonBits(to, one);
    const own = this.#addresses.find(({ address }) => sameIp(address, source))!;
    return this.#addresses.every((one) => rank(one) <= rank(own));
  }
}

/** What tells an address of an interface apart. */
function nameOf({ local, prefix }: SourcePlan["addresses"][number]): string {
  return `${local.join(".")}/${prefix}`;
}

/** Addresses in the order of those that were there before, and then the others. */
function inOrder(addresses: SourcePlan["addresses"], before: readonly string[]): SourcePlan["addresses"] {
  const place = (address: SourcePlan["addresses"][number]) => {
    const found = before.indexOf(nameOf(address));
    return found < 0 ? before.length : found;
  };
  return addresses.toSorted((a, b) => place(a) - place(b));
}

/** The first bits of an address, as a key. */
function keyOf({ family, w0, w1, w2, w3 }: IpWords, bits: number): string {
  const mask = (word: number, left: number) => left <= 0 ? 0 : left >= 32 ? word : word & ~(0xffffffff >>> left);
  if (family === 4) return `${mask(w3, bits)}`;
  return [w0, w1, w2, w3].map((word, i) => mask(word, bits - 32 * i)).join(" ");
}

/** The source addresses of a namespace. */
export class Sources {
  readonly #families: { readonly [family: number]: FamilySources };
  /** All addresses, in the order in which the namespace has them. */
  readonly #order: readonly string[];

  /**
   * @param plans The families that are on; of interest are those whose addresses are copies of the host's.
   * @param before What the namespace had until now: what it still has comes first, as the kernel adds new addresses behind it.
   */
  constructor(plans: readonly SourcePlan[], before: Sources | null = null) {
    const families: { [family: number]: FamilySources } = {};
    const order: string[] = [];
    for (const plan of plans) {
      const addresses = before ? inOrder(plan.addresses, before.#order) : plan.addresses;
      order.push(...addresses.map(nameOf));
      // With a single address there is nothing to choose.
      if (plan.originals === null || plan.addresses.length < 2 || plan.routes.length > ROUTES_MAX) continue;
      families[plan.family === AF.INET ? 4 : 6] = new FamilySources({ ...plan, addresses });
    }
    this.#families = families;
    this.#order = order;
  }

  /**
   * Whether a program inside has chosen the source address of what it sends.
   *
   * @param source The source address.
   * @param to The destination.
   * @returns Whether it is an address of the host that the kernel inside would not have chosen.
   */
  isChosen(source: IpWords, to: IpWords): boolean {
    const family = this.#families[to.family];
    return family !== undefined && family.isOneOfSeveral(source) && !family.mayHaveChosen(source, to);
  }
}
