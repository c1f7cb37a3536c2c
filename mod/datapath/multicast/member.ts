// Has the host be a member of the groups that a namespace is in, for the ports that sockets inside are bound to.
//
// Theory of operation. The kernel inside reports when a first socket joins a group and when the last one leaves it, as to any
// router. It does not say which sockets those are. So the sockets inside are looked at, and the host gets a socket for each
// group and port at which one inside would hear the group (mirrors.ts).
//
// A socket may be bound after it has joined, and nothing tells that. So the sockets are looked at again after a moment, and
// then less and less often, as long as there is a membership; more often while a group that was joined lately has no socket
// yet; and soon after something is sent to a group from a port that is not known. Without a membership there is no timer.
//
// Whatever the namespace reports, and however often, it is followed at a look; at once only if no membership is left.
// Making room for the ports of flows has a share of the time too.

import { SysError } from "../../../ffi/core/errno.ts";
import type { GroupReceiver } from "../../../ffi/net/group.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { NetnsEndedError } from "../../follow/entrance.ts";
import { formatIp } from "../../inet/ip.ts";
import { decodeIgmp, decodeMld, encodeQuery1, type MembershipRecord } from "../../inet/membership.ts";
import type { Multicast, MulticastScene } from "./contract.ts";
import { Echoes } from "./echoes.ts";
import { GROUPS_MAX, keyOf, type Membership, Memberships } from "./memberships.ts";
import { mirrorKey, Mirrors, MIRRORS_MAX, type Refusal, type Wanted } from "./mirrors.ts";
import { Receivers, SocketsInside } from "./sockets_inside.ts";

/** Milliseconds from one look to the next: first, how that grows, and at most. */
const FIRST = 20;
const GROWTH = 2;
const LAST = 30_000;
/** At most while a group has no socket, if that was joined within so many milliseconds. */
const LAST_FRESH = 500;
const FRESH = 60_000;
/** A look takes at most this fraction of the time, whatever the namespace sends. */
const SHARE = 1 / 30;
/** Milliseconds that making room for ports takes at once; after that, the same fraction of the time. */
const ROOM_BURST = 500;
/** Milliseconds between two looks at least for ports from which something is sent. */
const USED_GAP = 1000;
/** Problems that are told. */
const TOLD_MAX = 8;
/** Milliseconds between queries for members that report no leave. */
const QUERY = 125_000;

/**
 * Has the host be a member of the groups of a namespace, from now on.
 *
 * @param scene The namespace.
 * @returns Its groups.
 */
export function beMember(scene: MulticastScene): Multicast {
  return new Member(scene);
}

class Member implements Multicast {
  readonly #scene: MulticastScene;
  readonly #memberships = new Memberships();
  readonly #mirrors: Mirrors;
  readonly #inside: SocketsInside;
  readonly #echoes = new Echoes();
  #receivers = new Receivers();
  #timer: { cancel(): void } | null = null;
  /** When the timer is due, when was looked last, how long that took, and when it was for a port that was used. */
  #due = Infinity;
  #lookedAt = -Infinity;
  #took = 0;
  #usedAt = -Infinity;
  #wait = FIRST;
  /** Until when a group counts as joined lately, and whether one has no socket. */
  #freshUntil = -Infinity;
  #unheard = false;
  #queries: { cancel(): void } | null = null;
  /** Milliseconds that are left for making room, and as of when. */
  #room = ROOM_BURST;
  #roomAt = performance.now();
  /** Kinds of problems that were told. */
  readonly #told = new Set<string>();
  #closed = false;

  constructor(scene: MulticastScene) {
    this.#scene = scene;
    this.#inside = new SocketsInside(scene);
    this.#mirrors = new Mirrors(scene, (group, port, made) => this.#received(group, port, made));
  }

  hear(view: DataView, at: number, end: number, family: number): void {
    const records = family === 4 ? decodeIgmp(view, at, end) : decodeMld(view, at, end);
    if (records) this.#take(records);
  }

