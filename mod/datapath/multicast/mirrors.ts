// The host's sockets for the groups of a namespace: one for each group and port, so that what is sent there comes in.
//
// A socket is bound to the group's address, so it gets nothing that is sent to an address of the host: no port inside can
// be reached by unicast through it, and it takes nothing away from a program of the host that has the same port. It is bound
// to the interface too, so it gets nothing of the group from elsewhere.
//
// As all programs do that are members of a group, it permits others at its port (SO_REUSEADDR), and the host's ports of the
// same namespace (SO_REUSEPORT).

import { E } from "../../../ffi/core/errno.ts";
import { Fd } from "../../../ffi/core/fd.ts";
import { IP, IPPROTO, IPV6, SO, SOCK, SOL_SOCKET } from "../../../ffi/net/constants.ts";
import { bindToInterface, filterSources, GroupReceiver, joinGroup } from "../../../ffi/net/group.ts";
import type { IpWords } from "../../../ffi/net/sockaddr.ts";
import { bind, setOption, socket } from "../../../ffi/net/socket.ts";
import type { MulticastScene } from "./contract.ts";
import { describe, keyOf, type Membership } from "./memberships.ts";

/** Sockets of a namespace at most. */
export const MIRRORS_MAX = 256;
/** Datagrams received before others get their turn. */
const TURN = 32;

/** Why something is not received. */
export type Refusal = "taken" | "reserved" | "too many" | "failed";

/** A group and a port that are wanted. */
export interface Wanted {
  readonly membership: Membership;
  readonly port: number;
}

/** A socket of a group. */
interface Mirror {
  readonly group: IpWords;
  readonly port: number;
  readonly index: number;
  fd: Fd;
  watch: { remove(): void };
  /** The filter of sources that it has. */
  filter: string;
}

/** The one that receives for all; made with the first. */
let receiver: GroupReceiver | undefined;

/** The key of a group and a port. */
export function mirrorKey({ membership: { group }, port }: Wanted): string {
  return `${group.family} ${keyOf(group)} ${port}`;
}

/** The sockets of one namespace. */
export class Mirrors implements Disposable {
  readonly #scene: MulticastScene;
  readonly #all = new Map<string, Mirror>();
  readonly #onDatagram: (group: IpWords, port: number, receiver: GroupReceiver) => void;

  /**
   * @param scene The namespace.
   * @param onDatagram Called with each datagram.
   */
  constructor(scene: MulticastScene, onDatagram: (group: IpWords, port: number, receiver: GroupReceiver) => void) {
    this.#scene = scene;
    this.#onDatagram = onDatagram;
  }

  /** The ports at which each group is received, by its words, the oldest first. */
  ports(): Map<string, number[]> {
    const ports = new Map<string, number[]>();
    for (const { group, port } of this.#all.values()) {
      const key = keyOf(group);
      const known = ports.get(key);
      if (known) known.push(port);
      else ports.set(key, [port]);
    }
    return ports;
  }

  /** Whether something is received at a port. */
  has(family: number, port: number): boolean {
    return this.#at(family, port).length > 0;
  }

  /** Whether a group is received at a port. */
  hasGroup(group: IpWords, port: number): boolean {
    return this.#at(group.family, port).some((one) => keyOf(one.group) === keyOf(group));
  }

