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
  return { family: AF.INET, templates: ["eth0"], addresses: made, routes: copied, originals: copied, ...details };
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
  assertEquals(extraRoutes(families, goal, inside, later).map(showRoute), ["198.51.100.0/24"]);
  assertEquals(extraRoutes([{ ...families[0]!, originals: null }], goal, inside, later), []);
});

test("What the kernel makes for addresses that were added inside stays", () => {
  const kernels = (text: string, source: string | null = null) =>
    route(text, { protocol: RTPROT.KERNEL, source: source === null ? null : ip(source) });
  const before = picture(["192.0.2.2/24"], [kernels("192.0.2.0/24", "192.0.2.2")]);
  const after = picture(["198.51.100.2/24"], []);
  const inside = { ...before, addresses: ["192.0.2.2/24", "192.0.2.77/24"].map(address) };
  const goal = planGoal(before, after, inside);
  assertEquals(changesTo(goal, inside).map(show), [
    "add address 198.51.100.2/24",
    "delete route 192.0.2.0/24",
    "delete address 192.0.2.2/24",
  ]);
  const promoted = kernels("192.0.2.0/24", "192.0.2.77");
  const later = picture(["192.0.2.77/24", "198.51.100.2/24"], [
    promoted,
    kernels("198.51.100.0/24", "198.51.100.2"),
  ]);
  assertEquals(extraRoutes([plan(["198.51.100.2/24"])], goal, inside, later).map(showRoute), ["198.51.100.0/24"]);

  const [old, own, next] = ["2001:db8::2/64", "2001:db8::77/64", "2001:db8:5::2/64"] as const;
  const [given, wanted] = [picture([old], [kernels("2001:db8::/64")]), picture([next], [])];
  const both = { ...given, addresses: [old, own].map(address) };
  assertEquals(changes(given, wanted, both), [`add address ${next}`, `delete address ${old}`]);
  assertEquals(changes(given, wanted), [
    `add address ${next}`,
    "delete route 2001:db8::/64",
    `delete address ${old}`,
  ]);
  const made = picture([own, next], [kernels("2001:db8::/64"), kernels("2001:db8:5::/64")]);
  const six = [plan([next], [], { family: AF.INET6 })];
  const empty = picture([old, own], []);
  assertEquals(extraRoutes(six, planGoal(given, wanted, empty), empty, made).map(showRoute), ["2001:db8:5::/64"]);
});

test("A route is not deleted whose place another one has taken", () => {
  const routes = ["default via 192.0.2.1", "default via 192.0.2.9"].map((text) => route(text));
  const [old, next] = routes as [Route, Route];
  const own = route("default via 192.0.2.1", { priority: 100 }); // a deletion without a metric could take it
  const given = picture(["192.0.2.2/24"], [old]);
  assertEquals(changes(given, picture(["192.0.2.2/24"], [next]), picture(["192.0.2.2/24"], [old, own])), [
    "replace route default via 192.0.2.9",
  ]);
});

test("A route that is renewed leaves one alone that was added inside", () => {
  const mtu = (one: Route): Route => ({ ...one, metrics: Uint8Array.of(8, 0, 2, 0, 0x14, 5, 0, 0) });
  for (const [ours, theirs] of [["192.0.2.1", "192.0.2.5"], ["2001:db8::1", "2001:db8::5"]] as const) {
    const [given, own] = [route(`default via ${ours}`), route(`default via ${theirs}`)];
    const steps = (inside: Route[]) => changes(picture([], [given]), picture([], [mtu(given)]), picture([], inside));
    assertEquals(steps([given]), [`replace route default via ${ours}`]);
    const apart = [`delete route default via ${ours}`, `append route default via ${ours}`];
    assertEquals(steps([own, given]), apart);
    // The kernel replaces the first one; with IPv6, it replaces all that share the traffic.
    const first = steps([given, own]);
    assertEquals(first, ours.includes(":") ? apart : [`replace route default via ${ours}`]);
  }
});

test("Link-local addresses and routes of IPv6 are left alone", () => {
  const link = { ...address("fe80::1/64"), scope: RT_SCOPE.LINK };
  const all = { addresses: [link, address("2001:db8::2/64")], routes: [route("fe80::/64"), route("ff00::/8")] };
  assertEquals(comparable(all, [AF.INET6]), { addresses: [address("2001:db8::2/64")], routes: [] });
  assertEquals(comparable(all, [AF.INET]), { addresses: [], routes: [] });
});

test("From any picture the changes lead to the goal, in two rounds", () => {
  let state = 1;
  const random = (n: number) => ((state = Math.imul(state, 48271) >>> 0) >>> 8) % n; // the lowest bit never changes
  const some = <T>(items: readonly T[]) => items.filter(() => random(2) === 0);
  const addresses = () => [`192.0.2.2/${24 + 4 * random(2)}`, "10.0.0.1/8", "2001:db8::2/64"];
  const routes = [
    ...["10.0.0.0/8", "default via 192.0.2.1", "default via 192.0.2.9", "default via 2001:db8::1"].map((text) =>
      route(text)
    ),
    route("default via 192.0.2.1", { priority: 5 }),
    route("10.0.0.0/8", { source: ip("10.0.0.1") }),
  ];
  const key = (one: Address) => show({ kind: "add address", address: one });
  const any = (): Picture => ({ addresses: some(addresses()).map(address), routes: some(routes) });
  for (let i = 0; i < 3000; i++) {
    const [before, after, inside] = [any(), any(), any()];
    const goal = planGoal(before, after, inside);
    const now = { addresses: [...inside.addresses], routes: [...inside.routes] };
    const same = (a: Route, b: Route) => showRoute(a) === showRoute(b) && `${a.source}` === `${b.source}`;
    const slot = (one: Route) => `${one.family} ${one.destination} ${one.priority}`;
    const put = (one: Route, at: number) => now.routes.splice(at, at < now.routes.length ? 1 : 0, one);
    const make = (change: Change) => {
      if ("address" in change) {
        const text = key(change.address);
        const rest = now.addresses.filter((one) => key(one) !== text);
        if (change.kind === "add address") assertEquals(rest.length, now.addresses.length, `${text} is there`);
        now.addresses = change.kind === "add address" ? [...rest, change.address] : rest;
      } else if (change.kind === "delete route") {
        // Without a metric, the kernel takes the first one of any.
        const { priority } = change.route;
        const [found] = now.routes.filter((one) => same(priority === null ? { ...one, priority } : one, change.route))
          .sort((a, b) => (a.priority ?? 0) - (b.priority ?? 0));
        now.routes = now.routes.filter((one) => one !== found);
      } else {
        const at = now.routes.findIndex((one) => slot(one) === slot(change.route));
        put(change.route, change.kind === "replace route" && at >= 0 ? at : now.routes.length);
      }
    };
    changesTo(goal, inside).forEach(make);
    // A route without a preferred source stands for one with any, so that what is missing may be seen late.
    changesTo(goal, now, true).forEach(make);
    assertEquals(changesTo(goal, now, true).map(show), [], `picture ${i}`);
    const gone = before.addresses.map(key).filter((one) => !after.addresses.map(key).includes(one));
    assert(!now.addresses.some((one) => gone.includes(key(one))));
  }
});
