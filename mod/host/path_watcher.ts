// Watches what paths lead to: their entries, those of every symbolic link on the way, and the content of the files.

import type { Fd } from "../../ffi/core/fd.ts";
import { orNull, SysError } from "../../ffi/core/errno.ts";
import { self } from "../../ffi/core/task.ts";
import { readLink } from "../../ffi/sys/file.ts";
import { IN, Inotify } from "../../ffi/sys/inotify.ts";
import { stat } from "../../ffi/sys/stat.ts";

/** Events of a directory: an entry leads elsewhere, a file has a new content, or the directory itself is gone. */
const DIRECTORY = IN.CREATE | IN.MOVED_TO | IN.CLOSE_WRITE | IN.DELETE_SELF | IN.MOVE_SELF;
const OF_ITSELF = IN.DELETE_SELF | IN.MOVE_SELF | IN.UNMOUNT | IN.Q_OVERFLOW;
/** How many links are followed, as by the kernel. */
const LINKS_MAX = 40;

/** An entry of a directory. */
export interface PathEntry {
  /** Path of the directory. */
  readonly directory: string;
  /** Name in it. */
  readonly name: string;
}

/** What is at a path: the target of a symbolic link, something else, or nothing. */
export type LinkLookup = (path: string) => { readonly target: string } | "other" | "missing";

/**
 * Finds the entries that decide where a path leads.
 *
 * @example
 * ```ts
 * import { entriesOnTheWay } from "./path_watcher.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const look = (path: string) => path === "/etc/conf" ? { target: "../run/x/conf" } : path === "/run" ? "other" : "missing";
 * assertEquals(entriesOnTheWay("/etc/conf", (path) => path === "/etc" ? "other" : look(path)), [
 *   { directory: "/etc", name: "conf" },
 *   { directory: "/run", name: "x" }, // does not exist
 * ]);
 * ```
 *
 * @param path An absolute path.
 * @param look Looks at what is at a path.
 * @returns Those of symbolic links, and the last one: the file itself, or what is missing on the way to it.
 */
export function entriesOnTheWay(path: string, look: LinkLookup): PathEntry[] {
  const entries: PathEntry[] = [];
  const names = (text: string) => text.split("/").filter((name) => name !== "" && name !== ".");
  const rest = names(path);
  const at: string[] = [];
  for (let links = 0; rest.length > 0 && links <= LINKS_MAX;) {
    const name = rest.shift()!;
    if (name === "..") {
      at.pop();
      continue;
    }
    const directory = `/${at.join("/")}`;
    const found = look(`/${[...at, name].join("/")}`);
    if (typeof found !== "string" || found === "missing" || rest.length === 0) entries.push({ directory, name });
    if (found === "missing") break;
    if (found === "other") at.push(name);
    else {
      links++;
      if (found.target.startsWith("/")) at.length = 0;
      rest.unshift(...names(found.target));
    }
  }
  return entries;
}

const lookAtLink: LinkLookup = (path) => {
  try {
    return { target: readLink(self, path) };
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    return error.code === "EINVAL" ? "other" : "missing";
  }
};

/** Watches paths by inotify(7). */
export class PathWatcher implements Disposable {
  readonly #inotify = new Inotify();
  readonly #paths: readonly string[];
  /** Names to look for, by the number of their directory's watch; an empty one is the watched file itself. */
  #names = new Map<number, Set<string>>();
  /** Whether everything on the way could be watched. */
  complete = true;

  /**
   * @param paths Absolute paths, which need not exist.
   * @throws {SysError} EMFILE if the user has too many inotify instances.
   */
  constructor(paths: readonly string[]) {
    this.#paths = paths;
    this.#watch();
  }

  /** Readable when {@linkcode PathWatcher.changed} has something to look at. */
  get fd(): Fd {
    return this.#inotify.fd;
  }

  /** Watches the ways as they are now. */
  #watch(): void {
    const before = this.#names;
    this.#names = new Map();
    this.complete = true;
    const add = (name: string, watch: () => number) => {
      const wd = orNull(watch);
      if (wd === null) this.complete = false;
      else if (this.#names.has(wd)) this.#names.get(wd)!.add(name);
      else this.#names.set(wd, new Set([name]));
    };
    for (const path of this.#paths) {
      for (const { directory, name } of entriesOnTheWay(path, lookAtLink)) {
        add(name, () => this.#inotify.add(directory, DIRECTORY));
      }
      // A file that is mounted there changes in a directory that is out of sight.
      if (orNull(() => stat(self, path))) add("", () => this.#inotify.addFile(path, IN.CLOSE_WRITE));
    }
    for (const wd of before.keys()) if (!this.#names.has(wd)) this.#inotify.remove(wd);
  }

  /**
   * Takes the events that have come.
   *
   * @returns Whether a path may lead to something else, or its file may have another content.
   */
  changed(): boolean {
    const events = this.#inotify.take();
    const ours = events.some(({ wd, mask, name }) =>
      (mask & OF_ITSELF) !== 0 || (this.#names.get(wd)?.has(name) ?? false)
    );
    if (ours) this.#watch();
    return ours;
  }

  /** Stops watching. */
  [Symbol.dispose](): void {
    this.#inotify[Symbol.dispose]();
  }
}
