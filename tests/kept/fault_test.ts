// The fault of Linux 6.18 in mounting mount namespaces, and where penne itself runs in another mount namespace.

import { assertEquals, assertStringIncludes } from "@std/assert";
import { penne, sh, test } from "../helpers.ts";
import { Place } from "./place.ts";

const TWO = navigator.hardwareConcurrency > 1;

test("twenty out of twenty captures succeed with the outer namespace made on processor 1 and penne on 0", {
  root: true,
  programs: ["taskset"],
}, async () => {
  if (!TWO) throw new Error("this takes two processors");
  using place = new Place();
  // Each in an outer namespace of its own, whose id is of the other processor's batch.
  const one = (i: number) =>
    `taskset -c 1 unshare -m --propagation private sh -c 'taskset -c 0 ${penne()} keep n${i} --dir $0 --unshare mnt -- \\
      sh -c "mount -t tmpfs none /mnt; touch /mnt/here" && nsenter --mount=$0/ns/n${i}.mnt ls /mnt &&
      grep "^namespace.mnt=" $0/ns/n${i}.info | cut -d" " -f1 && taskset -c 0 ${penne()} drop n${i} --dir $0' $0`;
  const script = Array.from({ length: 20 }, (_, i) => one(i)).join("\n");
  const { stdout, stderr } = await sh(["sh", "-c", script, place.directory]);
  assertEquals(stdout, "here\nnamespace.mnt=mount\n".repeat(20), stderr);
});

test("keep --pid keeps by a holder what that fault does not let it mount, and names the fault where none can help", {
  root: true,
  programs: ["taskset"],
}, async () => {
  if (!TWO) throw new Error("this takes two processors");
  using place = new Place();
  const script = `taskset -c 1 unshare -m --propagation private sh -c '
    D=$0; P=${penne()}
    taskset -c 0 unshare -m --propagation private sh -c "mount -t tmpfs none /mnt; touch /mnt/here; echo up; exec sleep 100" |
      { read up; cat >/dev/null & 
        pid=$(pgrep -n -x sleep); $P keep p --pid $pid --type mnt --dir $D; echo keep $?
        sed -n "s/^namespace.mnt=\\([a-z]*\\).*/\\1/p" $D/ns/p.info
        $P keep p --pid $pid --layout snap --dir $D; echo snap $?
        kill $pid
        h=$(sed -n "s/^holder=\\([0-9]*\\).*/\\1/p" $D/ns/p.info); [ -z "$h" ] || nsenter -t $h -m ls /mnt
        $P drop p --dir $D; echo drop $?; }' "$0" 2>&1`;
  const { stdout } = await sh(["sh", "-c", script, place.directory]);
  if (stdout.includes("holder\n")) {
    assertStringIncludes(stdout, "keep 0\nholder\n");
    assertStringIncludes(stdout, "hint: Linux 6.18 takes it by mistake for an older one");
    assertStringIncludes(stdout, "snap 1\n");
    assertStringIncludes(stdout, "here\ndrop 0\n");
  } else {
    // Another kernel, without that fault.
    assertStringIncludes(stdout, "keep 0\nmount\n");
    assertStringIncludes(stdout, "drop 0\n");
  }
});

test("penne in a private mount namespace keeps in that of PID 1", { root: true }, async () => {
  // A pid namespace makes PID 1 somebody who may be looked at, and whose /run is nobody else's.
  const inner = `set -e; mount -t tmpfs -o mode=755 none /run; P=${penne()}
    unshare -m --propagation private sh -c "$P keep far -- sh -c 'hostname far-away; touch /proc/self/comm'; ls /run"
    ls /run/penne/ns; grep -c /run/penne/ns/far /proc/self/mountinfo
    nsenter --uts=/run/penne/ns/far.uts hostname
    unshare -m --propagation private sh -c "$P inspect far | head -n 1; $P drop far"
    ls /run/penne/ns; grep -c /run/penne/ns/far /proc/self/mountinfo || true`;
  const argv = [
    "unshare",
    "-m",
    "-p",
    "-f",
    "--kill-child",
    "--mount-proc",
    "--propagation",
    "private",
    "sh",
    "-c",
    inner,
  ];
  const { stdout, stderr } = await sh(argv);
  assertEquals(
    stdout,
    "penne\nfar.info\nfar.ipc\nfar.mnt\nfar.net\nfar.pid\nfar.user\nfar.uts\n6\nfar-away\nfar: complete\n0\n",
    stderr,
  );
});
