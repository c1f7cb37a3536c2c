// The fault of Linux 6.18 in mounting mount namespaces, and penne in a mount namespace other than that of PID 1.

import { assertEquals, assertStringIncludes } from "@std/assert";
import { O } from "../../ffi/core/consts.ts";
import { open } from "../../ffi/sys/file.ts";
import { self } from "../../ffi/core/task.ts";
import { namespaceIdOf } from "../../mod/namespaces/id.ts";
import { penne, sh, test } from "../lib/helpers.ts";
import { firstOutput, Place } from "./place.ts";

const TWO = navigator.hardwareConcurrency > 1;

/** Makes a mount namespace on a processor; returns its id, or null before Linux 6.18. */
async function idOn(cpu: number): Promise<bigint | null> {
  const argv = ["taskset", "-c", `${cpu}`, "unshare", "-m", "sh", "-c", "echo up; read line"];
  const child = new Deno.Command(argv[0]!, { args: argv.slice(1), stdin: "piped", stdout: "piped" }).spawn();
  await firstOutput(child);
  using fd = open(self, `/proc/${child.pid}/ns/mnt`, O.RDONLY);
  const { id } = namespaceIdOf(fd);
  await child.stdin.close();
  await child.status;
  return id === null ? null : BigInt(id);
}

/** A processor whose mount namespaces have greater ids now (`outer`) than those of another one (`inner`). */
async function processors(): Promise<{ outer: number; inner: number }> {
  if (!TWO) throw new Error("this takes two processors");
  const [zero, one] = [await idOn(0), await idOn(1)];
  return zero !== null && one !== null && zero > one ? { outer: 0, inner: 1 } : { outer: 1, inner: 0 };
}

test("all of twenty sets are kept with the outer namespace made on one processor and penne running on another", [
  "root",
  "package:util-linux",
], async (t) => {
  // The order that meets the fault now, and the order in which it was first seen.
  const { outer, inner } = await processors();
  const pairs = outer === 1 ? [[1, 0]] : [[outer, inner], [1, 0]];
  for (const [high, low] of pairs) {
    await t.step(`${high} and ${low}`, async () => {
      using place = new Place();
      // Each in its own outer namespace, whose id is from the other processor's batch.
      const one = (i: number) =>
        `taskset -c ${high} unshare -m --propagation private sh -c 'taskset -c ${low} ${penne()} keep n${i} --dir $0 \\
          --unshare mnt -- sh -c "mount -t tmpfs none /mnt; touch /mnt/here" && nsenter --mount=$0/ns/n${i}.mnt ls /mnt &&
          grep "^namespace.mnt=" $0/ns/n${i}.info | cut -d" " -f1 && ${penne()} drop n${i} --dir $0' $0`;
      const script = Array.from({ length: 20 }, (_, i) => one(i)).join("\n");
      const { stdout, stderr } = await sh(["sh", "-c", script, place.directory]);
      assertEquals(stdout, "here\nnamespace.mnt=mount\n".repeat(20), stderr);
    });
  }
});

test("keep --pid uses a holder where that fault prevents mounting, and names the fault where no holder can help", [
  "root",
  "package:util-linux",
], async () => {
  using place = new Place();
  const { outer, inner } = await processors();
  // By hand first: if that fails, penne needs its workaround.
  const script = `taskset -c ${outer} unshare -m --propagation private sh -c '
    D=$0; P=${penne()}; mkdir -m 755 $D/ns $D/lock; mount --bind $D/ns $D/ns; mount --make-private $D/ns
    mkfifo $D/up; taskset -c ${inner} unshare -m --propagation private sh -c "mount -t tmpfs none /mnt
      touch /mnt/here; echo up >\$0/up; exec sleep 100" $D &
    pid=$!; read up <$D/up; : >$D/ns/hand
    mount --bind /proc/$pid/ns/mnt $D/ns/hand && umount $D/ns/hand; echo hand $?; rm $D/ns/hand
    $P keep p --pid $pid --type mnt --dir $D; echo keep $?
    sed -n "s/^namespace.mnt=\\([a-z]*\\).*/\\1/p" $D/ns/p.info
    $P keep s --pid $pid --layout snap --dir $D; echo snap $?
    kill $pid; wait $pid
    h=$(sed -n "s/^holder=\\([0-9]*\\).*/\\1/p" $D/ns/p.info)
    if [ -n "$h" ]; then nsenter -t $h -m ls /mnt; else nsenter --mount=$D/ns/p.mnt ls /mnt; fi
    $P drop p --dir $D; echo drop $?' "$0" 2>&1`;
  const { stdout } = await sh(["sh", "-c", script, place.directory]);
  if (stdout.includes("hand 0\n")) {
    // A kernel without that fault.
    assertStringIncludes(stdout, "keep 0\nmount\nsnap 0\n");
  } else {
    assertStringIncludes(stdout, "keep 0\nholder\n");
    assertStringIncludes(stdout, "hint: Linux 6.18 takes it by mistake for an older one");
    assertStringIncludes(stdout, "snap 1\n");
  }
  assertStringIncludes(stdout, "here\ndrop 0\n");
});

test("penne in a private mount namespace keeps in that of PID 1", ["root"], async () => {
  // In a pid namespace of its own, PID 1 may be inspected and has its own /run.
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
