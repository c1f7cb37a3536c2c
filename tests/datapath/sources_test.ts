// Whether a program inside has chosen its source address follows from the addresses and routes inside.

import { assertEquals } from "@std/assert";
import { AF } from "../../ffi/net/constants.ts";
import { Sources } from "../../mod/datapath/netif/sources.ts";
import { parseIp } from "../../mod/inet/ip.ts";
import { wordsOf } from "../../mod/inet/ip_words.ts";
import type { Route } from "../../mod/netlink/route.ts";
import { defaultRoute, newAddress } from "../../mod/network/routes.ts";
import { test } from "../lib/helpers.ts";

const ip = (text: string) => parseIp(text)!;

/** A route to a prefix, by a gateway or none; of several routes to one prefix the least metric counts. */
function route(to: string, gateway: string | null, details: Partial<Route> = {}): Route {
  const [address, length] = to.split("/");
  const base = defaultRoute(ip(gateway ?? address!), []);
  const prefix = Number(length);
  const hops = [{ index: 0, gateway: gateway ? ip(gateway) : null, flags: 0, weight: 1 }];
  return { ...base, destination: prefix ? ip(address!) : null, prefix, hops, ...details };
}

function plan(addresses: string[], routes: Route[], before: Sources | null = null) {
  const own = addresses.map((text) => text.split("/")).map(([address, bits]) => newAddress(ip(address!), Number(bits)));
  const family = addresses[0]!.includes(":") ? AF.INET6 : AF.INET;
  return new Sources([{ family, addresses: own, routes, originals: routes }], before);
}

/** The sources that a program must have chosen, of those that are tried. */
function chosen(sources: Sources, to: string, tried: string[]): string[] {
  return tried.filter((source) => sources.isChosen(wordsOf(ip(source)), wordsOf(ip(to))));
}

test("Of IPv4, the kernel's choice is the first address, the one beside the gateway, or that of the route", () => {
  const [one, two, three] = ["192.0.2.2", "198.51.100.2", "10.8.0.2"];
  const own = [one, two, three];
  const sources = plan([`${one}/24`, `${two}/24`, `${three}/32`], [
    route("0.0.0.0/0", "192.0.2.1", { priority: 100 }),
    route("0.0.0.0/0", "198.51.100.1", { priority: 50 }),
    route("203.0.113.0/24", "192.0.2.1"),
    route("203.0.113.128/25", null),
    route("10.20.0.0/16", null, { source: ip(three) }),
    route("10.30.0.0/15", "172.16.0.1"),
  ]);
  assertEquals(chosen(sources, "9.9.9.9", own), [one, three]);
  assertEquals(chosen(sources, "203.0.113.1", own), [two, three]);
  assertEquals(chosen(sources, "203.0.113.200", own), [two, three]);
  assertEquals(chosen(sources, "10.20.1.1", own), [one, two]);
  assertEquals(chosen(sources, "10.31.1.1", own), [two, three]);
  assertEquals(chosen(sources, "9.9.9.9", ["203.0.113.9", "9.9.9.9"]), [], "not an address of the host");
});

test("Of IPv6, it is the one that has most in common with the destination; where there are two, it may be either", () => {
  const [one, two, unique] = ["2001:db8:1::2", "2001:db8:1::9", "fd00::2"];
  const own = [one, two, unique];
  const gateway = "2001:db8:1::1";
  const sources = plan([`${one}/64`, `${two}/64`, `${unique}/64`], [
    route("::/0", gateway),
    route("2001:db8:9::/48", gateway, { source: ip(two) }),
  ]);
  assertEquals(chosen(sources, "2001:db8:1::3", own), [unique]);
  assertEquals(chosen(sources, "2600::1", own), [unique]);
  assertEquals(chosen(sources, "fd00:1::1", own), [one, two]);
  assertEquals(chosen(sources, "2001:db8:9::1", own), [one, unique]);
});

test("Nothing was chosen without a route, with several next hops, with one address, or with addresses that were asked for", () => {
  const [one, two] = ["192.0.2.2", "192.0.2.3"];
  const hop = (gateway: string) => ({ index: 0, gateway: ip(gateway), flags: 0, weight: 1 });
  const both = route("10.0.0.0/8", "192.0.2.1", { hops: [hop("192.0.2.1"), hop("192.0.2.9")] });
  const sources = plan([`${one}/24`, `${two}/24`], [both]);
  assertEquals(chosen(sources, "10.1.1.1", [one, two]), []);
  assertEquals(chosen(sources, "11.1.1.1", [one, two]), []);
  const routes = [route("0.0.0.0/0", "192.0.2.1")];
  assertEquals(chosen(plan([`${one}/24`, `${two}/24`], routes), "10.1.1.1", [one, two]), [two]);
  assertEquals(chosen(plan([`${one}/24`], routes), "10.1.1.1", [one, two]), []);
  const addresses = [newAddress(ip(one), 24), newAddress(ip(two), 24)];
  const asked = new Sources([{ family: AF.INET, addresses, routes, originals: null }]);
  assertEquals(chosen(asked, "10.1.1.1", [one, two]), []);
});

test("Addresses that come later are behind those that are there, whatever their order on the host", () => {
  const [one, two, three] = ["192.0.2.2", "192.0.2.3", "192.0.2.4"];
  const routes = [route("0.0.0.0/0", "192.0.2.1")];
  const all = (addresses: string[]) => addresses.map((address) => `${address}/24`);
  const single = plan(all([two]), routes);
  const later = plan(all([one, two, three]), routes, single);
  assertEquals(chosen(later, "10.1.1.1", [one, two, three]), [one, three]);
  assertEquals(chosen(plan(all([three, one]), routes, later), "10.1.1.1", [one, three]), [three]);
  assertEquals(chosen(plan(all([one, two]), routes), "10.1.1.1", [one, two]), [two]);
});
