// What changes inside when the host's network changes, by pictures of both.

import { assert, assertEquals } from "@std/assert";
import { AF } from "../../ffi/net/constants.ts";
import {
  type Change,
  changesTo,
  comparable,
  extraRoutes,
  isSamePicture,
  nextGiven,
  type Picture,
  planGoal,
} from "../../mod/follow/changes.ts";
import { formatIp, parseIp } from "../../mod/inet/ip.ts";
import { type Address, IFA_F, RT_SCOPE } from "../../mod/netlink/address.ts";
import { type Route, RTPROT } from "../../mod/netlink/route.ts";
import type { FamilyPlan } from "../../mod/network/plan.ts";
import { newAddress, showRoute } from "../../mod/network/routes.ts";
import { test } from "../lib/helpers.ts";

const ip = (text: string) => parseIp(text)!;

function address(text: string): Address {
  const [local, prefix] = text.split("/");
  return newAddress(ip(local!), Number(prefix));
}

function route(text: string, details: Partial<Route> = {}): Route {
  const [to, , via] = text.split(" ");
  const [destination, prefix] = to === "default" ? [null, 0] : to!.split("/");
  const gateway = via === undefined ? null : ip(via);
  const family = text.includes(":") ? AF.INET6 : AF.INET;
  return {
    family,
    destination: destination === null ? null : ip(destination!),
    prefix: Number(prefix),
    tos: 0,
    table: 254,
    protocol: RTPROT.BOOT,
    scope: 0,
    type: 1,
    priority: null,
    source: null,
    hops: [{ index: 0, gateway, flags: 0, weight: 1 }],
    metrics: null,
    preference: null,
    odd: null,
    ...details,
  };
}

function picture(addresses: string[], routes: (string | Route)[]): Picture {
  return {
    addresses: addresses.map(address),
    routes: routes.map((one) => typeof one === "string" ? route(one) : one),
  };
}

/** A change as a sentence. */
function show(change: Change): string {
  const what = "route" in change
    ? showRoute(change.route)
    : `${formatIp(change.address.local)}/${change.address.prefix}${
      change.address.flags & IFA_F.DEPRECATED ? " deprecated" : ""
    }`;
  return `${change.kind} ${what}`;
}

function changes(before: Picture, after: Picture, inside: Picture = before): string[] {
  return changesTo(planGoal(before, after, inside), inside).map(show);
}

function plan(addresses: string[], routes: string[] = [], details: Partial<FamilyPlan> = {}): FamilyPlan {
  const { addresses: made, routes: copied } = picture(addresses, routes);
  return { family: AF.INET, template: "eth0", addresses: made, routes: copied, originals: copied, ...details };
}

test("Nothing changes if the host has not changed, whatever is inside", () => {
  const given = picture(["192.0.2.2/24"], ["default via 192.0.2.1"]);
  assertEquals(changes(given, given), []);
  assertEquals(changes(given, given, picture(["10.0.0.1/8"], ["10.0.0.0/8"])), []);
  assertEquals(changes(given, given, picture([], [])), []);
});

test("New addresses come before new routes, those before old routes go, and old addresses go last", () => {
  const before = picture(["192.0.2.2/24"], ["192.0.2.0/24", "default via 192.0.2.1"]);
  const after = picture(["198.51.100.2/24"], ["198.51.100.0/24", "default via 198.51.100.1"]);
  assertEquals(changes(before, after), [
    "add address 198.51.100.2/24",
    "add route 198.51.100.0/24",
    "replace route default via 198.51.100.1",
    "delete route 192.0.2.0/24",
    "delete route default via 192.0.2.1",
    "delete address 192.0.2.2/24",
  ]);
});

test("What has the same address takes its place at the end", () => {
  const before = picture(["192.0.2.2/24"], []);
  assertEquals(changes(before, picture(["192.0.2.2/28"], [])), [
    "delete address 192.0.2.2/24",
    "add address 192.0.2.2/28",
  ]);
  const renewed = { ...before, addresses: [{ ...before.addresses[0]!, metric: 100 }] };
  assertEquals(changes(before, renewed), ["delete address 192.0.2.2/24", "add address 192.0.2.2/24"]);
});

test("What was added inside stays, and what was removed inside stays away", () => {
  const before = picture(["192.0.2.2/24"], ["default via 192.0.2.1"]);
  const after = picture(["192.0.2.2/24", "192.0.2.3/24"], ["default via 192.0.2.1"]);
  const inside = picture(["192.0.2.2/24", "10.0.0.1/8"], ["172.16.0.0/12 via 10.0.0.2"]);
  assertEquals(changes(before, after, inside), ["add address 192.0.2.3/24"]);
  assertEquals(changes(after, before, inside), []);
});

test("A route of another metric stands beside, one of the same metric is replaced, a user's own one stays", () => {
  const [slow, fast] = [route("default via 192.0.2.1", { priority: 100 }), route("default via 192.0.2.9")];
  const before = picture(["192.0.2.2/24"], [slow]);
  assertEquals(changes(before, picture(["192.0.2.2/24"], [slow, fast])), ["add route default via 192.0.2.9"]);
  const other = route("default via 192.0.2.7", { priority: 100 });
  assertEquals(changes(before, picture(["192.0.2.2/24"], [other])), [
    "replace route default via 192.0.2.7 metric 100",
    "delete route default via 192.0.2.1 metric 100",
  ]);
  const own = route("default via 192.0.2.5", { priority: 100 });
  assertEquals(changes(before, picture(["192.0.2.2/24"], [other]), picture(["192.0.2.2/24"], [slow, own])), [
    "append route default via 192.0.2.7 metric 100",
    "delete route default via 192.0.2.1 metric 100",
  ]);
  const narrow = { ...slow, metrics: Uint8Array.of(8, 0, 2, 0, 0x14, 5, 0, 0) };
  assertEquals(changes(before, picture(["192.0.2.2/24"], [narrow])), [
    "replace route default via 192.0.2.1 metric 100",
  ]);
});

