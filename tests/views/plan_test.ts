// planViews() on tables of mounts as hosts have them.

import { assertEquals } from "@std/assert";
import { MS } from "../../ffi/core/consts.ts";
import { planViews } from "../../mod/views/plan.ts";
import { test } from "../lib/helpers.ts";

/** Lines of mountinfo: id, parent, root, path, options, type, and options of the file system. */
function table(...mounts: string[]): string {
  return mounts.map((mount) => {
    const [id, parent, root, path, options, type, superOptions = "rw"] = mount.split(" ");
    return `${id} ${parent} 0:${id} ${root} ${path} ${options} shared:${id} - ${type} ${type} ${superOptions}\n`;
  }).join("");
}

const ROOT = "1 0 / / rw,relatime ext4";
const SYS = "2 1 / /sys rw,nosuid,nodev,noexec,relatime sysfs";
const USUAL = MS.NOSUID | MS.NODEV | MS.NOEXEC;

const paths = (types: Parameters<typeof planViews>[0], mountinfo: string) =>
  planViews(types, mountinfo).map(({ fs, path, kept }) => [fs, path, ...kept].join(" "));

test("each kind of namespace has its views, in an order in which none covers another one", () => {
  const host = table(
    ROOT,
    "3 1 / /proc rw,relatime proc",
    SYS,
    "4 2 / /sys/fs/cgroup rw,relatime cgroup2",
    "5 1 / /dev rw,relatime devtmpfs",
    "6 5 / /dev/mqueue rw,relatime mqueue",
  );
  assertEquals(paths(["user", "mnt", "uts", "time"], host), []);
  assertEquals(paths(["ipc", "cgroup", "net", "pid"], host), [
    "proc /proc",
    "sysfs /sys /sys/fs/cgroup",
    "cgroup2 /sys/fs/cgroup",
    "mqueue /dev/mqueue",
  ]);
  assertEquals(paths(["ipc", "cgroup", "net", "pid"], table(ROOT)), ["proc /proc"]);
});

test("options follow the host's mount, and those of the file system where it is read-only", () => {
  const flags = (options: string, superOptions?: string) =>
    planViews(["net"], table(ROOT, `2 1 / /sys ${options} sysfs ${superOptions}`))[0]!.flags;
  assertEquals(flags("rw,relatime"), USUAL | MS.RELATIME);
  assertEquals(flags("rw"), USUAL | MS.STRICTATIME);
  assertEquals(flags("ro,noatime,nodiratime"), USUAL | MS.RDONLY | MS.NOATIME | MS.NODIRATIME);
  assertEquals(flags("rw,relatime", "ro"), USUAL | MS.RDONLY | MS.RELATIME);
});

test("only mounts that can be seen count, and only whole file systems", () => {
  const net = (...mounts: string[]) => paths(["net"], table(ROOT, ...mounts));
  assertEquals(net("2 1 /class /sys rw sysfs"), []);
  assertEquals(net(SYS, "3 2 / /sys rw tmpfs"), []);
  assertEquals(net("2 1 / /sys rw tmpfs", "3 2 / /sys rw sysfs", "4 2 / /sys/a rw bpf", "5 3 / /sys/b rw bpf"), [
    "sysfs /sys /sys/b",
  ]);
  // A mount over a directory with mounts hides them; one over a mount point is moved with it.
  assertEquals(net(SYS, "3 2 / /sys/fs/cgroup rw cgroup2", "4 2 / /sys/fs rw tmpfs", "5 4 / /sys/fs/x rw tmpfs"), [
    "sysfs /sys /sys/fs",
  ]);
  assertEquals(net(SYS, "3 2 / /sys/a rw bpf", "4 3 / /sys/a rw bpf", "5 2 / /system rw bpf"), ["sysfs /sys /sys/a"]);
  // In a chroot the mount that its root directory is on is not in the table.
  assertEquals(paths(["net"], table("2 77 / /sys rw sysfs", "3 2 / /sys/a rw bpf")), ["sysfs /sys /sys/a"]);
});

test("no new sysfs is tried where the host's hides a part and the kernel must refuse it", () => {
  const hidden = (types: Parameters<typeof planViews>[0], ...mounts: string[]) =>
    planViews(types, table(ROOT, SYS, ...mounts))[0]!.hidden;
  const usual = ["3 2 / /sys/fs/cgroup rw cgroup2", "4 2 / /sys/kernel/debug rw debugfs", "5 2 / /sys/fs/bpf rw bpf"];
  assertEquals(hidden(["user", "net"], ...usual), null);
  for (const point of ["/sys/firmware", "/sys/dev/block", "/sys/devices/virtual/powercap"]) {
    assertEquals(hidden(["user", "net"], ...usual, `6 2 / ${point} ro tmpfs`), point);
    // Without a user namespace nothing is refused, and another sysfs may be whole.
    assertEquals(hidden(["net"], ...usual, `6 2 / ${point} ro tmpfs`), null);
    assertEquals(hidden(["user", "net"], `6 2 / ${point} ro tmpfs`, "7 1 / /mnt/sys rw sysfs"), null);
  }
});

test("every hierarchy of cgroups is mounted anew, by its name or its controllers", () => {
  const views = planViews(
    ["cgroup"],
    table(
      ROOT,
      SYS,
      "3 2 / /sys/fs/cgroup ro,nosuid tmpfs",
      "4 3 /a /sys/fs/cgroup/cpu,cpuacct rw,relatime cgroup rw,cpu,cpuacct",
      "5 3 /a /sys/fs/cgroup/systemd rw cgroup rw,xattr,release_agent=/lib/x,name=systemd",
      "6 3 /a /sys/fs/cgroup/unified rw cgroup2 rw,nsdelegate,memory_recursiveprot",
    ),
  );
  assertEquals(views.map(({ fs, path, options }) => [fs, path, ...options].join(" ")), [
    "cgroup /sys/fs/cgroup/cpu,cpuacct cpu cpuacct",
    "cgroup /sys/fs/cgroup/systemd none name=systemd",
    "cgroup2 /sys/fs/cgroup/unified",
  ]);
});
