// The host's name servers, followed as /etc/resolv.conf changes.

import { EPOLL } from "../../ffi/sys/epoll.ts";
import { orNull, SysError } from "../../ffi/core/errno.ts";
import { O } from "../../ffi/core/consts.ts";
import { IN, Inotify } from "../../ffi/sys/inotify.ts";
import { open, read, readLink, readText } from "../../ffi/sys/file.ts";
import { self } from "../../ffi/core/task.ts";
import type { Reactor, Registration } from "../reactor/reactor.ts";
import { parseResolvConf, type ResolvConf } from "./resolv_conf.ts";

/** The configuration file of the resolver. */
export const RESOLV_CONF = "/etc/resolv.conf";
/** Bytes that are read of the file. */
const SIZE_MAX = 64 * 1024;
/** Events that change a file: package scripts and daemons write it in place or replace it. */
const EVENTS = IN.CREATE | IN.MOVED_TO | IN.CLOSE_WRITE;

/** Splits a path into the directory and the last component. */
function split(path: string): [directory: string, name: string] {
  const slash = path.lastIndexOf("/");
  return [path.slice(0, slash) || "/", path.slice(slash + 1)];
}

/**
 * Reads a resolver configuration.
 *
 * @param path The file.
 * @returns Its content; empty if the file is missing.
 * @throws {SysError} If it exists but cannot be read.
 */
export function readResolvConf(path: string = RESOLV_CONF): ResolvConf {
  return orNull(() => parseResolvConf(readText(self, path)), "ENOENT") ?? { nameservers: [], search: [], options: [] };
}

/** How to follow the file. */
export interface HostResolverOptions {
  /** The file; /etc/resolv.conf by default. */
  readonly path?: string;
  /** Called once if changes cannot be followed. */
  readonly onWarning?: (message: string) => void;
  /** Called when the file has changed. */
  readonly onChange?: (resolver: HostResolver) => void;
}

/**
 * The host's resolver configuration, kept up to date.
 *
 * @example
 * ```ts
 * import { HostResolver } from "./resolver.ts";
 * import { Reactor } from "../reactor/reactor.ts";
 * import { formatIp } from "../inet/ip.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const directory = Deno.makeTempDirSync();
 * Deno.writeTextFileSync(`${directory}/resolv.conf`, "nameserver 192.0.2.1\n");
 * using reactor = new Reactor();
 * using resolver = new HostResolver(reactor, { path: `${directory}/resolv.conf` });
 * Deno.writeTextFileSync(`${directory}/new`, "nameserver 192.0.2.2\n");
 * Deno.renameSync(`${directory}/new`, `${directory}/resolv.conf`);
 * reactor.turn(1000);
 * assertEquals(resolver.conf.nameservers.map(({ address }) => formatIp(address)), ["192.0.2.2"]);
 * Deno.removeSync(directory, { recursive: true });
 * ```
 */
export class HostResolver implements Disposable {
  /** The content of the file, or the last one while it cannot be read or names no server. */
  conf: ResolvConf = { nameservers: [], search: [], options: [] };
  /** The file. */
  readonly path: string;
  readonly #onChange: (resolver: HostResolver) => void;
  #inotify: Inotify | null = null;
  #watched: Registration | null = null;
  /** File names to watch, by the inotify watch of their directory. */
  #names = new Map<number, Set<string>>();

  /**
   * Reads the file and follows it.
   *
   * @param reactor The event loop.
   * @param options How to follow it.
   */
  constructor(reactor: Reactor, options: HostResolverOptions = {}) {
    const { path = RESOLV_CONF, onWarning = () => {}, onChange = () => {} } = options;
    this.path = path;
    this.#onChange = onChange;
    try {
      this.#inotify = new Inotify();
      this.#watched = reactor.watch(this.#inotify.fd, EPOLL.IN, () => this.#changed());
      this.#watch(path);
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      onWarning(`changes of ${path} are not followed: ${error.reason} (${error.code})`);
    }
    this.#read();
  }

  #watch(path: string): void {
    if (!this.#inotify) return;
    const [directory, name] = split(path);
    const wd = this.#inotify.add(directory, EVENTS);
    const names = this.#names.get(wd);
    if (names) names.add(name);
    else this.#names.set(wd, new Set([name]));
  }

  #changed(): void {
    const events = this.#inotify!.take();
    const ours = ({ wd, mask, name }: typeof events[number]) =>
      (mask & IN.Q_OVERFLOW) !== 0 || (this.#names.get(wd)?.has(name) ?? false);
    if (!events.some(ours)) return;
    this.#read();
    this.#onChange(this);
  }

  #read(): void {
    orNull(() => {
      using file = open(self, this.path, O.RDONLY);
      const buffer = new Uint8Array(SIZE_MAX);
      const length = read(file, buffer);
      const conf = parseResolvConf(new TextDecoder().decode(buffer.subarray(0, length)));
      if (conf.nameservers.length > 0) this.conf = conf;
      // The target of a symbolic link changes in another directory.
      const real = readLink(self, `/proc/self/fd/${file.number}`);
      if (real !== this.path) this.#watch(real);
      // A file that is mounted here changes in a directory that is out of sight.
      if (this.#inotify) this.#names.set(this.#inotify.addFile(this.path, IN.CLOSE_WRITE), new Set([""]));
    });
  }

  /** Stops following the file. */
  [Symbol.dispose](): void {
    this.#watched?.remove();
    this.#inotify?.[Symbol.dispose]();
    this.#inotify = null;
  }
}