  #take(records: readonly MembershipRecord[]): void {
    const memberships = this.#memberships;
    if (!memberships.apply(records, performance.now())) return;
    if (memberships.overflowed) this.#tell("groups", `the namespace is in more than ${GROUPS_MAX} multicast groups`);
    this.#freshUntil = performance.now() + FRESH;
    this.#wait = FIRST;
    if (memberships.any) this.#lookIn(0);
    else this.#sync();
    if (memberships.anySilent) this.#queries ??= this.#scene.loop.after(QUERY, this.#query);
  }

  readonly #query = () => {
    this.#queries = null;
    if (this.#memberships.expire(performance.now())) this.#sync();
    if (!this.#memberships.anySilent) return;
    this.#scene.query(encodeQuery1());
    this.#queries = this.#scene.loop.after(QUERY, this.#query);
  };

  /** Has the next look come within some milliseconds. */
  #lookIn(ms: number): void {
    if (!this.#memberships.any || this.#closed) return;
    const now = performance.now();
    const at = Math.max(now + ms, this.#lookedAt + Math.max(FIRST / 2, this.#took / SHARE));
    if (at >= this.#due) return;
    this.#timer?.cancel();
    this.#due = at;
    this.#timer = this.#scene.loop.after(at - now, this.#look);
  }

  readonly #look = () => {
    this.#timer = null;
    this.#due = Infinity;
    if (!this.#memberships.any || this.#closed) return;
    const start = performance.now();
    try {
      this.#receivers = this.#inside.look();
    } catch (error) {
      // It has ended, or its interface has: so will this.
      if (error instanceof NetnsEndedError || error instanceof SysError && error.code === "EBADFD") return;
      const reason = error instanceof Error ? error.message : error;
      this.#tell("look", `the sockets inside cannot be looked at, so multicast groups are not received: ${reason}`);
    }
    this.#sync();
    this.#lookedAt = performance.now();
    this.#took = this.#lookedAt - start;
    const isFresh = this.#unheard && this.#lookedAt < this.#freshUntil;
    this.#lookIn(Math.min(this.#wait, isFresh ? LAST_FRESH : LAST));
    this.#wait = Math.min(LAST, this.#wait * GROWTH);
  };

  /** Opens and closes sockets by the groups and the sockets inside as they are known. */
  #sync(): void {
    const refused = this.#mirrors.sync(this.#wanted());
    for (const { wanted, why } of refused) {
      this.#tell(why === "too many" ? why : `${why} ${wanted.port}`, this.#problem(wanted, why));
    }
  }

  /**
   * What the namespace is to get, as much as it may: first what sockets are bound to a group for. A socket at any address may
   * be for any group: so each group gets one port of those before a group gets two, beginning with those that it has.
   */
  #wanted(): Wanted[] {
    const receivers = this.#receivers;
    const { list } = this.#memberships;
    this.#unheard = list.some(({ group }) => !receivers.has(group));
    // Who joins and leaves again and again does not have the ports inside put in order each time.
    if (list.length === 0) return [];
    const wanted = new Map<string, Wanted>();
    let tooMany: Wanted | null = null;
    const take = (membership: Membership, port: number) => {
      const one = { membership, port };
      const key = mirrorKey(one);
      if (wanted.size < MIRRORS_MAX || wanted.has(key)) wanted.set(key, one);
      else tooMany ??= one;
    };
    for (const membership of list) for (const port of receivers.boundTo(membership.group)) take(membership, port);
    const [four, six] = [this.#inOrder(4), this.#inOrder(6)];
    const had = this.#mirrors.ports();
    let left = list.map((membership) => {
      const { group } = membership;
      const kept = (had.get(keyOf(group)) ?? []).filter((port) => receivers.has(group, port));
      return { membership, kept, others: group.family === 4 ? four : six };
    });
    for (let rank = 0; left.length > 0 && tooMany === null; rank++) {
      left = left.filter(({ membership, kept, others }) => {
        const port = kept[rank] ?? others[rank - kept.length];
        if (port !== undefined) take(membership, port);
        return port !== undefined;
      });
    }
    if (tooMany !== null) this.#tell("too many", this.#problem(tooMany, "too many"));
    return [...wanted.values()];
  }

  /** The ports of sockets at any address: those that may be had first, and of these the low ones, which a kernel does not choose. */
  #inOrder(family: 4 | 6): number[] {
    const { mayClaim } = this.#scene;
    const ports = this.#receivers.atAny({ family, w0: 0, w1: 0, w2: 0, w3: 0 }).toSorted((a, b) => a - b);
    return [...ports.filter((port) => mayClaim(port)), ...ports.filter((port) => !mayClaim(port))];
  }

  #problem({ membership: { group }, port }: Wanted, why: Refusal): string {
    const what = `what is sent to the multicast group ${show(group)} at port ${port} does not come in`;
    switch (why) {
      case "taken":
        return `${what}: another program of the host has the port, and shares it with nobody`;
      case "reserved":
        return `${what}: the port is privileged or reserved on the host`;
      case "too many":
        return `${what}: there are ${MIRRORS_MAX} groups and ports already, or no descriptors`;
      case "failed":
        return `${what}: the host refuses to join the group`;
    }
  }

  /** Tells of a kind of problem once, and of so many. */
  #tell(kind: string, message: string): void {
    if (this.#told.has(kind) || this.#told.size >= TOLD_MAX) return;
    this.#told.add(kind);
    this.#scene.onWarning(message);
  }

  #received(group: IpWords, port: number, { datagram }: GroupReceiver): void {
    const { port: from, payload } = datagram;
    if (this.#echoes.takes(group, port, from, payload, performance.now())) return;
    this.#scene.deliver(group, port, datagram);
  }

  sent(group: IpWords, port: number, from: number, payload: Uint8Array): void {
    if (this.#mirrors.hasGroup(group, port)) this.#echoes.sent(group, port, from, payload, performance.now());
  }

  used(group: IpWords, port: number): void {
    if (this.#memberships.find(group) === null || this.#mirrors.hasGroup(group, port)) return;
    const now = performance.now();
    if (now - this.#usedAt < USED_GAP) return;
    this.#usedAt = now;
    this.#wait = FIRST;
    this.#lookIn(FIRST);
  }

  has(family: number, port: number): boolean {
    return this.#mirrors.has(family, port);
  }

  makeRoom(family: number, port: number, bind: () => void): void {
    const start = performance.now();
    const room = Math.min(ROOM_BURST, this.#room + (start - this.#roomAt) * SHARE);
    // A program inside can need that with each datagram. Its flow then gets another port, as where that one is taken.
    if (room <= 0) return bind();
    this.#mirrors.makeRoom(family, port, bind);
    this.#sync(); // sets the filters of sources again
    this.#roomAt = performance.now();
    this.#room = room - (this.#roomAt - start);
  }

  renew(): void {
    this.#sync();
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    this.#timer?.cancel();
    this.#queries?.cancel();
    this.#mirrors[Symbol.dispose]();
    this.#inside[Symbol.dispose]();
  }
}

/** The text of an address. */
function show({ family, w0, w1, w2, w3 }: IpWords): string {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  [w0, w1, w2, w3].forEach((word, i) => view.setInt32(4 * i, word));
  return formatIp(family === 4 ? bytes.subarray(12) : bytes);
}
