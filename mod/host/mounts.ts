// The mounts that a process sees, as /proc/PID/mountinfo lists them, proc_pid_mountinfo(5); pure.

/** A mount. */
export interface Mount {
  /** Its id, which no other mount of the host has at the same time. */
  readonly id: number;
  /** The id of the mount that it is on; of none in the file if that cannot be seen. */
  readonly parent: number;
  /** The directory of the file system that is mounted. */
  readonly root: string;
  /** Where it is mounted, as the reader of the file sees it. */
  readonly path: string;
  /** Options of the mount, such as `ro` and `nodev`. */
  readonly options: readonly string[];
  /** Type of the file system. */
  readonly type: string;
  /** Options of the file system, such as `hidepid=2`. */
  readonly superOptions: readonly string[];
}

/**
 * Undoes the escapes of a field, such as `\\040` for a blank.
 *
 * @param field The field.
 * @returns Its text.
 */
export function unescapeField(field: string): string {
  if (!field.includes("\\")) return field; // most of them: a regular expression takes long the first time
  return field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));
}

/**
 * Parses the file.
 *
 * @example
 * ```ts
 * import { parseMounts } from "./mounts.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const line = "36 35 98:0 /a /mnt/b\\040c rw,nodev shared:1 - ext4 /dev/sda rw\n";
 * const [mount] = parseMounts(line);
 * assertEquals([mount?.path, mount?.options, mount?.type], ["/mnt/b c", ["rw", "nodev"], "ext4"]);
 * ```
 *
 * @param text The text of the file.
 * @returns The mounts in the order of the file: of two at one path the later one is on top.
 */
export function parseMounts(text: string): Mount[] {
  return text.split("\n").flatMap((line) => {
    const fields = line.split(" ");
    const [id, parent, , root, path, options = ""] = fields;
    if (root === undefined || path === undefined) return [];
    const at = fields.indexOf("-", 6); // behind it are the type, the source, and the options of the file system
    const [type = "", , superOptions = ""] = at < 0 ? [] : fields.slice(at + 1);
    return [{
      id: Number(id),
      parent: Number(parent),
      root: unescapeField(root),
      path: unescapeField(path),
      options: options.split(","),
      type,
      superOptions: superOptions.split(","),
    }];
  });
}

/**
 * Finds the mount that a path is on.
 *
 * @example
 * ```ts
 * import { mountOf, parseMounts } from "./mounts.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const mounts = parseMounts("1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / /dev rw - tmpfs b rw\n");
 * assertEquals([mountOf(mounts, "/dev/null")?.id, mountOf(mounts, "/devices")?.id], [2, 1]);
 * ```
 *
 * @param mounts The mounts.
 * @param path An absolute path without symbolic links.
 * @returns The mount, or undefined.
 */
export function mountOf(mounts: readonly Mount[], path: string): Mount | undefined {
  const around = mounts.filter((mount) => mount.path === "/" || `${path}/`.startsWith(`${mount.path}/`));
  return around.findLast((mount) => around.every((other) => other.path.length <= mount.path.length));
}
