// Follows the host's network while namespaces are served: what was copied from it changes inside as it changes there.

import { AgentGoneError } from "../../ffi/agent/gone.ts";
import { orNull, SysError } from "../../ffi/core/errno.ts";
import { AF } from "../../ffi/net/constants.ts";
import { tapName } from "../../ffi/net/tap.ts";
import { Fd } from "../../ffi/core/fd.ts";
import { self } from "../../ffi/core/task.ts";
import { type Family, formatIp } from "../inet/ip.ts";
import { addAddress, decodeAddress, deleteAddress, dumpAddresses } from "../netlink/address.ts";
import { decodeLink, getLink } from "../netlink/link.ts";
import { setNeighbour } from "../netlink/neighbour.ts";
import { addRoute, appendRoute, deleteRoute, replaceRoute, type Route } from "../netlink/route.ts";
import type { NetlinkSocket } from "../netlink/socket.ts";
import { configOf } from "../network/apply.ts";
import { readNetwork, readRoutes } from "../network/host.ts";
import { type FamilyPlan, type NetworkPlan, planNetwork } from "../network/plan.ts";
import { FAMILY_NAME, type NetworkRequest, wantsSeveral } from "../network/request.ts";
import { preferredDefault, showRoute } from "../network/routes.ts";
import type { FollowedLink, Following, FollowOptions } from "./contract.ts";
import {
  type Change,
  changesTo,
  comparable,
  extraRoutes,
  type Goal,
  isSamePicture,
  nextGiven,
  type Picture,
  planGoal,
} from "./changes.ts";
import { Entrance, NetnsEndedError, RightsLostError } from "./entrance.ts";
import { HostWatch } from "./host_watch.ts";

/** Milliseconds until a change is tried again that could not be made, the first time and at most: it doubles each time. */
const RETRY = 1000;
const RETRY_MAX = 60_000;
/** How often what is inside is compared with the goal. */
const ROUNDS = 4;
/** Milliseconds between two looks whether flows still use an address that the host does not have any more. */
const LINGER = 1000;
/** What the kernel answers if what was to be done is done. */
const DONE = {
  "add route": ["EEXIST"],
  "replace route": ["EEXIST"],
  "add address": ["EEXIST"],
  "delete address": ["EADDRNOTAVAIL"],
  "delete route": ["ESRCH"],
} as const;

/** A namespace, and what it has. */
interface Followed extends FollowedLink {
  readonly tap: Fd;
  plan: NetworkPlan;
  given: Picture;
  /** How often in a row it could not be changed, and the next try. */
  failures: number;
  retry: { cancel(): void } | null;
}

function followed(one: FollowedLink): Followed {
  return { ...one, tap: Fd.borrow(one.link.tap), given: planned(one.plan), failures: 0, retry: null };
}

/** Makes a change inside; returns why it cannot be made, or null. */
function make(socket: NetlinkSocket, index: number, change: Change): string | null {
  const request = requestOf(change, index);
  try {
    socket.request(request);
    return null;
  } catch (error) {
    const done: readonly string[] = DONE[change.kind as keyof typeof DONE] ?? [];
    if (!(error instanceof SysError)) throw error;
    if (done.includes(error.code)) return null;
    const what = "route" in change
      ? showRoute(change.route)
      : `${formatIp(change.address.local)}/${change.address.prefix}`;
    return `cannot ${change.kind.replace(" ", " the ")} ${what}: ${error.reason} (${error.code})`;
  }
}

function requestOf(change: Change, index: number) {
  if ("address" in change) {
    const address = { ...change.address, index };
    return change.kind === "add address" ? addAddress(address) : deleteAddress(address);
  }
  const route = { ...change.route, hops: change.route.hops.map((hop) => ({ ...hop, index })) };
  switch (change.kind) {
    case "add route":
      return addRoute(route);
    case "append route":
      return appendRoute(route);
    case "replace route":
      return replaceRoute(route);
    case "delete route":
      return deleteRoute(route);
  }
}

/** What a family has, in a status event; null if it is off. */
function shown(family: FamilyPlan | undefined, request: NetworkRequest): Record<string, unknown> | null {
  if (!family) return null;
  const gateway = preferredDefault(family.routes)?.hops[0]?.gateway ?? null;
  return {
    host: family.templates[0] ?? null,
    ...wantsSeveral(request) && { hosts: family.templates },
    addresses: family.addresses.map(({ local, prefix }) => `${formatIp(local)}/${prefix}`),
    gateway: gateway && formatIp(gateway),
  };
}

