// The survey of a host: what the commands need, and why it is refused, as data.

import { assertEquals } from "@std/assert";
import type { Ability } from "../../mod/findings/survey/mod.ts";
import { type How, ROOT, sh, test } from "../lib/helpers.ts";
import { DOCKER, filtered } from "./lab/hosts.ts";

/** Surveys a host, which is given as words before the command line. */
async function survey(host: readonly string[] = [], how: How = {}): Promise<Ability[]> {
  const script = `${ROOT}tests/findings/lab/survey.ts`;
  const { code, stdout, stderr } = await sh([...host, Deno.execPath(), "run", "--no-check", "-A", script], how);
  assertEquals(code, 0, stderr);
  return JSON.parse(stdout);
}

/** What was refused: names, and the causes that were found. */
function refused(abilities: readonly Ability[]): Record<string, string[]> {
  const failed = abilities.filter(({ possible }) => !possible);
  return Object.fromEntries(failed.map(({ name, findings }) => [name, findings.map(({ cause }) => cause)]));
}

test("root may do all that the commands need", ["root", "tun", "ebpf", "initial pid namespace"], async () => {
  const abilities = await survey();
  assertEquals(refused(abilities), {});
  assertEquals(abilities.map(({ error }) => error).filter((error) => error !== null), []);
});

test(
  "the survey of a user namespace says what root there may not do",
  ["user namespaces", "tun", "package:util-linux"],
  async () => {
    assertEquals(refused(await survey(["unshare", "-Ur"])), {
      "join namespaces of the host": ["user namespace"],
      "watch by eBPF": ["user namespace"],
      "watch by the process connector": ["user namespace"],
    });
  },
);

test("each ability is refused by the host that refuses it, and with that cause", [
  "root",
  "tun",
  "ebpf",
  "initial pid namespace",
  "package:util-linux",
  "package:gcc",
], async () => {
  const scene = (script: string, ...options: string[]) => [
    "unshare",
    "-m",
    ...options,
    "sh",
    "-c",
    `${script}; exec "$@"`,
    "sh",
  ];
  const inNamespaces = ["change mounts in them", "mount a new /proc", "make a tap"];
  const each = (names: readonly string[], ...causes: string[]) =>
    Object.fromEntries(names.map((name) => [name, causes]));
  const hosts: [string, readonly string[], Record<string, string[]>][] = [
    ["docker's filter", await filtered(DOCKER, []), {
      ...each(["make namespaces", ...inNamespaces], "seccomp"),
      ...each(["join namespaces of the host", "watch by eBPF"], "seccomp"),
    }],
    ["a limit of namespaces", scene("echo 0 > /proc/sys/user/max_user_namespaces", "-Ur", "-pf", "--mount-proc"), {
      ...each(["make namespaces", ...inNamespaces], "sysctl"),
      ...each(["join namespaces of the host", "watch by eBPF"], "user namespace"),
      ...each(["watch by the process connector"], "namespace"),
    }],
    ["no device", scene("mount -t tmpfs none /dev/net"), each(["open /dev/net/tun", "make a tap"], "device")],
    ["a hidden /proc", scene("mount -t tmpfs none /proc/tty"), each(["mount a new /proc"], "proc")],
    ["a network namespace", ["unshare", "-n"], each(["watch by the process connector"], "namespace")],
    ["no BTF", scene("mount -t tmpfs none /sys/kernel/btf"), each(["watch by eBPF"], "kernel")],
    ["no netlink", await filtered(["socket[0=16]=97"], []), {
      ...each(["look at the host's network", "watch by the process connector"], "seccomp"),
    }],
  ];
  for (const [name, host, expected] of hosts) {
    const abilities = await survey(host);
    assertEquals(refused(abilities), expected, name);
    for (const { possible, error, findings } of abilities) {
      if (possible) assertEquals([error, findings], [null, []]);
      for (const { words, fix } of findings) assertEquals([words.endsWith("."), fix === ""], [false, false]);
    }
  }
});

test("where agents may not be executed, the survey says which commands need that", [
  "user",
  "package:gcc",
], async () => {
  const abilities = await survey(await filtered(["execveat=1"], []));
  const [first] = abilities;
  assertEquals(first!.commands, ["enter", "keep", "nsexec"]);
  assertEquals([first!.possible, first!.findings[0]?.cause], [false, "seccomp"]);
});