  #at(family: number, port: number): Mirror[] {
    if (this.#all.size === 0) return [];
    return [...this.#all.values()].filter((one) => one.port === port && one.group.family === family);
  }

  /**
   * Opens and closes sockets.
   *
   * @param wanted What is wanted, the most wanted first.
   * @returns What is not received, and why.
   */
  sync(wanted: readonly Wanted[]): { readonly wanted: Wanted; readonly why: Refusal }[] {
    const keys = new Map(wanted.map((one) => [mirrorKey(one), one]));
    if (keys.size === 0 && this.#all.size === 0) return [];
    const indices = { 4: this.#scene.index(4), 6: this.#scene.index(6) };
    const indexOf = ({ family }: IpWords) => indices[family === 4 ? 4 : 6];
    for (const [key, mirror] of this.#all) {
      if (!keys.has(key) || mirror.index !== indexOf(mirror.group)) this.#close(key, mirror);
    }
    const refused: { wanted: Wanted; why: Refusal }[] = [];
    for (const [key, one] of keys) {
      const known = this.#all.get(key);
      if (known) this.#filter(known, one.membership);
      else {
        const why = this.#open(key, one, indexOf(one.membership.group));
        if (why) refused.push({ wanted: one, why });
      }
    }
    return refused;
  }

  #open(key: string, { membership, port }: Wanted, index: number): Refusal | null {
    const scene = this.#scene;
    const { group } = membership;
    if (index === 0 || !scene.admits(group, port)) return null;
    if (!scene.mayClaim(port)) return "reserved";
    if (this.#all.size >= MIRRORS_MAX || !scene.mayOpen(this.#all.size)) return "too many";
    scene.share(group.family, port);
    const s = this.#member(group, index);
    const error = s < 0 ? s : this.#bind(s, group, port, index);
    if (error < 0) {
      if (s >= 0) new Fd(s).close();
      return error === -E.EADDRINUSE ? "taken" : error === -E.EACCES ? "reserved" : "failed";
    }
    const fd = new Fd(s);
    const watch = this.#watch(fd, group, port);
    if (!watch) return "failed";
    const mirror: Mirror = { group, port, index, fd, watch, filter: "-" };
    this.#all.set(key, mirror);
    scene.count(1);
    this.#filter(mirror, membership);
    return null;
  }

  /** A socket that is a member of a group, and has no port yet; or a negative error number. */
  #member(group: IpWords, index: number): number {
    const { family } = group;
    const s = socket(family, SOCK.DGRAM);
    if (s < 0) return s;
    setOption(s, SOL_SOCKET, SO.REUSEADDR, 1);
    setOption(s, SOL_SOCKET, SO.REUSEPORT, 1);
    if (family === 4) setOption(s, IPPROTO.IP, IP.MULTICAST_ALL, 0);
    else {
      setOption(s, IPPROTO.IPV6, IPV6.V6ONLY, 1);
      setOption(s, IPPROTO.IPV6, IPV6.MULTICAST_ALL, 0);
    }
    GroupReceiver.prepare(s, family);
    const bound = bindToInterface(s, index);
    const error = bound < 0 ? bound : joinGroup(s, group, index);
    if (error === 0) return s;
    new Fd(s).close();
    return error;
  }

  #bind(s: number, group: IpWords, port: number, index: number): number {
    return bind(s, group, port, group.family === 6 ? index : 0);
  }

  /** Watches a socket; closes it, and returns null, if the kernel does not permit that. */
  #watch(fd: Fd, group: IpWords, port: number): { remove(): void } | null {
    try {
      return this.#scene.loop.watch(fd.number, () => this.#receive(fd, group, port));
    } catch {
      fd.close();
      return null;
    }
  }

  #receive(fd: Fd, group: IpWords, port: number): void {
    const made = receiver ??= new GroupReceiver();
    for (let i = 0; i < TURN && !fd.closed; i++) {
      const n = made.receive(fd.number);
      if (n === -E.EAGAIN) return;
      if (n >= 0) this.#onDatagram(group, port, made);
    }
  }

  /** Has the kernel, and routers, know which sources are wanted. If it keeps fewer, the namespace filters by itself. */
  #filter(mirror: Mirror, membership: Membership): void {
    const filter = describe(membership);
    if (mirror.filter === filter) return;
    mirror.filter = filter;
    const { excludes, sources } = membership;
    const { fd, group, index } = mirror;
    const error = filterSources(fd.number, group, index, excludes, [...sources.values()]);
    if (error < 0 && sources.size > 0) filterSources(fd.number, group, index, true, []);
  }

  /**
   * Calls a function that binds a port of the host to all addresses, while the sockets at that port make room: the port is
   * taken from nobody else. They remain members meanwhile.
   *
   * @param family 4 or 6.
   * @param port The port.
   * @param action The function.
   */
  makeRoom(family: number, port: number, action: () => void): void {
    const here = this.#at(family, port).map((mirror) => ({ mirror, s: this.#member(mirror.group, mirror.index) }));
    for (const { mirror } of here) {
      mirror.watch.remove();
      mirror.fd.close();
    }
    action();
    for (const { mirror, s } of here) {
      if (s < 0 || this.#bind(s, mirror.group, port, mirror.index) < 0) {
        if (s >= 0) new Fd(s).close();
        this.#forget(mirror);
        continue;
      }
      const fd = new Fd(s);
      const watch = this.#watch(fd, mirror.group, port);
      if (watch) Object.assign(mirror, { fd, watch, filter: "" });
      else this.#forget(mirror);
    }
  }

  /** Forgets a socket that is closed; the next look opens it again. */
  #forget(mirror: Mirror): void {
    for (const [key, one] of this.#all) if (one === mirror) this.#all.delete(key);
    this.#scene.count(-1);
  }

  #close(key: string, { watch, fd }: Mirror): void {
    watch.remove();
    fd.close();
    this.#all.delete(key);
    this.#scene.count(-1);
  }

  /** Closes all. */
  [Symbol.dispose](): void {
    for (const [key, mirror] of [...this.#all]) this.#close(key, mirror);
  }
}
