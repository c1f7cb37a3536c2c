// Which files of the host a command gets in its mount namespace, and where, beside what it sees there anyway; pure.

import { usage } from "../base/errors.ts";

/**
 * Something to mount for a command:
 *
 * - `bind`: a file or directory of the host, with all that is mounted below it, at `target` (by default at the same path);
 *   `readOnly` holds for what is mounted below it too.
 * - `tmpfs`: an empty directory in memory.
 * - `"proc"`: /proc, as the command would have it without a root directory of its own.
 * - `"dev"`: a small /dev: null, zero, full, random, urandom, tty, terminals of its own, and shared memory.
 */
export type MountRequest =
  | { readonly bind: string; readonly target?: string; readonly readOnly?: boolean }
  | { readonly tmpfs: string }
  | "proc"
  | "dev";

/** One mount. */
export interface PlannedMount {
  /** What is mounted. */
  readonly kind: "bind" | "tmpfs" | "proc" | "dev";
  /** Where, as the command sees it: absolute, and without `.`, `..` and doubled slashes. */
  readonly target: string;
  /** For `bind`: what, an absolute path of the host. */
  readonly source: string;
  /** For `bind`: whether nothing can be written by way of the mount. */
  readonly readOnly: boolean;
}

/** The mounts of a command. */
export interface MountPlan {
  /** Its root directory, an absolute path of the host; null for the host's. */
  readonly root: string | null;
  /** What is mounted, in this order. */
  readonly mounts: readonly PlannedMount[];
}

function checkPath(what: string, path: string): void {
  if (path === "" || path.includes("\0")) throw usage(`${what}: the path ${path ? "has a NUL inside" : "is empty"}`);
}

/** A path of the host, which begins at penne's working directory. */
function absolute(path: string, directory: string | null): string {
  if (path.startsWith("/")) return path;
  if (directory === null) throw usage(`use the path "${path}": the working directory has none; write a path from / on`);
  return `${directory}/${path}`;
}

/** The way to a target, without what means nothing. */
function targetOf(what: string, path: string): string {
  checkPath(what, path);
  if (!path.startsWith("/")) throw usage(`${what}: "${path}" is not an absolute path`);
  const names = path.split("/").filter((name) => name !== "" && name !== ".");
  if (names.includes("..")) throw usage(`${what}: "${path}" has ".." inside`, ["SRC:DST names another target"]);
  if (names.length === 0) throw usage(`${what}: that is the root directory`, ["--root gives the command another one"]);
  return `/${names.join("/")}`;
}

function planMount(request: MountRequest, directory: string | null): PlannedMount {
  if (typeof request === "string") {
    return { kind: request, target: `/${request}`, source: `/${request}`, readOnly: false };
  }
  if ("tmpfs" in request) {
    const target = targetOf("mount a tmpfs", request.tmpfs);
    return { kind: "tmpfs", target, source: "", readOnly: false };
  }
  const { bind, readOnly = false } = request;
  checkPath("bind a path", bind);
  const source = absolute(bind, directory);
  return { kind: "bind", target: targetOf(`bind "${bind}"`, request.target ?? source), source, readOnly };
}

/**
 * Plans the mounts of a command. Each comes after those that its target is below, whatever their order in the request.
 *
 * @example
 * ```ts
 * import { planMounts } from "./mount_plan.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const { root, mounts } = planMounts("tree", [{ tmpfs: "/src/tmp" }, { bind: ".", target: "/src//" }, "proc"], "/home/me");
 * assertEquals(root, "/home/me/tree");
 * assertEquals(mounts.map(({ kind, target }) => [kind, target]), [
 *   ["bind", "/src"],
 *   ["proc", "/proc"],
 *   ["tmpfs", "/src/tmp"],
 * ]);
 * ```
 *
 * @param root The command's root directory; undefined for the host's.
 * @param requests What to mount.
 * @param directory The working directory, which relative paths of the host begin at; null if it has no path.
 * @returns The plan.
 * @throws {PenneError} A usage error.
 */
export function planMounts(
  root: string | undefined,
  requests: readonly MountRequest[],
  directory: string | null,
): MountPlan {
  if (root !== undefined) checkPath("use the root directory", root);
  const depth = ({ target }: PlannedMount) => target.split("/").length;
  const mounts = requests.map((request) => planMount(request, directory)).sort((a, b) => depth(a) - depth(b));
  const twice = mounts.find(({ target }, i) => mounts.findIndex((mount) => mount.target === target) !== i);
  if (twice) throw usage(`mount "${twice.target}": something else is to be mounted there too`);
  return { root: root === undefined ? null : absolute(root, directory), mounts };
}
