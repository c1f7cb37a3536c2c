// Each hint is given on the host that it speaks of, and on no host where something else is wrong.

import { assertEquals } from "@std/assert";
import { type Need, penne, sh, test, TEST_USER } from "../lib/helpers.ts";
import { DOCKER, filtered, hintsIn } from "./lab/hosts.ts";

/** A host on which something is wrong. */
interface Host {
  readonly name: string;
  /** Words before penne's. */
  readonly host?: readonly string[];
  /** A filter that penne runs under. */
  readonly filter?: readonly string[];
  readonly user?: boolean;
  /** penne's arguments; by default those of a usual command. */
  readonly args?: readonly string[];
  /** The hint that is given there; null for none. */
  readonly hint: RegExp | null;
}

const scene = (script: string, ...options: string[]) => [
  ...["unshare", "-m", ...options],
  ...["sh", "-c", `${script}; exec "$@"`, "sh"],
];
const limited = (limit: string) => ["bash", "-c", `${limit}; exec "$@"`, "bash"];
const asUser = ["setpriv", "--reuid", TEST_USER, "--regid", TEST_USER, "--init-groups"];
const RUN = ["run", "--", "true"];
const NONE = ["run", "--net=none", "--", "true"];
const watch = (backend: string) => ["watch", "--backend", backend, "--", "true"];

const HOSTS: readonly Host[] = [
  { name: "nothing", hint: null },
  { name: "a filter of something else", filter: ["bpf=1"], user: true, hint: null },
  { name: "a command that is not there", args: ["run", "--net=none", "--", "/no/such"], hint: null },
  {
    name: "docker's filter",
    filter: DOCKER,
    user: true,
    args: NONE,
    hint: /^a system call filter .* refuses clone\(2\) for /,
  },
  { name: "a filter of mount(2)", filter: ["mount=1"], user: true, args: NONE, hint: /^a .* refuses mount\(2\); / },
  {
    name: "a filter of netlink",
    filter: ["socket[0=16]=97"],
    user: true,
    hint: /^a .* refuses socket\(2\) for AF_NETLINK; /,
  },
  { name: "a filter of ioctl(2)", filter: ["ioctl[1=0x400454ca]=1"], user: true, hint: /^a .* refuses ioctl\(2\); / },
  {
    name: "a limit of net namespaces",
    host: scene("echo 0 > /proc/sys/user/max_net_namespaces", "-Ur", "-pf", "--mount-proc"),
    args: NONE,
    hint: /^user\.max_net_namespaces is 0, /,
  },
  {
    name: "a limit of user namespaces",
    host: scene("echo 0 > /proc/sys/user/max_user_namespaces", "-Ur", "-pf", "--mount-proc"),
    args: NONE,
    hint: /^user\.max_user_namespaces is 0, /,
  },
  {
    name: "a chroot",
    host: ["unshare", "-m", "sh", "-c", `mount --rbind / /mnt; exec chroot /mnt "$@"`, "sh"],
    args: NONE,
    hint: /^penne runs in a chroot, /,
  },
  {
    name: "no map",
    host: ["unshare", "-U"],
    args: NONE,
    hint: /^the user namespace .* does not map penne's own user id; /,
  },
  {
    name: "a part of /proc",
    host: scene("mount -t tmpfs none /proc/tty"),
    args: NONE,
    hint: /^parts of \/proc are hidden /,
  },
  { name: "no device", host: scene("mount -t tmpfs none /dev/net"), hint: /^there is no \/dev\/net\/tun here; / },
  {
    name: "a closed device",
    host: [...scene("mount -t tmpfs none /dev/net; mknod -m 600 /dev/net/tun c 10 200"), ...asUser],
    hint: /^\/dev\/net\/tun has the mode 600, /,
  },
  {
    name: "a device on nodev",
    host: [...scene("mount -t tmpfs -o nodev none /dev/net; mknod -m 666 /dev/net/tun c 10 200"), ...asUser],
    hint: /^\/dev\/net is mounted with nodev, /,
  },
  {
    name: "another device",
    host: scene("mount -t tmpfs none /dev/net; mknod -m 666 /dev/net/tun c 1 3"),
    hint: /^\/dev\/net\/tun is not the character device 10:200 /,
  },
  {
    name: "no_new_privs",
    host: [...asUser, "setpriv", "--no-new-privs"],
    args: ["run", "--net=none", "--map", "auto", "--", "true"],
    hint: /^penne runs with no_new_privs, /,
  },
  {
    name: "ids that are not granted",
    host: asUser,
    args: ["run", "--net=none", "--map-users", "0:700000:10", "--", "true"],
    hint: /^\/etc\/subuid does not grant the ids /,
  },
  {
    name: "ids that are not mapped around",
    host: ["unshare", "-Ur"],
    args: ["run", "--net=none", "--map-users", "0:0:1", "--map-users", "1:100000:10", "--", "true"],
    hint: /^the user namespace .* does not map the users /,
  },
  { name: "few files", host: limited("ulimit -Sn 20"), hint: /^the limit on open files is 20 / },
  { name: "no files", host: limited("ulimit -f 0"), args: NONE, hint: /^the limit on the size of files is 0 / },
  {
    name: "few processes",
    host: [...asUser, ...limited("ulimit -Su 1")],
    args: NONE,
    hint: /^user \d+ has \d+ processes, /,
  },
  {
    name: "no capabilities",
    user: true,
    args: watch("ebpf"),
    hint: /^loading programs into the kernel takes CAP_BPF /,
  },
  { name: "eBPF in a user namespace", host: ["unshare", "-Ur"], args: watch("ebpf"), hint: /^not even root may load / },
  {
    name: "another network",
    host: ["unshare", "-n"],
    args: watch("proc"),
    hint: /^the .* only in the initial network /,
  },
  {
    name: "another pid namespace",
    host: ["unshare", "-pf", "--mount-proc"],
    args: watch("proc"),
    hint: /^the process connector answers only in the initial pid namespace; /,
  },
  {
    name: "no BTF",
    host: scene("mount -t tmpfs none /sys/kernel/btf"),
    args: watch("ebpf"),
    hint: /^this kernel was built without CONFIG_DEBUG_INFO_BTF/,
  },
  {
    name: "no /sys",
    host: scene("mount -t tmpfs none /sys"),
    args: watch("ebpf"),
    hint: /^\/sys is not mounted here, /,
  },
  {
    name: "no rights",
    user: true,
    args: ["run", "--unshare", "net", "--", "true"],
    hint: /^these namespaces take CAP_SYS_ADMIN/,
  },
];
const NEEDS: readonly Need[] = [
  ...["root", "user", "tun", "ebpf", "newuidmap", "initial pid namespace"] as const,
  ...["package:gcc", "package:util-linux", "package:bash", "package:coreutils"] as const,
];

test("each hint is given on its own host, alone, and on no other", NEEDS, async () => {
  for (const { name, host = [], filter, user = false, args = RUN, hint } of HOSTS) {
    const argv = [...host, penne(), ...args];
    const { code, stderr } = await sh(filter ? await filtered(filter, argv) : argv, { user, cwd: "/" });
    const found = hintsIn(stderr);
    assertEquals(found.length, hint ? 1 : 0, `${name}: ${stderr}`);
    assertEquals(code === 0, hint === null && name !== "a command that is not there", `${name}: ${stderr}`);
    const matching = HOSTS.filter((one) => found.some((text) => one.hint?.test(text))).map((one) => one.name);
    assertEquals(matching, hint ? [name] : [], found.join("\n"));
  }
});