test("Without a metric a route of IPv6 has that of the kernel", () => {
  const [planned, kernels] = [route("default via 2001:db8::1"), route("default via 2001:db8::1", { priority: 1024 })];
  const before = picture(["2001:db8::2/64"], [planned]);
  const inside = picture(["2001:db8::2/64"], [kernels]);
  assertEquals(changes(before, picture(["2001:db8::2/64"], []), inside), [
    "delete route default via 2001:db8::1 metric 1024",
  ]);
});

test("An address that flows use is deprecated, has no prefix, and goes when none uses it", () => {
  const given = nextGiven(picture([], []), [plan(["192.0.2.2/24"])], () => true);
  const used = nextGiven(given, [plan(["198.51.100.2/24"])], () => true);
  assertEquals(changes(given, used), [
    "add address 198.51.100.2/24",
    "delete address 192.0.2.2/24",
    "add address 192.0.2.2/32 deprecated",
  ]);
  assert(isSamePicture(used, nextGiven(used, [plan(["198.51.100.2/24"])], () => true)));
  const unused = nextGiven(used, [plan(["198.51.100.2/24"])], () => false);
  assertEquals(changes(used, unused), ["delete address 192.0.2.2/32 deprecated"]);
  // The host has it again.
  const back = nextGiven(used, [plan(["192.0.2.2/24"])], () => false);
  assertEquals(changes(used, back), [
    "delete address 198.51.100.2/24",
    "delete address 192.0.2.2/32 deprecated",
    "add address 192.0.2.2/24",
  ]);
});

test("What the kernel withdraws with an address comes back, and what it makes beyond the host's goes", () => {
  const kernels = route("192.0.2.0/24", { protocol: RTPROT.KERNEL, source: ip("192.0.2.2") });
  const own = route("10.0.0.0/8 via 192.0.2.9");
  const before = picture(["192.0.2.2/24"], [kernels, "default via 192.0.2.1"]);
  const after = picture(["198.51.100.2/24"], ["default via 198.51.100.1"]);
  const inside = picture(["192.0.2.2/24"], [kernels, "default via 192.0.2.1", own]);
  const goal = planGoal(before, after, inside);
  const made = route("198.51.100.0/24", { protocol: RTPROT.KERNEL, source: ip("198.51.100.2") });
  const later = picture(["198.51.100.2/24"], [made, "default via 198.51.100.1"]);
  assertEquals(changesTo(goal, later, true).map(show), ["add route 10.0.0.0/8 via 192.0.2.9"]);
  const families = [plan(["198.51.100.2/24"], ["default via 198.51.100.1"])];
  assertEquals(extraRoutes(families, inside, later).map(showRoute), ["198.51.100.0/24"]);
  assertEquals(extraRoutes([{ ...families[0]!, originals: null }], inside, later), []);
});

test("Link-local addresses and routes of IPv6 are left alone", () => {
  const link = { ...address("fe80::1/64"), scope: RT_SCOPE.LINK };
  const all = { addresses: [link, address("2001:db8::2/64")], routes: [route("fe80::/64"), route("ff00::/8")] };
  assertEquals(comparable(all, [AF.INET6]), { addresses: [address("2001:db8::2/64")], routes: [] });
  assertEquals(comparable(all, [AF.INET]), { addresses: [], routes: [] });
});

test("From any picture the changes lead to the goal, once", () => {
  let state = 1;
  const random = (n: number) => (state = Math.imul(state, 48271) >>> 0) % n;
  const some = <T>(items: readonly T[]) => items.filter(() => random(2) === 0);
  const addresses = ["192.0.2.2/24", "192.0.2.2/28", "10.0.0.1/8", "2001:db8::2/64"].map(address);
  const routes = [
    ...["10.0.0.0/8", "default via 192.0.2.1", "default via 192.0.2.9", "default via 2001:db8::1"].map((text) =>
      route(text)
    ),
    route("default via 192.0.2.1", { priority: 5 }),
    route("10.0.0.0/8", { source: ip("10.0.0.1") }),
  ];
  const any = (): Picture => ({ addresses: some(addresses), routes: some(routes) });
  for (let i = 0; i < 3000; i++) {
    const [before, after, inside] = [any(), any(), any()];
    const goal = planGoal(before, after, inside);
    const now = { addresses: [...inside.addresses], routes: [...inside.routes] };
    const same = (a: Route, b: Route) => showRoute(a) === showRoute(b) && `${a.source}` === `${b.source}`;
    const slot = (one: Route) => `${one.family} ${one.destination} ${one.priority}`;
    for (const change of changesTo(goal, inside)) {
      if ("address" in change) {
        const text = show({ kind: "add address", address: change.address });
        const rest = now.addresses.filter((one) => show({ kind: "add address", address: one }) !== text);
        if (change.kind === "add address") assertEquals(rest.length, now.addresses.length, `${text} is there`);
        now.addresses = change.kind === "add address" ? [...rest, change.address] : rest;
      } else if (change.kind === "delete route") now.routes = now.routes.filter((one) => !same(one, change.route));
      else {
        const replaced = change.kind === "replace route" && now.routes.find((one) => slot(one) === slot(change.route));
        now.routes = [...now.routes.filter((one) => one !== replaced && !same(one, change.route)), change.route];
      }
    }
    assertEquals(changesTo(goal, now, true).map(show), [], `round ${i}`);
    const gone = before.addresses.filter((one) => !after.addresses.includes(one));
    assert(!now.addresses.some((one) => gone.includes(one)));
  }
});