/** The status event of a change. */
function eventOf({ target, link }: FollowedLink, { families, request }: NetworkPlan): Record<string, unknown> {
  const find = (wanted: number) => shown(families.find(({ family }) => family === wanted), request);
  const named = target === undefined ? {} : { target };
  return { event: "network", ...named, interface: link.name, ipv4: find(AF.INET), ipv6: find(AF.INET6) };
}

/** The sentence of a change. */
function sentenceOf({ target, link }: FollowedLink, { families }: NetworkPlan): string {
  const has = families.map(({ family, templates, addresses }) => {
    if (templates.length === 0) return `no ${FAMILY_NAME[family]} but its own`;
    const own = addresses.map(({ local, prefix }) => `${formatIp(local)}/${prefix}`);
    return `${own.join(", ")} as ${templates.join(" and ")}`;
  });
  return `the host's network has changed: ${target === undefined ? link.name : `"${target}"`} has ${has.join(", ")}`;
}

/** What a plan gives. */
function planned({ families }: NetworkPlan): Picture {
  return nextGiven({ addresses: [], routes: [] }, families, () => false);
}

/** Follows the host's network. */
class Follower implements Following {
  readonly #options: FollowOptions;
  readonly #entrance: Entrance;
  readonly #watch: HostWatch;
  #followed: Followed[];
  /** Those that have not been compared with the host's network since it was last read. */
  #waiting: Followed[] = [];
  #plans = new Map<NetworkPlan["request"], NetworkPlan>();
  #timer: { cancel(): void } | null = null;
  #warned = "";
  #closed = false;
  /** Whether some have been added since the host's network was last read. */
  #added = false;

  constructor(options: FollowOptions) {
    const { loop, links, keeper, reports } = options;
    this.#options = options;
    this.#watch = new HostWatch(loop, () => this.#look(), reports === null ? undefined : new Fd(reports));
    this.#followed = links.map(followed);
    try {
      this.#entrance = new Entrance(loop, keeper);
    } catch (error) {
      this.#watch[Symbol.dispose]();
      throw error;
    }
    this.#watch.start();
  }

  add(link: FollowedLink): void {
    this.#followed.push(followed(link));
    // The host may have changed since the plan was made. Others may be added at once.
    if (!this.#added) this.#options.loop.soon(() => this.#added && !this.#closed && this.#look());
    this.#added = true;
  }

  /** Reads the host's network, and has the namespaces changed. */
  #look(): void {
    this.#added = false;
    this.#followed = this.#followed.filter((one) => one.isServed());
    try {
      this.#plans = this.#read();
    } catch (error) {
      return this.#warn("the host's network cannot be followed", error);
    }
    this.#updateAll();
  }

  /**
   * Plans by the host's network. It is read once more if it changes meanwhile: addresses and routes must be those of one
   * moment. What changes then is read at the next look, so that a host which changes all the time leaves time for the data
   * path.
   */
  #read(): Map<NetworkPlan["request"], NetworkPlan> {
    const requests = new Set(this.#followed.map(({ plan }) => plan.request));
    const read = () =>
      new Map([...requests].map((request) => [request, planNetwork(request, readNetwork(request), true)]));
    const plans = read();
    return this.#watch.takeReports() ? read() : plans;
  }

  /** Has all namespaces changed, except for those that are about to be tried again. */
  #updateAll(): void {
    if (this.#waiting.length === 0) this.#options.loop.soon(this.#next);
    this.#waiting = this.#followed.filter(({ retry }) => retry === null);
  }

  /** Changes one namespace: others get their turn in between, and the data path, too. */
  readonly #next = () => {
    const followed = this.#waiting.shift();
    if (this.#closed || !followed) return;
    if (followed.isServed()) this.#watch.spend(() => this.#update(followed));
    if (this.#waiting.length > 0) this.#options.loop.soon(this.#next);
  };

  #update(followed: Followed): void {
    const { link, plan: old } = followed;
    const next = this.#plans.get(old.request);
    if (!next) return; // it was added after the host's network was last read
    const plan = { ...next, alias: old.alias };
    const given = nextGiven(followed.given, plan.families, followed.uses);
    if (plan.configure && !isSamePicture(given, followed.given)) {
      try {
        this.#change(followed, given, plan);
      } catch (error) {
        // The end of the namespace is noticed elsewhere.
        const gone = error instanceof SysError && error.code === "EBADFD";
        if (gone || error instanceof NetnsEndedError) return this.#leave(followed);
        if (error instanceof RightsLostError) return this.#giveUp(error);
        return this.#retry(followed, error);
      }
    }
    followed.failures = 0;
    followed.given = given;
    followed.plan = plan;
    const templates = ({ families }: NetworkPlan) => families.map(({ templates }) => templates.join()).join("/");
    const changed = !isSamePicture(planned(plan), planned(old)) || templates(plan) !== templates(old);
    if (changed || JSON.stringify(old.outside) !== JSON.stringify(plan.outside)) {
      const config = (family: Family) => configOf(plan.families.find((one) => one.family === family), link.mac);
      followed.renew({ ipv4: link.ipv4 && config(AF.INET), ipv6: link.ipv6 && config(AF.INET6) }, plan);
    }
    if (changed) this.#options.onChange(sentenceOf(followed, plan), eventOf(followed, plan));
    for (const note of plan.notes.filter((one) => !old.notes.includes(one))) this.#options.onInfo(note);
    if (given.addresses.length > planned(plan).addresses.length) this.#lookLater();
  }

  /** Looks again at addresses that only flows keep. */
  #lookLater(): void {
    if (this.#timer) return;
    this.#timer = this.#options.loop.after(LINGER, () => {
      this.#timer = null;
      this.#updateAll();
    });
  }

  /** Tries again later to change a namespace. Each try may cost time that the others lack, so they become rare. */
  #retry(followed: Followed, error: unknown): void {
    const delay = Math.min(RETRY_MAX, RETRY * 2 ** followed.failures++);
    // A machine that is busy has an agent be late once.
    const late = error instanceof AgentGoneError && error.reason === "late";
    const named = followed.target === undefined ? "" : `"${followed.target}": `;
    if (!late || followed.failures > 1) this.#warn(`${named}cannot follow the host's network`, error);
    followed.retry = this.#options.loop.after(delay, () => {
      followed.retry = null;
      if (this.#closed) return;
      if (this.#waiting.length === 0) this.#options.loop.soon(this.#next);
      if (!this.#waiting.includes(followed)) this.#waiting.push(followed);
    });
  }

  /** Ends following, without which the namespaces are served as before. */
  #giveUp(error: Error): void {
    this.#warn("changes of the host's network are not followed any more", error);
    this[Symbol.dispose]();
  }

  /** Changes what is inside. */
  #change(followed: Followed, given: Picture, plan: NetworkPlan): void {
    const { link } = followed;
    const families = [link.ipv4 && AF.INET, link.ipv6 && AF.INET6].filter((family) => family !== null) as Family[];
    const problems = this.#entrance.within(followed.tap, (socket) => {
      const { index } = decodeLink(socket.get(getLink(tapName(self, followed.tap))));
      const read = () =>
        comparable({
          addresses: families.flatMap((family) => socket.dump(dumpAddresses(family)).map(decodeAddress))
            .filter((address) => address.index === index),
          routes: families.flatMap((family) => readRoutes(socket, family, index))
            .filter(({ hops }) => hops.some((hop) => hop.index === index)),
        }, families);
      const before = read();
      const wanted = comparable(given, families);
      const goal: Goal = planGoal(comparable(followed.given, families), wanted, before);
      let failures: string[] = [];
      for (let round = 0, now = before; round < ROUNDS; round++, now = read()) {
        const extra: Change[] = round === 0
          ? []
          : extraRoutes(plan.families, goal, before, now).map((route) => ({ kind: "delete route", route }));
        const changes = [...changesTo(goal, now, round > 0), ...extra];
        if (changes.length === 0) break;
        failures = changes.flatMap((change) => make(socket, index, change) ?? []);
      }
      for (const { gateway } of wanted.routes.flatMap(({ hops }: Route) => hops)) {
        // A refusal does not matter: the kernel can find the neighbour itself.
        if (gateway) orNull(() => socket.request(setNeighbour(index, gateway, plan.peerMac)));
      }
      return failures;
    });
    for (const problem of problems) this.#options.onWarning(problem);
  }

  #leave(followed: Followed): void {
    this.#followed = this.#followed.filter((one) => one !== followed);
  }

  #warn(what: string, error: unknown): void {
    // Whatever it is, the namespaces go on with the network that they have.
    const message = `${what}: ${error instanceof Error ? error.message : error}`;
    if (message !== this.#warned) this.#options.onWarning(message);
    this.#warned = message;
  }

  /** Stops following. */
  [Symbol.dispose](): void {
    this.#closed = true;
    this.#timer?.cancel();
    for (const { retry } of this.#followed) retry?.cancel();
    this.#watch[Symbol.dispose]();
    this.#entrance[Symbol.dispose]();
  }
}

/**
 * Follows the host's network from now on.
 *
 * @param options What to follow, and how.
 * @returns What follows; null if the host cannot be watched, of which there was a warning.
 */
export function follow(options: FollowOptions): Following | null {
  try {
    return new Follower(options);
  } catch (error) {
    options.onWarning(
      `changes of the host's network are not followed: ${error instanceof Error ? error.message : error}`,
    );
    return null;
  }
}
